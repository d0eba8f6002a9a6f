//! What outlives the process, and what follows when the store says that it does or does not.

use super::{Router, record};
use crate::clock::Now;
use crate::protocol::encode::Status;
use crate::protocol::envelope::{Seq, Subject};
use crate::protocol::id::DeviceId;
use crate::protocol::refusal::{ErrorContext, Refusal};
use crate::relay::command::{Deliveries, Delivery, TokenHash};
use crate::relay::item::Item;
use crate::store::records::{DeviceRecord, Fingerprint, MessageRecord};
use crate::store::{Loaded, PutOutcome, PutSeq, Store};

impl<S: Store, L: Clone> Router<S, L> {
    /// Takes up what a store kept, before anybody is connected. Each device gets a lease of its own.
    pub fn restore(&mut self, now: Now, loaded: Loaded, mut lease: impl FnMut() -> L) {
        for device in loaded.devices {
            self.restore_device(now, device, &mut lease);
        }
        self.next_seq = self.next_seq.max(loaded.next_seq);
        let window = self.rules.dedup_window;
        for print in loaded.fingerprints {
            if let Some(slot) = self.slot_of(print.sender) {
                self.device(slot).dedup.remember(now.mono, window, print);
            }
        }
        for record in loaded.messages {
            self.restore_record(now, record, &mut lease);
        }
    }

    /// The store has everything through a turn: whoever waits for an Ack gets it.
    pub fn committed(&mut self, now: Now, through: PutSeq, out: &mut Deliveries<L>) {
        while let Some((recipient, seq)) = self.next_pending(through) {
            if let Some(slot) = self.slot_of(recipient) {
                self.ack_queued(now, slot, seq, out);
            }
        }
    }

    /// The store could not keep what came since its last commit, through a turn: whoever waits for an Ack is refused.
    pub fn failed(&mut self, now: Now, through: PutSeq, out: &mut Deliveries<L>) {
        while let Some((recipient, seq)) = self.next_pending(through) {
            if let Some(slot) = self.slot_of(recipient) {
                self.refuse_unstored(now, slot, seq, out);
            }
        }
    }

    /// The store keeps again: what waits and was not kept is put once more.
    pub fn recovered(&mut self, now: Now, out: &mut Deliveries<L>) {
        let slots: Vec<u32> = self.by_id.values().copied().collect();
        for slot in slots {
            let waiting = self.device(slot).mailbox.waiting_places();
            self.store_waiting(now, slot, waiting, out);
            self.store_in_flight(now, slot, out);
        }
    }

    /// Has the first so many of what waits for a device kept, as far as they are not.
    pub(super) fn store_waiting(
        &mut self,
        now: Now,
        slot: u32,
        first: usize,
        out: &mut Deliveries<L>,
    ) {
        let Self { devices, store, pending, last_put, .. } = self;
        let device = &mut devices[slot as usize];
        let resumable = device.token.is_some();
        let (mut acked, mut refused) = (Vec::new(), Vec::new());
        for item in device.mailbox.unstored(first).filter(|item| item.must_be_stored(resumable)) {
            last_put.0 += 1;
            match store.put(record(now, item, device.id), *last_put) {
                PutOutcome::Durable => {
                    item.stored = true;
                    acked.push(item.seq);
                }
                PutOutcome::Pending => {
                    item.stored = true;
                    pending.push_back((*last_put, item.seq, device.id));
                }
                PutOutcome::Rejected => refused.push(item.seq),
            }
        }
        for seq in acked {
            self.ack_queued(now, slot, seq, out);
        }
        for seq in refused {
            self.refuse_unstored(now, slot, seq, out);
        }
    }

    /// The same for what is with a connection and not confirmed.
    fn store_in_flight(&mut self, now: Now, slot: u32, out: &mut Deliveries<L>) {
        let Self { devices, store, pending, last_put, .. } = self;
        let device = &mut devices[slot as usize];
        let mut acked = Vec::new();
        for item in device.mailbox.unstored_in_flight() {
            last_put.0 += 1;
            let kept = store.put(record(now, item, device.id), *last_put);
            item.stored = kept != PutOutcome::Rejected;
            match kept {
                PutOutcome::Durable => acked.push(item.seq),
                PutOutcome::Pending => pending.push_back((*last_put, item.seq, device.id)),
                PutOutcome::Rejected => {}
            }
        }
        for seq in acked {
            self.ack_queued(now, slot, seq, out);
        }
    }

