//! Puts whose commit the store has not reported yet.

use std::collections::VecDeque;

use crate::protocol::envelope::Seq;
use crate::protocol::id::DeviceId;
use crate::store::PutSeq;

#[derive(Debug, Default)]
pub(super) struct PendingPuts {
    /// By rising put sequence.
    puts: VecDeque<(PutSeq, DeviceId, Seq)>,
    pub last: PutSeq,
}

impl PendingPuts {
    /// The number of the next put.
    pub fn next(&mut self) -> PutSeq {
        self.last.0 += 1;
        self.last
    }

    /// The last put is pending.
    pub fn push(&mut self, recipient: DeviceId, seq: Seq) {
        self.puts.push_back((self.last, recipient, seq));
    }

    /// The next of the puts that a report covers.
    pub fn pop_through(&mut self, through: PutSeq) -> Option<(DeviceId, Seq)> {
        let (_, recipient, seq) = self.puts.pop_front_if(|(put, ..)| *put <= through)?;
        Some((recipient, seq))
    }

    pub fn len(&self) -> usize {
        self.puts.len()
    }
}
