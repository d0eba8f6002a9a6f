//! What registered devices send, and where it goes.

use std::time::Duration;

use bytestring::ByteString;

use super::Router;
use super::directory::{Peers, Slot};
use crate::clock::Moment;
use crate::protocol::encode::Status;
use crate::protocol::envelope::{Envelope, Subject};
use crate::protocol::frame::AuthStep;
use crate::protocol::id::{DeviceId, MessageId};
use crate::protocol::refusal::{ErrorContext, Expired, Refusal};
use crate::relay::command::{Command, ConnectionId, SendCommand};
use crate::relay::dedup::Seen;
use crate::relay::delivery::{Delivery, Step};
use crate::store::records::Fingerprint;

/// Expired items that are moved out of the way of one that arrives.
const MAX_PURGED: usize = 256;

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
        let sender = Sender { slot, id: self.directory[slot].id, connection };
        for command in commands {
            self.handle_one(step, sender, command);
        }
    }

    fn handle_one(&mut self, step: &mut Step, from: Sender, command: Command) {
        match command {
            Command::Send(message) => self.send(step, from, message),
            Command::Ack { message_id, sender } => self.ack(step, from, message_id, sender),
            Command::Auth { step: AuthStep::Request, recipient, body } => {
                let outcome = self.auth_request(step, from, recipient, body);
                refuse_auth(step, from, recipient, outcome);
            }
            Command::Auth { step: auth_step, recipient, body } => {
                let outcome = self.auth_step(step, from, auth_step, recipient, body);
                refuse_auth(step, from, recipient, outcome);
            }
            Command::AuthSuccess { recipient, body } => {
                let verified = self.exchanges.verified(step.now.mono, from.id, recipient);
                let outcome =
                    verified.and_then(|end| self.forward_auth(step, from, recipient, end, body));
                refuse_auth(step, from, Some(recipient), outcome);
            }
            Command::KeyRotation { recipient, key_id, body } => {
                self.rotate_key(step, from, recipient, Subject::KeyRotation(key_id), body);
            }
            Command::KeyRotationAck { recipient, key_id, body } => {
                let acked = self.directory[from.slot].mailbox.ack_key(&key_id, recipient);
                self.rotate_key(step, from, recipient, Subject::KeyRotationAck(key_id), body);
                if let Some(item) = acked {
                    self.delivered(step, from.id, item, Status::Processed);
                    self.dispatch(step, from.slot);
                }
            }
            Command::Status(presence) => self.set_presence(step, from.slot, presence),
            Command::Ping => step.deliver(from.connection, Delivery::Pong),
        }
    }

    /// (protocol: Send)
    fn send(&mut self, step: &mut Step, from: Sender, message: SendCommand) {
        let SendCommand { recipient, id, ttl, content, body } = message;
        let context = || ErrorContext::about(Some(&Subject::Message(id)), Some(recipient));
        let Some(slot) = self.directory.find_alive(step.now, recipient) else {
            return step.refuse(from.connection, Refusal::UnknownRecipient, context());
        };
        let fingerprint = Fingerprint::new(from.id, recipient, id, content);
        match self.directory[from.slot].dedup.seen(fingerprint) {
            Seen::New => {}
            Seen::Duplicate { at_once, seq } => {
                let item = self.directory[slot].mailbox.get(seq);
                let item = item.filter(|item| {
                    item.envelope.from == from.id && item.envelope.subject == Subject::Message(id)
                });
                if item.is_some_and(|item| item.owes_ack) || self.expiry.contains(seq) {
                    // The answer is on its way: the Ack after the commit, or the notice that the message expired.
                    return;
                }
                let acked = self.directory[slot].is_resumable() && !at_once;
                let status = match item {
                    Some(item) => Status::Queued(step.now.unix_at(item.deadline)),
                    None if acked => Status::Processed,
                    None => Status::Delivered,
                };
                let status = self.wants_receipts(from).then_some(status);
                return step.deliver(from.connection, Delivery::Ack { id, status });
            }
            Seen::OtherContent => {
                return step.refuse(from.connection, Refusal::OtherContent, context());
            }
        }
        let queue = &self.settings.queue;
        let ttl = ttl.unwrap_or(queue.default_ttl.as_secs()).min(queue.max_ttl.as_secs());
        let bytes = body.len() as u64;
        if ttl == 0 && !self.directory[slot].has_credit(self.credit(), bytes) {
            let expired = Refusal::Expired(Expired::Message(id), 0);
            return step.refuse(from.connection, expired, context());
        }
        if let Err(refusal) = self.check_room(step, slot, from.id, bytes) {
            return step.refuse(from.connection, refusal, context());
        }
        let receipts = self.record_peer(from, recipient);
        let (now, window) = (step.now.mono, self.settings.queue.dedup_window);
        let dedup = &mut self.directory[from.slot].dedup;
        dedup.remember(now, window, fingerprint.with_ttl(ttl), self.next_seq);
        let deadline = now + Duration::from_secs(ttl);
        let subject = Subject::Message(id);
        let envelope = Envelope { from: from.id, subject, ttl, body, receipts, content };
        if !self.enqueue(step, slot, envelope, deadline) {
            let status = receipts.then(|| Status::Queued(step.now.unix_at(deadline)));
            step.deliver(from.connection, Delivery::Ack { id, status });
        }
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

    /// (protocol: KeyRotationUpdate, KeyRotationAck)
    fn rotate_key(
        &mut self,
        step: &mut Step,
        from: Sender,
        recipient: DeviceId,
        subject: Subject,
        body: ByteString,
    ) {
        match self.find_room(step, from, recipient, body.len()) {
            Ok(slot) => {
                self.record_peer(from, recipient);
                let ttl = self.settings.queue.key_rotation_ttl;
                self.forward(step, from, slot, subject, ttl, step.now.mono + ttl, body);
            }
            Err(refusal) => {
                let context = ErrorContext::about(Some(&subject), Some(recipient));
                step.refuse(from.connection, refusal, context);
            }
        }
    }

    /// (protocol: AuthRequest)
    fn auth_request(
        &mut self,
        step: &mut Step,
        from: Sender,
        named: Option<DeviceId>,
        body: ByteString,
    ) -> Result<(), Refusal> {
        let peers = self.directory[from.slot].connection.as_ref().map(|current| current.peers);
        let to = match (named, peers) {
            (Some(named), _) => named,
            (None, Some(Peers::One(peer))) => peer,
            (None, Some(Peers::Several)) => return Err(Refusal::Ambiguous),
            (None, _) => return Err(Refusal::NobodyYet),
        };
        let end = step.now.mono + self.settings.auth.exchange_ttl;
        self.find_room(step, from, to, body.len())?;
        self.exchanges.open(from.id, to, end)?;
        self.forward_auth(step, from, to, end, body)
    }

    /// (protocol: AuthResponse, AuthVerify)
    fn auth_step(
        &mut self,
        step: &mut Step,
        from: Sender,
        auth_step: AuthStep,
        named: Option<DeviceId>,
        body: ByteString,
    ) -> Result<(), Refusal> {
        let now = step.now.mono;
        let (to, end) = self.exchanges.recipient_of(now, from.id, auth_step, named)?;
        // A step that found no room can be repeated.
        self.forward_auth(step, from, to, end, body)?;
        self.exchanges.advance(from.id, to, auth_step);
        Ok(())
    }

    /// An `Auth*` frame goes to the other side, as long as the exchange lasts.
    fn forward_auth(
        &mut self,
        step: &mut Step,
        from: Sender,
        to: DeviceId,
        end: Moment,
        body: ByteString,
    ) -> Result<(), Refusal> {
        let slot = self.find_room(step, from, to, body.len())?;
        let ttl = self.settings.auth.exchange_ttl;
        self.forward(step, from, slot, Subject::Auth, ttl, end, body);
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "each argument is a part of the envelope")]
    fn forward(
        &mut self,
        step: &mut Step,
        from: Sender,
        to: Slot,
        subject: Subject,
        ttl: Duration,
        deadline: Moment,
        body: ByteString,
    ) {
        let (from, ttl) = (from.id, ttl.as_secs());
        let envelope = Envelope { from, subject, ttl, body, receipts: false, content: 0 };
        self.enqueue(step, to, envelope, deadline);
    }

    /// The recipient's slot, if there is room for an envelope of `bytes`.
    fn find_room(
        &mut self,
        step: &mut Step,
        from: Sender,
        to: DeviceId,
        bytes: usize,
    ) -> Result<Slot, Refusal> {
        let slot = self.directory.find_alive(step.now, to).ok_or(Refusal::UnknownRecipient)?;
        self.check_room(step, slot, from.id, bytes as u64).map(|()| slot)
    }

    /// Whether there is room for an envelope; expired items are moved out before a queue is called full.
    fn check_room(
        &mut self,
        step: &mut Step,
        slot: Slot,
        from: DeviceId,
        bytes: u64,
    ) -> Result<(), Refusal> {
        let device = &self.directory[slot];
        let in_flight_at_once = device.has_credit(self.credit(), bytes);
        if in_flight_at_once && !device.is_resumable() {
            // The envelope only passes through.
            return Ok(());
        }
        let total = self.counters.counts().queued_bytes.saturating_add(bytes);
        if total > self.settings.queue.total_bytes as u64 {
            return Err(Refusal::Full);
        }
        if self.store.is_failing() && !in_flight_at_once {
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
        if let Some(connection) = &mut self.directory[from.slot].connection {
            connection.peers.record(other);
        }
        self.wants_receipts(from)
    }

    fn wants_receipts(&self, device: Sender) -> bool {
        let connection = self.directory[device.slot].connection.as_ref();
        connection.is_some_and(|connection| connection.receipts)
    }
}

fn refuse_auth(
    step: &mut Step,
    from: Sender,
    recipient: Option<DeviceId>,
    outcome: Result<(), Refusal>,
) {
    if let Err(refusal) = outcome {
        step.refuse(from.connection, refusal, ErrorContext::about(None, recipient));
    }
}
