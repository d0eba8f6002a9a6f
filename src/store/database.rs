//! The database on disk: what is in it, how it is opened, read once, and written in batches.
//!
//! One file, `queue.redb`, with four tables; keys count up, so writes go to the end. Beside it `lock`, so
//! that a second instance is refused with a clear word.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use redb::{ReadableDatabase as _, ReadableTable as _, StorageBackend, TableDefinition};

use super::Loaded;
use super::records::{DeviceRecord, Fingerprint, MessageRecord, VERSION};
use crate::protocol::envelope::Seq;
use crate::protocol::id::DeviceId;

const QUEUE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("queue");
const DEVICES: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("devices");
/// Keys count up from remembered message to remembered message.
const PRINTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("prints");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The version of what the tables hold.
const FORMAT: &str = "format";
/// The first sequence that was never used, as far as removed records do not show it.
const NEXT_SEQ: &str = "next_seq";

/// Memory of the database's page cache: it is written sequentially and read once.
const CACHE: usize = 16 * 1024 * 1024;

/// Messages that are remembered in one row; a row of its own for each would cost as much as the message did.
const PRINTS_TOGETHER: usize = 1024;

/// The key under which room is probed for; nothing else ever has it.
const PROBE: u64 = u64::MAX;

/// What must fit before new messages are accepted again.
const PROBE_BYTES: usize = 256 * 1024;

/// What one commit changes.
#[derive(Debug)]
pub struct Changes {
    /// Records to keep.
    pub puts: BTreeMap<Seq, MessageRecord>,
    /// Records to forget.
    pub removes: Vec<Seq>,
    /// Messages to remember although they are gone, in the order in which they went.
    pub prints: Vec<Fingerprint>,
    /// Identities to keep, or with `None` to forget.
    pub devices: BTreeMap<DeviceId, Option<DeviceRecord>>,
    /// Messages that were remembered at another time need not be any more, Unix milliseconds. What was remembered in the
    /// future was so before the wall clock was set back.
    pub memory_ms: RangeInclusive<u64>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            puts: BTreeMap::new(),
            removes: Vec::new(),
            prints: Vec::new(),
            devices: BTreeMap::new(),
            memory_ms: 0..=u64::MAX,
        }
    }
}

impl Changes {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty()
            && self.removes.is_empty()
            && self.prints.is_empty()
            && self.devices.is_empty()
    }

    /// Steps that it takes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.puts.len() + self.removes.len() + self.prints.len() + self.devices.len()
    }
}

/// An open database.
#[derive(Debug)]
pub struct Database {
    database: redb::Database,
    scratch: Vec<u8>,
    /// The key of the next print: they are forgotten in the order in which they were remembered, and a message that waited
    /// for long must not stand in the way of those that came and went meanwhile.
    next_print: u64,
}

impl Database {
    /// Opens the database on that backend, and creates its tables if it is new.
    ///
    /// # Errors
    ///
    /// Whatever the database says.
    pub fn open(backend: impl StorageBackend) -> Result<Self, redb::Error> {
        catch_redb_panic(|| Self::opened(backend))
    }

    fn opened(backend: impl StorageBackend) -> Result<Self, redb::Error> {
        let database =
            redb::Database::builder().set_cache_size(CACHE).create_with_backend(backend)?;
        let begun = database.begin_read()?;
        let is_new = begun.list_tables()?.next().is_none();
        drop(begun);
        if is_new {
            let transaction = database.begin_write()?;
            transaction.open_table(QUEUE)?;
            transaction.open_table(DEVICES)?;
            transaction.open_table(PRINTS)?;
            transaction.open_table(META)?.insert(FORMAT, u64::from(VERSION))?;
            transaction.commit()?;
        }
        let prints = database.begin_read()?.open_table(PRINTS)?;
        let last = prints.range(..PROBE)?.next_back().transpose()?;
        let next_print = last.map_or(0, |(key, _)| key.value() + 1);
        Ok(Self { database, scratch: Vec::new(), next_print })
    }

    pub(super) fn check_format(&self) -> Result<(), io::Error> {
        let format = || -> Result<Option<u64>, redb::Error> {
            let meta = self.database.begin_read()?.open_table(META)?;
            Ok(meta.get(FORMAT)?.map(|format| format.value()))
        };
        match format().map_err(io::Error::other)? {
            Some(format) if format == u64::from(VERSION) => Ok(()),
            other => Err(io::Error::other(format!("format {other:?}, this relay reads {VERSION}"))),
        }
    }

