//! `sealpost queue compact`: the queue in a new and smaller file, while no relay uses it.

use std::io;
use std::path::Path;

use serde::Serialize;

use super::copy::NewQueue;
use super::open::{Directory, OpenError};
use super::sync_watch::SyncFailed;

/// The sizes of a file that was compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Compacted {
    pub rows: u64,
    pub bytes_before: u64,
    pub bytes_after: u64,
}

/// Copies all rows to a new file, which takes the place of the old one when it is complete and synced: a crash leaves the one
/// or the other. Needs room for both.
///
/// # Errors
///
/// As the start of a relay; or the disk has no room for the copy, and the old file is as it was.
pub fn compact(path: &Path) -> Result<Compacted, OpenError> {
    let (file, database) = Directory::take_existing(path)?.open(SyncFailed::default())?;
    let before = file.bytes();
    let refused = |error| OpenError::of_database(&file.path(), error);
    let mut copy = NewQueue::create(file.directory())?;
    let snapshot = database.snapshot().map_err(refused)?;
    let mut failed = None;
    let sent = snapshot.send(|chunk| {
        copy.feed(&chunk).map_err(|error| {
            failed = Some(error);
            io::ErrorKind::Other.into()
        })
    });
    if let Some(failed) = failed {
        return Err(failed);
    }
    sent.map_err(refused)?;
    drop((snapshot, database));
    let copied = copy.finish(true)?;
    Ok(Compacted { rows: copied.rows, bytes_before: before, bytes_after: copied.bytes })
}
