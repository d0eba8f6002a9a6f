//! Whether the router's counters and indexes agree with its items; for tests.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Router;
use super::access::is_alive;
use super::counters::counted;
use super::directory::Device;
use crate::clock::Moment;
use crate::protocol::envelope::{AccessKey, Origin};
use crate::protocol::id::DeviceId;
use crate::relay::correspondents::CORRESPONDENT_BYTES;

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
            tokens += usize::from(device.next_token.is_some());
            connections += usize::from(connection.is_some());
            scheduled.extend(device.scheduled.map(|at| (at, slot)));
            absent.extend(device.forget_at.map(|at| (at, slot)));
        }
        agree("directory", directory.indexed(), [directory.len(), tokens, connections])?;
        let is_stuck = |device: &Device| device.connection.as_ref().is_some_and(|it| it.is_stuck);
        let stuck = directory.iter().filter(|(_, device)| is_stuck(device)).count();
        agree("stuck", self.stuck.len(), stuck)?;
        agree("expiry", expiry.entries(), [&scheduled, &absent])?;
        let (mut in_flight, mut queued, mut bytes) = (0, 0, 0);
        let mut by_origin = HashMap::<_, u64, _>::default();
        let mut by_access = HashMap::<_, u64, _>::default();
        let here = directory
            .iter()
            .flat_map(|(_, device)| device.mailbox.items().chain(device.notices.items()));
        for item in here.chain(expiry.ended()).chain(self.pending.notices()) {
            *(if item.in_flight { &mut in_flight } else { &mut queued }) += counted(item);
            if item.is_held() {
                bytes += item.bytes();
                *by_origin.entry(item.envelope.origin).or_default() += item.bytes();
                if item.envelope.access != AccessKey::NONE {
                    *by_access.entry(item.envelope.access).or_default() += item.bytes();
                }
            }
        }
        for (_, expired) in expiry.iter() {
            queued += u64::from(expired.subject.is_counted());
        }
        let mut correspondents = 0;
        for (_, device) in directory.iter().filter(|(_, it)| !it.correspondents.is_empty()) {
            let bytes = CORRESPONDENT_BYTES * device.correspondents.len() as u64;
            correspondents += bytes;
            *by_origin.entry(device.origin).or_default() += bytes;
        }
        agree("bytes of origins", self.counters.bytes_by_origin(), &by_origin)?;
        agree("bytes of access tokens", self.counters.bytes_by_access(), &by_access)?;
        agree("total", self.counters.total_bytes(), bytes + correspondents)?;
        self.audit_origins()?;
        self.audit_access()?;
        let kept = [counts.in_flight, counts.queued, counts.queued_bytes, counts.accepted];
        let accepted = counts.delivered + counts.expired + queued + in_flight;
        agree("counters", kept, [in_flight, queued, bytes, accepted])?;
        agree("awaiting a notice", expiry.indexed(), expiry.len())
    }

    #[doc(hidden)]
    pub fn knows(&self, id: DeviceId) -> bool {
        self.directory.find(id).is_some()
    }

    fn audit_access(&self) -> Result<(), String> {
        let mut found = BTreeMap::<_, u32>::new();
        for (_, device) in self.directory.iter().filter(|(_, device)| is_alive(device)) {
            if let Some(access) = self.access.name(device.access) {
                *found.entry(access).or_default() += 1;
            }
        }
        agree("devices of access tokens", self.access.devices().collect(), found)
    }

    fn audit_origins(&self) -> Result<(), String> {
        let (mut origins, mut unused) = (BTreeMap::<_, u32>::new(), 0);
        for (_, device) in self.directory.iter() {
            *origins.entry(device.origin).or_default() += 1;
            let may_forget =
                !device.used && device.connection.is_none() && device.origin != Origin::NONE;
            if device.unused_since.is_some() != may_forget {
                return Err(format!("{:?} may be forgotten or not", device.id));
            }
            unused += usize::from(may_forget);
        }
        for (origin, devices) in &origins {
            agree("devices of an origin", self.origins.devices_of(*origin), *devices)?;
        }
        let [kept_origins, kept_unused, by_size] = self.origins.indexed();
        agree("origins", (kept_origins, kept_unused), (origins.len(), unused))?;
        if (by_size == 0) == (unused == 0) { Ok(()) } else { Err("largest origins".into()) }
    }

    /// Entries in all collections: what is left when no device is known any more.
    #[doc(hidden)]
    pub fn residue(&self) -> usize {
        let indexed = self.directory.indexed().into_iter().chain(self.exchanges.indexed());
        let scheduled = self.expiry.entries().map(BTreeSet::len);
        let origins = self.origins.indexed();
        indexed.chain(scheduled).chain(origins).sum::<usize>()
            + self.directory.len()
            + self.expiry.indexed()
            + self.expiry.len()
            + self.expiry.ended().count()
            + self.pending.len()
            + self.settled.len()
            + self.unfinished.len()
            + self.ending.len()
            + self.access.devices().count()
            + self.counters.bytes_by_access().len()
    }
}

fn agree<T: PartialEq + std::fmt::Debug>(what: &str, kept: T, found: T) -> Result<(), String> {
    if kept == found { Ok(()) } else { Err(format!("{what}: {kept:?} kept, {found:?} found")) }
}
