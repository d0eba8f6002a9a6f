//! Who is known to whom, and what each origin holds.

use sealpost::clock::Now;
use sealpost::protocol::envelope::Origin;
use sealpost::protocol::id::DeviceId;
use sealpost::relay::correspondents::{CORRESPONDENT_BYTES, hash};
use sealpost::store::Loaded;
use sealpost::store::records::HashKey;

use super::restart::dev_of;
use super::{Dev, Model, State};

/// What all mailboxes hold, and of that one origin.
pub(super) struct Total {
    pub taken: u64,
    pub of_origin: u64,
}

/// Whether an origin that holds so much may add `more` to a pool with room for it.
pub fn has_share(capacity: u64, taken: u64, held: u64, more: u64, share: f64) -> bool {
    let free = capacity.saturating_sub(taken);
    let in_reserve = free.saturating_sub(more) < capacity / 8;
    held == 0 || held as f64 <= share * free as f64 && (!in_reserve || held <= capacity / 512)
}

impl Model {
    /// A device addresses another, which is no unknown sender to it from now on.
    pub(super) fn addresses(&mut self, now: Now, from: Dev, to: DeviceId) {
        let to = hash(HashKey::default(), to);
        let origin = self.devices[from].origin;
        self.devices[from].used = true;
        if self.devices[from].correspondents.contains(&to) {
            return;
        }
        let full = !self.total_admits(now, origin, CORRESPONDENT_BYTES, true);
        let known = &mut self.devices[from].correspondents;
        if full && known.is_empty() {
            return;
        }
        if full {
            known.remove(0);
        }
        known.push(to);
    }

    pub(super) fn is_unknown(&self, from: Dev, to: Dev) -> bool {
        let sender = &self.devices[from];
        let hash = hash(HashKey::default(), sender.id);
        sender.origin != Origin::NONE && !self.devices[to].correspondents.contains(&hash)
    }

    /// Without what is over: that is looked for before anybody is refused.
    pub(super) fn total_admits(&self, now: Now, origin: Origin, bytes: u64, flies: bool) -> bool {
        let total = self.rules.total_bytes;
        let capacity = if flies { total } else { total / 8 * 7 };
        let Total { taken, of_origin } = self.total(now, origin);
        let share = self.rules.quota.origin_share;
        taken + bytes <= capacity
            && (origin == Origin::NONE || has_share(capacity, taken, of_origin, bytes, share))
    }

    fn total(&self, now: Now, origin: Origin) -> Total {
        let mut total = Total { taken: 0, of_origin: 0 };
        let mut add = |of: Origin, bytes| {
            total.taken += bytes;
            total.of_origin += if of == origin { bytes } else { 0 };
        };
        let live = self.live.iter().map(|dev| &self.devices[*dev]);
        for device in live.filter(|device| !device.forgotten) {
            add(device.origin, CORRESPONDENT_BYTES * device.correspondents.len() as u64);
            for item in device.queue.iter().map(|nr| &self.items[*nr]) {
                if item.is_held() && !item.is_over(now) {
                    add(item.origin, item.bytes());
                }
            }
            for item in device.notices.iter().map(|nr| &self.items[*nr]) {
                if matches!(item.state, State::Waiting | State::Flying) {
                    add(item.origin, item.bytes());
                }
            }
        }
        for item in self.held_notices() {
            add(item.origin, item.bytes());
        }
        total
    }

    /// After a restart: what was written is known, and nothing else.
    pub(super) fn correspondents_come_back(&mut self, loaded: &Loaded) {
        for device in &mut self.devices {
            if !device.resumable {
                device.correspondents.clear();
            }
        }
        let mut records = loaded.correspondents.clone();
        records.sort_by_key(|record| record.number);
        let before: Vec<_> =
            self.devices.iter_mut().map(|it| std::mem::take(&mut it.correspondents)).collect();
        for record in records {
            let dev = dev_of(record.device);
            if !self.devices[dev].forgotten {
                self.devices[dev].correspondents.push(record.hash);
            }
        }
        for record in &loaded.devices {
            self.devices[dev_of(record.id)].used = record.used;
        }
        drop(before);
    }
}
