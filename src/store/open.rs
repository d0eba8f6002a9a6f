//! Takes the data directory for this process alone, and opens the database in it.
//!
//! Beside the database `queue.redb` lies the file `lock`, so that a second relay on the same directory is refused with a
//! clear message.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use redb::backends::FileBackend;

use super::database::{Database, catch_redb_panic};
use super::sync_watch::{SyncFailed, SyncWatch};

const FILE: &str = "queue.redb";

/// The database while it is created.
const NEW_FILE: &str = "queue.redb.new";

/// Why a data directory cannot be used.
#[derive(Debug)]
pub struct OpenError(String);

impl OpenError {
    pub(super) fn of(path: &Path, error: impl fmt::Display) -> Self {
        Self(format!("{}: {error}", path.display()))
    }

    fn of_setting(path: &Path, error: impl fmt::Display) -> Self {
        Self(format!("queue.path = {}: {error}", path.display()))
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OpenError {}

/// A data directory, locked for as long as this value lives.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Creates the directory if it is missing, and locks it.
    ///
    /// # Errors
    ///
    /// The directory cannot be written, or another process has locked it.
    pub fn take(path: &Path) -> Result<Self, OpenError> {
        let refused = |error| OpenError::of_setting(path, error);
        // Other users of the machine must not see which devices exchange messages.
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(refused)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(refused)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err(OpenError::of_setting(path, "another relay is using this directory"))
            }
            Err(TryLockError::Error(error)) => Err(refused(error)),
        }
    }

    /// Locks a directory that has a database in it: an inspection must not create one.
    ///
    /// # Errors
    ///
    /// As [`Self::take`], and if there is no database.
    pub fn take_existing(path: &Path) -> Result<Self, OpenError> {
        path.join(FILE)
            .metadata()
            .map_err(|error| OpenError::of_setting(path, format_args!("no queue here: {error}")))?;
        Self::take(path)
    }

    /// Opens the database, and creates it if it is missing.
    ///
    /// # Errors
    ///
    /// The file is no database, has another format, or is damaged beyond repair.
    pub fn open(&self, sync_failed: &SyncFailed) -> Result<Database, OpenError> {
        let path = self.file();
        let database = catch_redb_panic(|| self.open_file(sync_failed));
        let database = database.map_err(|error| OpenError::of(&path, error))?;
        database.check_format().map_err(|error| OpenError::of(&path, error))?;
        Ok(database)
    }

    /// The path of the database.
    pub fn file(&self) -> PathBuf {
        self.path.join(FILE)
    }

    fn open_file(&self, sync_failed: &SyncFailed) -> Result<Database, redb::Error> {
        let path = self.file();
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        let on =
            |file| Database::open(SyncWatch::new(FileBackend::new(file)?, sync_failed.clone()));
        if path.metadata().is_ok_and(|file| file.len() > 0) {
            return on(options.open(&path)?);
        }
        // A half-created database would look like a damaged one, so the name `queue.redb` is given only to a complete file.
        let new_path = self.path.join(NEW_FILE);
        let database = on(options.create(true).truncate(true).open(&new_path)?)?;
        fs::rename(&new_path, &path)?;
        // The file survives a power loss only if its name and its directory's name do. The parent may be unreadable to us.
        File::open(&self.path)?.sync_all()?;
        let _ = File::open(self.path.join("..")).and_then(|parent| parent.sync_all());
        Ok(database)
    }
}

#[cfg(test)]
#[path = "open_tests.rs"]
mod tests;
