//! The queue's memory: the contract by which the rules have something kept, and who keeps it.
//!
//! The order of a device's messages lives in its mailbox. A store only keeps what must outlive the process; it is told
//! and never asked, so that nobody waits for it. What it kept comes back once, at start, as [`Loaded`].

pub mod database;
pub mod inspect;
pub mod memory;
pub mod record;
pub mod sync_watch;
pub mod writer;

use std::time::Duration;

use crate::clock::Moment;
use crate::protocol::envelope::{Envelope, Seq};
use crate::protocol::id::DeviceId;

/// The order in which records are handed over; not that of arrival, for what came back from a connection that died is
/// handed over late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PutSeq(pub u64);

/// What is handed over to be kept.
#[derive(Debug)]
pub struct Record<'a> {
    /// Its place in the order of arrival, and its name here.
    pub seq: Seq,
    /// Its place in the order of handing over.
    pub turn: PutSeq,
    /// For whom.
    pub to: DeviceId,
    /// Until when.
    pub deadline: Moment,
    /// What.
    pub envelope: &'a Envelope,
}

/// Whether a record is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// It is: the sender can be told.
    Durable,
    /// It will be: the store reports when everything through its turn is, or has failed.
    Pending,
    /// It cannot be: the store has no room or its disk fails.
    Rejected,
}

/// An identity that outlives its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The device.
    pub id: DeviceId,
    /// SHA-256 of its resume token; a plain device has none.
    pub token: Option<[u8; 32]>,
    /// When it is forgotten; `None` while it is connected.
    pub ends: Option<Moment>,
}

/// A message that is gone, but that its sender may repeat because it missed the Ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remember {
    /// Who may repeat it.
    pub sender: DeviceId,
    /// Its name within the sender, hashed.
    pub key: u64,
    /// Its content, hashed.
    pub content: u64,
}

/// Keeps what it is told until it is told otherwise.
///
/// No call waits. A removal that overtakes its own pending record saves the write.
pub trait Store {
    /// Takes a record into keeping.
    fn put(&mut self, record: Record<'_>) -> PutOutcome;

    /// Forgets a record, unknown ones too, and remembers that it was there if its sender may repeat it.
    fn remove(&mut self, seq: Seq, remember: Option<Remember>);

    /// Keeps an identity, or what has changed about it.
    fn put_device(&mut self, device: Known);

    /// Forgets an identity.
    fn remove_device(&mut self, id: DeviceId);

    /// What was said since the last flush is one step: all of it is kept, or nothing.
    fn flush(&mut self) {}

    /// Whether it would refuse what is put now.
    fn is_failing(&self) -> bool {
        false
    }

    /// Writes what still waits, and ends; this one call does wait.
    fn close(&mut self) {}

    /// Whether so much waits to be written that senders had better wait, too.
    fn is_backlogged(&self) -> bool {
        false
    }
}

/// What a store kept, at start.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Identities, with the time they have left.
    pub devices: Vec<LoadedDevice>,
    /// Records in the order of arrival.
    pub records: Vec<LoadedRecord>,
    /// Messages that are gone, oldest first.
    pub remembered: Vec<Remember>,
    /// The first sequence that was never used.
    pub next_seq: Seq,
    /// Records that could not be read: damaged on disk, dropped, and said so.
    pub damaged: usize,
}

/// See [`Loaded`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadedDevice {
    /// The device.
    pub id: DeviceId,
    /// SHA-256 of its resume token.
    pub token: Option<[u8; 32]>,
    /// Until it is forgotten; `None` if it was connected when the relay ended.
    pub left: Option<Duration>,
}

/// See [`Loaded`].
#[derive(Debug, Clone)]
pub struct LoadedRecord {
    /// Its place in the order of arrival.
    pub seq: Seq,
    /// For whom.
    pub to: DeviceId,
    /// Until it expires; never more than its ttl, zero if it has.
    pub left: Duration,
    /// What.
    pub envelope: Envelope,
}

impl<S: Store + ?Sized> Store for Box<S> {
    fn put(&mut self, record: Record<'_>) -> PutOutcome {
        (**self).put(record)
    }

    fn remove(&mut self, seq: Seq, remember: Option<Remember>) {
        (**self).remove(seq, remember);
    }

    fn put_device(&mut self, device: Known) {
        (**self).put_device(device);
    }

    fn remove_device(&mut self, id: DeviceId) {
        (**self).remove_device(id);
    }

    fn flush(&mut self) {
        (**self).flush();
    }

    fn close(&mut self) {
        (**self).close();
    }

    fn is_failing(&self) -> bool {
        (**self).is_failing()
    }

    fn is_backlogged(&self) -> bool {
        (**self).is_backlogged()
    }
}
