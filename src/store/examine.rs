//! What a start would find in `queue.path`, for `sealpost --check-config`. Nothing is created, changed or repaired.

use std::fs::TryLockError;
use std::io::{self, ErrorKind, Read as _};
use std::net::SocketAddr;
use std::path::Path;

use redb::backends::FileBackend;
use rustix::fs::{Access, AtFlags, FileType, OFlags};

use super::database;
use super::open::{FILE, LOCK, NEW_FILE, OpenError};
use super::open::{exposure, open_database_file, open_directory, open_file};

/// Bytes of the lock file that are read: two addresses.
const ADDRESSES: u64 = 256;

/// A data directory that a relay can use.
#[derive(Debug, PartialEq, Eq)]
pub enum Examined {
    /// By this process; with a warning if others may write into the directory.
    Usable(Option<String>),
    /// A relay uses the directory, and listens at these addresses. Empty if it has not written them.
    InUse(Vec<SocketAddr>),
}

/// Examines the data directory.
///
/// # Errors
///
/// Why a start would refuse it.
pub fn examine(path: &Path) -> Result<Examined, OpenError> {
    let refused = |error| OpenError::of_setting(path, error);
    if path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return can_be_created(path).map(|()| Examined::Usable(None)).map_err(refused);
    }
    let directory = open_directory(path)?;
    let access = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    let accessible = rustix::fs::accessat(&directory, ".", access, AtFlags::empty());
    accessible.map_err(|error| refused(error.into()))?;
    if let Some(mut lock) = found(open_file(&directory, LOCK, OFlags::RDWR))
        .map_err(|error| OpenError::of(&path.join(LOCK), error))?
    {
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // A file that cannot be read names no address.
                let _ = lock.by_ref().take(ADDRESSES).read_to_string(&mut text);
                return Ok(Examined::InUse(text.lines().flat_map(str::parse).collect()));
            }
            Err(TryLockError::Error(error)) => return Err(refused(error)),
        }
    }
    let left_over = rustix::fs::statat(&directory, NEW_FILE, AtFlags::SYMLINK_NOFOLLOW);
    if left_over.is_ok_and(|file| FileType::from_raw_mode(file.st_mode).is_dir()) {
        let text = format!("{NEW_FILE}: is a directory");
        return Err(OpenError::of(&path.join(FILE), text));
    }
    let database = found(open_database_file(&directory)).map_err(redb::Error::from);
    let examined = database.and_then(|file| match file {
        Some(file) => database::examine(FileBackend::new(file)?),
        None => Ok(()),
    });
    examined.map_err(|error| OpenError::of_database(&path.join(FILE), error))?;
    Ok(Examined::Usable(exposure(path, &directory)))
}

/// A missing file is no error: a start creates it.
fn found<T>(opened: io::Result<T>) -> io::Result<Option<T>> {
    match opened {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

/// Whether a directory can be made in the nearest one that is there.
fn can_be_created(path: &Path) -> io::Result<()> {
    let absolute = std::path::absolute(path)?;
    let nearest = absolute.ancestors().skip(1).find(|above| above.symlink_metadata().is_ok());
    let nearest = nearest.ok_or(ErrorKind::NotFound)?;
    let named = |error| io::Error::other(format!("{}: {error}", nearest.display()));
    if !nearest.metadata().map_err(named)?.is_dir() {
        return Err(named(ErrorKind::NotADirectory.into()));
    }
    rustix::fs::access(nearest, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| named(error.into()))
}

#[cfg(test)]
#[path = "examine_tests.rs"]
mod tests;
