//! The contract between the router and the store that makes the queue survive the process.
//!
//! A mailbox owns the order of a device's messages; a store holds a copy of what a restart needs. The router writes to the
//! store and never reads from it, so no step of the Registry waits for a disk. [`Loaded`] is read once, at start.

pub mod boots;
mod commit_time;
pub mod compact;
pub mod copy;
pub mod database;
pub mod examine;
mod handover;
pub mod history;
pub mod holder;
pub mod inspect;
pub mod memory;
mod migrate;
pub mod open;
mod pending_changes;
pub mod queue_writer;
pub mod records;
mod row_stream;
pub mod snapshot;
pub mod snapshot_requests;
pub mod sync_watch;
pub mod top;
pub mod writer;

use std::time::Duration;

use crate::metrics::histogram::Histogram;
use crate::protocol::envelope::{Envelope, Seq};
use crate::protocol::id::DeviceId;
use boots::Boots;
use records::{CorrespondentRecord, DeviceRecord, Fingerprint, HashKey, MessageRecord};

/// The order of the puts. It differs from the order of arrival: a message that comes back from a lost connection is put late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PutSeq(pub u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// The record is stored: the sender can get its Ack.
    Durable,
    /// The record is staged. The store reports later that everything through its [`PutSeq`] is committed, or has failed.
    Pending,
    /// The disk is full or fails: the record is not stored.
    Rejected,
}

/// Stores records until they are removed.
///
/// No call but [`Self::close`] waits: the caller is the one actor that every message passes through.
pub trait Store {
    /// Stores a message. `put_seq` grows from call to call, so that one number reports on many records.
    fn put(&mut self, record: MessageRecord<&Envelope>, put_seq: PutSeq) -> PutOutcome;

    /// Removes a message, and records its fingerprint if its sender may repeat the message. An unknown `seq` is allowed:
    /// the put may have failed. Removing a message that is still staged saves its write.
    fn remove(&mut self, seq: Seq, fingerprint: Option<Fingerprint>);

    /// Replaces the record of a message, if it is stored.
    fn replace(&mut self, record: MessageRecord<&Envelope>);

    /// Stores the fingerprint of a message that was never put.
    fn put_fingerprint(&mut self, fingerprint: Fingerprint);

    /// Stores a device, or replaces its record.
    fn put_device(&mut self, device: DeviceRecord);

    /// Removes a device and its correspondents.
    fn remove_device(&mut self, id: DeviceId);

    /// Asks for a report on everything before it, like a put of nothing.
    fn report_commit(&mut self, put_seq: PutSeq) -> PutOutcome;

    /// Stores a correspondent of a device.
    fn put_correspondent(&mut self, correspondent: CorrespondentRecord);

    /// Ends a step. The changes since the last flush are committed together or not at all, because an expired message and
    /// the notice to its sender must not be separated by a crash.
    fn flush(&mut self) {}

    /// Whether a put would be rejected now: the router can refuse a `Send` before it has changed anything.
    fn is_failing(&self) -> bool {
        false
    }

    /// Whether so much is staged that senders must be slowed down, because memory would fill faster than the disk takes it.
    fn is_backlogged(&self) -> bool {
        false
    }

    /// How long the commit under way has taken. A disk that hangs ends none.
    fn commit_for(&self) -> Duration {
        Duration::ZERO
    }

    /// How the store does, for `/metrics`.
    fn stats(&self) -> StoreStats {
        StoreStats::default()
    }

    /// Writes what is staged, and ends. Waits for the disk, so that a drained relay has lost nothing.
    fn close(&mut self) {}
}

/// How a store does.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoreStats {
    pub is_failing: bool,
    /// Size of the database's file, when it was last looked at.
    pub disk_bytes: u64,
    /// How long commits take, their sync included.
    pub commits: Histogram,
}

/// The content of a store at start.
#[derive(Debug, Default)]
pub struct Loaded {
    pub devices: Vec<DeviceRecord>,
    /// By device, in no order of their numbers.
    pub correspondents: Vec<CorrespondentRecord>,
    /// In the order of arrival.
    pub messages: Vec<MessageRecord>,
    /// Oldest first.
    pub fingerprints: Vec<Fingerprint>,
    /// The first sequence number that was never used.
    pub next_seq: Seq,
    pub hash_key: HashKey,
    /// What the times of all records need to be read.
    pub boots: Boots,
    /// Records that were damaged on disk and left out.
    pub damaged: usize,
}
