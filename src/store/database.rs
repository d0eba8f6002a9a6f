//! The database in `queue.redb`: its tables, one read at start, and commits of many changes.
//!
//! Messages and fingerprints have keys that count up, so that writes go to the end of their tables.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use redb::{ReadableDatabase as _, ReadableTable as _, StorageBackend, TableDefinition};

use super::Loaded;
use super::boots::{BootRecord, BootTime, Boots, MAX_BOOTS};
use super::migrate;
use super::records::{
    CorrespondentRecord, DeviceRecord, Fingerprint, HashKey, MessageRecord, VERSION,
};
use super::snapshot::Snapshot;
use crate::clock::Now;
use crate::protocol::envelope::Seq;
use crate::protocol::id::DeviceId;

pub(super) const QUEUE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("queue");
pub(super) const DEVICES: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("devices");
pub(super) const PRINTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("prints");
/// By device and place, see [`CorrespondentRecord::key`].
pub(super) const CORRESPONDENTS: TableDefinition<'_, (u128, u16), &[u8]> =
    TableDefinition::new("correspondents");
/// By number, see [`BootRecord`].
pub(super) const BOOTS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("boots");
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// Key in `META`: the version of the records.
pub(super) const FORMAT: &str = "format";
/// Key in `META`: a sequence number above all that were committed, because the newest message may be removed already.
const NEXT_SEQ: &str = "next_seq";

/// Key in `META`: the [`HashKey`].
pub(super) const HASH_KEY: &str = "hash_key";
/// Key in `META`: a random number that is given once, when the database is created, so that a copy of another queue under the
/// same name is noticed.
pub(super) const FILE_ID: &str = "file_id";

/// Bytes of the page cache. It is small because the database is written at its end and read once.
pub(super) const CACHE: usize = 16 * 1024 * 1024;

/// Fingerprints in one row: a row for each would cost as much as the message did.
const ROW: usize = 1024;

/// The key in `PRINTS` under which [`Database::probe`] writes; no row has it.
pub(super) const PROBE: u64 = u64::MAX;

/// Bytes that must fit on a disk that was full before new messages are accepted.
const PROBE_BYTES: usize = 256 * 1024;

/// The changes of one commit.
#[derive(Debug, Default)]
pub struct Changes {
    pub puts: BTreeMap<Seq, MessageRecord>,
    /// New values of records, if those are there.
    pub replaced: BTreeMap<Seq, MessageRecord>,
    pub removes: Vec<Seq>,
    /// In the order in which their messages left.
    pub fingerprints: Vec<Fingerprint>,
    /// `None` removes a device.
    pub devices: BTreeMap<DeviceId, Option<DeviceRecord>>,
    pub correspondents: BTreeMap<(u128, u16), CorrespondentRecord>,
    /// The current boot, if it is new or the wall clock was set.
    pub boot: Option<BootRecord>,
    /// Fingerprints from before this may be deleted.
    pub oldest_fingerprint: BootTime,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn len(&self) -> usize {
        let messages = self.puts.len() + self.replaced.len();
        let records = messages + self.devices.len() + self.correspondents.len();
        let boots = usize::from(self.boot.is_some());
        records + self.removes.len() + self.fingerprints.len() + boots
    }
}

/// An open database.
#[derive(Debug)]
pub struct Database {
    database: redb::Database,
    scratch: Vec<u8>,
    /// Key of the next row of fingerprints. Rows are deleted in the order of their keys, so a key that counts up keeps an
    /// old message that left late from blocking the rows after it.
    next_row: u64,
    format: u8,
}

impl Database {
    /// Opens the database, and creates its tables if it is new.
    ///
    /// # Errors
    ///
    /// The backend fails, or what it holds is no database.
    pub fn open(backend: impl StorageBackend) -> Result<Self, redb::Error> {
        Self::open_or_create(backend, true)
    }

    /// Opens a database that has its tables already, in any format that can be migrated.
    ///
    /// # Errors
    ///
    /// The backend fails, or what it holds is no queue that this version can read.
    pub fn open_existing(backend: impl StorageBackend) -> Result<Self, redb::Error> {
        Self::open_or_create(backend, false)
    }

    fn open_or_create(backend: impl StorageBackend, may_create: bool) -> Result<Self, redb::Error> {
        catch_redb_panic(|| {
            let database =
                redb::Database::builder().set_cache_size(CACHE).create_with_backend(backend)?;
            let is_new = database.begin_read()?.list_tables()?.next().is_none();
            let mut format = VERSION;
            if !may_create || !is_new {
                format = check_format(&database.begin_read()?)?;
            }
            if is_new {
                let transaction = database.begin_write()?;
                transaction.open_table(QUEUE)?;
                transaction.open_table(DEVICES)?;
                transaction.open_table(PRINTS)?;
                transaction.open_table(CORRESPONDENTS)?;
                transaction.open_table(BOOTS)?;
                let mut meta = transaction.open_table(META)?;
                meta.insert(FORMAT, u64::from(VERSION))?;
                let key = getrandom::u64().map_err(io::Error::other)?;
                meta.insert(HASH_KEY, key)?;
                meta.insert(FILE_ID, getrandom::u64().map_err(io::Error::other)?)?;
                drop(meta);
                transaction.commit()?;
            }
            let rows = database.begin_read()?.open_table(PRINTS)?;
            let last = rows.range(..PROBE)?.next_back().transpose()?;
            let next_row = last.map_or(0, |(key, _)| key.value() + 1);
            Ok(Self { database, scratch: Vec::new(), next_row, format })
        })
    }

