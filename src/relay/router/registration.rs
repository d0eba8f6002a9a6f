//! How devices come and go.

use subtle::ConstantTimeEq;

use super::{Connection, Device, ExpiredItem, Peers, Router};
use crate::clock::Now;
use crate::protocol::encode::{Status, Token};
use crate::protocol::envelope::{Seq, Subject};
use crate::protocol::frame::Presence;
use crate::protocol::id::DeviceId;
use crate::protocol::refusal::{CloseReason, ErrorContext, Refusal};
use crate::relay::command::{
    ConnectionId, Deliveries, Delivery, Registration, RegistrationAccepted, TokenHash,
};
use crate::relay::dedup::DedupWindow;
use crate::relay::item::SettledBy;
use crate::relay::mailbox::Mailbox;
use crate::store::Store;

impl<S: Store, L: Clone> Router<S, L> {
    /// A stranger becomes a device, a new one or its former self. `RegistrationAccepted` is the first post of the new connection,
    /// what waited for it follows. An older connection of the same device is sent away. (protocol: Register)
    ///
    /// # Errors
    ///
    /// 401 for a token that is wrong, unknown or expired; 503 when too many devices are known.
    pub fn register(
        &mut self,
        now: Now,
        hello: Registration,
        lease: L,
        out: &mut Deliveries<L>,
    ) -> Result<ConnectionId, Refusal> {
        let (slot, resumed, token) = match hello.resume {
            Some((token, hash)) => {
                (self.find_by_token(now, hash).ok_or(Refusal::BadToken)?, true, Some(token))
            }
            None => {
                let token = hello.resumable.then_some(hello.fresh_token);
                let hash = token.as_ref().map(|(_, hash)| *hash);
                (
                    self.create_device(hello.fresh_id, hash, lease)?,
                    false,
                    token.map(|(token, _)| token),
                )
            }
        };
        Ok(self.attach(now, slot, hello.receipts, resumed, token, out))
    }

    /// A connection is over. One that its device has replaced already changes nothing.
    pub fn leave(&mut self, now: Now, conn: ConnectionId, out: &mut Deliveries<L>) {
        if !self.is_current(conn) {
            return;
        }
        self.detach(now, conn.slot, out);
        let rules = self.rules;
        let device = self.device(conn.slot);
        let ttl = if device.token.is_some() { rules.session_ttl } else { rules.plain_ttl };
        let ends = now.mono + ttl;
        device.forget_at = Some(ends);
        if device.token.is_none() {
            // Nobody can come back as this device and repeat itself.
            device.dedup = DedupWindow::default();
        }
        self.forget_at.insert((ends, conn.slot));
        self.store_identity(now, conn.slot);
    }

    /// The connection's socket took everything through `mark`.
    pub fn on_written(
        &mut self,
        now: Now,
        conn: ConnectionId,
        through: Seq,
        out: &mut Deliveries<L>,
    ) {
        if !self.is_current(conn) {
            return;
        }
        let mut settled = std::mem::take(&mut self.settled);
        let device = self.device(conn.slot);
        let recipient = device.id;
        device.mailbox.on_written(through, |item| settled.push(item));
        for item in settled.drain(..) {
            self.delivered(now, recipient, item, Status::Delivered, out);
        }
        self.settled = settled;
        self.dispatch(now, conn.slot, out);
    }

    pub(super) fn status(
        &mut self,
        now: Now,
        conn: ConnectionId,
        presence: Presence,
        out: &mut Deliveries<L>,
    ) {
        if let Some(connection) = &mut self.device(conn.slot).connection {
            connection.delivery_paused = presence == Presence::Offline;
        }
        self.dispatch(now, conn.slot, out);
    }

    /// Forgets a device: what still waits for it has expired.
    pub(super) fn forget(&mut self, slot: u32) {
        let Some(mut device) = self.devices.try_remove(slot as usize) else { return };
        self.by_id.remove(&device.id);
        self.store.remove_device(device.id);
        if let Some(token) = device.token {
            self.by_token.remove(&token);
        }
        if let Some(scheduled) = device.scheduled {
            self.deadlines.remove(&(scheduled, slot));
        }
        if let Some(ends) = device.forget_at {
            self.forget_at.remove(&(ends, slot));
        }
        for item in device.mailbox.drain() {
            self.awaiting_notice.push_back(ExpiredItem { recipient: device.id, item });
        }
    }

