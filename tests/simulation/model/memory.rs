//! The messages that a device has sent: what a repeat counts as, and its answer.

use sealpost::clock::{Moment, Now};
use sealpost::protocol::encode::Status;
use sealpost::protocol::id::MessageId;
use sealpost::store::records::Fingerprint;

use super::{Dev, Device, Message, Model, Nr, Reply, State, unix_at};
use crate::store::Notebook;
use crate::tally::Place;

/// What a repeat counts as.
#[derive(Debug, PartialEq, Eq)]
pub enum Memory {
    New,
    Same,
    Other,
    /// The message may or may not have been forgotten.
    Unsure,
}

/// A message that was sent, as its sender may repeat it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) content: u64,
    pub(super) at: u64,
    pub(super) nth: u64,
    pub(super) item: Nr,
    /// The message was sent before the last restart.
    pub(super) is_old: bool,
}

impl Device {
    pub(super) fn remember(&mut self, to: Dev, id: MessageId, sent: Sent) {
        self.sends += 1;
        self.sent.insert((to, id), Sent { nth: self.sends, ..sent });
    }
}

impl Model {
    pub fn memory(&self, now: Now, from: Dev, to: Dev, id: MessageId, content: u64) -> Memory {
        let sender = &self.devices[from];
        let Some(sent) = sender.sent.get(&(to, id)) else { return Memory::New };
        let age = now.mono - Moment(sent.at);
        if age >= self.rules.dedup_window || sender.sends - sent.nth > 500 {
            return Memory::Unsure;
        }
        if sent.content == content { Memory::Same } else { Memory::Other }
    }

    pub fn same_content(&self, from: Dev, to: Dev, id: MessageId) -> Option<u64> {
        self.devices[from].sent.get(&(to, id)).map(|sent| sent.content)
    }

    /// A message was accepted under its name.
    pub(super) fn remember(&mut self, now: Now, from: Dev, to: Dev, nr: Nr, message: &Message) {
        let (content, at) = (message.content, now.mono.0);
        let sent = Sent { content, at, nth: 0, item: nr, is_old: false };
        self.devices[from].remember(to, message.id, sent);
        let print = Fingerprint::new(self.devices[from].id, message.to_id, message.id, content);
        self.prints.insert((from, print.key, print.content), nr);
        self.items[nr].content = content;
    }

    /// A repeat gets the answer of the first message, unless that answer is still to come.
    pub(super) fn repeated(
        &mut self,
        now: Now,
        from: Dev,
        to: Dev,
        id: MessageId,
        store: &mut Notebook,
    ) {
        let sent = &self.devices[from].sent[&(to, id)];
        if sent.is_old {
            self.tally.reach(Place::Repeat);
        }
        let nr = sent.item;
        let receipts = self.devices[from].receipts;
        let item = &mut self.items[nr];
        if receipts
            && !item.receipts
            && store.replaced.pop_front_if(|seq| *seq == item.mark).is_some()
        {
            // The router has not noticed yet that the message is over, if it is.
            assert!(item.is_kept() && matches!(item.state, State::Waiting | State::Flying));
            self.tally.reach(Place::ReceiptsTurnedOn);
            item.receipts_since = Some(store.step());
            item.receipts = true;
        } else if matches!(item.state, State::Waiting | State::Flying) && !item.is_over(now) {
            let must_be_replaced = receipts && !item.receipts && item.is_kept();
            assert!(!must_be_replaced, "a restart forgets that {item:?} has receipts");
            item.receipts |= receipts;
        }
        let conn = self.conn(from);
        let ack = |status| (conn.id, Reply::Ack(id, receipts.then_some(status)));
        let item = &self.items[nr];
        match item.state {
            State::Delivered => {
                // A session can be over on disk while an item for it is still stored: then no device confirms the item.
                let by_confirm = item.by_confirm && self.devices[item.to].resumable;
                let status = if by_confirm { Status::Processed } else { Status::Delivered };
                let status = receipts.then_some(status);
                self.ack_left((from, id, status), 1, (nr, receipts), store);
            }
            State::Waiting | State::Flying if item.owed == 0 => {
                let ack = ack(Status::Queued(unix_at(now, item.deadline)));
                // The relay may or may not have noticed yet that the message has expired.
                let over = item.is_over(now);
                if over { &mut self.possible_replies } else { &mut self.expected_replies }
                    .push(ack);
            }
            State::Waiting | State::Flying => {
                self.items[nr].owed += 1;
            }
            State::Aside => {}
            State::Expired | State::Refused | State::Lost | State::Held | State::Dropped => {
                panic!("it came to nothing")
            }
        }
    }
}
