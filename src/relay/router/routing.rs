//! What registered devices send, and where it goes.

use std::time::Duration;

use bytestring::ByteString;

use super::directory::{Peers, Slot};
use super::notices::Reported;
use super::pending::Acks;
use super::{Router, frame};
use crate::clock::Moment;
use crate::protocol::encode::{self, Status};
use crate::protocol::envelope::{
    AccessKey, ENVELOPE_OVERHEAD, Envelope, NoticeKind, Origin, Seq, Subject, size,
};
use crate::protocol::frame::AuthStep;
use crate::protocol::id::{DeviceId, MessageId, Recipient};
use crate::protocol::refusal::{ErrorContext, ExpiredKind, Refusal};
use crate::relay::auth_exchange::Ended;
use crate::relay::command::{Command, ConnectionId, SendCommand};
use crate::relay::dedup::DedupResult;
use crate::relay::delivery::{Delivery, Step};
use crate::relay::mailbox_quota::Applicant;
use crate::store::records::Fingerprint;

pub(super) type Outcome = Result<(), Refusal>;

/// The device that a command comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sender {
    pub slot: Slot,
    pub id: DeviceId,
    pub connection: ConnectionId,
    pub origin: Origin,
    pub access: AccessKey,
}

impl Router {
    /// Handles the commands of a connection, in order. Those of a connection that its device has replaced change nothing.
    pub fn handle(
        &mut self,
        step: &mut Step,
        connection: ConnectionId,
        commands: impl IntoIterator<Item = Command>,
    ) {
        let Some(slot) = self.directory.find_by_connection(connection) else { return };
        self.settle_long_delivered(step, slot);
        let device = &self.directory[slot];
        if device.blocked {
            // Its connection is being closed.
            return;
        }
        let access = device.access;
        let from = Sender { slot, id: device.id, connection, origin: device.origin, access };
        for command in commands {
            let is_last = matches!(command, Command::Unregister);
            let (subject, recipient) = (command.subject(), command.recipient());
            if let Err(refusal) = self.handle_one(step, from, command) {
                if let Some(slot) = recipient.and_then(|to| self.directory.find(to.id)) {
                    self.directory[slot].history.count_refusal(step.now, refusal);
                }
                let context = ErrorContext::about(subject.as_ref(), recipient);
                step.refuse(connection, refusal, context);
            }
            if is_last {
                // The device has ended: nobody sends what follows.
                return;
            }
        }
    }

    fn handle_one(&mut self, step: &mut Step, from: Sender, command: Command) -> Outcome {
        match command {
            Command::Send(message) => return self.send(step, from, message),
            Command::Ack { message_id, sender } => self.ack(step, from, message_id, sender),
            Command::Auth { step: AuthStep::Request, recipient, body } => {
                return self.auth_request(step, from, recipient, body);
            }
            Command::Auth { step: auth_step, recipient, body } => {
                let now = step.now.mono;
                let named = recipient.map(|named| named.id);
                let (to, end) = self.exchanges.recipient_of(now, from.id, auth_step, named)?;
                // A step that found no room can be repeated.
                self.forward_auth(step, from, recipient.unwrap_or(to.into()), end, body)?;
                self.exchanges.advance(from.id, to, auth_step);
            }
            Command::AuthSuccess { recipient, body } => {
                let end = self.exchanges.verified(step.now.mono, from.id, recipient.id)?;
                return self.forward_auth(step, from, recipient, end, body);
            }
            Command::KeyRotation { recipient, key_id, body } => {
                return self.rotate_key(step, from, recipient, Subject::KeyRotation(key_id), body);
            }
            Command::KeyRotationAck { recipient, key_id, body } => {
                return self.ack_key(step, from, recipient, key_id, body);
            }
            Command::Status(presence) => self.set_presence(step, from.slot, presence),
            Command::Unregister => self.unregister(step, from),
            Command::NoticesReceived(through) => self.on_notices_received(from.slot, through),
            Command::Alive => {}
            Command::Ping => step.deliver(from.connection, Delivery::Pong),
        }
        Ok(())
    }

