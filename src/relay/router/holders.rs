//! Who holds the queue, and an end to what one of them holds, in slices, while the relay runs.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::{Router, STEP_ENTRIES, Slot};
use crate::protocol::envelope::Seq;
use crate::protocol::id::DeviceId;
use crate::relay::item::Item;
use crate::store::holder::{Held, Holder};

/// The item after which a slice begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    slot: Slot,
    after: Seq,
}

/// What one slice of all mailboxes holds.
#[derive(Debug, Default)]
pub struct HolderSlice {
    pub held: HashMap<Holder, Held, RandomState>,
    /// Where the next slice begins; `None` at the end.
    pub next: Option<Cursor>,
}

impl HolderSlice {
    fn add(&mut self, holder: Holder, bytes: u64) {
        let held = self.held.entry(holder).or_default();
        held.messages += 1;
        held.bytes = held.bytes.saturating_add(bytes);
    }
}

impl Router {
    /// What each holder has of the next items of all mailboxes.
    pub fn holders(&self, from: Cursor) -> HolderSlice {
        let mut slice = HolderSlice::default();
        let mut visits = STEP_ENTRIES;
        let mut cursor = from;
        while let Some((slot, items)) = self.next_items(&mut cursor, &mut visits) {
            for item in items {
                let bytes = item.bytes();
                slice.add(Holder::Recipient(self.directory[slot].id), bytes);
                slice.add(Holder::Sender(item.envelope.from), bytes);
                slice.add(Holder::Origin(item.envelope.origin), bytes);
                if let Some(access) = self.access_of(item.envelope.from) {
                    slice.add(Holder::Access(access), bytes);
                }
            }
        }
        slice.next = ((cursor.slot as usize) < self.directory.capacity()).then_some(cursor);
        slice
    }

    /// Lets the items of a holder expire that wait, among the next of all mailboxes; their senders get the 410 of an expired
    /// message. Returns how many there were, and where the next slice begins.
    pub fn drop_held(&mut self, from: Cursor, holder: &Holder) -> (usize, Option<Cursor>) {
        let mut visits = STEP_ENTRIES;
        let mut cursor = from;
        let mut found = Vec::new();
        while let Some((slot, items)) = self.next_items(&mut cursor, &mut visits) {
            let recipient = self.directory[slot].id;
            let is_held = |item: &&Item| {
                !item.in_flight
                    && match holder {
                        Holder::Recipient(id) => recipient == *id,
                        Holder::Sender(id) => item.envelope.from == *id,
                        Holder::Origin(origin) => item.envelope.origin == *origin,
                        Holder::Access(name) => {
                            self.access_of(item.envelope.from).as_ref() == Some(name)
                        }
                    }
            };
            found.extend(items.filter(is_held).map(|item| (slot, item.seq)));
        }
        let dropped = found.len();
        for (slot, seq) in found {
            let device = &mut self.directory[slot];
            if let Some(item) = device.mailbox.withdraw(seq) {
                self.counters.found_expired(&item);
                self.expiry.push(device.id, item);
            }
        }
        (dropped, ((cursor.slot as usize) < self.directory.capacity()).then_some(cursor))
    }

    fn access_of(&self, device: DeviceId) -> Option<Arc<str>> {
        self.access.name(self.directory[self.directory.find(device)?].access).cloned()
    }

    /// The next device's items, and moves the cursor behind them; `None` when the slice is over.
    fn next_items<'a>(
        &'a self,
        cursor: &mut Cursor,
        visits: &mut usize,
    ) -> Option<(Slot, impl Iterator<Item = &'a Item> + use<'a>)> {
        while *visits > 0 && (cursor.slot as usize) < self.directory.capacity() {
            let Cursor { slot, after } = *cursor;
            *visits -= 1;
            let device = self.directory.get(slot);
            let first = device.map_or(0, |device| device.mailbox.place_after(after));
            let left = device.map_or(0, |device| device.mailbox.places() - first);
            let count = left.min(*visits);
            *visits -= count;
            let last =
                device.and_then(|device| device.mailbox.seq_at((first + count).checked_sub(1)?));
            *cursor = match last {
                Some(last) if count < left => Cursor { slot, after: last },
                _ if count < left => *cursor,
                _ => Cursor { slot: slot + 1, after: 0 },
            };
            if count > 0
                && let Some(device) = device
            {
                return Some((slot, device.mailbox.items_at(first, count)));
            }
        }
        None
    }
}
