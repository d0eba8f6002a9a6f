//! What registered devices send, and where it goes.

use std::time::Duration;

use bytestring::ByteString;

use super::directory::{Peers, Slot};
use super::{Router, frame};
use crate::clock::Moment;
use crate::protocol::encode::Status;
use crate::protocol::envelope::{Envelope, Seq, Subject};
use crate::protocol::frame::AuthStep;
use crate::protocol::id::{DeviceId, MessageId};
use crate::protocol::refusal::{ErrorContext, ExpiredKind, Refusal};
use crate::relay::command::{Command, ConnectionId, SendCommand};
use crate::relay::dedup::DedupResult;
use crate::relay::delivery::{Delivery, Step};
use crate::store::records::Fingerprint;

/// Expired items that are moved out of the way of one that arrives.
const MAX_PURGED: usize = 256;

type Outcome = Result<(), Refusal>;

/// The device that a command comes from.
#[derive(Debug, Clone, Copy)]
struct Sender {
    slot: Slot,
    id: DeviceId,
    connection: ConnectionId,
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
        let from = Sender { slot, id: self.directory[slot].id, connection };
        for command in commands {
            let (subject, recipient) = (command.subject(), command.recipient());
            if let Err(refusal) = self.handle_one(step, from, command) {
                let context = ErrorContext::about(subject.as_ref(), recipient);
                step.refuse(connection, refusal, context);
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
                let (to, end) = self.exchanges.recipient_of(now, from.id, auth_step, recipient)?;
                // A step that found no room can be repeated.
                self.forward_auth(step, from, to, end, body)?;
                self.exchanges.advance(from.id, to, auth_step);
            }
            Command::AuthSuccess { recipient, body } => {
                let end = self.exchanges.verified(step.now.mono, from.id, recipient)?;
                return self.forward_auth(step, from, recipient, end, body);
            }
            Command::KeyRotation { recipient, key_id, body } => {
                return self.rotate_key(step, from, recipient, Subject::KeyRotation(key_id), body);
            }
            Command::KeyRotationAck { recipient, key_id, body } => {
                return self.ack_key(step, from, recipient, key_id, body);
            }
            Command::Status(presence) => self.set_presence(step, from.slot, presence),
            Command::Ping => step.deliver(from.connection, Delivery::Pong),
        }
        Ok(())
    }

    /// Accepts a message for a device and answers its sender. (protocol: Send)
    fn send(&mut self, step: &mut Step, from: Sender, message: SendCommand) -> Outcome {
        let SendCommand { recipient, id, ttl, content, body } = message;
        let subject = Subject::Message(id);
        let slot = self.directory.find_alive(step.now, recipient);
        let slot = slot.ok_or(Refusal::UnknownRecipient)?;
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
        let bytes = body.len() as u64;
        if ttl == 0 && !self.directory[slot].has_credit(self.credit(), bytes) {
            return Err(Refusal::Expired(ExpiredKind::Message(id), 0));
        }
        self.check_room(step, slot, from.id, bytes)?;
        let receipts = self.record_peer(from, recipient);
        let (now, window) = (step.now.mono, self.settings.queue.dedup_window);
        let dedup = &mut self.directory[from.slot].dedup;
        dedup.remember(now, window, fingerprint.with_ttl(ttl), self.next_seq);
        let deadline = now + Duration::from_secs(ttl);
        let envelope = Envelope { from: from.id, subject, ttl, body, receipts, content };
        if !self.enqueue(step, slot, envelope, deadline) {
            let status = receipts.then(|| Status::Queued(step.now.unix_at(deadline)));
            step.deliver(from.connection, Delivery::Ack { id, status });
        }
        Ok(())
    }

    /// Acks a message that its sender repeats, with what is known of the first one. `seq` is that of the first one.
    fn answer_duplicate(
        &self,
        step: &mut Step,
        from: Sender,
        recipient: Slot,
        id: MessageId,
        ttl_zero: bool,
        seq: Seq,
    ) {
        let subject = Subject::Message(id);
        let device = &self.directory[recipient];
        let item = device.mailbox.get(seq);
        let item =
            item.filter(|item| item.envelope.from == from.id && item.envelope.subject == subject);
        if item.is_some_and(|item| item.owes_ack) || self.expiry.contains(seq) {
            // The answer follows: the Ack after the commit, or the notice that the message expired.
            return;
        }
        let status = match item {
            Some(item) => Status::Queued(step.now.unix_at(item.deadline)),
            None if device.is_resumable() && !ttl_zero => Status::Processed,
            None => Status::Delivered,
        };
        let receipts = self.directory[from.slot].connection.as_ref().is_some_and(|it| it.receipts);
        let status = receipts.then_some(status);
        step.deliver(from.connection, Delivery::Ack { id, status });
    }

    /// The recipient has processed a message. (protocol: Ack)
    fn ack(&mut self, step: &mut Step, by: Sender, id: MessageId, sender: Option<DeviceId>) {
        let device = &mut self.directory[by.slot];
        let acked = device.mailbox.ack(id, sender);
        let was_expected = device.connection.as_mut().is_some_and(|current| current.note_ack());
        if let Some(item) = acked {
            self.delivered(step, by.id, item, Status::Processed);
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
        to: DeviceId,
        subject: Subject,
        body: ByteString,
    ) -> Outcome {
        let ttl = self.settings.queue.key_rotation_ttl;
        let envelope = frame(from.id, subject, ttl.as_secs(), body);
        self.forward(step, to, envelope, step.now.mono + ttl)?;
        self.record_peer(from, to);
        Ok(())
    }

    /// The recipient has processed a key rotation: `to` is the device that sent the key. (protocol: KeyRotationAck)
    fn ack_key(
        &mut self,
        step: &mut Step,
        from: Sender,
        to: DeviceId,
        key_id: Box<str>,
        body: ByteString,
    ) -> Outcome {
        let acked = self.directory[from.slot].mailbox.ack_key(&key_id, to);
        let relayed = self.rotate_key(step, from, to, Subject::KeyRotationAck(key_id), body);
        // The device has the key, even if its answer found no room.
        if let Some(item) = acked {
            self.delivered(step, from.id, item, Status::Processed);
            self.dispatch(step, from.slot);
        }
        relayed
    }

    /// Opens an exchange and relays its first step. (protocol: AuthRequest)
    fn auth_request(
        &mut self,
        step: &mut Step,
        from: Sender,
        named: Option<DeviceId>,
        body: ByteString,
    ) -> Outcome {
        let peers = self.directory[from.slot].connection.as_ref().map(|current| current.peers);
        let to = match (named, peers) {
            (Some(named), _) => named,
            (None, Some(Peers::One(peer))) => peer,
            (None, Some(Peers::Several)) => return Err(Refusal::Ambiguous),
            (None, _) => return Err(Refusal::NobodyYet),
        };
        let end = step.now.mono + self.settings.auth.exchange_ttl;
        self.find_room(step, to, from.id, body.len())?;
        self.exchanges.open(from.id, to, end)?;
        self.forward_auth(step, from, to, end, body)
    }

    /// An `Auth*` frame goes to the other side, as long as the exchange lasts.
    fn forward_auth(
        &mut self,
        step: &mut Step,
        from: Sender,
        to: DeviceId,
        end: Moment,
        body: ByteString,
    ) -> Outcome {
        let ttl = self.settings.auth.exchange_ttl.as_secs();
        self.forward(step, to, frame(from.id, Subject::Auth, ttl, body), end)
    }

    fn forward(
        &mut self,
        step: &mut Step,
        to: DeviceId,
        envelope: Envelope,
        deadline: Moment,
    ) -> Outcome {
        let slot = self.find_room(step, to, envelope.from, envelope.body.len())?;
        self.enqueue(step, slot, envelope, deadline);
        Ok(())
    }

    /// The recipient's slot, if there is room for an envelope of `bytes`.
    fn find_room(
        &mut self,
        step: &Step,
        to: DeviceId,
        from: DeviceId,
        bytes: usize,
    ) -> Result<Slot, Refusal> {
        let slot = self.directory.find_alive(step.now, to).ok_or(Refusal::UnknownRecipient)?;
        self.check_room(step, slot, from, bytes as u64).map(|()| slot)
    }

    /// Whether there is room for an envelope; expired items are moved out before a queue is called full.
    fn check_room(&mut self, step: &Step, slot: Slot, from: DeviceId, bytes: u64) -> Outcome {
        let device = &self.directory[slot];
        let in_flight_at_once = device.has_credit(self.credit(), bytes);
        if in_flight_at_once && !device.is_resumable() {
            // The envelope only passes through.
            return Ok(());
        }
        let total = self.counters.counts().queued_bytes.saturating_add(bytes);
        if total > self.settings.queue.total_bytes as u64
            || (self.store.is_failing() && !in_flight_at_once)
        {
            return Err(Refusal::Full);
        }
        let quota = self.quota();
        if device.mailbox.is_full(quota, from, bytes) {
            self.expire_mailbox(slot, step.now.mono, MAX_PURGED);
            if self.directory[slot].mailbox.is_full(quota, from, bytes) {
                return Err(Refusal::QueueFull);
            }
        }
        Ok(())
    }

    /// Records that the sender exchanges messages with a device. Returns whether the sender wants receipts.
    fn record_peer(&mut self, from: Sender, other: DeviceId) -> bool {
        let Some(connection) = &mut self.directory[from.slot].connection else { return false };
        connection.peers.record(other);
        connection.receipts
    }
}
