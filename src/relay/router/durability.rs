//! What survives a restart, and what follows from the reports of the store.

use std::ops::Range;
use std::sync::Arc;

use super::access::is_alive;
use super::directory::Slot;
use super::pending::{Acks, Pending};
use super::{Router, STEP_ENTRIES};
use crate::clock::Now;
use crate::protocol::encode::Status;
use crate::protocol::envelope::{AccessKey, Origin, Seq, Subject};
use crate::protocol::frame::Accept;
use crate::protocol::id::{DeviceId, MessageId, Recipient};
use crate::protocol::refusal::{CloseReason, ErrorContext, Refusal};
use crate::relay::command::TokenHash;
use crate::relay::delivery::{Delivery, Step};
use crate::relay::item::Item;
use crate::relay::on_demand::Empty as _;
use crate::relay::rate_limit::{Allowance, whole_ms};
use crate::store::boots::{BootTime, Boots};
use crate::store::history::History;
use crate::store::records::{CorrespondentRecord, DeviceRecord, Fingerprint, MessageRecord};
use crate::store::{Loaded, PutOutcome, PutSeq};

/// Where the puts after a failure have got to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Recovery {
    slot: Slot,
    part: Part,
    /// The last notice or item of the part that was visited.
    after: u64,
}

/// A part of what waits for a device.
#[derive(Debug, Clone, Copy, Default)]
enum Part {
    #[default]
    Notices,
    Waiting,
}

impl Router {
    /// Restores what a store has kept, before any device is connected. Each device gets an allowance of its own, by the name of
    /// its access token.
    pub fn restore(
        &mut self,
        now: Now,
        loaded: Loaded,
        mut allowance: impl FnMut(Option<&Arc<str>>) -> Arc<Allowance>,
    ) {
        self.hash_key = loaded.hash_key;
        self.boot = loaded.boots.current().number;
        for device in loaded.devices {
            self.restore_device(now, &loaded.boots, device, &mut allowance);
        }
        self.restore_correspondents(loaded.correspondents);
        self.next_seq = self.next_seq.max(loaded.next_seq);
        for fingerprint in loaded.fingerprints {
            self.restore_fingerprint(now, fingerprint, 0);
        }
        for record in loaded.messages {
            if self.directory.find(record.to).is_none() {
                // A plain device that was connected until the process ended: it cannot come back, but its senders get their
                // notices.
                let device = DeviceRecord {
                    id: record.to,
                    token: None,
                    next_token: None,
                    accept: Accept::Anyone,
                    forget_at: None,
                    origin: Origin::NONE,
                    used: true,
                    receipts: false,
                    registered_at: 0,
                    blocked: false,
                    access: None,
                    history: History::default(),
                };
                self.restore_device(now, &loaded.boots, device, &mut allowance);
            }
            self.restore_message(now, &loaded.boots, record);
        }
    }

    /// The store has committed everything through `through`: senders that wait for an Ack get it.
    pub fn committed(&mut self, step: &mut Step, through: PutSeq) {
        self.on_report(step, through, true);
    }

    /// The store has failed to commit what came since its last report, through `through`: senders that wait for an Ack are
    /// refused.
    pub fn failed(&mut self, step: &mut Step, through: PutSeq) {
        self.on_report(step, through, false);
    }

    /// What follows from the store's report on everything through `through`.
    fn on_report(&mut self, step: &mut Step, through: PutSeq, is_committed: bool) {
        while let Some(pending) = self.pending.pop_through(through) {
            match pending {
                Pending::Item { recipient, seq } => match self.directory.find(recipient) {
                    Some(slot) if is_committed => self.ack_queued(step, slot, seq),
                    Some(slot) => self.refuse_unstored(step, slot, seq),
                    None => {}
                },
                Pending::Acks(acks) => self.send_acks(step, acks),
                Pending::Notice(notice) => self.release_notice(step, *notice, is_committed),
                Pending::NoticeOnItsWay { device, number, seq } if !is_committed => {
                    self.notice_is_unstored(device, number, seq);
                }
                Pending::NoticeOnItsWay { .. } => {}
                Pending::Renewal(connection) => {
                    self.resume_renewed(step, connection, is_committed);
                }
                Pending::Unregistration(connection) if is_committed => {
                    step.deliver(connection, Delivery::Close(CloseReason::Unregistered));
                }
                Pending::Unregistration(connection) => self.unregistered.push(connection),
            }
        }
    }

    /// The store takes writes again: what should be stored and is not is put once more, in the steps of
    /// [`Self::continue_work`].
    pub fn recovered(&mut self, step: &mut Step) {
        self.recovery = Some(Recovery::default());
        for connection in std::mem::take(&mut self.unregistered) {
            self.close_unregistered(step, connection);
        }
    }

    /// Whether there is work for [`Self::continue_work`].
    pub fn is_unfinished(&self) -> bool {
        self.recovery.is_some() || !self.unfinished.is_empty() || !self.ending.is_empty()
    }

