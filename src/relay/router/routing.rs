//! What registered devices say, and where it goes.

use bytestring::ByteString;

use super::{Peers, Router};
use crate::clock::{Moment, Now};
use crate::protocol::encode::Status;
use crate::protocol::envelope::{Envelope, Subject};
use crate::protocol::frame::AuthStep;
use crate::protocol::id::{DeviceId, MessageId};
use crate::protocol::refusal::{ErrorContext, Expired, Refusal};
use crate::relay::command::{Command, ConnectionId, Deliveries, Delivery, SendCommand};
use crate::relay::dedup::Seen;
use crate::store::Store;
use crate::store::records::Fingerprint;

use std::time::Duration;

/// How many expired items are put aside to make place for one that arrives.
const PURGED: usize = 256;

impl<S: Store, L: Clone> Router<S, L> {
    /// A connection says a word. Nothing comes of it if the device has a newer connection.
    pub fn handle(&mut self, now: Now, conn: ConnectionId, word: Command, out: &mut Deliveries<L>) {
        if !self.is_current(conn) {
            return;
        }
        let from = self.devices[conn.slot as usize].id;
        match word {
            Command::Send(message) => self.send(now, conn, from, message, out),
            Command::Ack { message_id, sender } => self.ack(now, conn, message_id, sender, out),
            Command::Auth { step: AuthStep::Request, recipient, body } => {
                let outcome = self.auth_request(now, conn, from, recipient, body, out);
                refuse(outcome, conn, recipient, out);
            }
            Command::Auth { step, recipient, body } => {
                let outcome = self.auth_step(now, from, step, recipient, body, out);
                refuse(outcome, conn, recipient, out);
            }
            Command::AuthSuccess { recipient, body } => {
                let verified = self.exchanges.verified(now.mono, from, recipient);
                let outcome =
                    verified.and_then(|end| self.carry(now, from, recipient, end, body, out));
                refuse(outcome, conn, Some(recipient), out);
            }
            Command::KeyRotation { recipient, key_id, body } => {
                let subject = Subject::KeyRotation(key_id);
                self.rotate(now, conn, from, recipient, subject, body, out);
            }
            Command::KeyRotationAck { recipient, key_id, body } => {
                let confirmed = self.device(conn.slot).mailbox.ack_key(&key_id, recipient);
                let subject = Subject::KeyRotationAck(key_id);
                self.rotate(now, conn, from, recipient, subject, body, out);
                if let Some(item) = confirmed {
                    self.delivered(now, from, item, Status::Processed, out);
                    self.dispatch(now, conn.slot, out);
                }
            }
            Command::Status(presence) => self.status(now, conn, presence, out),
        }
    }

    /// (protocol: Send)
    fn send(
        &mut self,
        now: Now,
        conn: ConnectionId,
        from: DeviceId,
        message: SendCommand,
        out: &mut Deliveries<L>,
    ) {
        let SendCommand { recipient, id, ttl, content, body } = message;
        let about = || ErrorContext::message(id, recipient);
        let Some(slot) = self.present(now, recipient) else {
            return out.refuse(conn, Refusal::UnknownRecipient, about());
        };
        let print = Fingerprint::new(from, recipient, id, content);
        match self.devices[conn.slot as usize].dedup.seen(print) {
            Seen::New => {}
            Seen::Duplicate { at_once } => {
                return self.ack_again(now, conn, from, slot, (id, at_once), out);
            }
            Seen::OtherContent => return out.refuse(conn, Refusal::OtherContent, about()),
        }
        let ttl = ttl.unwrap_or(self.rules.default_ttl).min(self.rules.max_ttl);
        let bytes = body.len() as u64;
        if ttl == 0 && !self.devices[slot as usize].can_take(self.rules.credit, bytes) {
            let expired = Refusal::Expired(Expired::Message(id), 0);
            return out.refuse(conn, expired, about());
        }
        if let Err(refusal) = self.check_room(now, slot, from, bytes) {
            return out.refuse(conn, refusal, about());
        }
        let receipts = self.record(conn, recipient);
        let window = self.rules.dedup_window;
        self.device(conn.slot).dedup.remember(
            now.mono,
            window,
            print.handed_over_at_once(ttl == 0),
        );
        let deadline = now.mono + Duration::from_secs(ttl);
        let envelope =
            Envelope { from, subject: Subject::Message(id), ttl, body, receipts, content };
        let owes_ack = self.enqueue(now, slot, envelope, deadline, out);
        if !owes_ack {
            let status = receipts.then(|| Status::Queued(now.unix_at(deadline)));
            out.push(conn, Delivery::Ack { id, status });
        }
    }

