//! How devices come and go.

use std::sync::Arc;

use super::access::is_alive;
use super::directory::{Connection, ConnectionEnd, Slot};
use super::renewal::replace;
use super::{Router, STEP_ENTRIES};
use crate::protocol::encode::{Status, Token};
use crate::protocol::envelope::{AccessKey, Origin, Seq};
use crate::protocol::frame::Presence;
use crate::protocol::refusal::{CloseReason, Refusal};
use crate::relay::command::{ConnectionId, Registration, Resume};
use crate::relay::delivery::{Delivery, Refused, RegistrationAccepted, Step};
use crate::relay::on_demand::{Empty as _, OnDemand};
use crate::relay::rate_limit::Allowance;

impl Router {
    /// Registers a connection as a new device, or as the device that it was before. The new connection's first delivery is
    /// [`Delivery::Registered`], then comes what waits. An older connection of the same device is closed. `allowance` is for a
    /// new device. 401 for a token that is wrong, unknown or expired, and 429 when its address has tried too many; 429 when the
    /// device resumes too often; 403 when the access token has all its devices; 503 when too many devices are known. (protocol: Register)
    pub fn register(
        &mut self,
        step: &mut Step,
        connection: ConnectionId,
        registration: Registration,
        allowance: Arc<Allowance>,
    ) -> Result<(), Refused> {
        let Registration {
            resumable,
            receipts,
            origin,
            accept,
            access,
            resume,
            fresh_id,
            fresh_token,
        } = registration;
        let connection = Connection::new(connection, step.now.mono);
        if let Some(Resume { token, hash, renew, barred }) = resume {
            let slot = self.directory.find_by_token(step.now, hash);
            let slot = slot.ok_or(barred.unwrap_or(Refusal::BadToken.into()))?;
            if self.directory[slot].blocked {
                return Err(Refusal::Blocked.into());
            }
            if origin != Origin::NONE {
                self.count_resume(step, slot)?;
            }
            let is_newer = self.directory.use_token(slot, hash);
            let device = &mut self.directory[slot];
            device.accept = accept.unwrap_or(device.accept);
            device.receipts = receipts;
            self.mark_used(slot);
            if renew || is_newer {
                let fresh = renew.then_some(fresh_token);
                self.resume_after_commit(step, slot, connection, token, fresh);
            } else {
                self.attach(step, slot, connection, true, Some(token));
            }
            return Ok(());
        }
        let key = access.as_ref().map_or(AccessKey::NONE, |name| self.access.key_of(name));
        self.access.check_devices(key)?;
        self.make_room_for_device(origin)?;
        let (token, hash) = resumable.then_some(fresh_token).unzip();
        let slot = self.directory.insert(fresh_id, hash, origin, allowance)?;
        self.origins.added(origin);
        self.access.added(key);
        let device = &mut self.directory[slot];
        device.accept = accept.unwrap_or_default();
        device.receipts = receipts;
        device.access = key;
        device.registered_at = i64::try_from(step.now.wall_ms).unwrap_or(i64::MAX);
        self.attach(step, slot, connection, false, token);
        Ok(())
    }

    /// A connection has ended, with this code. One that its device has replaced already changes nothing.
    pub fn disconnect(&mut self, step: &mut Step, connection: ConnectionId, code: u16) {
        self.renewals.remove(&connection);
        let Some(slot) = self.directory.find_by_connection(connection) else { return };
        self.detach(step, slot, code);
        let device = &mut self.directory[slot];
        let session = &self.settings.session;
        let absence = if device.is_resumable() { session.ttl } else { session.plain_ttl };
        if !device.is_resumable() {
            // Nobody can come back as this device and repeat a message.
            device.dedup = OnDemand::default();
            self.access.removed(device.access);
        }
        device.mailbox.trim();
        device.notices.trim();
        self.expiry.forget_later(slot, device, step.now.mono + absence);
        self.origins.may_forget(slot, device, step.now.boot_ms());
        self.store_device(slot);
    }

    /// The connection's socket has taken everything through the frame `through`.
    pub fn on_written(&mut self, step: &mut Step, connection: ConnectionId, through: Seq) {
        let Some(slot) = self.directory.find_by_connection(connection) else { return };
        let newest = self.directory[slot].mailbox.direct(through);
        if let Some(age) = newest.and_then(|item| item.age(step.now.mono)) {
            self.times.forward.observe(age);
        }
        let mut settled = std::mem::take(&mut self.settled);
        self.directory[slot].mailbox.on_written(through, |item| settled.push(item));
        for item in settled.drain(..) {
            self.delivered(step, slot, item, Status::Delivered);
        }
        self.settled = settled;
        self.dispatch(step, slot);
    }

