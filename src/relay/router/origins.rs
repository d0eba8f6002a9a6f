//! How many devices each origin has, and which devices can be forgotten to make room for others. (protocol: Fair shares)

use std::collections::{BTreeSet, HashMap};

use foldhash::fast::RandomState;

use super::directory::{Device, Slot};
use crate::protocol::envelope::Origin;

#[derive(Debug, Default)]
pub(super) struct Origins {
    devices: HashMap<Origin, u32, RandomState>,
    /// Absent devices that were never used: origin, absent since (milliseconds of the boot, below 0 before it), slot.
    unused: BTreeSet<(Origin, i64, Slot)>,
    /// The origins with an unused device, by their number of devices.
    by_size: BTreeSet<(u32, Origin)>,
}

impl Origins {
    pub fn devices_of(&self, origin: Origin) -> u32 {
        self.devices.get(&origin).copied().unwrap_or(0)
    }

    pub fn added(&mut self, origin: Origin) {
        self.change(origin, |origins| *origins.devices.entry(origin).or_default() += 1);
    }

    pub fn removed(&mut self, slot: Slot, device: &mut Device) {
        self.keep(slot, device);
        self.change(device.origin, |origins| {
            if let Some(devices) = origins.devices.get_mut(&device.origin) {
                *devices -= 1;
                if *devices == 0 {
                    origins.devices.remove(&device.origin);
                }
            }
        });
    }

    /// An unused device is absent from now on: it can be forgotten. Devices without an origin are kept.
    pub fn may_forget(&mut self, slot: Slot, device: &mut Device, now_ms: i64) {
        if device.used || device.origin == Origin::NONE {
            return;
        }
        self.keep(slot, device);
        device.unused_since = Some(now_ms);
        self.change(device.origin, |origins| {
            origins.unused.insert((device.origin, now_ms, slot));
        });
    }

    /// The device is connected, or used.
    pub fn keep(&mut self, slot: Slot, device: &mut Device) {
        if let Some(since) = device.unused_since.take() {
            self.change(device.origin, |origins| {
                origins.unused.remove(&(device.origin, since, slot));
            });
        }
    }

    /// Of the largest origin's unused devices the one that has been absent longest.
    pub fn next_to_forget(&self) -> Option<Slot> {
        let (_, origin) = *self.by_size.last()?;
        self.first_unused(origin)
    }

    /// Entries in the three collections.
    pub fn indexed(&self) -> [usize; 3] {
        [self.devices.len(), self.unused.len(), self.by_size.len()]
    }

    fn first_unused(&self, origin: Origin) -> Option<Slot> {
        let mut entries = self.unused.range((origin, i64::MIN, 0)..);
        entries.next().filter(|(of, ..)| *of == origin).map(|(_, _, slot)| *slot)
    }

    /// Applies a change of one origin and keeps its entry in `by_size`.
    fn change(&mut self, origin: Origin, apply: impl FnOnce(&mut Self)) {
        self.by_size.remove(&(self.devices_of(origin), origin));
        apply(self);
        if self.first_unused(origin).is_some() {
            self.by_size.insert((self.devices_of(origin), origin));
        }
    }
}
