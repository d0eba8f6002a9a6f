//! The counters of the router: the one place that adds and subtracts.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::RandomState;

use crate::protocol::envelope::{AccessKey, Envelope, Origin, Subject};
use crate::relay::correspondents::CORRESPONDENT_BYTES;
use crate::relay::item::{Item, SettledBy};

/// Messages and key rotations; at all times accepted = delivered + expired + queued + in_flight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    pub accepted: u64,
    pub delivered: u64,
    /// With a notice to the sender.
    pub expired: u64,
    pub queued: u64,
    pub in_flight: u64,
    /// Bytes of everything that waits or awaits an Ack, see [`Envelope::bytes`](crate::protocol::envelope::Envelope::bytes).
    pub queued_bytes: u64,
    /// Acks of clients that matched no message.
    pub stray_acks: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    counts: Counts,
    /// Of all correspondents.
    correspondent_bytes: u64,
    /// What one origin has of [`Counters::total_bytes`].
    bytes_by_origin: HashMap<Origin, u64, RandomState>,
    /// What the devices of one access token have sent and is held.
    bytes_by_access: HashMap<AccessKey, u64, RandomState>,
}

impl Counters {
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What counts against `queue.total_bytes`: all items that are held, and all correspondents.
    pub fn total_bytes(&self) -> u64 {
        self.counts.queued_bytes + self.correspondent_bytes
    }

    /// What one origin has of [`Self::total_bytes`].
    pub fn bytes_of(&self, origin: Origin) -> u64 {
        self.bytes_by_origin.get(&origin).copied().unwrap_or(0)
    }

    /// What the devices of an access token have sent and is held.
    pub fn bytes_of_access(&self, access: AccessKey) -> u64 {
        self.bytes_by_access.get(&access).copied().unwrap_or(0)
    }

    /// An item enters a mailbox, in flight or waiting.
    pub fn accepted(&mut self, item: &Item, in_flight: bool) {
        self.counts.accepted += counted(item);
        *self.gauge(in_flight) += counted(item);
        if !in_flight || item.settles == SettledBy::Ack {
            self.add_bytes(&item.envelope);
        }
    }

    /// A waiting item goes in flight.
    pub fn dispatched(&mut self, item: &Item) {
        self.counts.queued -= counted(item);
        self.counts.in_flight += counted(item);
        if item.settles == SettledBy::Write {
            self.remove_bytes(&item.envelope);
        }
    }

    /// An item in flight waits again.
    pub fn returned(&mut self, item: &Item) {
        self.counts.in_flight -= counted(item);
        self.counts.queued += counted(item);
        if item.settles == SettledBy::Write {
            self.add_bytes(&item.envelope);
        }
    }

    pub fn delivered(&mut self, item: &Item) {
        self.left(item);
        self.counts.delivered += counted(item);
    }

    /// An item has expired: its bytes leave at once, the item itself when its sender has the notice.
    pub fn found_expired(&mut self, item: &Item) {
        if item.is_held() {
            self.remove_bytes(&item.envelope);
        }
        if item.in_flight {
            self.counts.in_flight -= counted(item);
            self.counts.queued += counted(item);
        }
    }

    /// The sender of an expired item has its notice.
    pub fn expired(&mut self, subject: &Subject) {
        let counted = u64::from(subject.is_counted());
        self.counts.queued -= counted;
        self.counts.expired += counted;
    }

    pub fn correspondent_added(&mut self, origin: Origin) {
        self.correspondent_bytes += CORRESPONDENT_BYTES;
        self.add_to_origin(origin, CORRESPONDENT_BYTES);
    }

    pub fn correspondents_removed(&mut self, origin: Origin, number: usize) {
        let bytes = CORRESPONDENT_BYTES * number as u64;
        self.correspondent_bytes -= bytes;
        self.remove_from_origin(origin, bytes);
    }

    /// An item leaves as if it had never been accepted.
    pub fn withdrawn(&mut self, item: &Item) {
        self.left(item);
        self.counts.accepted -= counted(item);
    }

    pub fn unmatched_ack(&mut self) {
        self.counts.stray_acks += 1;
    }

    fn left(&mut self, item: &Item) {
        *self.gauge(item.in_flight) -= counted(item);
        if !item.in_flight || item.settles == SettledBy::Ack {
            self.remove_bytes(&item.envelope);
        }
    }

    fn add_bytes(&mut self, envelope: &Envelope) {
        let bytes = envelope.bytes();
        self.counts.queued_bytes += bytes;
        self.add_to_origin(envelope.origin, bytes);
        if envelope.access != AccessKey::NONE {
            *self.bytes_by_access.entry(envelope.access).or_default() += bytes;
        }
    }

    fn add_to_origin(&mut self, origin: Origin, bytes: u64) {
        *self.bytes_by_origin.entry(origin).or_default() += bytes;
    }

    fn remove_bytes(&mut self, envelope: &Envelope) {
        let bytes = envelope.bytes();
        self.counts.queued_bytes -= bytes;
        self.remove_from_origin(envelope.origin, bytes);
        if envelope.access != AccessKey::NONE {
            subtract(&mut self.bytes_by_access, envelope.access, bytes);
        }
    }

    fn remove_from_origin(&mut self, origin: Origin, bytes: u64) {
        subtract(&mut self.bytes_by_origin, origin, bytes);
    }

    /// For the audit.
    pub fn bytes_by_origin(&self) -> &HashMap<Origin, u64, RandomState> {
        &self.bytes_by_origin
    }

    /// For the audit.
    pub fn bytes_by_access(&self) -> &HashMap<AccessKey, u64, RandomState> {
        &self.bytes_by_access
    }

    fn gauge(&mut self, in_flight: bool) -> &mut u64 {
        if in_flight { &mut self.counts.in_flight } else { &mut self.counts.queued }
    }
}

/// Subtracts from what somebody holds; who holds nothing has no entry.
fn subtract<K: Eq + Hash>(held: &mut HashMap<K, u64, RandomState>, by: K, bytes: u64) {
    if let Some(before) = held.get_mut(&by) {
        *before -= bytes;
        if *before == 0 {
            held.remove(&by);
        }
    }
}

pub(super) fn counted(item: &Item) -> u64 {
    u64::from(item.envelope.subject.is_counted())
}
