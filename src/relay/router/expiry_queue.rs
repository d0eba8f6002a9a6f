//! When mailboxes must be looked at, when devices are forgotten, and which items have expired and wait for their notice.

use std::collections::{BTreeSet, HashSet, VecDeque};

use foldhash::fast::FixedState;

use super::directory::{Device, Slot};
use crate::clock::Moment;
use crate::protocol::envelope::{Envelope, Seq, Subject};
use crate::protocol::id::{DeviceId, Letters};
use crate::relay::item::Item;
use crate::relay::on_demand::Empty as _;
use crate::relay::remaining::Remaining;

/// The number of an expired item until the item is dropped; grows by one from each item to the next.
pub type Ticket = u64;

/// What is left of an item that has expired; its body is gone.
#[derive(Debug)]
pub(super) struct ExpiredItem {
    pub seq: Seq,
    pub from: DeviceId,
    pub recipient: DeviceId,
    pub recipient_letters: Letters,
    pub subject: Subject,
    /// Seconds.
    pub ttl: u64,
    pub stored: bool,
    /// What the item counted in every byte limit.
    pub bytes: u64,
}

impl ExpiredItem {
    fn new(recipient: DeviceId, item: Item) -> Self {
        let bytes = item.bytes();
        let Item { seq, stored, envelope, .. } = item;
        let Envelope { from, subject, ttl, recipient_letters, .. } = envelope;
        Self { seq, from, recipient, recipient_letters, subject, ttl, stored, bytes }
    }
}

#[derive(Debug, Default)]
pub(super) struct ExpiryQueue {
    /// One entry for each device with an item that can expire, not later than the item's deadline.
    deadlines: BTreeSet<(Moment, Slot)>,
    /// One entry for each device without a connection.
    forget_at: BTreeSet<(Moment, Slot)>,
    /// Out of their mailboxes, still counted as queued.
    awaiting_notice: VecDeque<ExpiredItem>,
    /// The sequence numbers of `awaiting_notice`.
    awaiting: HashSet<Seq, FixedState>,
    first_ticket: Ticket,
    /// The items of devices that are no longer known, until they are found to have expired.
    ended: VecDeque<(DeviceId, Remaining)>,
}

impl ExpiryQueue {
    /// Keeps the device's entry not later than the first deadline in its mailbox.
    pub fn schedule(&mut self, slot: Slot, device: &mut Device) {
        let Some(next) = device.mailbox.next_deadline() else { return };
        if device.scheduled.is_none_or(|scheduled| next < scheduled) {
            self.unschedule_due(slot, device, Moment::NEVER);
            device.scheduled = Some(next);
            self.deadlines.insert((next, slot));
        }
    }

    /// Removes the device's entry if its time has come.
    pub fn unschedule_due(&mut self, slot: Slot, device: &mut Device, now: Moment) {
        if let Some(scheduled) = device.scheduled.take_if(|scheduled| *scheduled <= now) {
            self.deadlines.remove(&(scheduled, slot));
        }
    }

    /// The device whose mailbox must be looked at, and until when: not later than `now` or the entry of the next device. So
    /// items that expired together leave together, and the store, which keeps them side by side, has less to change.
    pub fn next_scheduled(&self, now: Moment) -> Option<(Slot, Moment)> {
        let mut entries = self.deadlines.iter();
        let (_, slot) = *entries.next().filter(|(deadline, _)| *deadline <= now)?;
        let until = entries.next().map_or(now, |(deadline, _)| *deadline);
        Some((slot, until.min(now)))
    }

    pub fn forget_later(&mut self, slot: Slot, device: &mut Device, moment: Moment) {
        self.keep(slot, device);
        device.forget_at = Some(moment);
        self.forget_at.insert((moment, slot));
    }

    /// The device has a connection: it is not forgotten.
    pub fn keep(&mut self, slot: Slot, device: &mut Device) {
        if let Some(moment) = device.forget_at.take() {
            self.forget_at.remove(&(moment, slot));
        }
    }

    pub fn next_to_forget(&self, now: Moment) -> Option<Slot> {
        self.forget_at.first().filter(|(moment, _)| *moment <= now).map(|(_, slot)| *slot)
    }

    /// Removes all entries of a device that is gone.
    pub fn remove(&mut self, slot: Slot, device: &mut Device) {
        self.keep(slot, device);
        self.unschedule_due(slot, device, Moment::NEVER);
    }

    /// The device is no longer known: its items have expired.
    pub fn push_ended(&mut self, device: DeviceId, items: Remaining) {
        self.ended.push_back((device, items));
    }

    /// Nobody reads the device's notices any more.
    pub fn end_notices(&mut self, device: &mut Device) {
        if !device.notices.is_empty() {
            for notices in device.notices.take_all() {
                self.push_ended(device.id, Remaining::Notices(notices));
            }
        }
    }

    /// The next item of a device that is no longer known.
    pub fn pop_ended(&mut self) -> Option<(DeviceId, Item)> {
        while let Some((device, items)) = self.ended.front_mut() {
            if let Some(item) = items.next() {
                return Some((*device, item));
            }
            self.ended.pop_front();
        }
        None
    }

    /// All items of devices that are no longer known.
    pub fn ended(&self) -> impl Iterator<Item = &Item> {
        self.ended.iter().flat_map(|(_, items)| items.items())
    }

    pub fn push(&mut self, recipient: DeviceId, item: Item) {
        self.awaiting.insert(item.seq);
        self.awaiting_notice.push_back(ExpiredItem::new(recipient, item));
    }

    /// Whether the item waits for its notice.
    pub fn contains(&self, seq: Seq) -> bool {
        self.awaiting.contains(&seq)
    }

    pub fn len(&self) -> usize {
        self.awaiting_notice.len()
    }

    /// The longest expired first.
    pub fn iter(&self) -> impl Iterator<Item = (Ticket, &ExpiredItem)> {
        (self.first_ticket..).zip(&self.awaiting_notice)
    }

    pub fn pop_before(&mut self, end: Ticket) -> Option<(Ticket, ExpiredItem)> {
        let ticket = self.first_ticket;
        let expired = self.awaiting_notice.pop_front_if(|_| ticket < end)?;
        self.awaiting.remove(&expired.seq);
        self.first_ticket += 1;
        Some((ticket, expired))
    }

    /// When the next thing here is due.
    pub fn next_deadline(&self) -> Option<Moment> {
        let first = self.entries().into_iter().filter_map(|entries| entries.first());
        let is_due = self.len() > 0 || !self.ended.is_empty();
        let at_once = is_due.then_some(Moment::default());
        first.map(|(moment, _)| *moment).chain(at_once).min()
    }

    /// The entries for devices: deadlines in mailboxes, and when to forget.
    pub fn entries(&self) -> [&BTreeSet<(Moment, Slot)>; 2] {
        [&self.deadlines, &self.forget_at]
    }

    /// Sequence numbers of the items that wait for their notices.
    pub fn indexed(&self) -> usize {
        self.awaiting.len()
    }
}
