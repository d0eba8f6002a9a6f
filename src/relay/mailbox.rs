//! The mailbox of one device: what waits for the device and what is in flight to it, in one order of arrival.
//!
//! The first places are in flight on the device's connection: when the connection ends, the same items wait again in
//! their old order. An item that leaves from the middle of what waits leaves an empty place, which is removed at the head or
//! when half of the places are empty. No operation searches all that waits.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::Range;
use std::sync::LazyLock;

use super::item::{Item, SettledBy};
use super::mailbox_quota::{Applicant, MailboxQuota, MailboxUsage, Usage};
use super::on_demand::Empty;
use super::remaining::Remaining;
use crate::clock::Moment;
use crate::protocol::envelope::{Envelope, Seq, Subject};
use crate::protocol::id::{DeviceId, MessageId};
use crate::protocol::json_string::same;

/// An empty mailbox gives back the memory of more items than this.
const SPARE_CAPACITY: usize = 4;

/// How many items and bytes may be in flight to one connection.
#[derive(Debug, Clone, Copy)]
pub struct Credit {
    pub window: usize,
    /// One item is always allowed.
    pub bytes: u64,
}

/// What [`Mailbox::next_deliverable`] found at the head.
#[derive(Debug)]
pub enum Next<'a> {
    InFlight(&'a Item),
    /// This one has left the mailbox.
    Expired(Item),
    /// Nothing waits, or there is no credit for it.
    Nothing,
}

#[derive(Debug, Default)]
pub struct Mailbox {
    /// By rising `seq`. The first `in_flight` places are never empty.
    places: VecDeque<Place>,
    in_flight: usize,
    in_flight_bytes: u64,
    holes: usize,
    /// Waiting items that an earlier connection had; these are the first that wait.
    waiting_again: usize,
    /// Entries whose item has left are skipped.
    deadlines: BinaryHeap<Reverse<(Moment, Seq)>>,
    /// What counts against the quota: what waits, and what is in flight until its Ack.
    usage: MailboxUsage,
    messages: usize,
}

impl Empty for Mailbox {
    fn empty() -> &'static Self {
        static EMPTY: LazyLock<Mailbox> = LazyLock::new(Mailbox::default);
        &EMPTY
    }

    fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

#[derive(Debug)]
pub struct Place {
    seq: Seq,
    pub(super) item: Option<Item>,
}

impl Mailbox {
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub fn waiting(&self) -> usize {
        self.places.len() - self.holes - self.in_flight
    }

    /// The first places of what waits.
    pub fn first_waiting(&self, places: usize) -> impl Iterator<Item = &Item> {
        self.items_at(self.in_flight, places)
    }

    /// Messages and key rotations, waiting or in flight.
    pub fn messages(&self) -> usize {
        self.messages
    }

    /// The first deadline of the items that can expire here, or an earlier one whose item has left already.
    pub fn next_deadline(&self) -> Option<Moment> {
        self.deadlines.peek().map(|Reverse((deadline, _))| *deadline)
    }

    /// Whether an item of `bytes` could be in flight at once, overtaking nothing.
    pub fn has_credit(&self, credit: Credit, bytes: u64) -> bool {
        self.waiting() == 0 && self.credit_covers(credit, bytes)
    }

    /// What counts against the quota.
    pub fn usage(&self) -> Usage {
        self.usage.total
    }

    pub fn is_full(&self, quota: MailboxQuota, from: Applicant, bytes: u64) -> bool {
        self.usage.is_full(quota, from, bytes)
    }

    /// Adds an item that is in flight at once; only where [`Self::has_credit`] is true.
    pub fn push_in_flight(&mut self, item: Item) {
        let item = Item { is_direct: true, ..item };
        if item.settles == SettledBy::Ack {
            self.count_held(&item);
        }
        self.remove_holes_if_nothing_waits();
        self.push(item);
        self.mark_in_flight();
    }

    pub fn push_waiting(&mut self, item: Item) {
        self.count_held(&item);
        self.push(item);
    }

