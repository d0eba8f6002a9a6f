//! Takes the data directory for this process alone, and opens the database in it.
//!
//! Beside the database `queue.redb` lies the file `lock`, so that a second relay on the same directory is refused with a
//! clear message. The directory is opened once and used by its handle, and a symbolic link in it is not followed: nobody
//! can lead a running relay to another directory or file. Only a start creates a database. Later the same file must be
//! found again, because the messages that were acked are in no other.

use std::fs::{self, DirBuilder, File, Metadata, TryLockError};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::{fmt, io};

use redb::backends::FileBackend;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::database::{Database, catch_redb_panic};
use super::records::VERSION;
use super::sync_watch::{SyncFailed, SyncWatch};
use super::writer::DatabaseFile;

pub(super) const FILE: &str = "queue.redb";

/// The database while it is created.
pub(super) const NEW_FILE: &str = "queue.redb.new";

/// Locked by the relay that uses the directory; holds the addresses at which that relay listens.
pub(super) const LOCK: &str = "lock";

/// Bits of a mode that let others write: group and everybody.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Why a data directory cannot be used.
#[derive(Debug)]
pub struct OpenError {
    text: String,
    is_lost: bool,
}

impl OpenError {
    pub(super) fn of(path: &Path, error: impl fmt::Display) -> Self {
        Self { text: format!("{}: {error}", path.display()), is_lost: false }
    }

    /// An error of the operating system reads better without the database's words before it.
    pub(super) fn of_database(path: &Path, error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) => Self::of(path, error),
            error => Self::of(path, error),
        }
    }

    pub(super) fn of_setting(path: &Path, error: impl fmt::Display) -> Self {
        Self { text: format!("queue.path = {}: {error}", path.display()), is_lost: false }
    }

    /// Without the name of the setting: the operator named the directory himself.
    #[must_use]
    pub fn of_no_setting(self) -> Self {
        let text = self.text.strip_prefix("queue.path = ").map(str::to_owned);
        Self { text: text.unwrap_or(self.text), ..self }
    }

    pub(super) fn lost(path: &Path, error: impl fmt::Display) -> Self {
        Self { is_lost: true, ..Self::of(path, error) }
    }

    /// Whether the path does not lead to the open database any more, so that no further attempt can succeed.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for OpenError {}

/// A data directory, locked for as long as this value lives.
#[derive(Debug)]
pub struct Directory {
    /// Absolute, for messages and for the check that the path still leads here.
    path: PathBuf,
    handle: File,
    lock: File,
}

impl Directory {
    /// Creates the directory if it is missing, and locks it.
    ///
    /// # Errors
    ///
    /// The directory cannot be written, or another process has locked it.
    pub fn take(path: &Path) -> Result<Self, OpenError> {
        // Other users of the machine must not see which devices exchange messages.
        let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
        created.map_err(|error| OpenError::of_setting(path, error))?;
        Self::lock(path, open_directory(path)?)
    }

    /// Locks a directory that has a database in it: an inspection must not create one.
    ///
    /// # Errors
    ///
    /// As [`Self::take`], and if there is no database.
    pub fn take_existing(path: &Path) -> Result<Self, OpenError> {
        let handle = open_directory(path)
            .map_err(|error| OpenError { text: format!("no queue here: {error}"), ..error })?;
        rustix::fs::statat(&handle, FILE, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| OpenError::of_setting(path, format_args!("no queue here: {error}")))?;
        Self::lock(path, handle)
    }