    /// Accepts a message for a device and answers its sender. (protocol: Send)
    fn send(&mut self, step: &mut Step, from: Sender, message: SendCommand) -> Outcome {
        let SendCommand { recipient, id, ttl, content, body } = message;
        let Recipient { id: recipient, letters: recipient_letters } = recipient;
        let subject = Subject::Message(id);
        self.record_correspondent(step, from, recipient);
        let (slot, applicant) = self.find_recipient(step, from, recipient)?;
        let fingerprint = Fingerprint::new(from.id, recipient, id, content);
        match self.directory[from.slot].dedup.check(fingerprint) {
            DedupResult::New => {}
            DedupResult::Duplicate { ttl_zero, seq } => {
                self.answer_duplicate(step, from, slot, id, ttl_zero, seq);
                return Ok(());
            }
            DedupResult::OtherContent => return Err(Refusal::OtherContent),
        }
        let queue = &self.settings.queue;
        let ttl = ttl.unwrap_or(queue.default_ttl.as_secs()).min(queue.max_ttl.as_secs());
        let bytes = size(&subject, body.len());
        if ttl == 0 && !self.directory[slot].has_credit(self.credit(), bytes) {
            return Err(Refusal::Expired(ExpiredKind::Message(id), 0));
        }
        self.check_room(step, slot, applicant, bytes)?;
        let receipts = self.record_peer(from, recipient);
        let (now, window) = (step.now.mono, self.settings.queue.dedup_window);
        let dedup = &mut self.directory[from.slot].dedup;
        dedup.remember(now, window, fingerprint.with_ttl(ttl), self.next_seq);
        let deadline = now + Duration::from_secs(ttl);
        let envelope = Envelope {
            from: from.id,
            subject,
            ttl,
            body,
            receipts,
            content,
            origin: applicant.origin,
            access: applicant.access,
            from_unknown: applicant.is_unknown,
            recipient_letters,
        };
        if !self.enqueue(step, slot, envelope, deadline) {
            let status = receipts.then(|| Status::Queued(step.now.unix_at(deadline)));
            step.deliver(from.connection, Delivery::Ack { id, status });
        }
        Ok(())
    }

    /// Acks a message that its sender repeats, with what is known of the first one. `seq` is that of the first one.
    fn answer_duplicate(
        &mut self,
        step: &mut Step,
        from: Sender,
        recipient: Slot,
        id: MessageId,
        ttl_zero: bool,
        seq: Seq,
    ) {
        let subject = Subject::Message(id);
        let receipts = self.directory[from.slot].receipts;
        let device = &mut self.directory[recipient];
        let (is_resumable, recipient_id) = (device.is_resumable(), device.id);
        let item = device.mailbox.get_mut(seq);
        let item =
            item.filter(|item| item.envelope.from == from.id && item.envelope.subject == subject);
        let status = match item {
            Some(item) => {
                if receipts && !item.envelope.receipts {
                    item.envelope.receipts = true;
                    if item.stored {
                        self.store.replace(item.record(self.boot, recipient_id));
                    }
                }
                // The answers follow: an Ack for each of both after the commit or the delivery.
                if item.owed_acks > 0 {
                    item.owed_acks = item.owed_acks.saturating_add(1);
                    return;
                }
                let status = Status::Queued(step.now.unix_at(item.deadline));
                let status = receipts.then_some(status);
                return step.deliver(from.connection, Delivery::Ack { id, status });
            }
            // The answer follows: the notice that the message expired.
            None if self.expiry.contains(seq) => return,
            None if is_resumable && !ttl_zero => Status::Processed,
            None => Status::Delivered,
        };
        let status = receipts.then_some(status);
        let acks = Acks { to: from.id, id, status, number: 1 };
        // The removal of the message from the store may not be committed yet.
        self.ack_left(step, acks, receipts);
    }

    /// The recipient has processed a message. (protocol: Ack)
    fn ack(&mut self, step: &mut Step, by: Sender, id: MessageId, sender: Option<DeviceId>) {
        let device = &mut self.directory[by.slot];
        let acked = device.mailbox.ack(id, sender);
        let was_expected = device.connection.as_mut().is_some_and(|current| current.note_ack());
        if let Some(item) = acked {
            self.settle_notices_before(by.slot, &item);
            self.delivered(step, by.slot, item, Status::Processed);
            self.dispatch(step, by.slot);
            return;
        }
        self.counters.unmatched_ack();
        // A plain device may ack what it receives, although its messages do not await an Ack.
        if !was_expected {
            step.deliver(by.connection, Delivery::UnmatchedAck);
        }
    }

    /// Relays a key rotation or its Ack. (protocol: KeyRotationUpdate, KeyRotationAck)
    fn rotate_key(
        &mut self,
        step: &mut Step,
        from: Sender,
        to: Recipient,
        subject: Subject,
        body: ByteString,
    ) -> Outcome {
        let ttl = self.settings.queue.key_rotation_ttl;
        let is_update = matches!(subject, Subject::KeyRotation(_));
        if is_update {
            self.record_correspondent(step, from, to.id);
        }
        let (slot, applicant) = self.find_recipient(step, from, to.id)?;
        let applicant = Applicant { adds_key: is_update, ..applicant };
        let envelope = frame(from.id, from.origin, subject, ttl.as_secs(), body);
        let envelope = Envelope { recipient_letters: to.letters, access: from.access, ..envelope };
        self.forward(step, slot, applicant, envelope, step.now.mono + ttl)?;
        self.record_peer(from, to.id);
        Ok(())
    }

