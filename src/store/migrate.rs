//! Brings a database of an older format to the current one, when a relay starts on it.
//!
//! All steps are one transaction: a crash, a full disk or a failed sync in the middle leaves the older format as it was. Rows
//! are read and written in slices, and the database writes out what its cache does not hold, so memory does not grow with
//! the queue.
//!
//! A new format is a new [`VERSION`], a new layout of the records that change, which are still read in the older layout (so
//! that `sealpost queue` can look at an older queue), and a step here.

use std::borrow::Borrow;
use std::io;
use std::ops::Bound;

use redb::{Key, ReadableTable as _, TableDefinition, WriteTransaction};

use super::database::{DEVICES, FORMAT, META};
use super::records::{DeviceRecord, VERSION};
use crate::protocol::id::DeviceId;

/// The oldest format that can be read and migrated.
pub(super) const OLDEST: u8 = 3;

/// Rows, and bytes of new values, that are in memory at once.
const SLICE_ROWS: usize = 1024;
const SLICE_BYTES: usize = 1024 * 1024;

/// What leads from a format to the next one.
struct Step {
    from: u8,
    run: fn(&WriteTransaction) -> Result<(), redb::Error>,
}

const STEPS: &[Step] = &[Step {
    from: 3,
    run: |transaction| {
        rewrite(transaction, DEVICES, |id, value, out| {
            DeviceRecord::decode(DeviceId::from_u128(id), value).map(|device| device.encode(out))
        })
    },
}];

/// Whether a database of this format can be used by a start.
///
/// # Errors
///
/// A sentence that says what to do.
pub(super) fn check(format: u64) -> Result<u8, redb::Error> {
    let refused = |text: String| Err(io::Error::other(text).into());
    match u8::try_from(format) {
        Ok(format) if (OLDEST..=VERSION).contains(&format) => Ok(format),
        Ok(format) if format < OLDEST => refused(format!(
            "has format {format}, and this version of sealpost can migrate format {OLDEST} and later only: start it with a \
             version that knows format {format} until its messages are delivered, or move the file away to begin a new queue"
        )),
        _ => refused(format!(
            "has format {format}, written by a newer version of sealpost; this one knows format {VERSION} at most: start the \
             newer version again, or put a backup from before the upgrade in its place"
        )),
    }
}

/// Brings the database to [`VERSION`]. Returns the format that it had, if it was an older one.
///
/// # Errors
///
/// The disk is full or fails; the database has its old format and must be opened again before its next use.
pub(super) fn migrate(database: &redb::Database, from: u8) -> Result<Option<u8>, redb::Error> {
    if from == VERSION {
        return Ok(None);
    }
    let transaction = database.begin_write()?;
    for step in STEPS.iter().filter(|step| step.from >= from) {
        (step.run)(&transaction)?;
    }
    transaction.open_table(META)?.insert(FORMAT, u64::from(VERSION))?;
    transaction.commit()?;
    Ok(Some(from))
}

/// Replaces the values of a table. A row for which `change` returns `None` is damaged and stays as it is: it is counted when
/// the queue is read.
fn rewrite<K>(
    transaction: &WriteTransaction,
    table: TableDefinition<'_, K, &'static [u8]>,
    change: impl Fn(K, &[u8], &mut Vec<u8>) -> Option<()>,
) -> Result<(), redb::Error>
where
    K: Key + Copy + for<'a> redb::Value<SelfType<'a> = K> + Borrow<K>,
{
    let mut table = transaction.open_table(table)?;
    let mut after = Bound::Unbounded;
    loop {
        let (mut rows, mut bytes, mut last) = (Vec::new(), 0, None);
        for entry in table.range::<K>((after, Bound::Unbounded))? {
            let (key, value) = entry?;
            let mut out = Vec::new();
            last = Some(key.value());
            if change(key.value(), value.value(), &mut out).is_some() {
                bytes += out.len();
                rows.push((key.value(), out));
            }
            if rows.len() >= SLICE_ROWS || bytes >= SLICE_BYTES {
                break;
            }
        }
        for (key, value) in rows {
            table.insert(key, value.as_slice())?;
        }
        let Some(last) = last else { return Ok(()) };
        after = Bound::Excluded(last);
    }
}

#[cfg(test)]
#[path = "migrate_tests.rs"]
mod tests;
