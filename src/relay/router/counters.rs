//! The counters of the router: the one place that adds and subtracts.

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
    /// Bytes of everything that waits or awaits an Ack.
    pub queued_bytes: u64,
    /// Acks of clients that matched no message.
    pub stray_acks: u64,
    /// Notices that found no place.
    pub dropped_notices: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters(Counts);

impl Counters {
    pub fn counts(&self) -> Counts {
        self.0
    }

    /// An item enters a mailbox, in flight or waiting.
    pub fn accepted(&mut self, item: &Item, in_flight: bool) {
        self.0.accepted += counted(item);
        *self.gauge(in_flight) += counted(item);
        if !in_flight || item.settles == SettledBy::Ack {
            self.0.queued_bytes += item.bytes();
        }
    }

    /// A waiting item goes in flight.
    pub fn dispatched(&mut self, item: &Item) {
        self.0.queued -= counted(item);
        self.0.in_flight += counted(item);
        if item.settles == SettledBy::Write {
            self.0.queued_bytes -= item.bytes();
        }
    }

    /// An item in flight waits again, or has expired and waits for its notice.
    pub fn returned(&mut self, item: &Item) {
        self.0.in_flight -= counted(item);
        self.0.queued += counted(item);
        if item.settles == SettledBy::Write {
            self.0.queued_bytes += item.bytes();
        }
    }

    pub fn delivered(&mut self, item: &Item) {
        self.left(item);
        self.0.delivered += counted(item);
    }

    pub fn expired(&mut self, item: &Item) {
        self.left(item);
        self.0.expired += counted(item);
    }

    /// An item leaves as if it had never been accepted.
    pub fn withdrawn(&mut self, item: &Item) {
        self.left(item);
        self.0.accepted -= counted(item);
    }

    pub fn unmatched_ack(&mut self) {
        self.0.stray_acks += 1;
    }

    pub fn notice_dropped(&mut self) {
        self.0.dropped_notices += 1;
    }

    fn left(&mut self, item: &Item) {
        *self.gauge(item.in_flight) -= counted(item);
        if !item.in_flight || item.settles == SettledBy::Ack {
            self.0.queued_bytes -= item.bytes();
        }
    }

    fn gauge(&mut self, in_flight: bool) -> &mut u64 {
        if in_flight { &mut self.0.in_flight } else { &mut self.0.queued }
    }
}

pub(super) fn counted(item: &Item) -> u64 {
    u64::from(item.envelope.subject.is_counted())
}
