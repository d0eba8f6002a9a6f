//! Who may add to what: a mailbox, the relay's memory, the table of devices. (protocol: Limits, Fair shares)

use super::directory::Slot;
use super::routing::{Outcome, Sender};
use super::{Router, STEP_ENTRIES};
use crate::protocol::envelope::{AccessKey, Origin};
use crate::protocol::frame::Accept;
use crate::protocol::id::DeviceId;
use crate::protocol::refusal::Refusal;
use crate::relay::correspondents::{CORRESPONDENT_BYTES, hash};
use crate::relay::delivery::Step;
use crate::relay::fair_share::Pool;
use crate::relay::mailbox_quota::Applicant;
use crate::store::records::CorrespondentRecord;

/// Expired items that are moved out of the way of one that arrives.
const MAX_PURGED: usize = 256;
/// Of `queue.total_bytes`, the eighths that waiting items may fill; the last one is for what can be in flight at once.
const EIGHTHS_FOR_WAITING: u64 = 7;

impl Router {
    /// The recipient, and the sender as the recipient's limits see it. 404 for a device that is not known, and, in the
    /// same words, for one that does not take messages of unknown senders.
    pub(super) fn find_recipient(
        &self,
        step: &Step,
        from: Sender,
        to: DeviceId,
    ) -> Result<(Slot, Applicant), Refusal> {
        let hash = hash(self.hash_key, from.id);
        let slot = self.directory.find_alive(step.now, to).ok_or(Refusal::UnknownRecipient)?;
        let recipient = &self.directory[slot];
        let is_unknown = from.origin != Origin::NONE && !recipient.correspondents.contains(hash);
        if is_unknown && recipient.accept == Accept::Correspondents {
            return Err(Refusal::UnknownRecipient);
        }
        let Sender { id, origin, access, .. } = from;
        let applicant = Applicant { id, origin, access, is_unknown, adds_key: false };
        Ok((slot, applicant))
    }

    /// Whether there is room for an envelope; expired items are moved out before a queue is called full.
    pub(super) fn check_room(
        &mut self,
        step: &Step,
        slot: Slot,
        from: Applicant,
        bytes: u64,
    ) -> Outcome {
        let device = &self.directory[slot];
        let in_flight_at_once = device.has_credit(self.credit(), bytes);
        if in_flight_at_once && !device.is_resumable() {
            // The envelope only passes through.
            return Ok(());
        }
        if self.store.is_failing() && !in_flight_at_once {
            return Err(Refusal::Full);
        }
        if !self.find_room_in_total(step, from.origin, bytes, in_flight_at_once) {
            return Err(Refusal::Full);
        }
        if !self.access_admits(from.access, bytes) {
            self.find_expired(step.now, MAX_PURGED, &mut { STEP_ENTRIES });
            if !self.access_admits(from.access, bytes) {
                return Err(self.access.refuse_bytes());
            }
        }
        let quota = self.quota();
        if self.directory[slot].mailbox.is_full(quota, from, bytes) {
            self.expire_mailbox(slot, step.now.mono, MAX_PURGED);
            if self.directory[slot].mailbox.is_full(quota, from, bytes) {
                return Err(Refusal::QueueFull);
            }
        }
        Ok(())
    }

    /// Whether the devices of an access token may add `bytes` to what they have waiting.
    fn access_admits(&self, access: AccessKey, bytes: u64) -> bool {
        let bound = self.access.queued_bytes_bound(access);
        let held = self.counters.bytes_of_access(access);
        bound.is_none_or(|most| held.saturating_add(bytes) <= most)
    }

    /// Like [`Self::total_admits`], after expired items are moved out where that is needed.
    fn find_room_in_total(
        &mut self,
        step: &Step,
        origin: Origin,
        bytes: u64,
        in_flight_at_once: bool,
    ) -> bool {
        if self.total_admits(origin, bytes, in_flight_at_once) {
            return true;
        }
        self.find_expired(step.now, MAX_PURGED, &mut { STEP_ENTRIES });
        self.total_admits(origin, bytes, in_flight_at_once)
    }

    /// Whether an origin may add `bytes` to what all mailboxes hold.
    fn total_admits(&self, origin: Origin, bytes: u64, in_flight_at_once: bool) -> bool {
        let total = self.settings.queue.total_bytes as u64;
        let for_waiting = (total / 8).saturating_mul(EIGHTHS_FOR_WAITING);
        let capacity = if in_flight_at_once { total } else { for_waiting };
        let pool = Pool { capacity, taken: self.counters.total_bytes() };
        self.admits(pool, origin, self.counters.bytes_of(origin), bytes)
    }

    fn admits(&self, pool: Pool, origin: Origin, held: u64, more: u64) -> bool {
        if origin == Origin::NONE {
            pool.fits(more)
        } else {
            pool.admits(held, more, self.settings.limits.origin_share)
        }
    }

    /// Refuses a new device of an origin that has its share of the table. When the table is full, a device that was never used
    /// is forgotten for one whose origin has none.
    pub(super) fn make_room_for_device(&mut self, origin: Origin) -> Outcome {
        let capacity = self.settings.limits.devices as u64;
        let held = u64::from(self.origins.devices_of(origin));
        let taken = self.directory.len() as u64;
        if self.admits(Pool { capacity, taken }, origin, held, 1) {
            return Ok(());
        }
        let one_less = Pool { capacity, taken: taken.saturating_sub(1) };
        if taken < capacity || !self.admits(one_less, origin, held, 1) {
            return Err(Refusal::Full);
        }
        let slot = self.origins.next_to_forget().ok_or(Refusal::Full)?;
        self.forget(slot);
        Ok(())
    }

    /// The sender has addressed a frame to a device: from now on that device is no unknown sender to it.
    pub(super) fn record_correspondent(&mut self, step: &Step, from: Sender, other: DeviceId) {
        self.mark_used(from.slot);
        let hash = hash(self.hash_key, other);
        if self.directory[from.slot].correspondents.contains(hash) {
            return;
        }
        let has_room = self.find_room_in_total(step, from.origin, CORRESPONDENT_BYTES, true);
        let device = &mut self.directory[from.slot];
        let before = device.correspondents.len();
        if !has_room && !device.correspondents.forget_oldest() {
            return;
        }
        let number = device.correspondents.add(hash);
        if device.correspondents.len() > before {
            self.counters.correspondent_added(from.origin);
        }
        if device.is_resumable() {
            let device = device.id;
            self.store.put_correspondent(CorrespondentRecord { device, number, hash });
        }
    }

    /// Something was sent or received: the device is not forgotten for others any more.
    pub(super) fn mark_used(&mut self, slot: Slot) {
        let device = &mut self.directory[slot];
        if std::mem::replace(&mut device.used, true) {
            return;
        }
        self.origins.keep(slot, device);
        if self.directory[slot].is_resumable() {
            self.store_device(slot);
        }
    }
}
