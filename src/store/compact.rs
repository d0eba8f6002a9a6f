//! `sealpost queue compact`: the queue in a new and smaller file, while no relay uses it.

use std::io;
use std::path::Path;

use super::copy::NewQueue;
use super::open::{Directory, OpenError};
use super::sync_watch::SyncFailed;

/// Copies all rows to a new file, which takes the place of the old one when it is complete and synced: a crash leaves the one
/// or the other. Needs room for both. Returns a line with both sizes.
///
/// # Errors
///
/// As the start of a relay; or the disk has no room for the copy, and the old file is as it was.
pub fn compact(path: &Path) -> Result<String, OpenError> {
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
    Ok(format!("compacted {} rows: {before} bytes before, {} after\n", copied.rows, copied.bytes))
}