    /// The version of the records, [`VERSION`] after [`Self::migrate`].
    pub fn format(&self) -> u8 {
        self.format
    }

    /// Brings the database to the current format, all of it or nothing. Returns the older format, if it had one.
    ///
    /// # Errors
    ///
    /// As [`Self::commit`].
    pub fn migrate(&mut self) -> Result<Option<u8>, redb::Error> {
        let migrated = catch_redb_panic(|| migrate::migrate(&self.database, self.format))?;
        self.format = VERSION;
        Ok(migrated)
    }

    /// What is committed now, for a reader on another thread.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot, redb::Error> {
        Ok(Snapshot::new(self.database.begin_read()?))
    }

    /// The number that the database was given when it was created; a database of an older version has none.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn file_id(&self) -> Result<Option<u64>, redb::Error> {
        let meta = self.database.begin_read()?.open_table(META)?;
        Ok(meta.get(FILE_ID)?.map(|id| id.value()))
    }

    /// Applies all changes or none. They are synced when this returns.
    ///
    /// # Errors
    ///
    /// The disk is full or fails. The database must be opened again before its next use.
    pub fn commit(&mut self, changes: &Changes) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut queue = transaction.open_table(QUEUE)?;
            for (seq, record) in &changes.puts {
                record.encode(&mut self.scratch);
                queue.insert(seq, self.scratch.as_slice())?;
            }
            for (seq, record) in &changes.replaced {
                // The put may have failed, and the router may not have known.
                if queue.get(seq)?.is_some() {
                    record.encode(&mut self.scratch);
                    queue.insert(seq, self.scratch.as_slice())?;
                }
            }
            for seq in &changes.removes {
                queue.remove(seq)?;
            }
        }
        if !changes.fingerprints.is_empty() {
            let mut rows = transaction.open_table(PRINTS)?;
            for row in changes.fingerprints.chunks(ROW) {
                Fingerprint::encode(row, self.next_row, &mut self.scratch);
                rows.insert(self.next_row, self.scratch.as_slice())?;
                self.next_row += 1;
            }
            for key in outdated_rows(&rows, changes)? {
                rows.remove(key)?;
            }
        }
        if !changes.devices.is_empty() {
            let mut devices = transaction.open_table(DEVICES)?;
            for (id, device) in &changes.devices {
                if let Some(device) = device {
                    device.encode(&mut self.scratch);
                    devices.insert(id.to_u128(), self.scratch.as_slice())?;
                } else {
                    devices.remove(id.to_u128())?;
                }
            }
        }
        self.commit_correspondents(&transaction, changes)?;
        if let Some(boot) = &changes.boot {
            let mut boots = transaction.open_table(BOOTS)?;
            boot.encode(&mut self.scratch);
            boots.insert(boot.number, self.scratch.as_slice())?;
            if let Some(oldest) = boot.number.checked_sub(MAX_BOOTS) {
                boots.remove(oldest)?;
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

    fn commit_correspondents(
        &mut self,
        transaction: &redb::WriteTransaction,
        changes: &Changes,
    ) -> Result<(), redb::Error> {
        let gone = || changes.devices.iter().filter(|(_, device)| device.is_none());
        if changes.correspondents.is_empty() && gone().next().is_none() {
            return Ok(());
        }
        let mut correspondents = transaction.open_table(CORRESPONDENTS)?;
        for (key, correspondent) in &changes.correspondents {
            correspondent.encode(&mut self.scratch);
            correspondents.insert(key, self.scratch.as_slice())?;
        }
        for (id, _) in gone() {
            let of_device = (id.to_u128(), 0)..=(id.to_u128(), u16::MAX);
            correspondents.retain_in(of_device, |_, _| false)?;
        }
        Ok(())
    }

    /// Writes and removes some bytes, to learn whether there is space.
    ///
    /// # Errors
    ///
    /// As [`Self::commit`].
    pub fn probe(&mut self) -> Result<(), redb::Error> {
        for keep in [true, false] {
            let transaction = self.database.begin_write()?;
            {
                let mut rows = transaction.open_table(PRINTS)?;
                if keep {
                    rows.insert(PROBE, [0; PROBE_BYTES].as_slice())?;
                } else {
                    rows.remove(PROBE)?;
                }
            }
            transaction.commit()?;
        }
        Ok(())
    }

    /// Reads all records, but no fingerprint that is older than `dedup_window`, for a relay that starts at `now` in the boot with
    /// this id. A damaged record is counted and left out.
    ///
    /// # Errors
    ///
    /// The database cannot be read at all.
    pub fn load(
        &self,
        now: Now,
        boot_id: Option<u128>,
        dedup_window: Duration,
    ) -> Result<Loaded, redb::Error> {
        catch_redb_panic(|| {
            let mut loaded = Loaded::default();
            self.load_boots(&mut loaded)?;
            loaded.boots.enter(boot_id, now);
            self.load_records(&mut loaded, now, dedup_window)?;
            Ok(loaded)
        })
    }

    fn load_boots(&self, loaded: &mut Loaded) -> Result<(), redb::Error> {
        let mut boots = Vec::new();
        for entry in self.database.begin_read()?.open_table(BOOTS)?.iter()? {
            let (number, value) = entry?;
            match BootRecord::decode(number.value(), value.value()) {
                Some(boot) => boots.push(boot),
                None => loaded.damaged += 1,
            }
        }
        loaded.boots = Boots::new(boots);
        Ok(())
    }

    fn load_records(
        &self,
        loaded: &mut Loaded,
        now: Now,
        dedup_window: Duration,
    ) -> Result<(), redb::Error> {
        let transaction = self.database.begin_read()?;
        let meta = transaction.open_table(META)?;
        loaded.next_seq = meta.get(NEXT_SEQ)?.map_or(1, |next| next.value());
        loaded.hash_key = HashKey(meta.get(HASH_KEY)?.map_or(0, |key| key.value()));
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
            match DeviceRecord::decode(DeviceId::from_u128(id.value()), value.value()) {
                Some(device) => loaded.devices.push(device),
                None => loaded.damaged += 1,
            }
        }
        for entry in transaction.open_table(CORRESPONDENTS)?.iter()? {
            let (key, value) = entry?;
            match CorrespondentRecord::decode(DeviceId::from_u128(key.value().0), value.value()) {
                Some(correspondent) => loaded.correspondents.push(correspondent),
                None => loaded.damaged += 1,
            }
        }
        for entry in transaction.open_table(PRINTS)?.range(..PROBE)? {
            let (key, value) = entry?;
            match Fingerprint::decode(key.value(), value.value()) {
                Some(row) => {
                    let boots = &loaded.boots;
                    let young = row
                        .iter()
                        .filter(|print| boots.is_within(now, print.recorded_at, dedup_window));
                    loaded.fingerprints.extend(young);
                }
                None => loaded.damaged += 1,
            }
        }
        Ok(())
    }

    /// Reads every page and its checksum. `false` if the database had to be repaired.
    ///
    /// # Errors
    ///
    /// The database is damaged beyond repair.
    pub fn check(&mut self) -> Result<bool, redb::Error> {
        catch_redb_panic(|| Ok(self.database.check_integrity()?))
    }
}