    /// An item that the store does not keep: one that nobody has yet, and whose sender waits for an answer, is given
    /// back. One that was acked already, or is in flight, stays for as long as the process does.
    pub(super) fn refuse_unstored(
        &mut self,
        now: Now,
        slot: u32,
        seq: Seq,
        out: &mut Deliveries<L>,
    ) {
        let device = self.device(slot);
        let recipient = device.id;
        let Some(item) = device.mailbox.get_mut(seq) else { return };
        item.stored = false;
        if item.in_flight || !item.owes_ack {
            return;
        }
        let Some(item) = device.mailbox.withdraw(seq) else { return };
        self.account_for_leaving(&item);
        self.counts.accepted -= u64::from(item.envelope.subject.is_counted());
        let from = item.envelope.from;
        let about = match &item.envelope.subject {
            Subject::Message(id) => {
                self.forget_send(from, recipient, *id);
                ErrorContext::message(*id, recipient)
            }
            Subject::KeyRotation(key_id) | Subject::KeyRotationAck(key_id) => {
                ErrorContext::key(key_id, recipient)
            }
            Subject::Auth | Subject::Notice => return,
        };
        if let Some(conn) = self.connection_of(from) {
            out.refuse(conn, Refusal::Full, about);
        }
        self.dispatch(now, slot, out);
    }

    /// Writes down who a device is, and until when.
    pub(super) fn store_identity(&mut self, now: Now, slot: u32) {
        let device = &self.devices[slot as usize];
        let token = device.token.map(|TokenHash(hash)| hash);
        let forget_at = device.forget_at.map(|moment| now.wall_ms_at(moment));
        self.store.put_device(DeviceRecord { id: device.id, token, forget_at });
    }

    fn next_pending(&mut self, through: PutSeq) -> Option<(DeviceId, Seq)> {
        let (turn, seq, recipient) = self.pending.front().copied()?;
        if turn > through {
            return None;
        }
        self.pending.pop_front();
        Some((recipient, seq))
    }

    /// Tells a sender that its message is kept, if it waits for that. An item that has left was acked when it was
    /// delivered, or its sender is told of its expiry.
    fn ack_queued(&mut self, now: Now, slot: u32, seq: Seq, out: &mut Deliveries<L>) {
        let Some(item) = self.device(slot).mailbox.get_mut(seq) else { return };
        if !std::mem::take(&mut item.owes_ack) {
            return;
        }
        let Subject::Message(id) = item.envelope.subject else { return };
        let (from, receipts) = (item.envelope.from, item.envelope.receipts);
        let status = receipts.then(|| Status::Queued(now.unix_at(item.deadline)));
        if let Some(conn) = self.connection_of(from) {
            out.push(conn, Delivery::Ack { id, status });
        }
    }

    fn restore_device(&mut self, now: Now, device: DeviceRecord, lease: &mut impl FnMut() -> L) {
        let DeviceRecord { id, token, forget_at } = device;
        let token = token.map(TokenHash);
        let Ok(slot) = self.insert_device(id, token, lease()) else { return };
        // It was connected when the process ended, so its absence begins now.
        let absence = if token.is_some() { self.rules.session_ttl } else { self.rules.plain_ttl };
        let ends = forget_at.map_or(now.mono + absence, |at| now.deadline(at, absence));
        self.device(slot).forget_at = Some(ends);
        self.forget_at.insert((ends, slot));
    }

    fn restore_record(&mut self, now: Now, record: MessageRecord, lease: &mut impl FnMut() -> L) {
        let deadline = record.deadline(now);
        let MessageRecord { seq, to, envelope, .. } = record;
        let slot = self.slot_of(to).or_else(|| {
            // A plain device that was connected to the end and held its messages: nobody can claim it, but its
            // senders are told.
            self.restore_device(now, DeviceRecord { id: to, token: None, forget_at: None }, lease);
            self.slot_of(to)
        });
        let Some(slot) = slot else { return };
        if let Subject::Message(id) = envelope.subject
            && let Some(sender) = self.slot_of(envelope.from)
        {
            let print = Fingerprint::new(envelope.from, to, id, envelope.content);
            let print = print.handed_over_at_once(envelope.ttl == 0);
            let window = self.rules.dedup_window;
            self.device(sender).dedup.remember(now.mono, window, print);
        }
        let device = self.device(slot);
        let resumable = device.token.is_some();
        let item = Item { stored: true, ..Item::new(seq, deadline, envelope, resumable) };
        let counted = u64::from(item.envelope.subject.is_counted());
        let bytes = item.bytes();
        device.mailbox.push_waiting(item);
        self.counts.accepted += counted;
        self.counts.queued += counted;
        self.counts.queued_bytes += bytes;
        self.schedule(slot);
    }
}