    fn lock(path: &Path, handle: File) -> Result<Self, OpenError> {
        let refused = |error| OpenError::of_setting(path, error);
        let of_lock = |error| OpenError::of(&path.join(LOCK), error);
        let lock = match create_file(&handle, LOCK) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                open_file(&handle, LOCK, OFlags::RDWR)
            }
            created => created,
        };
        let lock = lock.map_err(of_lock)?;
        match lock.try_lock() {
            // The addresses of an earlier relay are outdated.
            Ok(()) => lock.set_len(0).map_err(of_lock)?,
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::of_setting(path, "another relay is using this directory"));
            }
            Err(TryLockError::Error(error)) => return Err(of_lock(error)),
        }
        Ok(Self { path: std::path::absolute(path).map_err(refused)?, handle, lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn handle(&self) -> &File {
        &self.handle
    }

    /// A warning if other users may remove or replace the files in the directory.
    pub fn exposure(&self) -> Option<String> {
        exposure(&self.path, &self.handle)
    }

    /// Opens the database as a start does: creates it if it is missing, and migrates it if it has an older format.
    ///
    /// # Errors
    ///
    /// The file is no database, has another format, or is damaged beyond repair. An empty file is refused, too: no relay
    /// leaves one, so it stands for a queue that was lost.
    pub fn open(self, sync_failed: SyncFailed) -> Result<(QueueFile, Database), OpenError> {
        let (file, mut database) = self.open_unmigrated(sync_failed)?;
        // What a compaction or a backup that was killed has left.
        let _ = rustix::fs::unlinkat(&file.directory.handle, NEW_FILE, AtFlags::empty());
        let (from, path) = (database.format(), file.path());
        let migrated = database.migrate().map_err(|error| {
            let error = OpenError::of_database(&path, error);
            let text = format!("{error} (while it was migrated from format {from} to {VERSION})");
            OpenError { text, ..error }
        })?;
        if let Some(from) = migrated {
            log::info!(path:% = path.display(), from_format = from, to_format = VERSION; "queue migrated");
        }
        Ok((file, database))
    }

    /// As [`Self::open`], but a queue of an older format stays as it is.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_unmigrated(
        self,
        sync_failed: SyncFailed,
    ) -> Result<(QueueFile, Database), OpenError> {
        let path = self.path.join(FILE);
        let opened = catch_redb_panic(|| {
            let (file, name) = match open_database_file(&self.handle) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    (self.create_new_file()?, NEW_FILE)
                }
                file => (file?, FILE),
            };
            let inode = Inode::of(&file.metadata()?);
            let backend = SyncWatch::new(FileBackend::new(file)?, sync_failed.clone());
            let database = if name == NEW_FILE {
                let database = Database::open(backend)?;
                self.give_name(false)?;
                database
            } else {
                Database::open_existing(backend)?
            };
            let pin = open_file(&self.handle, FILE, OFlags::PATH)?;
            if Inode::of(&pin.metadata()?) != inode {
                return Err(io::Error::other("was replaced while it was opened").into());
            }
            let lock = Inode::of(&self.lock.metadata()?);
            Ok((pin, [(FILE, inode), (LOCK, lock)], database.file_id()?, database))
        });
        let (pin, inodes, id, database) =
            opened.map_err(|error| OpenError::of_database(&path, error))?;
        Ok((QueueFile { directory: self, _pin: pin, inodes, id, sync_failed }, database))
    }

    /// A half-created database would look like a damaged one, so it has a name of its own until it is complete.
    pub(super) fn create_new_file(&self) -> io::Result<File> {
        match rustix::fs::unlinkat(&self.handle, NEW_FILE, AtFlags::empty()) {
            Err(error) if error != Errno::NOENT => {
                return Err(io::Error::other(format!("{NEW_FILE}: {error}")));
            }
            _ => {}
        }
        create_file(&self.handle, NEW_FILE)
    }

    /// Gives the complete database its name. The file survives a power loss only if its name and its directory's name do.
    pub(super) fn give_name(&self, may_replace: bool) -> io::Result<()> {
        let handle = &self.handle;
        let flags = if may_replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        let renamed = match rustix::fs::renameat_with(handle, NEW_FILE, handle, FILE, flags) {
            // Not every file system can refuse to replace a file.
            Err(Errno::INVAL | Errno::NOSYS) => {
                rustix::fs::renameat(handle, NEW_FILE, handle, FILE)
            }
            renamed => renamed,
        };
        renamed?;
        handle.sync_all()?;
        // The parent may be unreadable to us.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if let Ok(parent) = rustix::fs::openat(handle, "..", flags, Mode::empty()) {
            let _ = File::from(parent).sync_all();
        }
        Ok(())
    }
}

