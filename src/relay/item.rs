//! An envelope in a mailbox, and what settles it.

use std::time::Duration;

use crate::clock::Moment;
use crate::protocol::envelope::{Envelope, Seq, Subject};
use crate::protocol::id::DeviceId;
use crate::store::boots::BootTime;
use crate::store::records::MessageRecord;

/// The moment from which the recipient has an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettledBy {
    /// The socket took the bytes.
    Write,
    /// The recipient acked.
    Ack,
}

impl SettledBy {
    pub fn of(envelope: &Envelope, resumable: bool) -> Self {
        match envelope.subject {
            // A message with a ttl of 0 is for this moment only: nothing is left to be acked later.
            Subject::Message(_) | Subject::KeyRotation(_) if resumable && envelope.ttl > 0 => {
                Self::Ack
            }
            _ => Self::Write,
        }
    }
}

#[derive(Debug)]
pub struct Item {
    pub seq: Seq,
    /// From this moment on the item is never delivered.
    pub deadline: Moment,
    pub settles: SettledBy,
    /// Whether the store was asked to keep it.
    pub stored: bool,
    /// Acks that the sender waits for: one for the message, and one for each repeat of it.
    pub owed_acks: u32,
    /// Set by the mailbox.
    pub in_flight: bool,
    /// Whether any connection ever had the item; set by the mailbox.
    pub handed_over: bool,
    /// Whether the item went in flight when it was accepted; set by the mailbox.
    pub is_direct: bool,
    pub envelope: Envelope,
}

impl Item {
    /// Since when the relay has the message: for all that waits as long as it says it may.
    pub fn age(&self, now: Moment) -> Option<Duration> {
        let is_message = matches!(self.envelope.subject, Subject::Message(_));
        // A message of an earlier boot is as old as this boot, or older.
        let accepted_at = (self.deadline - Moment::default())
            .saturating_sub(Duration::from_secs(self.envelope.ttl));
        is_message.then(|| (now - Moment::default()).saturating_sub(accepted_at))
    }

    /// A new item for a device that is resumable or plain: not stored, not in flight.
    pub fn new(seq: Seq, deadline: Moment, envelope: Envelope, resumable: bool) -> Self {
        Self {
            seq,
            deadline,
            settles: SettledBy::of(&envelope, resumable),
            stored: false,
            owed_acks: 0,
            in_flight: false,
            handed_over: false,
            is_direct: false,
            envelope,
        }
    }

    /// Whether the item must survive a restart once it waits for its device.
    pub fn must_be_stored(&self, resumable: bool) -> bool {
        match self.envelope.subject {
            Subject::Message(_) | Subject::KeyRotation(_) | Subject::KeyRotationAck(_) => true,
            // Only a resumable device comes back to read a notice.
            Subject::Notice { .. } => resumable,
            // An exchange does not outlive the process.
            Subject::Auth => false,
        }
    }

    /// Whether the item can expire and counts against the limits of the queue: it waits, or awaits its Ack.
    pub fn is_held(&self) -> bool {
        !self.in_flight || self.settles == SettledBy::Ack
    }

    /// What the item counts in every byte limit.
    pub fn bytes(&self) -> u64 {
        self.envelope.bytes()
    }

    /// The record to store in the boot with this number.
    pub fn record(&self, boot: u32, recipient: DeviceId) -> MessageRecord<&Envelope> {
        let expires_at = match self.deadline {
            Moment::NEVER => BootTime::NEVER,
            at => BootTime { boot, at },
        };
        MessageRecord { seq: self.seq, to: recipient, expires_at, envelope: &self.envelope }
    }
}
