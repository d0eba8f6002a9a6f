//! The expected effects of messages, Acks and key rotations of a device.

use sealpost::clock::Now;
use sealpost::protocol::envelope::{ENVELOPE_OVERHEAD, Subject};
use sealpost::protocol::id::MessageId;
use sealpost::protocol::refusal::{ExpiredKind as What, Refusal};
use sealpost::protocol::{encode::Status, refusal::ErrorContext};

use super::{Dev, Item, Kind, Memory, Message, Model, Nr, Reply, SECOND, State, unix_at};
use crate::store::Notebook;
use crate::tally::Place;

impl Model {
    /// What an Ack may settle.
    pub fn confirmable(&self, dev: Dev, id: MessageId, from: Option<Dev>) -> Vec<Nr> {
        self.seen_by(dev, |item| {
            item.kind.is_message(id) && from.is_none_or(|from| from == item.from)
        })
    }

    /// What a `KeyRotationAck` may settle.
    pub fn confirmable_keys(&self, dev: Dev, from: Dev, key: u64) -> Vec<Nr> {
        self.seen_by(dev, |item| {
            matches!(item.kind, Kind::Key(known) if known == key) && item.from == from
        })
    }

    pub fn acked(
        &mut self,
        now: Now,
        dev: Dev,
        candidates: &[Nr],
        delivered: bool,
        strays: u32,
        store: &mut Notebook,
    ) {
        if self.first_confirmed(now, candidates, delivered) {
            self.conn_mut(dev).stale = false;
            assert_eq!(strays, 0, "a matched Ack is reported as unmatched");
            self.proves_earlier(dev, candidates[0]);
            self.settle(now, candidates[0], Status::Processed, store);
        } else {
            // Whether it counts against the device depends on earlier deliveries to it: see the router's own tests.
            assert!(strays <= 1, "one Ack is reported as several unmatched ones");
            self.unmatched_acks += 1;
        }
    }

    pub fn sent(&mut self, now: Now, from: Dev, message: &Message, store: &mut Notebook) {
        let conn = self.conn(from).id;
        let about =
            ErrorContext::about(Some(&Subject::Message(message.id)), Some(message.to_id.into()));
        let refuse = |model: &mut Self, refusal| {
            model.expected_replies.push((conn, Reply::Refused(refusal, about.clone())));
        };
        self.addresses(now, from, message.to_id);
        let Some(to) = message.to.filter(|to| self.devices[*to].is_present(now)) else {
            return refuse(self, Refusal::UnknownRecipient);
        };
        match self.memory(now, from, to, message.id, message.content) {
            Memory::New => {}
            Memory::Same => return self.repeated(now, from, to, message.id, store),
            Memory::Other => {
                if self.devices[from].sent[&(to, message.id)].is_old {
                    self.tally.reach(Place::OtherContent);
                }
                return refuse(self, Refusal::OtherContent);
            }
            Memory::Unsure => panic!("the driver avoids what is undefined"),
        }
        let ttl = message.ttl.unwrap_or(self.rules.default_ttl).min(self.rules.max_ttl);
        let bytes = message.body.len() as u64 + ENVELOPE_OVERHEAD;
        let flies = self.can_take(to, bytes);
        if ttl == 0 && !flies {
            return refuse(self, Refusal::Expired(What::Message(message.id), 0));
        }
        if let Some(refusal) = self.no_room(now, from, to, bytes, false) {
            return refuse(self, refusal);
        }
        let receipts = self.devices[from].receipts;
        self.meet(from, to);
        let deadline = now.mono.0 + ttl * SECOND;
        let kind = Kind::Message(message.id);
        let nr =
            self.accept(kind, from, to, ttl, deadline, message.body.as_bytes(), receipts, store);
        if self.items[nr].owed == 0 {
            let status = receipts.then(|| Status::Queued(unix_at(now, deadline)));
            self.expected_replies.push((conn, Reply::Ack(message.id, status)));
        }
        self.remember(now, from, to, nr, message);
    }

    pub fn key_rotated(
        &mut self,
        now: Now,
        from: Dev,
        to: Dev,
        key: u64,
        body: &str,
        store: &mut Notebook,
    ) {
        self.rotate(now, from, to, Kind::Key(key), body, store);
    }

    pub fn key_acked(
        &mut self,
        now: Now,
        dev: Dev,
        to: Dev,
        key: u64,
        body: &str,
        candidates: &[Nr],
        delivered: bool,
        store: &mut Notebook,
    ) {
        let confirmed = self.first_confirmed(now, candidates, delivered);
        if confirmed {
            self.conn_mut(dev).stale = false;
            self.proves_earlier(dev, candidates[0]);
            self.settle(now, candidates[0], Status::Processed, store);
        }
        self.rotate(now, dev, to, Kind::KeyAck(key), body, store);
    }

    fn rotate(
        &mut self,
        now: Now,
        from: Dev,
        to: Dev,
        kind: Kind,
        body: &str,
        store: &mut Notebook,
    ) {
        let (Kind::Key(key) | Kind::KeyAck(key)) = kind else { panic!("not a key") };
        let adds_key = matches!(kind, Kind::Key(_));
        if adds_key {
            let id = self.devices[to].id;
            self.addresses(now, from, id);
        }
        let refusal = if self.devices[to].is_present(now) {
            let key_bytes = key.to_string().len() as u64;
            let bytes = body.len() as u64 + key_bytes + ENVELOPE_OVERHEAD;
            self.no_room(now, from, to, bytes, adds_key)
        } else {
            Some(Refusal::UnknownRecipient)
        };
        if let Some(refusal) = refusal {
            let about = ErrorContext::about(
                Some(&Subject::KeyRotation(key.to_string().into())),
                Some(self.devices[to].id.into()),
            );
            self.expected_replies.push((self.conn(from).id, Reply::Refused(refusal, about)));
            return;
        }
        self.meet(from, to);
        let ttl = self.rules.key_rotation_ttl;
        let deadline = now.mono.0 + ttl * SECOND;
        self.accept(kind, from, to, ttl, deadline, body.as_bytes(), false, store);
    }

    /// Whether the first candidate was confirmed. A sweep may have found an expired candidate already.
    fn first_confirmed(&self, now: Now, candidates: &[Nr], delivered: bool) -> bool {
        let must = candidates.first().is_some_and(|nr| self.items[*nr].deadline > now.mono.0);
        let can = !candidates.is_empty();
        assert!(delivered || !must, "an Ack is taken for a stray one");
        assert!(!delivered || can, "an Ack settles what its device never had");
        delivered
    }

    fn seen_by(&self, dev: Dev, fits: impl Fn(&Item) -> bool) -> Vec<Nr> {
        let queue = self.devices[dev].queue.iter().copied();
        queue
            .filter(|nr| {
                let item = &self.items[*nr];
                let there = matches!(item.state, State::Waiting | State::Flying);
                there && item.seen && item.by_confirm && fits(item)
            })
            .collect()
    }
}
