//! A new database file, filled from the rows of a snapshot: a backup, or the file that compaction puts in place of the old.
//!
//! Until everything is in it and synced, the file has another name (`NEW_FILE`), which no relay and no inspection opens: a
//! copy that was interrupted never looks whole. All rows are one transaction.

use std::io;
use std::path::Path;

use redb::backends::FileBackend;
use redb::{Key, TableDefinition, Value, WriteTransaction};
use rustix::fs::AtFlags;
use serde::Serialize;

use super::database::{
    BOOTS, CACHE, CORRESPONDENTS, DEVICES, FILE_ID, FORMAT, META, PRINTS, QUEUE, catch_redb_panic,
};
use super::migrate;
use super::open::{Directory, FILE, LOCK, NEW_FILE, OpenError};
use super::row_stream::{Decoder, Row, Table};
use super::sync_watch::{SyncFailed, SyncWatch};

/// A database that is being written. Dropped before [`Self::finish`], it leaves no file.
pub struct NewQueue<'a> {
    directory: &'a Directory,
    /// `None` when it has been finished.
    open: Option<(redb::Database, WriteTransaction)>,
    sync_failed: SyncFailed,
    decoder: Decoder,
}

/// What is in a finished copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Copied {
    pub rows: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

impl<'a> NewQueue<'a> {
    /// Creates the file, under its preliminary name.
    ///
    /// # Errors
    ///
    /// The directory cannot be written.
    pub fn create(directory: &'a Directory) -> Result<Self, OpenError> {
        let sync_failed = SyncFailed::default();
        let open = catch_redb_panic(|| {
            let file = directory.create_new_file()?;
            let backend = SyncWatch::new(FileBackend::new(file)?, sync_failed.clone());
            let database =
                redb::Database::builder().set_cache_size(CACHE).create_with_backend(backend)?;
            let transaction = database.begin_write()?;
            transaction.open_table(QUEUE)?;
            transaction.open_table(DEVICES)?;
            transaction.open_table(PRINTS)?;
            transaction.open_table(CORRESPONDENTS)?;
            transaction.open_table(BOOTS)?;
            transaction.open_table(META)?;
            Ok((database, transaction))
        });
        let open = open.map_err(|error| of_new(directory, error))?;
        Ok(Self { directory, open: Some(open), sync_failed, decoder: Decoder::default() })
    }

    /// Writes what has come of the stream.
    ///
    /// # Errors
    ///
    /// The disk is full or fails, or the stream is damaged.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), OpenError> {
        let Self { open, decoder, directory, .. } = self;
        let Some((_, transaction)) = open else { return Ok(()) };
        let fed = catch_redb_panic(|| decoder.feed(bytes, |row| insert(transaction, row)));
        fed.map_err(|error| of_new(directory, error))
    }

    /// Syncs the file and gives it its name, if the stream was complete.
    ///
    /// # Errors
    ///
    /// The end of the stream is missing, the disk is full or fails, or there is a queue meanwhile.
    pub fn finish(mut self, may_replace: bool) -> Result<Copied, OpenError> {
        let directory = self.directory;
        let copied = self.complete(may_replace);
        let rows = copied.map_err(|error| of_new(directory, error))?;
        let bytes = directory.path().join(FILE).symlink_metadata().map_or(0, |file| file.len());
        Ok(Copied { rows, bytes })
    }

    fn complete(&mut self, may_replace: bool) -> Result<u64, redb::Error> {
        let rows = self.decoder.rows();
        let cut = "the copy is incomplete: its end was not received";
        let rows = rows.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, cut))?;
        let Some((mut database, transaction)) = self.open.take() else {
            return Err(io::Error::other(cut).into());
        };
        let completed = catch_redb_panic(|| {
            let mut meta = transaction.open_table(META)?;
            let format = meta.remove(FORMAT)?.map(|format| format.value());
            let format = migrate::check(format.unwrap_or_default())?;
            meta.insert(FORMAT, u64::from(format))?;
            meta.insert(FILE_ID, getrandom::u64().map_err(io::Error::other)?)?;
            drop(meta);
            transaction.commit()?;
            // Rows that come in the order of their keys leave pages half empty behind them.
            database.compact()?;
            database.close()?;
            if self.sync_failed.get() {
                return Err(io::Error::other("a sync failed").into());
            }
            Ok(self.directory.give_name(may_replace)?)
        });
        if completed.is_err() {
            self.remove();
        }
        completed.map(|()| rows)
    }

    fn remove(&self) {
        // What stays would be replaced by the next copy.
        let _ = rustix::fs::unlinkat(self.directory.handle(), NEW_FILE, AtFlags::empty());
    }
}

impl Drop for NewQueue<'_> {
    fn drop(&mut self) {
        if self.open.is_some() {
            self.remove();
        }
    }
}

/// What may lie in a directory for a backup: an interrupted one leaves the first two, a new file system has the third.
const NO_CONTENT: [&str; 3] = [LOCK, NEW_FILE, "lost+found"];

/// Takes a directory for a backup: empty, or not there yet. What an interrupted backup has left does not count.
///
/// # Errors
///
/// The directory cannot be written, is in use, or holds a queue or anything else.
pub fn take_empty(path: &Path) -> Result<Directory, OpenError> {
    let refused = |error| OpenError::of(path, error);
    match path.read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        entries => {
            for entry in entries.map_err(refused)? {
                let name = entry.map_err(refused)?.file_name();
                if name == FILE {
                    return Err(holds_queue(path));
                }
                if !NO_CONTENT.iter().any(|allowed| name == *allowed) {
                    let text = format!("holds {}; name an empty directory", name.display());
                    return Err(OpenError::of(path, text));
                }
            }
        }
    }
    let directory = Directory::take(path).map_err(OpenError::of_no_setting)?;
    // Another backup may have been faster.
    match rustix::fs::statat(directory.handle(), FILE, AtFlags::SYMLINK_NOFOLLOW) {
        Err(_) => Ok(directory),
        Ok(_) => Err(holds_queue(path)),
    }
}

fn holds_queue(path: &Path) -> OpenError {
    OpenError::of(&path.join(FILE), "there is a queue here already; name an empty directory")
}

fn of_new(directory: &Directory, error: redb::Error) -> OpenError {
    OpenError::of_database(&directory.path().join(NEW_FILE), error)
}

fn insert(transaction: &WriteTransaction, row: Row<'_>) -> Result<(), redb::Error> {
    match row.table {
        Table::Meta => {
            std::str::from_utf8(row.key).map_err(|_| malformed())?;
            insert_into(transaction, META, row)
        }
        Table::Boots => insert_into(transaction, BOOTS, row),
        Table::Devices => insert_into(transaction, DEVICES, row),
        Table::Correspondents => insert_into(transaction, CORRESPONDENTS, row),
        Table::Queue => insert_into(transaction, QUEUE, row),
        Table::Prints => insert_into(transaction, PRINTS, row),
    }
}

fn insert_into<K: Key + 'static, V: Value + 'static>(
    transaction: &WriteTransaction,
    table: TableDefinition<'_, K, V>,
    row: Row<'_>,
) -> Result<(), redb::Error> {
    let fits = |width: Option<usize>, bytes: &[u8]| width.is_none_or(|width| width == bytes.len());
    if !fits(K::fixed_width(), row.key) || !fits(V::fixed_width(), row.value) {
        return Err(malformed());
    }
    transaction.open_table(table)?.insert(K::from_bytes(row.key), V::from_bytes(row.value))?;
    Ok(())
}

fn malformed() -> redb::Error {
    io::Error::other("what was received is damaged: a row of another table").into()
}