    /// One step of work that was too long for the step in which it began.
    pub fn continue_work(&mut self, step: &mut Step) {
        if let Some(slot) = self.unfinished.pop() {
            if self.directory.get(slot).is_some() {
                self.remove_settled(slot);
            }
        } else if !self.ending.is_empty() {
            self.continue_ending(step);
        } else {
            self.continue_recovery(step);
        }
    }

    fn continue_recovery(&mut self, step: &mut Step) {
        let mut visits = STEP_ENTRIES;
        while visits > 0
            && let Some(Recovery { slot, part, after }) = self.recovery
        {
            if slot as usize >= self.directory.capacity() {
                self.recovery = None;
                return;
            }
            let next_device = Recovery { slot: slot + 1, ..Recovery::default() };
            let Some(device) = self.directory.get(slot) else {
                visits -= 1;
                self.recovery = Some(next_device);
                continue;
            };
            if matches!(part, Part::Notices) {
                let more = self.store_notices(slot, after);
                let next = Recovery { slot, part: Part::Waiting, after: 0 };
                self.recovery = Some(more.map_or(next, |after| Recovery { slot, part, after }));
                visits = if more.is_some() { 0 } else { visits };
                continue;
            }
            let in_flight = device.mailbox.in_flight();
            let first = device.mailbox.place_after(after).max(in_flight);
            let end = device.mailbox.places().min(first + visits);
            if let Some(last) = end.checked_sub(1).and_then(|last| device.mailbox.seq_at(last))
                && first < end
            {
                visits -= end - first;
                self.recovery = Some(Recovery { slot, part, after: last });
                self.store_places(step, slot, first..end);
                continue;
            }
            // At most a window.
            visits = visits.saturating_sub(1 + in_flight);
            self.recovery = Some(next_device);
            self.store_places(step, slot, 0..in_flight);
        }
    }

    /// Puts the items in some places of a mailbox, except those that are stored already. An item in flight that is rejected
    /// stays in flight.
    pub(super) fn store_places(&mut self, step: &mut Step, slot: Slot, places: Range<usize>) {
        let Self { directory, store, pending, boot, .. } = self;
        let device = &mut directory[slot];
        let is_resumable = device.is_resumable();
        let (mut durable, mut rejected) = (Vec::new(), Vec::new());
        let unstored = device.mailbox.unstored(places);
        for item in unstored.filter(|item| item.must_be_stored(is_resumable)) {
            let outcome = store.put(item.record(*boot, device.id), pending.next());
            item.stored = outcome != PutOutcome::Rejected;
            match outcome {
                PutOutcome::Durable => durable.push(item.seq),
                PutOutcome::Pending => {
                    pending.push(Pending::Item { recipient: device.id, seq: item.seq });
                }
                PutOutcome::Rejected => rejected.push(item.seq),
            }
        }
        for seq in durable {
            self.ack_queued(step, slot, seq);
        }
        for seq in rejected {
            self.refuse_unstored(step, slot, seq);
        }
    }

    /// The store does not have an item. If the item is not in flight and its sender waits for an Ack, the item is withdrawn and
    /// the sender refused. An item that was acked, or is in flight, stays for as long as the process lives.
    pub(super) fn refuse_unstored(&mut self, step: &mut Step, slot: Slot, seq: Seq) {
        let device = &mut self.directory[slot];
        let recipient = device.id;
        let Some(item) = device.mailbox.get_mut(seq) else { return };
        item.stored = false;
        if item.in_flight || item.owed_acks == 0 {
            return;
        }
        let Some(item) = device.mailbox.withdraw(seq) else { return };
        self.counters.withdrawn(&item);
        let (from, subject) = (item.envelope.from, &item.envelope.subject);
        if let Subject::Message(id) = *subject {
            self.forget_send(from, recipient, id);
        }
        if let Some(connection) = self.directory.connection_of(from) {
            let letters = item.envelope.recipient_letters;
            let recipient = Recipient { id: recipient, letters };
            let context = ErrorContext::about(Some(subject), Some(recipient));
            for _ in 0..item.owed_acks {
                step.refuse(connection, Refusal::Full, context.clone());
            }
        }
        self.dispatch(step, slot);
    }

    /// Stores who a device is, and until when.
    pub(super) fn store_device(&mut self, slot: Slot) {
        let device = &self.directory[slot];
        let token = device.token.map(|TokenHash(hash)| hash);
        let forget_at = device.forget_at.map(|at| BootTime { boot: self.boot, at });
        self.store.put_device(DeviceRecord {
            id: device.id,
            token,
            next_token: device.next_token.as_ref().map(|token| token.0),
            forget_at,
            origin: device.origin,
            used: device.used,
            accept: device.accept,
            receipts: device.receipts,
            registered_at: device.registered_at,
            blocked: device.blocked,
            access: self.access.name(device.access).map(|name| (&**name).into()),
            history: *device.history,
        });
    }

    /// A `Send` came to nothing: its sender may use the message id again.
    pub(super) fn forget_send(&mut self, sender: DeviceId, recipient: DeviceId, id: MessageId) {
        if let Some(slot) = self.directory.find(sender) {
            let dedup = &mut self.directory[slot].dedup;
            dedup.forget(recipient, id);
            dedup.trim();
        }
    }