    /// A repeat is acked as its first was, unless that Ack is still to come.
    fn ack_again(
        &mut self,
        now: Now,
        conn: ConnectionId,
        from: DeviceId,
        slot: u32,
        (id, at_once): (MessageId, bool),
        out: &mut Deliveries<L>,
    ) {
        let item = self.devices[slot as usize].mailbox.find(id, from);
        if item.is_some_and(|item| item.owes_ack) {
            return;
        }
        let recipient = self.devices[slot as usize].id;
        if item.is_none()
            && self.awaiting_notice.iter().any(|lapsed| lapsed.is(recipient, from, id))
        {
            // It expired; that is the answer, and it is on its way.
            return;
        }
        let confirms = self.devices[slot as usize].token.is_some() && !at_once;
        let status = match item {
            Some(item) => Status::Queued(now.unix_at(item.deadline)),
            None if confirms => Status::Processed,
            None => Status::Delivered,
        };
        let connection = self.devices[conn.slot as usize].connection.as_ref();
        let receipts = connection.is_some_and(|connection| connection.receipts);
        out.push(conn, Delivery::Ack { id, status: receipts.then_some(status) });
    }

    /// The recipient has processed a message. (protocol: Ack)
    fn ack(
        &mut self,
        now: Now,
        conn: ConnectionId,
        id: MessageId,
        from: Option<DeviceId>,
        out: &mut Deliveries<L>,
    ) {
        let device = self.device(conn.slot);
        let confirmed = device.mailbox.ack(id, from);
        let unacked = device.connection.as_mut().map(|connection| &mut connection.unacked);
        let was_due = unacked.is_some_and(|unacked| match unacked.checked_sub(1) {
            Some(fewer) => {
                *unacked = fewer;
                true
            }
            None => false,
        });
        match confirmed {
            Some(item) => {
                let recipient = self.device(conn.slot).id;
                self.delivered(now, recipient, item, Status::Processed, out);
                self.dispatch(now, conn.slot, out);
            }
            None => {
                self.counts.stray_acks += 1;
                // A plain device may ack what it receives, although nothing waits for that.
                out.unmatched_acks += u32::from(!was_due);
            }
        }
    }

    /// (protocol: KeyRotationUpdate, KeyRotationAck)
    #[allow(clippy::too_many_arguments, reason = "one call a frame, each argument another thing")]
    fn rotate(
        &mut self,
        now: Now,
        conn: ConnectionId,
        from: DeviceId,
        recipient: DeviceId,
        subject: Subject,
        body: ByteString,
        out: &mut Deliveries<L>,
    ) {
        let room = match self.present(now, recipient) {
            None => Err(Refusal::UnknownRecipient),
            Some(slot) => self.check_room(now, slot, from, body.len() as u64).map(|()| slot),
        };
        match room {
            Ok(slot) => {
                self.record(conn, recipient);
                let ttl = self.rules.key_rotation_ttl;
                let deadline = now.mono + Duration::from_secs(ttl);
                let envelope = Envelope { from, subject, ttl, body, receipts: false, content: 0 };
                self.enqueue(now, slot, envelope, deadline, out);
            }
            Err(refusal) => {
                let (Subject::KeyRotation(key_id) | Subject::KeyRotationAck(key_id)) = subject
                else {
                    return;
                };
                out.refuse(conn, refusal, ErrorContext::key(&key_id, recipient));
            }
        }
    }