/// The file of an open database, which is found again after a failure.
#[derive(Debug)]
pub struct QueueFile {
    directory: Directory,
    /// Without it, the file's inode number could be given to another file while the database is closed.
    _pin: File,
    /// The names that must lead to the open files.
    inodes: [(&'static str, Inode); 2],
    /// See [`Database::file_id`].
    id: Option<u64>,
    sync_failed: SyncFailed,
}

impl QueueFile {
    pub(super) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The absolute path of the database.
    pub fn path(&self) -> PathBuf {
        self.directory.path.join(FILE)
    }

    /// Bytes of the file; 0 if it cannot be read.
    pub fn bytes(&self) -> u64 {
        self.path().symlink_metadata().map_or(0, |file| file.len())
    }

    /// Writes the addresses of the relay to the lock file, so that `--check-config` knows who uses them. They are of no use
    /// to the relay itself, so a full disk is no reason to end.
    pub fn publish(&self, addresses: &[Option<SocketAddr>]) {
        let text: String =
            addresses.iter().flatten().map(|address| format!("{address}\n")).collect();
        if let Err(error) = self.directory.lock.write_all_at(text.as_bytes(), 0) {
            log::debug!(error:%; "addresses not written to the lock file");
        }
    }
}

impl DatabaseFile for QueueFile {
    fn reopen(&self) -> Result<Database, OpenError> {
        self.check()?;
        let path = self.path();
        let refused = |error: redb::Error| OpenError::of_database(&path, error);
        let file = open_database_file(&self.directory.handle);
        let file = file.map_err(|error| refused(error.into()))?;
        let inode = file.metadata().map(|file| Inode::of(&file));
        if inode.map_err(|error| refused(error.into()))? != self.inodes[0].1 {
            return Err(OpenError::lost(&path, "another file is in its place"));
        }
        let database = catch_redb_panic(|| {
            let backend = SyncWatch::new(FileBackend::new(file)?, self.sync_failed.clone());
            let database = Database::open_existing(backend)?;
            Ok((database.file_id()?, database))
        });
        match database.map_err(refused)? {
            (id, database) if id == self.id => Ok(database),
            _ => Err(OpenError::lost(&path, "another database is in its place")),
        }
    }

    fn bytes(&self) -> u64 {
        fs::symlink_metadata(self.path()).map_or(0, |file| file.len())
    }

    fn check(&self) -> Result<(), OpenError> {
        use io::ErrorKind::{Interrupted, OutOfMemory, PermissionDenied};
        for (name, inode) in self.inodes {
            let path = self.directory.path.join(name);
            match fs::symlink_metadata(&path) {
                Ok(file) if Inode::of(&file) == inode => {}
                Ok(_) => return Err(OpenError::lost(&path, "another file is in its place")),
                // They say nothing about the file.
                Err(error)
                    if matches!(error.kind(), PermissionDenied | OutOfMemory | Interrupted) => {}
                Err(error) => return Err(OpenError::lost(&path, error)),
            }
        }
        Ok(())
    }
}

/// A file of the machine: two names with the same inode are the same file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    fn of(file: &Metadata) -> Self {
        Self { device: file.dev(), number: file.ino() }
    }
}

pub(super) fn open_directory(path: &Path) -> Result<File, OpenError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty()).map(File::from);
    opened.map_err(|error| OpenError::of_setting(path, error))
}

/// Opens a regular file, and nothing that a name could lead to instead.
pub(super) fn open_file(directory: &File, name: &str, access: OFlags) -> io::Result<File> {
    // A pipe must not block the open.
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Err(Errno::LOOP) => return Err(io::Error::other("is a symbolic link")),
        file => File::from(file?),
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("is no regular file")) }
}

/// Opens the database's file for reading and writing. An empty one is refused: no relay leaves one.
pub(super) fn open_database_file(directory: &File) -> io::Result<File> {
    let file = open_file(directory, FILE, OFlags::RDWR)?;
    if file.metadata()?.len() > 0 {
        return Ok(file);
    }
    Err(io::Error::other(
        "is empty, so the queue that was here is lost: put a backup in its place, or remove it to begin a new one",
    ))
}

fn create_file(directory: &File, name: &str) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?);
    if rustix::process::geteuid().is_root() {
        // The relay runs as the owner of the directory, and must be able to open what root has made for it. Where root may not
        // give a file away, it is the owner already or the relay is root.
        let owner = directory.metadata()?;
        let (user, group) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
        let _ = rustix::fs::fchown(&file, Some(user), Some(group));
    }
    Ok(file)
}

/// See [`Directory::exposure`]. A warning and no refusal, since containers mount directories with such modes.
pub(super) fn exposure(path: &Path, handle: &File) -> Option<String> {
    let found = handle.metadata().ok()?;
    let (owner, me) = (found.uid(), rustix::process::geteuid().as_raw());
    let is_exposed = found.mode() & WRITABLE_BY_OTHERS != 0 || owner != me && owner != 0;
    is_exposed.then(|| {
        format!(
            "OTHERS MAY WRITE INTO queue.path = {} (mode {:o}, owner {owner}): they can remove the queue or put \
             another in its place; give the directory to user {me} and take the others' right to write",
            path.display(),
            found.mode() & 0o7777
        )
    })
}

#[cfg(test)]
#[path = "open_tests.rs"]
mod tests;
