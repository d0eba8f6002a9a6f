//! What waits for a commit that the store has not reported yet.

use std::collections::VecDeque;

use crate::protocol::encode::Status;
use crate::protocol::envelope::Seq;
use crate::protocol::id::{DeviceId, MessageId};
use crate::relay::command::ConnectionId;
use crate::relay::item::Item;
use crate::relay::notice_queue::NoticeNumber;
use crate::store::PutSeq;

/// What follows from a commit.
#[derive(Debug)]
pub(super) enum Pending {
    /// The sender of an item gets its Ack.
    Item { recipient: DeviceId, seq: Seq },
    /// A message has left the store: its sender gets the Acks that the sender waits for.
    Acks(Acks),
    /// Something has left the store: the notice of that leaves for its device.
    Notice(Box<(DeviceId, Item)>),
    /// Nothing: the notice has left already.
    NoticeOnItsWay { device: DeviceId, number: NoticeNumber, seq: Seq },
    /// A connection resumes whose device has changed its token.
    Renewal(ConnectionId),
    /// A connection whose device has ended is closed.
    Unregistration(ConnectionId),
}

/// Equal Acks of one message: one for the message, and one for each repeat.
#[derive(Debug, Clone, Copy)]
pub(super) struct Acks {
    pub to: DeviceId,
    pub id: MessageId,
    pub status: Option<Status>,
    pub number: u32,
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

    /// The notices that wait, for the audit.
    pub fn notices(&self) -> impl Iterator<Item = &Item> {
        self.puts.iter().filter_map(|(_, pending)| match pending {
            Pending::Notice(waiting) => Some(&waiting.1),
            _ => None,
        })
    }

    pub fn len(&self) -> usize {
        self.puts.len()
    }
}
