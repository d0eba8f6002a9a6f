//! The expected effects when the store commits, fails and recovers.

use std::collections::{BTreeMap, BTreeSet};

use sealpost::clock::Now;
use sealpost::protocol::encode::Status;
use sealpost::protocol::envelope::Subject;
use sealpost::protocol::refusal::{ErrorContext, Refusal};
use sealpost::relay::command::ConnectionId;
use sealpost::relay::delivery::Delivery;
use sealpost::store::{PutOutcome, PutSeq};

use super::{Care, Kind, Model, Nr, Pending, Reply, State, stored, unix_at};
use crate::store::{Notebook, Put};
use crate::tally::Place;

impl Model {
    /// The item was put.
    pub(super) fn put(&mut self, nr: Nr, store: &mut Notebook) -> PutOutcome {
        let Some(put) = store.log.pop_front() else {
            panic!("the store was not asked to keep {:?}", self.items[nr]);
        };
        self.was_put(store.boot(), nr, &put)
    }

    fn was_put(&mut self, boot: u32, nr: Nr, put: &Put) -> PutOutcome {
        match self.fits(boot, nr, put) {
            PutOutcome::Durable => {}
            PutOutcome::Pending => self.pending.push_back((put.put_seq, Pending::Item(nr))),
            PutOutcome::Rejected => self.is_refused(nr),
        }
        put.kept
    }

    /// The item was put as it should be.
    pub(super) fn fits(&mut self, boot: u32, nr: Nr, put: &Put) -> PutOutcome {
        let item = &mut self.items[nr];
        let fits = put.body.as_bytes() == &*item.body
            && put.expires_at == stored(boot, item.deadline)
            && put.to == self.devices[item.to].id
            && put.notice_bytes == item.notice_bytes()
            && item.mark == put.seq;
        assert!(fits && !item.is_kept(), "the store keeps another than {item:?}");
        item.care = match put.kept {
            PutOutcome::Durable => Care::Safe,
            PutOutcome::Pending => Care::Asked(put.put_seq),
            PutOutcome::Rejected => Care::Refused,
        };
        put.kept
    }

    /// The store rejected the item. A connection may still get it later in the event.
    fn is_refused(&mut self, nr: Nr) {
        let sender = &self.devices[self.items[nr].from];
        self.unplaced.push((nr, sender.conn.as_ref().map(|conn| conn.id)));
    }

    /// An item that the store rejected in this event, and that no connection got, goes back to its sender.
    pub(super) fn place(&mut self, deliveries: &[(ConnectionId, Delivery)]) {
        for (nr, conn) in std::mem::take(&mut self.unplaced) {
            let place = self.items[nr].mark;
            let mut deliveries = deliveries.iter();
            if !deliveries.any(
                |(_, delivery)| matches!(delivery, Delivery::Frame { seq, .. } if *seq == place),
            ) {
                self.give_back(nr, conn);
            }
        }
    }

    /// An item that no connection and no store has is given back, if its sender still waits for an answer.
    fn give_back(&mut self, nr: Nr, conn: Option<ConnectionId>) {
        let item = &mut self.items[nr];
        if item.state != State::Waiting || item.owed == 0 {
            self.tally.reach(Place::KeptInMemory);
            return;
        }
        self.tally.reach(Place::GivenBack);
        item.state = State::Refused;
        let refusals = item.owed;
        let (from, to, kind) = (item.from, item.to, item.kind);
        self.accepted -= 1;
        self.devices[to].queue.retain(|other| *other != nr);
        let to_id = self.devices[to].id;
        let about = match kind {
            Kind::Message(id) => {
                self.devices[from].sent.remove(&(to, id));
                ErrorContext::about(Some(&Subject::Message(id)), Some(to_id.into()))
            }
            Kind::Key(key) | Kind::KeyAck(key) => ErrorContext::about(
                Some(&Subject::KeyRotation(key.to_string().into())),
                Some(to_id.into()),
            ),
            Kind::Auth | Kind::Notice(_) => panic!("nobody waits for an answer to {kind:?}"),
        };
        if let Some(conn) = conn {
            for _ in 0..refusals {
                self.expected_replies.push((conn, Reply::Refused(Refusal::Full, about.clone())));
            }
        }
    }