    /// Puts the first waiting item in flight, or takes the item out if it has expired.
    pub fn next_deliverable(&mut self, now: Moment, credit: Credit) -> Next<'_> {
        self.remove_holes_at_head();
        let place = self.places.get(self.in_flight);
        let Some(head) = place.and_then(|place| place.item.as_ref()) else {
            self.give_back_memory();
            return Next::Nothing;
        };
        if head.deadline <= now {
            let seq = head.seq;
            return self.take(seq).map_or(Next::Nothing, Next::Expired);
        }
        if !self.credit_covers(credit, head.bytes()) {
            return Next::Nothing;
        }
        self.waiting_again -= usize::from(head.handed_over);
        if head.settles == SettledBy::Write {
            self.usage.remove(head);
        }
        self.mark_in_flight().map_or(Next::Nothing, Next::InFlight)
    }

    /// The socket has taken everything through this sequence number: items settled by write leave, in order.
    pub fn on_written(&mut self, through: Seq, mut settled: impl FnMut(Item)) {
        let mut index = 0;
        while index < self.in_flight && self.places[index].seq <= through {
            if self.item_at(index).is_some_and(|item| item.settles == SettledBy::Ack) {
                index += 1;
            } else if let Some(item) = self.remove_in_flight(index) {
                settled(item);
            }
        }
        self.give_back_memory();
    }

    /// The item in flight with this number, if it never waited.
    pub fn direct(&self, seq: Seq) -> Option<&Item> {
        let index = self.places.partition_point(|place| place.seq < seq);
        let place = self.places.get(index).filter(|place| place.seq == seq)?;
        place.item.as_ref().filter(|item| item.is_direct && item.in_flight)
    }

    /// The recipient acks a message, from that sender if the Ack names one. Only what a connection had can be acked.
    pub fn ack(&mut self, id: MessageId, from: Option<DeviceId>) -> Option<Item> {
        self.ack_where(|envelope| {
            envelope.subject == Subject::Message(id)
                && from.is_none_or(|from| from == envelope.from)
        })
    }

    /// The recipient acks the key of a `KeyRotationUpdate` from that sender. `key_id` is raw JSON; two strings
    /// are compared by what they stand for.
    pub fn ack_key(&mut self, key_id: &str, from: DeviceId) -> Option<Item> {
        self.ack_where(|envelope| {
            envelope.from == from
                && matches!(&envelope.subject, Subject::KeyRotation(key) if same(key, key_id))
        })
    }

    /// The connection has ended: what was in flight waits again, except what `keep` refuses; that is handed to `dropped`,
    /// the newest first.
    pub fn detach(&mut self, mut keep: impl FnMut(&Item) -> bool, mut dropped: impl FnMut(Item)) {
        let in_flight = std::mem::take(&mut self.in_flight);
        self.in_flight_bytes = 0;
        let places: Vec<Place> = self.places.drain(..in_flight).collect();
        for mut item in places.into_iter().rev().filter_map(|place| place.item) {
            let held = item.settles == SettledBy::Ack;
            if keep(&item) {
                item.in_flight = false;
                if !held {
                    self.count_held(&item);
                }
                self.waiting_again += 1;
                self.places.push_front(Place { seq: item.seq, item: Some(item) });
            } else {
                self.uncount(&item, held);
                dropped(item);
            }
        }
        self.trim_deadlines();
    }

    /// Takes out a waiting item, or one in flight that awaits its Ack, as if it had never come.
    pub fn withdraw(&mut self, seq: Seq) -> Option<Item> {
        let item = self.take(seq)?;
        self.give_back_memory();
        Some(item)
    }

    /// The number of places, of items and holes.
    pub fn places(&self) -> usize {
        self.places.len()
    }

    /// The first place whose item has a higher sequence number.
    pub fn place_after(&self, seq: Seq) -> usize {
        self.places.partition_point(|place| place.seq <= seq)
    }

    /// The sequence number of a place.
    pub fn seq_at(&self, place: usize) -> Option<Seq> {
        Some(self.places.get(place)?.seq)
    }

    /// Of the items in some places, those that wait or await an Ack and that the store was not asked to keep, in order.
    pub fn unstored(&mut self, places: Range<usize>) -> impl Iterator<Item = &mut Item> {
        let places = self.places.iter_mut().skip(places.start).take(places.len());
        let items = places.filter_map(|place| place.item.as_mut());
        items.filter(|item| !item.stored && item.is_held())
    }

    /// Takes out at most `limit` expired items, in the order of their deadlines.
    pub fn expire(&mut self, now: Moment, mut limit: usize, mut expired: impl FnMut(Item)) {
        while limit > 0
            && let Some(Reverse((deadline, seq))) = self.deadlines.peek().copied()
            && deadline <= now
        {
            self.deadlines.pop();
            if let Some(item) = self.take(seq) {
                expired(item);
                limit -= 1;
            }
        }
        self.give_back_memory();
    }

    /// Empties the mailbox.
    pub fn take_all(&mut self) -> Remaining {
        Remaining::Mailbox(std::mem::take(self).places)
    }

    pub fn get(&self, seq: Seq) -> Option<&Item> {
        self.item_at(self.index_of(seq)?)
    }

    pub fn get_mut(&mut self, seq: Seq) -> Option<&mut Item> {
        let index = self.index_of(seq)?;
        self.places[index].item.as_mut()
    }

    pub(super) fn items(&self) -> impl Iterator<Item = &Item> {
        self.places.iter().filter_map(|place| place.item.as_ref())
    }

    /// The items in `count` places from `first` on.
    pub fn items_at(&self, first: usize, count: usize) -> impl Iterator<Item = &Item> {
        self.places.iter().skip(first).take(count).filter_map(|place| place.item.as_ref())
    }

    fn item_at(&self, index: usize) -> Option<&Item> {
        self.places.get(index)?.item.as_ref()
    }

    fn index_of(&self, seq: Seq) -> Option<usize> {
        self.places.binary_search_by_key(&seq, |place| place.seq).ok()
    }

    fn credit_covers(&self, credit: Credit, bytes: u64) -> bool {
        self.in_flight == 0
            || (self.in_flight < credit.window
                && self.in_flight_bytes.saturating_add(bytes) <= credit.bytes)
    }

    fn push(&mut self, item: Item) {
        self.messages += usize::from(item.envelope.subject.is_counted());
        if self.places.capacity() == 0 {
            // Room for the one item that most mailboxes hold; a deque would begin with four.
            self.places.reserve_exact(1);
        }
        self.places.push_back(Place { seq: item.seq, item: Some(item) });
        self.trim_deadlines();
    }

    /// The first waiting item is in flight from now on; its place stays the same.
    fn mark_in_flight(&mut self) -> Option<&Item> {
        let item = self.places.get_mut(self.in_flight)?.item.as_mut()?;
        item.in_flight = true;
        item.handed_over = true;
        self.in_flight_bytes += item.bytes();
        self.in_flight += 1;
        Some(item)
    }

    fn ack_where(&mut self, fits: impl Fn(&Envelope) -> bool) -> Option<Item> {
        let acks = |item: &Item| item.settles == SettledBy::Ack && fits(&item.envelope);
        let mut in_flight = self.places.range(..self.in_flight).map(|place| place.item.as_ref());
        if let Some(index) = in_flight.position(|item| item.is_some_and(&acks)) {
            let item = self.remove_in_flight(index);
            self.give_back_memory();
            return item;
        }
        // What an earlier connection had stands at the head of what waits.
        let waiting = self.places.range(self.in_flight..).filter_map(|place| place.item.as_ref());
        let seq = waiting.take(self.waiting_again).find(|item| acks(item))?.seq;
        self.withdraw(seq)
    }

    /// Removes a waiting item, or one in flight that awaits its Ack. An item in flight that settles by write cannot be
    /// recalled.
    fn take(&mut self, seq: Seq) -> Option<Item> {
        // With equal ttls the oldest item expires first, and a binary search of a long deque misses the cache.
        let is_head = self.places.get(self.in_flight).is_some_and(|place| place.seq == seq);
        let index = if is_head { self.in_flight } else { self.index_of(seq)? };
        if index < self.in_flight {
            if self.item_at(index)?.settles == SettledBy::Write {
                return None;
            }
            return self.remove_in_flight(index);
        }
        let item = self.places[index].item.take()?;
        self.holes += 1;
        self.waiting_again -= usize::from(item.handed_over);
        self.uncount(&item, true);
        self.remove_holes_at_head();
        if self.holes > SPARE_CAPACITY && self.holes > self.places.len() / 2 {
            self.places.retain(|place| place.item.is_some());
            self.holes = 0;
        }
        Some(item)
    }

    /// Removes an item in flight. At most a window of items moves up.
    fn remove_in_flight(&mut self, index: usize) -> Option<Item> {
        let item = self.places.remove(index)?.item?;
        self.in_flight -= 1;
        self.in_flight_bytes -= item.bytes();
        self.uncount(&item, item.settles == SettledBy::Ack);
        Some(item)
    }

    /// Counts an item that can expire here from now on.
    fn count_held(&mut self, item: &Item) {
        self.usage.add(item);
        if item.deadline < Moment::NEVER {
            if self.deadlines.capacity() == 0 {
                self.deadlines.reserve_exact(1);
            }
            self.deadlines.push(Reverse((item.deadline, item.seq)));
        }
    }

    /// The item has left; `held` if it was counted by [`Self::count_held`].
    fn uncount(&mut self, item: &Item, held: bool) {
        self.messages -= usize::from(item.envelope.subject.is_counted());
        if held {
            self.usage.remove(item);
        }
    }

    /// Entries of items that have left are skipped when their time comes; until then they must not pile up.
    fn trim_deadlines(&mut self) {
        if self.deadlines.len() > 2 * self.places.len() + 64 {
            let can_expire = self.items().filter(|item| item.deadline < Moment::NEVER);
            self.deadlines = can_expire.map(|item| Reverse((item.deadline, item.seq))).collect();
        }
    }

    /// Brings the first waiting item to the head of what waits.
    fn remove_holes_at_head(&mut self) {
        if self.holes == 0 {
            return;
        }
        let waiting = self.places.iter().skip(self.in_flight);
        let empty = waiting.take_while(|place| place.item.is_none()).count();
        self.places.drain(self.in_flight..self.in_flight + empty);
        self.holes -= empty;
    }

    fn remove_holes_if_nothing_waits(&mut self) {
        if self.waiting() == 0 {
            self.places.truncate(self.in_flight);
            self.holes = 0;
        }
    }

    fn give_back_memory(&mut self) {
        self.remove_holes_if_nothing_waits();
        if !self.places.is_empty() {
            return;
        }
        self.deadlines.clear();
        if self.places.capacity() > SPARE_CAPACITY {
            self.places = VecDeque::new();
        }
        if self.deadlines.capacity() > SPARE_CAPACITY {
            self.deadlines = BinaryHeap::new();
        }
        self.usage.give_back_memory();
    }
}

#[path = "mailbox_audit.rs"]
mod audit;
#[cfg(test)]
#[path = "mailbox_tests.rs"]
mod tests;