    /// A message is stored: its sender gets the Ack, if the sender waits for one. For an item that has left the mailbox, the
    /// sender got the Ack at delivery, or gets a notice of the expiry.
    fn ack_queued(&mut self, step: &mut Step, slot: Slot, seq: Seq) {
        let Some(item) = self.directory[slot].mailbox.get_mut(seq) else { return };
        let acks = std::mem::take(&mut item.owed_acks);
        if acks == 0 {
            return;
        }
        let Subject::Message(id) = item.envelope.subject else { return };
        if let Some(age) = item.age(step.now.mono) {
            self.times.ack.observe(age);
        }
        let (from, receipts) = (item.envelope.from, item.envelope.receipts);
        let status = Status::Queued(step.now.unix_at(item.deadline));
        let status = (receipts && self.wants_receipts(from)).then_some(status);
        self.send_acks(step, Acks { to: from, id, status, number: acks });
    }

    fn restore_device(
        &mut self,
        now: Now,
        boots: &Boots,
        record: DeviceRecord,
        mut allowance: impl FnMut(Option<&Arc<str>>) -> Arc<Allowance>,
    ) {
        let DeviceRecord { id, token, next_token, forget_at, origin, used, .. } = record;
        let access = record.access.as_deref().map(Arc::<str>::from);
        let access = access.map_or(AccessKey::NONE, |name| self.access.key_of(&name));
        let allowance = allowance(self.access.name(access));
        let inserted = self.directory.insert(id, token.map(TokenHash), origin, allowance);
        let Ok(slot) = inserted else { return };
        self.origins.added(origin);
        self.directory.set_next_token(slot, next_token.map(TokenHash));
        let device = &mut self.directory[slot];
        device.used = used;
        device.accept = record.accept;
        device.receipts = record.receipts;
        device.registered_at = record.registered_at;
        device.blocked = record.blocked;
        device.access = access;
        if !record.history.is_empty() {
            *device.history = record.history;
        }
        if is_alive(device) {
            self.access.added(access);
        }
        let session = &self.settings.session;
        let absence = if token.is_some() { session.ttl } else { session.plain_ttl };
        // A device that was connected when the process ended is absent from now on.
        let moment = forget_at.map_or(now.mono + absence, |at| boots.moment(now, at, absence));
        let device = &mut self.directory[slot];
        self.expiry.forget_later(slot, device, moment);
        if forget_at.is_none() {
            // The end is written now: the device must not get another absence at the next start.
            let forget_at = Some(BootTime { boot: self.boot, at: moment });
            self.store.put_device(DeviceRecord { forget_at, ..record });
        }
        let absent_for = absence.saturating_sub(moment - now.mono);
        // Before this boot, if its uptime is shorter.
        let since = now.boot_ms().saturating_sub_unsigned(whole_ms(absent_for));
        self.origins.may_forget(slot, device, since);
    }

    /// Restores the correspondents of devices that are known.
    fn restore_correspondents(&mut self, mut records: Vec<CorrespondentRecord>) {
        records.sort_unstable_by_key(|record| record.number);
        for CorrespondentRecord { device, number, hash } in records {
            let Some(slot) = self.directory.find(device) else { continue };
            let device = &mut self.directory[slot];
            let before = device.correspondents.len();
            device.correspondents.restore(number, hash);
            if device.correspondents.len() > before {
                self.counters.correspondent_added(device.origin);
            }
        }
    }

    fn restore_fingerprint(&mut self, now: Now, fingerprint: Fingerprint, seq: Seq) {
        if let Some(slot) = self.directory.find(fingerprint.sender) {
            let window = self.settings.queue.dedup_window;
            self.directory[slot].dedup.remember(now.mono, window, fingerprint, seq);
        }
    }

    fn restore_message(&mut self, now: Now, boots: &Boots, record: MessageRecord) {
        let deadline = record.deadline(boots, now);
        let MessageRecord { seq, to, mut envelope, .. } = record;
        let Some(slot) = self.directory.find(to) else { return };
        if envelope.subject.takes_room()
            && let Some(sender) = self.directory.find(envelope.from)
        {
            // The bytes of a sender that is no longer known are nobody's.
            envelope.access = self.directory[sender].access;
        }
        if let Subject::Message(id) = envelope.subject {
            let fingerprint = Fingerprint::new(envelope.from, to, id, envelope.content);
            self.restore_fingerprint(now, fingerprint.with_ttl(envelope.ttl), seq);
        }
        let device = &mut self.directory[slot];
        let item =
            Item { stored: true, ..Item::new(seq, deadline, envelope, device.is_resumable()) };
        self.counters.accepted(&item, false);
        self.origins.keep(slot, device);
        device.used = true;
        if item.envelope.subject.takes_room() {
            device.mailbox.push_waiting(item);
            self.expiry.schedule(slot, device);
        } else {
            device.notices.push(item);
        }
    }
}