    /// The recipient has processed a key rotation: `to` is the device that sent the key. (protocol: KeyRotationAck)
    fn ack_key(
        &mut self,
        step: &mut Step,
        from: Sender,
        to: Recipient,
        key_id: Box<str>,
        body: ByteString,
    ) -> Outcome {
        // The device has the key, even if its answer finds no room.
        if let Some(item) = self.directory[from.slot].mailbox.ack_key(&key_id, to.id) {
            self.settle_notices_before(from.slot, &item);
            self.delivered(step, from.slot, item, Status::Processed);
        }
        let relayed = self.rotate_key(step, from, to, Subject::KeyRotationAck(key_id), body);
        self.dispatch(step, from.slot);
        relayed
    }

    /// Opens an exchange and relays its first step. (protocol: AuthRequest)
    fn auth_request(
        &mut self,
        step: &mut Step,
        from: Sender,
        named: Option<Recipient>,
        body: ByteString,
    ) -> Outcome {
        let peers = self.directory[from.slot].connection.as_ref().map(|current| current.peers);
        let to = match (named, peers) {
            (Some(named), _) => named,
            (None, Some(Peers::One(peer))) => peer.into(),
            (None, Some(Peers::Several)) => return Err(Refusal::Ambiguous),
            (None, _) => return Err(Refusal::NobodyYet),
        };
        self.record_correspondent(step, from, to.id);
        let (slot, applicant) = self.find_recipient(step, from, to.id)?;
        let bytes = size(&Subject::Auth, body.len());
        self.check_room(step, slot, applicant, bytes)?;
        let end = step.now.mono + self.settings.auth.exchange_ttl;
        let unknown = applicant.is_unknown.then_some(from.origin);
        self.exchanges.check_open(from.id, to.id)?;
        let ended = self.exchanges.open(from.id, to, end, unknown, self.next_seq);
        self.forward_auth(step, from, to, end, body)?;
        if let Some(ended) = ended {
            self.end_exchange(step, slot, ended);
        }
        Ok(())
    }

    /// An exchange with `slot` has ended for another: its initiator gets the 410 of an expired `AuthRequest`.
    fn end_exchange(&mut self, step: &mut Step, slot: Slot, ended: Ended) {
        let device = &mut self.directory[slot];
        let waits = device.mailbox.get(ended.request).is_some_and(|item| !item.in_flight);
        if waits && let Some(item) = device.mailbox.withdraw(ended.request) {
            // The sweeper reports the item like every other that was not delivered.
            self.counters.found_expired(&item);
            self.expiry.push(device.id, item);
            return;
        }
        let ttl = self.settings.auth.exchange_ttl.as_secs();
        let context = ErrorContext::about(Some(&Subject::Auth), Some(ended.responder));
        let refusal = Refusal::Expired(ExpiredKind::Auth, ttl);
        let text = encode::error(refusal, &context);
        let reported = Reported { bytes: ENVELOPE_OVERHEAD, stored: false };
        self.notify(step, ended.initiator, NoticeKind::Error, text, reported);
    }

    /// An `Auth*` frame goes to the other side, as long as the exchange lasts.
    fn forward_auth(
        &mut self,
        step: &mut Step,
        from: Sender,
        to: Recipient,
        end: Moment,
        body: ByteString,
    ) -> Outcome {
        let ttl = self.settings.auth.exchange_ttl.as_secs();
        let (slot, applicant) = self.find_recipient(step, from, to.id)?;
        let envelope = frame(from.id, from.origin, Subject::Auth, ttl, body);
        let envelope = Envelope { recipient_letters: to.letters, access: from.access, ..envelope };
        self.forward(step, slot, applicant, envelope, end)
    }

    /// Enqueues an envelope if there is room for it.
    fn forward(
        &mut self,
        step: &mut Step,
        slot: Slot,
        from: Applicant,
        envelope: Envelope,
        deadline: Moment,
    ) -> Outcome {
        self.check_room(step, slot, from, envelope.bytes())?;
        let envelope = Envelope { from_unknown: from.is_unknown, ..envelope };
        self.enqueue(step, slot, envelope, deadline);
        Ok(())
    }

    /// Records that the sender exchanges messages with a device. Returns whether the sender wants receipts.
    fn record_peer(&mut self, from: Sender, other: DeviceId) -> bool {
        let Some(connection) = &mut self.directory[from.slot].connection else { return false };
        connection.peers.record(other);
        self.directory[from.slot].receipts
    }
}
