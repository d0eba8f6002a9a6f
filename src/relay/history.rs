//! What has happened to the messages for one device, for its operator. (operations: Looking inside)

use std::sync::LazyLock;

use crate::clock::Moment;
use crate::protocol::refusal::Refusal;
use crate::relay::on_demand::Empty;

/// Since the start of the relay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct History {
    /// Messages and key rotations for the device.
    pub accepted: u32,
    pub delivered: u32,
    pub expired: u32,
    pub last_expired: Option<Moment>,
    pub refused: Refused,
    /// When a sender was last told that the queue is full.
    pub last_full: Option<Moment>,
    /// How often a newer connection took over.
    pub replaced: u32,
}

/// Frames for the device that were refused, by the code that their senders got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Refused {
    /// 404: the device takes messages of its correspondents only.
    pub unknown_sender: u32,
    /// 507: its queue, or the sender's share of it, is full.
    pub queue_full: u32,
    /// 503: the relay's memory or disk is full.
    pub relay_full: u32,
    /// 410: a message for this moment only, and the device was not there.
    pub not_there: u32,
    pub other: u32,
}

impl History {
    pub fn count_refusal(&mut self, now: Moment, refusal: Refusal) {
        let refused = &mut self.refused;
        let count = match refusal {
            Refusal::UnknownRecipient => &mut refused.unknown_sender,
            Refusal::QueueFull => {
                self.last_full = Some(now);
                &mut refused.queue_full
            }
            Refusal::Full => &mut refused.relay_full,
            Refusal::Expired(..) => &mut refused.not_there,
            _ => &mut refused.other,
        };
        *count = count.saturating_add(1);
    }

    pub fn count_expired(&mut self, now: Moment) {
        self.expired = self.expired.saturating_add(1);
        self.last_expired = Some(now);
    }

    pub fn count_replaced(&mut self) {
        self.replaced = self.replaced.saturating_add(1);
    }
}

impl Empty for History {
    fn empty() -> &'static Self {
        static EMPTY: LazyLock<History> = LazyLock::new(History::default);
        &EMPTY
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
