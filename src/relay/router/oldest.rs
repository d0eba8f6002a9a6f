//! How long the oldest of all waiting messages has waited, found by a walk through the directory in slices.

use std::time::Duration;

use super::{Router, STEP_ENTRIES, Slot};
use crate::clock::{Moment, Now};

/// Places of a mailbox in which its first message is looked for: key rotations may stand before it.
const PLACES: usize = 8;

/// Where the walk is.
#[derive(Debug, Default)]
pub(super) struct OldestWaiting {
    next: Slot,
    /// When the oldest message that this walk has met was accepted.
    met: Option<Moment>,
    /// What the last whole walk has met.
    found: Option<Moment>,
}

impl Router {
    /// The age of the oldest message that waited when the directory was last walked through: a second ago, or for more than
    /// [`STEP_ENTRIES`] devices some seconds.
    pub(super) fn oldest_waiting(&self, now: Now) -> Option<Duration> {
        self.oldest.found.map(|accepted_at| now.mono - accepted_at)
    }

    /// Walks through the next devices.
    pub(super) fn walk_for_oldest(&mut self, now: Now) {
        let Self { directory, oldest, .. } = self;
        let end = directory.capacity().min(oldest.next as usize + STEP_ENTRIES);
        for slot in oldest.next as usize..end {
            let Some(device) = directory.get(slot as Slot) else { continue };
            let mut waiting = device.mailbox.first_waiting(PLACES);
            let age = waiting.find_map(|item| item.age(now.mono));
            let accepted_at = age.map(|age| {
                Moment::default() + ((now.mono - Moment::default()).saturating_sub(age))
            });
            oldest.met = oldest.met.into_iter().chain(accepted_at).min();
        }
        oldest.next = end as Slot;
        if end == directory.capacity() {
            oldest.found = oldest.met.take();
            oldest.next = 0;
        }
    }
}
