//! One device's mail: what waits for it and what is in flight to it, in one order of arrival.
//!
//! An item has one owner, this mailbox, until it is settled. A connection only borrows what it has credit for; when it
//! dies, what is in flight goes back to the head of what waits. Deadlines stand beside the items in a heap whose stale
//! entries are skipped, so an item that never expires costs no search.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use foldhash::fast::RandomState;

use crate::clock::Moment;
use crate::protocol::envelope::{Envelope, Seq, Subject};
use crate::protocol::id::{DeviceId, MessageId};

/// Empty queues with room for more than this many items give the room back.
const SPARE_CAPACITY: usize = 4;

/// What settles an item: the moment from which the recipient has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettledBy {
    /// Its connection took the bytes.
    Write,
    /// It confirmed.
    Ack,
}

impl SettledBy {
    /// What settles this envelope for a device that can resume, or cannot.
    #[must_use]
    pub fn of(envelope: &Envelope, resumable: bool) -> Self {
        match envelope.subject {
            // With a ttl of 0 it is for this moment only: nothing is left to be confirmed later.
            Subject::Message(_) | Subject::KeyRotation(_) if resumable && envelope.ttl > 0 => {
                Self::Ack
            }
            _ => Self::Write,
        }
    }
}

/// An envelope in a mailbox.
#[derive(Debug)]
pub struct Item {
    /// Its place in the order of arrival.
    pub seq: Seq,
    /// From this moment on it is never handed over again.
    pub deadline: Moment,
    /// When it counts as delivered.
    pub settles: SettledBy,
    /// Whether the store was asked to keep it.
    pub stored: bool,
    /// Whether its sender still waits for the Ack.
    pub owes_ack: bool,
    /// Whether a connection has it; the mailbox sets it.
    pub in_flight: bool,
    /// Whether a connection ever had it; the mailbox sets it.
    pub seen: bool,
    /// What it carries.
    pub envelope: Envelope,
}

impl Item {
    /// For a device that can resume, or cannot; kept by nobody yet, and nobody has it.
    #[must_use]
    pub fn new(seq: Seq, deadline: Moment, envelope: Envelope, resumable: bool) -> Self {
        Self {
            seq,
            deadline,
            settles: SettledBy::of(&envelope, resumable),
            stored: false,
            owes_ack: false,
            in_flight: false,
            seen: false,
            envelope,
        }
    }

    /// Whether it must outlive the process once it waits for its device.
    #[must_use]
    pub fn must_be_stored(&self, resumable: bool) -> bool {
        match self.envelope.subject {
            Subject::Message(_) | Subject::KeyRotation(_) | Subject::KeyRotationAck(_) => true,
            // Only a resumable device comes back to read what the relay has to say to it.
            Subject::Notice => resumable,
            // An exchange does not outlive the process.
            Subject::Auth => false,
        }
    }

    /// What it counts in every byte limit.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.envelope.body.len() as u64
    }
}

/// How much may be in flight to one connection.
#[derive(Debug, Clone, Copy)]
pub struct Credit {
    /// Items.
    pub window: usize,
    /// Bytes; one item is always allowed.
    pub bytes: u64,
}

/// How much one mailbox may hold.
#[derive(Debug, Clone, Copy)]
pub struct MailboxQuota {
    /// Items, without the relay's own notices.
    pub messages: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Share of both that one sender may fill, in (0, 1].
    pub sender_share: f64,
}

/// Number and bytes of what devices sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Items.
    pub messages: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Usage {
    fn add(&mut self, bytes: u64) {
        self.messages += 1;
        self.bytes += bytes;
    }

    fn sub(&mut self, bytes: u64) {
        self.messages -= 1;
        self.bytes -= bytes;
    }

    /// Whether one more of so many bytes goes over a limit.
    fn exceeds_with(&self, bytes: u64, messages: usize, most: u64) -> bool {
        self.messages >= messages || self.bytes.saturating_add(bytes) > most
    }
}

