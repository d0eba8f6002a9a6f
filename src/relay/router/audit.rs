//! Whether the router's counters and indexes agree with its items; for tests.

use std::collections::BTreeSet;

use super::Router;
use super::counters::counted;
use crate::clock::Moment;

impl Router {
    /// Recounts everything that is kept twice. The error says what does not agree.
    #[doc(hidden)]
    pub fn audit(&self) -> Result<(), String> {
        let (directory, expiry, counts) = (&self.directory, &self.expiry, self.counters.counts());
        let (mut scheduled, mut absent) = (BTreeSet::new(), BTreeSet::new());
        let (mut tokens, mut connections) = (0, 0);
        for (slot, device) in directory.iter() {
            device.mailbox.audit().map_err(|error| format!("{:?}: {error}", device.id))?;
            let connection = device.connection.as_ref().map(|connection| connection.id);
            let first = device.mailbox.next_deadline().unwrap_or(Moment::NEVER);
            let fits = directory.find(device.id) == Some(slot)
                && connection.is_none_or(|id| directory.find_by_connection(id) == Some(slot))
                && device.forget_at.is_some() != connection.is_some()
                && (first == Moment::NEVER || device.scheduled.is_some_and(|at| at <= first));
            if !fits {
                return Err(format!("the indexes do not fit {:?}", device.id));
            }
            tokens += usize::from(device.is_resumable());
            connections += usize::from(connection.is_some());
            scheduled.extend(device.scheduled.map(|at| (at, slot)));
            absent.extend(device.forget_at.map(|at| (at, slot)));
        }
        agree("directory", directory.indexed(), [directory.len(), tokens, connections])?;
        agree("expiry", expiry.entries(), [&scheduled, &absent])?;
        let (mut in_flight, mut queued, mut bytes) = (0, 0, 0);
        let here = directory.iter().flat_map(|(_, device)| device.mailbox.items());
        for item in here.chain(expiry.iter().map(|(_, expired)| &expired.item)) {
            *(if item.in_flight { &mut in_flight } else { &mut queued }) += counted(item);
            bytes += if item.is_held() { item.bytes() } else { 0 };
        }
        let kept = [counts.in_flight, counts.queued, counts.queued_bytes, counts.accepted];
        let accepted = counts.delivered + counts.expired + queued + in_flight;
        agree("counters", kept, [in_flight, queued, bytes, accepted])?;
        agree("awaiting a notice", expiry.indexed(), expiry.len())
    }

    /// Entries in all collections: what is left when no device is known any more.
    #[doc(hidden)]
    pub fn residue(&self) -> usize {
        let indexed = self.directory.indexed().into_iter().chain(self.exchanges.indexed());
        let scheduled = self.expiry.entries().map(BTreeSet::len);
        indexed.chain(scheduled).sum::<usize>()
            + self.directory.len()
            + self.expiry.indexed()
            + self.expiry.len()
            + self.pending.len()
            + self.settled.len()
    }
}

fn agree<T: PartialEq + std::fmt::Debug>(what: &str, kept: T, found: T) -> Result<(), String> {
    if kept == found { Ok(()) } else { Err(format!("{what}: {kept:?} kept, {found:?} found")) }
}