    /// Acknowledges a stored item to its sender, if the sender waits for it.
    pub(super) fn ack_kept(&mut self, now: Now, nr: Nr) {
        let item = &mut self.items[nr];
        let there = matches!(item.state, State::Waiting | State::Flying);
        if !there {
            return;
        }
        let acks = std::mem::take(&mut item.owed);
        let Kind::Message(id) = item.kind else { return };
        let from = item.from;
        let wants = item.receipts && self.devices[from].receipts;
        let status = wants.then(|| Status::Queued(unix_at(now, self.items[nr].deadline)));
        self.acks(from, id, status, acks);
    }

    fn next_pending(&mut self, through: PutSeq) -> Option<Pending> {
        let (_, pending) = self.pending.pop_front_if(|(put_seq, _)| *put_seq <= through)?;
        Some(pending)
    }

    /// The store has committed every put through `through`.
    pub fn committed(&mut self, now: Now, through: PutSeq) {
        while let Some(pending) = self.next_pending(through) {
            match pending {
                Pending::Item(nr) => {
                    self.items[nr].care = Care::Safe;
                    self.ack_kept(now, nr);
                }
                Pending::Notice(nr) => self.released(nr, true),
                Pending::Left(nr) => self.unstored(nr, true),
                Pending::Acks(to, id, status, acks, nr) => {
                    self.items[nr].is_over_for_good = true;
                    self.acks(to, id, status, acks);
                }
            }
        }
    }

    /// The store has lost the uncommitted puts through `through`.
    pub fn failed(&mut self, through: PutSeq) {
        while let Some(pending) = self.next_pending(through) {
            match pending {
                Pending::Item(nr) => {
                    let item = &mut self.items[nr];
                    item.care = Care::Refused;
                    item.lost_aside = item.state == State::Aside;
                    self.is_refused(nr);
                }
                Pending::Notice(nr) => self.released(nr, false),
                Pending::Left(nr) => self.unstored(nr, false),
                Pending::Acks(to, id, status, acks, _) => self.acks(to, id, status, acks),
            }
        }
    }

    /// The store works again: every rejected item that is still here must have been put again.
    pub fn recovered(&mut self, now: Now, store: &mut Notebook) {
        let mut refused = BTreeMap::new();
        for dev in &self.live {
            let device = &self.devices[*dev];
            for nr in &device.queue {
                let item = &self.items[*nr];
                let needs = match item.state {
                    State::Waiting => item.must_be_stored(device.resumable),
                    State::Flying => item.by_confirm,
                    _ => false,
                };
                if needs && !item.is_kept() {
                    refused.insert(item.mark, *nr);
                }
            }
            for nr in &device.notices {
                let item = &self.items[*nr];
                let is_here = matches!(item.state, State::Waiting | State::Flying);
                if device.resumable && is_here && !item.is_kept() {
                    refused.insert(item.mark, *nr);
                }
            }
        }
        let mut safe = Vec::new();
        while let Some(put) = store.log.pop_front() {
            let Some(nr) = refused.remove(&put.seq) else { panic!("{} is put anew", put.seq) };
            self.tally.reach(Place::PutAnew);
            if matches!(self.items[nr].kind, Kind::Notice(_)) {
                if self.fits(store.boot(), nr, &put) == PutOutcome::Pending {
                    self.pending.push_back((put.put_seq, Pending::Left(nr)));
                }
                continue;
            }
            if self.was_put(store.boot(), nr, &put) == PutOutcome::Durable {
                safe.push(nr);
            }
        }
        let missed = refused.values().next().map(|nr| &self.items[*nr]);
        assert!(missed.is_none(), "not put anew: {missed:?}");
        for nr in safe {
            self.ack_kept(now, nr);
        }
    }

    /// Checks that the store has exactly the records that the model expects.
    pub fn recount(&self, store: &Notebook) {
        let devices = self.live.iter().map(|dev| &self.devices[*dev]);
        let all = devices.flat_map(|device| device.queue.iter().chain(&device.notices));
        let all = all.map(|nr| &self.items[*nr]).chain(self.held_notices());
        let kept = all.filter(|item| item.is_kept());
        let kept: BTreeSet<_> = kept.map(|item| item.mark).collect();
        assert_eq!(store.live, kept, "the records of the store differ");
    }
}