/// What [`Mailbox::next_deliverable`] found at the head.
#[derive(Debug)]
pub enum Next<'a> {
    /// This one is in flight now.
    InFlight(&'a Item),
    /// This one had expired and has left the mailbox.
    Expired(Item),
    /// Nothing waits, or there is no credit for it.
    Nothing,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Mailbox {
    flight: VecDeque<Item>,
    flight_bytes: u64,
    /// In order of `seq`; `None` where an item left from the middle.
    waiting: VecDeque<(Seq, Option<Item>)>,
    holes: usize,
    deadlines: BinaryHeap<Reverse<(Moment, Seq)>>,
    usage: Usage,
    by_sender: HashMap<DeviceId, Usage, RandomState>,
    notices: usize,
}

impl Mailbox {
    /// Items in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.flight.len()
    }

    /// Items that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len() - self.holes
    }

    /// Messages that a resuming client has coming: counted items, waiting or in flight.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.items().filter(|item| item.envelope.subject.is_counted()).count()
    }

    /// What the quota sees.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// The relay's own words that wait or are in flight.
    #[must_use]
    pub fn notices(&self) -> usize {
        self.notices
    }

    /// Not later than the first deadline of what can expire here; earlier if that item has left already.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        self.deadlines.peek().map(|Reverse((deadline, _))| *deadline)
    }

    /// Whether an item of so many bytes could fly at once, overtaking nothing.
    #[must_use]
    pub fn has_credit(&self, credit: Credit, bytes: u64) -> bool {
        self.waiting() == 0 && self.room(credit, bytes)
    }

    /// Whether the quota has no place for an item of that sender.
    #[must_use]
    pub fn is_full(&self, quota: MailboxQuota, from: DeviceId, bytes: u64) -> bool {
        if self.usage.exceeds_with(bytes, quota.messages, quota.bytes) {
            return true;
        }
        let messages = ((quota.messages as f64 * quota.sender_share) as usize).max(1);
        let most = (quota.bytes as f64 * quota.sender_share) as u64;
        self.by_sender.get(&from).is_some_and(|load| load.exceeds_with(bytes, messages, most))
    }

    /// Puts an item into flight that overtakes nothing; see [`Self::has_credit`].
    pub fn push_in_flight(&mut self, item: Item) {
        if item.settles == SettledBy::Ack {
            self.hold(&item);
        }
        self.notices += usize::from(item.envelope.subject == Subject::Notice);
        // Older than this item, holes would stand out of order behind it should it come back.
        self.fill_holes();
        self.push_flight(item);
        self.trim_deadlines();
    }

    /// Puts an item behind everything that waits.
    pub fn push_waiting(&mut self, item: Item) {
        self.hold(&item);
        self.notices += usize::from(item.envelope.subject == Subject::Notice);
        self.waiting.push_back((item.seq, Some(item)));
        self.trim_deadlines();
    }

    /// Takes the next step with the head of what waits.
    pub fn next_deliverable(&mut self, now: Moment, credit: Credit) -> Next<'_> {
        self.skip_holes();
        let Some((_, Some(head))) = self.waiting.front() else {
            self.give_back_room();
            return Next::Nothing;
        };
        let expired = head.deadline <= now;
        if !expired && !self.room(credit, head.bytes()) {
            return Next::Nothing;
        }
        let Some((_, Some(item))) = self.waiting.pop_front() else { return Next::Nothing };
        if expired {
            self.account_left(&item, true);
            return Next::Expired(item);
        }
        if item.settles == SettledBy::Write {
            self.release(&item);
        }
        self.push_flight(item);
        self.flight.back().map_or(Next::Nothing, Next::InFlight)
    }

    /// The connection took everything through `mark`: what that settles leaves the mailbox, in order.
    pub fn on_written(&mut self, through: Seq, mut settled: impl FnMut(Item)) {
        let mut place = 0;
        while let Some(item) = self.flight.get(place) {
            if item.seq > through {
                break;
            }
            if item.settles == SettledBy::Ack {
                place += 1;
            } else if let Some(item) = self.flight.remove(place) {
                self.flight_bytes -= item.bytes();
                self.account_left(&item, false);
                settled(item);
            }
        }
        self.give_back_room();
    }

    /// The recipient confirms a message, of that sender if it says so. What it cannot have seen is not confirmed.
    pub fn ack(&mut self, id: MessageId, from: Option<DeviceId>) -> Option<Item> {
        self.ack_where(|envelope| {
            envelope.subject == Subject::Message(id)
                && from.is_none_or(|from| from == envelope.from)
        })
    }

    /// The recipient confirms a key rotation of that sender.
    pub fn ack_key(&mut self, key_id: &str, from: DeviceId) -> Option<Item> {
        self.ack_where(|envelope| {
            envelope.from == from
                && matches!(&envelope.subject, Subject::KeyRotation(key) if **key == *key_id)
        })
    }

    /// The connection is gone: what was in flight waits again, at the head and in order. What was only for this
    /// moment (`keep` says no) leaves.
    pub fn detach(&mut self, mut keep: impl FnMut(&Item) -> bool, mut left: impl FnMut(Item)) {
        self.flight_bytes = 0;
        let mut flight = std::mem::take(&mut self.flight);
        while let Some(mut item) = flight.pop_back() {
            if keep(&item) {
                item.in_flight = false;
                if item.settles == SettledBy::Write {
                    self.hold(&item);
                }
                self.waiting.push_front((item.seq, Some(item)));
            } else {
                self.account_left(&item, item.settles == SettledBy::Ack);
                left(item);
            }
        }
        self.trim_deadlines();
    }

    /// Takes out an item that waits, as if it had never come.
    pub fn withdraw(&mut self, seq: Seq) -> Option<Item> {
        let item = self.take(seq)?;
        self.account_left(&item, true);
        self.give_back_room();
        Some(item)
    }

    /// Places in the order of waiting, holes included: what [`Self::unstored`] counts.
    #[must_use]
    pub fn waiting_places(&self) -> usize {
        self.waiting.len()
    }

    /// Of the first so many that wait, those that no store keeps yet, in order.
    pub fn unstored(&mut self, first: usize) -> impl Iterator<Item = &mut Item> {
        let first = self.waiting.iter_mut().take(first);
        first.filter_map(|(_, item)| item.as_mut()).filter(|item| !item.stored)
    }

    /// Of what is in flight and must be confirmed, those that no store keeps yet, in order.
    pub fn unstored_in_flight(&mut self) -> impl Iterator<Item = &mut Item> {
        let confirmed = |item: &&mut Item| item.settles == SettledBy::Ack && !item.stored;
        self.flight.iter_mut().filter(confirmed)
    }

    /// Takes out what has expired, at most `limit` items; in order of their deadlines.
    pub fn expire(&mut self, now: Moment, limit: usize, mut expired: impl FnMut(Item)) {
        let mut left = limit;
        while left > 0 {
            let Some(Reverse((deadline, seq))) = self.deadlines.peek().copied() else { break };
            if deadline > now {
                break;
            }
            self.deadlines.pop();
            if let Some(item) = self.take(seq) {
                self.account_left(&item, true);
                expired(item);
                left -= 1;
            }
        }
        self.give_back_room();
    }

    /// Takes out everything, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = Item> + use<> {
        let all = std::mem::take(self);
        all.flight.into_iter().chain(all.waiting.into_iter().filter_map(|(_, item)| item))
    }

    /// The message of that name from that sender.
    #[must_use]
    pub fn find(&self, id: MessageId, from: DeviceId) -> Option<&Item> {
        self.items().find(|item| {
            item.envelope.from == from && item.envelope.subject == Subject::Message(id)
        })
    }

    /// The item of that sequence.
    pub fn get_mut(&mut self, seq: Seq) -> Option<&mut Item> {
        if let Ok(place) = self.waiting.binary_search_by_key(&seq, |(seq, _)| *seq) {
            return self.waiting[place].1.as_mut();
        }
        self.flight.iter_mut().find(|item| item.seq == seq)
    }

    /// Recounts everything that is kept twice; for tests.
    pub(super) fn audit(&self) -> Result<(), String> {
        let mut watched: Vec<_> = self.deadlines.iter().map(|Reverse(entry)| *entry).collect();
        watched.sort_unstable();
        let mut held = Usage::default();
        let mut by_sender: HashMap<DeviceId, Usage, RandomState> = HashMap::default();
        for item in self.items() {
            let is_held = !item.in_flight || item.settles == SettledBy::Ack;
            if is_held && item.envelope.subject.takes_room() {
                held.add(item.bytes());
                by_sender.entry(item.envelope.from).or_default().add(item.bytes());
            }
            let entry = (item.deadline, item.seq);
            let can_expire = is_held && item.deadline < Moment::NEVER;
            if can_expire && watched.binary_search(&entry).is_err() {
                return Err(format!("nobody watches the deadline of {}", item.seq));
            }
        }
        let notices = self.items().filter(|item| item.envelope.subject == Subject::Notice).count();
        let holes = self.waiting.iter().filter(|(_, item)| item.is_none()).count();
        let order = self.flight.iter().map(|item| item.seq);
        let order = order.chain(self.waiting.iter().map(|(seq, _)| *seq));
        let fits = held == self.usage
            && by_sender == self.by_sender
            && notices == self.notices
            && holes == self.holes
            && self.flight.iter().map(Item::bytes).sum::<u64>() == self.flight_bytes
            && self.flight.iter().all(|item| item.in_flight)
            && order.is_sorted_by(|a, b| a < b);
        if fits { Ok(()) } else { Err(format!("the mailbox does not add up: {self:?}")) }
    }

    pub(super) fn items(&self) -> impl Iterator<Item = &Item> {
        let waiting = self.waiting.iter().filter_map(|(_, item)| item.as_ref());
        self.flight.iter().chain(waiting)
    }

    fn room(&self, credit: Credit, bytes: u64) -> bool {
        self.flight.is_empty()
            || (self.flight.len() < credit.window
                && self.flight_bytes.saturating_add(bytes) <= credit.bytes)
    }

    fn push_flight(&mut self, mut item: Item) {
        item.in_flight = true;
        item.seen = true;
        self.flight_bytes += item.bytes();
        self.flight.push_back(item);
    }

    fn ack_where(&mut self, fits: impl Fn(&Envelope) -> bool) -> Option<Item> {
        let confirms = |item: &Item| item.settles == SettledBy::Ack && fits(&item.envelope);
        if let Some(place) = self.flight.iter().position(confirms) {
            let item = self.flight.remove(place)?;
            self.flight_bytes -= item.bytes();
            self.account_left(&item, true);
            self.give_back_room();
            return Some(item);
        }
        // What an older connection had in flight stands at the head of what waits.
        let seq = self
            .waiting
            .iter()
            .take_while(|(_, item)| item.as_ref().is_none_or(|item| item.seen))
            .find(|(_, item)| item.as_ref().is_some_and(confirms))
            .map(|(seq, _)| *seq)?;
        let item = self.take(seq)?;
        self.account_left(&item, true);
        self.give_back_room();
        Some(item)
    }

    /// Removes an item wherever it is; the books are the caller's.
    fn take(&mut self, seq: Seq) -> Option<Item> {
        // What expires first mostly came first, and a search through much that waits is a walk through cold memory.
        self.skip_holes();
        if self.waiting.front().is_some_and(|(first, _)| *first == seq) {
            let (_, item) = self.waiting.pop_front()?;
            self.skip_holes();
            return item;
        }
        if let Ok(place) = self.waiting.binary_search_by_key(&seq, |(seq, _)| *seq) {
            let item = self.waiting[place].1.take()?;
            self.holes += 1;
            if self.holes > SPARE_CAPACITY && self.holes > self.waiting.len() / 2 {
                self.waiting.retain(|(_, item)| item.is_some());
                self.holes = 0;
            }
            return Some(item);
        }
        // An item in flight that settles when taken is past recall.
        let place = self
            .flight
            .iter()
            .position(|item| item.seq == seq && item.settles == SettledBy::Ack)?;
        let item = self.flight.remove(place)?;
        self.flight_bytes -= item.bytes();
        Some(item)
    }

    /// An item that can expire here from now on, and that counts.
    fn hold(&mut self, item: &Item) {
        if item.envelope.subject.takes_room() {
            self.usage.add(item.bytes());
            self.by_sender.entry(item.envelope.from).or_default().add(item.bytes());
        }
        if item.deadline < Moment::NEVER {
            self.deadlines.push(Reverse((item.deadline, item.seq)));
        }
    }

    /// Entries of items that have left are only skipped when their time comes; they must not pile up until then.
    fn trim_deadlines(&mut self) {
        if self.deadlines.len() > 2 * (self.flight.len() + self.waiting.len()) + 64 {
            let can_expire = self.items().filter(|item| item.deadline < Moment::NEVER);
            self.deadlines = can_expire.map(|item| Reverse((item.deadline, item.seq))).collect();
        }
    }

    fn release(&mut self, item: &Item) {
        if item.envelope.subject.takes_room() {
            self.usage.sub(item.bytes());
            if let Some(load) = self.by_sender.get_mut(&item.envelope.from) {
                load.sub(item.bytes());
                if load.messages == 0 {
                    self.by_sender.remove(&item.envelope.from);
                }
            }
        }
    }

    fn account_left(&mut self, item: &Item, held: bool) {
        self.notices -= usize::from(item.envelope.subject == Subject::Notice);
        if held {
            self.release(item);
        }
    }

    /// Brings the first item that waits to the head.
    fn skip_holes(&mut self) {
        while let Some((_, None)) = self.waiting.front() {
            self.waiting.pop_front();
            self.holes -= 1;
        }
    }

    /// Where nothing waits, holes are all there is.
    fn fill_holes(&mut self) {
        if self.waiting() == 0 {
            self.waiting.clear();
            self.holes = 0;
        }
    }

    fn give_back_room(&mut self) {
        self.fill_holes();
        if self.flight.is_empty() && self.flight.capacity() > SPARE_CAPACITY {
            self.flight = VecDeque::new();
        }
        if self.waiting.is_empty() && self.waiting.capacity() > SPARE_CAPACITY {
            self.waiting = VecDeque::new();
        }
        if self.waiting.is_empty() && self.flight.is_empty() {
            self.deadlines.clear();
            if self.deadlines.capacity() > SPARE_CAPACITY {
                self.deadlines = BinaryHeap::new();
            }
            if self.by_sender.capacity() > SPARE_CAPACITY {
                self.by_sender.shrink_to_fit();
            }
        }
    }
}

#[cfg(test)]
#[path = "mailbox_tests.rs"]
mod tests;
