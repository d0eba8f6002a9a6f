//! What waits for a commit that the store has not reported yet.

use std::collections::VecDeque;

use crate::protocol::envelope::Seq;
use crate::protocol::id::DeviceId;
use crate::relay::command::ConnectionId;
use crate::store::PutSeq;

/// What follows from a commit.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pending {
    /// The sender of an item gets its Ack.
    Item { recipient: DeviceId, seq: Seq },
    /// A connection resumes whose device has changed its token.
    Renewal(ConnectionId),
    /// A connection whose device has ended is closed.
    Unregistration(ConnectionId),
}

#[derive(Debug, Default)]
pub(super) struct PendingPuts {
    /// By rising put sequence.
    puts: VecDeque<(PutSeq, Pending)>,
    pub last: PutSeq,
}

impl PendingPuts {
    /// The number of the next put.
    pub fn next(&mut self) -> PutSeq {
        self.last.0 += 1;
        self.last
    }

    /// The last put is pending.
    pub fn push(&mut self, pending: Pending) {
        self.puts.push_back((self.last, pending));
    }

    /// The next of the puts that a report covers.
    pub fn pop_through(&mut self, through: PutSeq) -> Option<Pending> {
        self.puts.pop_front_if(|(put, ..)| *put <= through).map(|(_, pending)| pending)
    }

    pub fn len(&self) -> usize {
        self.puts.len()
    }
}
