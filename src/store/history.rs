//! What has happened to the messages for one device since its registration, for its operator. (operations: Looking inside)
//!
//! It is kept with the device's record, which is written when a connection begins or ends and when messages expire.

use super::records::Reader;
use crate::clock::Now;
use crate::protocol::refusal::Refusal;

/// Counts, and the Unix seconds of what happened last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct History {
    /// Messages and key rotations for the device.
    pub accepted: u32,
    pub delivered: u32,
    pub expired: u32,
    /// How often a newer connection took over.
    pub replaced: u32,
    /// Frames for the device that were refused, by the code that their senders got: see [`CODES`].
    pub(super) refused: [u32; CODES.len()],
    /// Unix seconds; 0 if none has expired.
    pub last_expired: u64,
    pub(super) last_refused: [u64; CODES.len()],
}

/// The codes of refusals that are about the recipient. Other codes are about the sender alone.
pub const CODES: [u16; 5] = [404, 409, 410, 503, 507];

impl History {
    /// Counts what a sender got, if it is about the recipient.
    pub fn count_refusal(&mut self, now: Now, refusal: Refusal) {
        if let Some(place) = place(refusal.code()) {
            self.refused[place] = self.refused[place].saturating_add(1);
            self.last_refused[place] = now.unix();
        }
    }

    pub fn count_expired(&mut self, now: Now) {
        self.expired = self.expired.saturating_add(1);
        self.last_expired = now.unix();
    }

    pub fn count_replaced(&mut self) {
        self.replaced = self.replaced.saturating_add(1);
    }

    /// The refusals with one of [`CODES`].
    pub fn refused(&self, code: u16) -> u32 {
        place(code).map_or(0, |place| self.refused[place])
    }

    /// Unix seconds of the last refusal with this code; 0 if there was none.
    pub fn last_refused(&self, code: u16) -> u64 {
        place(code).map_or(0, |place| self.last_refused[place])
    }

    /// Appends the history to a record; nothing, if nothing has happened.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        if *self == Self::default() {
            return;
        }
        for count in [self.accepted, self.delivered, self.expired, self.replaced] {
            out.extend_from_slice(&count.to_le_bytes());
        }
        out.extend_from_slice(&self.last_expired.to_le_bytes());
        for (count, last) in self.refused.iter().zip(&self.last_refused) {
            out.extend_from_slice(&count.to_le_bytes());
            out.extend_from_slice(&last.to_le_bytes());
        }
    }

    /// Reads the rest of a record, which may be empty. `None` if the rest is damaged.
    pub(super) fn decode(from: &mut Reader) -> Option<Self> {
        let mut history = Self::default();
        if from.is_empty() {
            return Some(history);
        }
        let counts = [
            &mut history.accepted,
            &mut history.delivered,
            &mut history.expired,
            &mut history.replaced,
        ];
        for count in counts {
            *count = u32::from_le_bytes(from.array()?);
        }
        history.last_expired = from.u64()?;
        for place in 0..CODES.len() {
            history.refused[place] = u32::from_le_bytes(from.array()?);
            history.last_refused[place] = from.u64()?;
        }
        Some(history)
    }
}

fn place(code: u16) -> Option<usize> {
    CODES.iter().position(|of| *of == code)
}