    fn find_by_token(&mut self, now: Now, presented: TokenHash) -> Option<u32> {
        let slot = *self.by_token.get(&presented)?;
        let device = self.device(slot);
        let same: bool = device.token?.0.ct_eq(&presented.0).into();
        let over = device.forget_at.is_some_and(|ends| ends <= now.mono);
        (same && !over).then_some(slot)
    }

    fn create_device(
        &mut self,
        id: DeviceId,
        token: Option<TokenHash>,
        lease: L,
    ) -> Result<u32, Refusal> {
        if self.devices.len() >= self.rules.devices {
            return Err(Refusal::Full);
        }
        self.insert_device(id, token, lease)
    }

    /// Takes a device in, however many there are: one that was known before a restart has messages that were acked.
    pub(super) fn insert_device(
        &mut self,
        id: DeviceId,
        token: Option<TokenHash>,
        lease: L,
    ) -> Result<u32, Refusal> {
        let slot = u32::try_from(self.devices.vacant_key()).map_err(|_| Refusal::Full)?;
        self.devices.insert(Device {
            id,
            token,
            lease,
            connection: None,
            mailbox: Mailbox::default(),
            dedup: DedupWindow::default(),
            scheduled: None,
            forget_at: None,
        });
        self.by_id.insert(id, slot);
        if let Some(token) = token {
            self.by_token.insert(token, slot);
        }
        Ok(slot)
    }

    fn attach(
        &mut self,
        now: Now,
        slot: u32,
        receipts: bool,
        resumed: bool,
        token: Option<Token>,
        out: &mut Deliveries<L>,
    ) -> ConnectionId {
        if let Some(older) = &self.device(slot).connection {
            let older = ConnectionId { slot, epoch: older.epoch };
            out.refuse(older, Refusal::Replaced, ErrorContext::NOTHING);
            out.push(older, Delivery::Close(CloseReason::Replaced));
            self.detach(now, slot, out);
        }
        // What is over does not count as waiting.
        self.expire_in(now, slot, usize::MAX);
        let conn = ConnectionId { slot, epoch: self.next_epoch };
        self.next_epoch += 1;
        self.connected += 1;
        let device = &mut self.devices[slot as usize];
        if let Some(ends) = device.forget_at.take() {
            self.forget_at.remove(&(ends, slot));
        }
        device.connection = Some(Connection {
            epoch: conn.epoch,
            delivery_paused: false,
            receipts,
            peers: Peers::Nobody,
            unacked: 0,
        });
        // A plain device is worth a write only once it has left something behind.
        let welcome_is_for_good = device.token.is_some();
        let welcome = RegistrationAccepted {
            conn,
            device: device.id,
            lease: device.lease.clone(),
            resumed,
            queued: device.mailbox.messages(),
            token,
        };
        out.push(conn, Delivery::Registered(Box::new(welcome)));
        if welcome_is_for_good {
            self.store_identity(now, slot);
        }
        self.dispatch(now, slot, out);
        conn
    }

    /// Takes back what was in flight.
    fn detach(&mut self, now: Now, slot: u32, out: &mut Deliveries<L>) {
        let Self { devices, awaiting_notice, counts, .. } = self;
        let device = &mut devices[slot as usize];
        if device.connection.take().is_none() {
            return;
        }
        self.connected -= 1;
        let plain = device.token.is_none();
        let mut dropped = Vec::new();
        let (mut requeued, mut messages) = (0, 0);
        device.mailbox.detach(
            |item| {
                let keep = match item.envelope.subject {
                    // A plain device never comes back, so nobody will ever read what the relay says to it.
                    Subject::Notice => !plain,
                    _ => item.deadline > now.mono,
                };
                requeued += usize::from(keep);
                messages += u64::from(item.envelope.subject.is_counted());
                if item.settles == SettledBy::Write {
                    counts.queued_bytes += item.bytes();
                }
                keep
            },
            |item| dropped.push(item),
        );
        counts.in_flight -= messages;
        counts.queued += messages;
        // Newest first, as it left; the oldest is told first.
        for mut item in dropped.into_iter().rev() {
            item.in_flight = false;
            awaiting_notice.push_back(ExpiredItem { recipient: device.id, item });
        }
        self.store_waiting(now, slot, requeued, out);
        self.schedule(slot);
    }
}