    /// `Offline` pauses delivery to the device, `Online` resumes the delivery. (protocol: Status)
    pub(super) fn set_presence(&mut self, step: &mut Step, slot: Slot, presence: Presence) {
        if let Some(connection) = &mut self.directory[slot].connection {
            connection.delivery_paused = presence == Presence::Offline;
        }
        self.dispatch_notices(step, slot);
        self.dispatch(step, slot);
    }

    /// Forgets a device: what still waits for it has expired.
    pub(super) fn forget(&mut self, slot: Slot) {
        let Some(mut device) = self.directory.remove(slot) else { return };
        self.store.remove_device(device.id);
        if let Some(connection) = &device.connection {
            self.stuck.ended(connection);
        }
        if is_alive(&device) {
            self.access.removed(device.access);
        }
        self.expiry.remove(slot, &mut device);
        self.origins.removed(slot, &mut device);
        self.counters.correspondents_removed(device.origin, device.correspondents.len());
        if device.mailbox.places() > 0 {
            self.expiry.push_ended(device.id, device.mailbox.take_all());
        }
        self.expiry.end_notices(&mut device);
    }

    pub(super) fn attach(
        &mut self,
        step: &mut Step,
        slot: Slot,
        mut connection: Box<Connection>,
        resumed: bool,
        token: Option<Token>,
    ) {
        if let Some(older) = self.directory[slot].connection.as_ref().map(|older| older.id) {
            replace(step, older);
            self.detach(step, slot, CloseReason::Replaced.code());
            self.directory[slot].history.count_replaced();
            connection.took_over = true;
        }
        // What has expired does not count as waiting, except for what one step does not find.
        self.expire_mailbox(slot, step.now.mono, STEP_ENTRIES);
        if !self.directory[slot].receipts {
            self.drop_receipts(slot);
        }
        let id = connection.id;
        self.directory.attach(slot, connection);
        let device = &mut self.directory[slot];
        self.expiry.keep(slot, device);
        self.origins.keep(slot, device);
        let accepted = RegistrationAccepted {
            device: device.id,
            allowance: device.allowance.clone(),
            resumed,
            queued: device.mailbox.messages(),
            token,
        };
        step.deliver(id, Delivery::Registered(Box::new(accepted)));
        if device.has_record() {
            self.store_device(slot);
        }
        self.dispatch_notices(step, slot);
        self.dispatch(step, slot);
    }

    fn count_resume(&mut self, step: &Step, slot: Slot) -> Result<(), Refused> {
        let limit = self.settings.rate_limit.resumes_per_minute;
        let counted = self.directory[slot].resumes.check(step.now.mono, limit);
        counted.map_err(|wait| Refused::rate_limited(limit.get(), wait))
    }

    /// Takes the device's connection away: what was in flight waits again.
    fn detach(&mut self, step: &mut Step, slot: Slot, code: u16) {
        if let Some(ended) = self.directory.detach(slot) {
            self.stuck.ended(&ended);
        }
        let at = step.now.mono.second();
        self.directory[slot].last_end = Some(ConnectionEnd { at, code });
        let Self { directory, expiry, counters, .. } = self;
        let device = &mut directory[slot];
        let mut dropped = Vec::new();
        let mut requeued = 0;
        device.mailbox.detach(
            |item| {
                counters.returned(item);
                let keep = item.deadline > step.now.mono;
                requeued += usize::from(keep);
                keep
            },
            |item| dropped.push(item),
        );
        // The mailbox hands over the newest first; the sender of the oldest gets the first notice.
        for mut item in dropped.into_iter().rev() {
            item.in_flight = false;
            counters.found_expired(&item);
            expiry.push(device.id, item);
        }
        device.notices.trim();
        if !device.notices.is_empty() {
            device.notices.detach();
        }
        if !device.is_resumable() {
            // A plain device never comes back, so nobody will read its notices.
            expiry.end_notices(device);
        }
        self.store_places(step, slot, 0..requeued);
        self.expiry.schedule(slot, &mut self.directory[slot]);
    }
}