    /// Applies the changes, all or none. When this returns they are safe.
    ///
    /// # Errors
    ///
    /// When the disk is full or fails; the database must be opened anew before it is used again.
    pub fn commit(&mut self, changes: &Changes) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut queue = transaction.open_table(QUEUE)?;
            for (seq, record) in &changes.puts {
                record.encode(&mut self.scratch);
                queue.insert(seq, self.scratch.as_slice())?;
            }
            for seq in &changes.removes {
                queue.remove(seq)?;
            }
        }
        if !changes.prints.is_empty() {
            let mut prints = transaction.open_table(PRINTS)?;
            for together in changes.prints.chunks(PRINTS_TOGETHER) {
                Fingerprint::encode(together, self.next_print, &mut self.scratch);
                prints.insert(self.next_print, self.scratch.as_slice())?;
                self.next_print += 1;
            }
            for key in old_prints(&prints, changes)? {
                prints.remove(key)?;
            }
        }
        if !changes.devices.is_empty() {
            let mut devices = transaction.open_table(DEVICES)?;
            for (id, device) in &changes.devices {
                match device {
                    Some(device) => {
                        device.encode(&mut self.scratch);
                        devices.insert(id.to_u128(), self.scratch.as_slice())?;
                    }
                    None => {
                        devices.remove(id.to_u128())?;
                    }
                }
            }
        }
        if let Some((last, _)) = changes.puts.last_key_value() {
            let mut meta = transaction.open_table(META)?;
            let known = meta.get(NEXT_SEQ)?.map_or(0, |next| next.value());
            meta.insert(NEXT_SEQ, known.max(last.saturating_add(1)))?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Writes and removes something of some size, to see whether there is room.
    ///
    /// # Errors
    ///
    /// As [`Self::commit`].
    pub fn probe(&mut self) -> Result<(), redb::Error> {
        for keep in [true, false] {
            let transaction = self.database.begin_write()?;
            {
                let mut prints = transaction.open_table(PRINTS)?;
                if keep {
                    prints.insert(PROBE, [0; PROBE_BYTES].as_slice())?;
                } else {
                    prints.remove(PROBE)?;
                }
            }
            transaction.commit()?;
        }
        Ok(())
    }

    /// Reads everything. Time that is left never exceeds what it was at first, however the wall clock was set since.
    ///
    /// # Errors
    ///
    /// When the database cannot be read at all; single damaged records are counted and left out.
    pub fn load(&self, now_ms: u64, dedup_window: Duration) -> Result<Loaded, redb::Error> {
        catch_redb_panic(|| self.loaded(now_ms, dedup_window))
    }

    fn loaded(&self, now_ms: u64, dedup_window: Duration) -> Result<Loaded, redb::Error> {
        let mut loaded = Loaded::default();
        let transaction = self.database.begin_read()?;
        for entry in transaction.open_table(QUEUE)?.iter()? {
            let (seq, value) = entry?;
            let seq = seq.value();
            match MessageRecord::decode(seq, value.value()) {
                Some(record) => {
                    loaded.next_seq = loaded.next_seq.max(seq.saturating_add(1));
                    loaded.messages.push(record);
                }
                None => loaded.damaged += 1,
            }
        }
        for entry in transaction.open_table(DEVICES)?.iter()? {
            let (id, value) = entry?;
            let id = DeviceId::from_u128(id.value());
            match DeviceRecord::decode(id, value.value()) {
                Some(device) => loaded.devices.push(device),
                None => loaded.damaged += 1,
            }
        }
        let oldest =
            now_ms.saturating_sub(u64::try_from(dedup_window.as_millis()).unwrap_or(u64::MAX));
        for entry in transaction.open_table(PRINTS)?.iter()? {
            let (key, value) = entry?;
            let key = key.value();
            if key == PROBE {
                continue;
            }
            match Fingerprint::decode(key, value.value()) {
                Some(row) => loaded
                    .fingerprints
                    .extend(row.iter().filter(|print| print.recorded_at >= oldest)),
                None => loaded.damaged += 1,
            }
        }
        let meta = transaction.open_table(META)?;
        let next_seq = meta.get(NEXT_SEQ)?.map_or(1, |next| next.value());
        loaded.next_seq = loaded.next_seq.max(next_seq);
        Ok(loaded)
    }

    /// Reads and checks every page of the database.
    ///
    /// # Errors
    ///
    /// When it is damaged beyond what can be read.
    pub fn check(&mut self) -> Result<bool, redb::Error> {
        catch_redb_panic(|| Ok(self.database.check_integrity()?))
    }
}

/// Remembered messages whose time is over, some of the oldest at a time.
fn old_prints(
    prints: &redb::Table<'_, u64, &'static [u8]>,
    changes: &Changes,
) -> Result<Vec<u64>, redb::Error> {
    let mut old = Vec::new();
    let rows = changes.prints.len().div_ceil(PRINTS_TOGETHER);
    for entry in prints.range(..PROBE)?.take(2 * rows) {
        let (key, value) = entry?;
        let prints = Fingerprint::decode(key.value(), value.value()).unwrap_or_default();
        if prints.iter().any(|print| changes.memory_ms.contains(&print.recorded_at)) {
            break;
        }
        old.push(key.value());
    }
    Ok(old)
}

/// Turns a panic of the database into an error: redb asserts what a damaged file can break.
pub(super) fn catch_redb_panic<T>(
    step: impl FnOnce() -> Result<T, redb::Error>,
) -> Result<T, redb::Error> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
        Err(redb::Error::Corrupted(said.to_owned()))
    })
}

#[cfg(test)]
#[path = "database_tests.rs"]
pub(super) mod tests;