    /// (protocol: AuthRequest)
    fn auth_request(
        &mut self,
        now: Now,
        conn: ConnectionId,
        from: DeviceId,
        named: Option<DeviceId>,
        body: ByteString,
        out: &mut Deliveries<L>,
    ) -> Result<(), Refusal> {
        let partner = self.device(conn.slot).connection.as_ref().map(|connection| connection.peers);
        let to = match (named, partner) {
            (Some(named), _) => named,
            (None, Some(Peers::One(partner))) => partner,
            (None, Some(Peers::Several)) => return Err(Refusal::Ambiguous),
            (None, _) => return Err(Refusal::NobodyYet),
        };
        let end = now.mono + Duration::from_secs(self.rules.exchange_ttl);
        self.check_carry(now, from, to, body.len() as u64)?;
        self.exchanges.open(from, to, end)?;
        self.carry(now, from, to, end, body, out)
    }

    /// (protocol: AuthResponse, AuthVerify)
    fn auth_step(
        &mut self,
        now: Now,
        from: DeviceId,
        step: AuthStep,
        named: Option<DeviceId>,
        body: ByteString,
        out: &mut Deliveries<L>,
    ) -> Result<(), Refusal> {
        let (to, end) = self.exchanges.recipient_of(now.mono, from, step, named)?;
        // A step that found no room can be said again.
        self.carry(now, from, to, end, body, out)?;
        self.exchanges.advance(from, to, step);
        Ok(())
    }

    fn check_carry(
        &mut self,
        now: Now,
        from: DeviceId,
        to: DeviceId,
        bytes: u64,
    ) -> Result<u32, Refusal> {
        let slot = self.present(now, to).ok_or(Refusal::UnknownRecipient)?;
        self.check_room(now, slot, from, bytes).map(|()| slot)
    }

    /// An `Auth*` frame goes to the other side, as long as the exchange lasts.
    fn carry(
        &mut self,
        now: Now,
        from: DeviceId,
        to: DeviceId,
        end: Moment,
        body: ByteString,
        out: &mut Deliveries<L>,
    ) -> Result<(), Refusal> {
        let slot = self.check_carry(now, from, to, body.len() as u64)?;
        let ttl = self.rules.exchange_ttl;
        let envelope =
            Envelope { from, subject: Subject::Auth, ttl, body, receipts: false, content: 0 };
        self.enqueue(now, slot, envelope, end, out);
        Ok(())
    }

    /// Whether there is place for an envelope; what has expired is put aside before a queue is called full.
    fn check_room(
        &mut self,
        now: Now,
        slot: u32,
        from: DeviceId,
        bytes: u64,
    ) -> Result<(), Refusal> {
        let device = &self.devices[slot as usize];
        if device.token.is_none() && device.can_take(self.rules.credit, bytes) {
            // It only passes through.
            return Ok(());
        }
        if self.counts.queued_bytes.saturating_add(bytes) > self.rules.total_bytes {
            return Err(Refusal::Full);
        }
        if self.store.is_failing() && !device.can_take(self.rules.credit, bytes) {
            return Err(Refusal::Full);
        }
        if device.mailbox.is_full(self.rules.quota, from, bytes) {
            self.expire_in(now, slot, PURGED);
            if self.devices[slot as usize].mailbox.is_full(self.rules.quota, from, bytes) {
                return Err(Refusal::QueueFull);
            }
        }
        Ok(())
    }

    /// The sender has exchanged a message with that device. Answers whether it wants receipts.
    fn record(&mut self, conn: ConnectionId, other: DeviceId) -> bool {
        let Some(connection) = &mut self.device(conn.slot).connection else { return false };
        connection.peers.record(other);
        connection.receipts
    }
}

fn refuse<L>(
    outcome: Result<(), Refusal>,
    conn: ConnectionId,
    recipient: Option<DeviceId>,
    out: &mut Deliveries<L>,
) {
    if let Err(refusal) = outcome {
        let about = recipient.map_or(ErrorContext::NOTHING, ErrorContext::recipient);
        out.refuse(conn, refusal, about);
    }
}