/// Whether `backend` holds a queue of this version. Changes nothing; a database that was not closed needs a repair first, and
/// is taken for one.
pub(super) fn examine(backend: impl StorageBackend) -> Result<(), redb::Error> {
    catch_redb_panic(|| match redb::Database::builder().open_read_only_with_backend(backend) {
        Ok(database) => check_format(&database.begin_read()?).map(|_| ()),
        Err(redb::DatabaseError::RepairAborted) => Ok(()),
        Err(error) => Err(error.into()),
    })
}

/// The format of a queue that this version can read.
fn check_format(database: &redb::ReadTransaction) -> Result<u8, redb::Error> {
    let meta = match database.open_table(META) {
        Err(redb::TableError::Storage(error)) => return Err(error.into()),
        // Another program's database, with other tables or none.
        Err(_) => return Err(io::Error::other("is no queue of this relay").into()),
        Ok(meta) => meta,
    };
    match meta.get(FORMAT)?.map(|format| format.value()) {
        Some(format) => migrate::check(format),
        None => Err(io::Error::other("is no queue of this relay").into()),
    }
}

/// The oldest rows without a needed fingerprint. At most two for each row that is added, so that the work stays small and
/// the rows still become fewer.
fn outdated_rows(
    rows: &redb::Table<'_, u64, &'static [u8]>,
    changes: &Changes,
) -> Result<Vec<u64>, redb::Error> {
    let mut outdated = Vec::new();
    let added = changes.fingerprints.len().div_ceil(ROW);
    for entry in rows.range(..PROBE)?.take(2 * added) {
        let (key, value) = entry?;
        let row = Fingerprint::decode(key.value(), value.value()).unwrap_or_default();
        if row.iter().any(|print| print.recorded_at >= changes.oldest_fingerprint) {
            break;
        }
        outdated.push(key.value());
    }
    Ok(outdated)
}

/// Turns a panic of the database into an error: redb asserts what a damaged file can break.
pub(super) fn catch_redb_panic<T>(
    step: impl FnOnce() -> Result<T, redb::Error>,
) -> Result<T, redb::Error> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
        Err(redb::Error::Corrupted(text.to_owned()))
    })
}

#[cfg(test)]
#[path = "database_tests.rs"]
pub(super) mod tests;
