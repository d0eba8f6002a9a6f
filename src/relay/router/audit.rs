//! Whether the router's books agree with each other; for tests.

use super::Router;
use crate::clock::Moment;
use crate::relay::item::SettledBy;

impl<S, L> Router<S, L> {
    /// Recounts everything that is kept twice.
    ///
    /// # Errors
    ///
    /// What does not agree.
    #[doc(hidden)]
    pub fn audit(&self) -> Result<(), String> {
        let counts = self.counts;
        let (mut in_flight, mut queued, mut bytes) = (0, 0, 0);
        for (_, device) in &self.devices {
            device.mailbox.audit().map_err(|flaw| format!("{:?}: {flaw}", device.id))?;
            for item in device.mailbox.items() {
                let counted = u64::from(item.envelope.subject.is_counted());
                *(if item.in_flight { &mut in_flight } else { &mut queued }) += counted;
                if !item.in_flight || item.settles == SettledBy::Ack {
                    bytes += item.bytes();
                }
            }
        }
        for lapsed in &self.awaiting_notice {
            queued += u64::from(lapsed.item.envelope.subject.is_counted());
            bytes += lapsed.item.bytes();
        }
        agree("in_flight", counts.in_flight, in_flight)?;
        agree("queued", counts.queued, queued)?;
        agree("queued_bytes", counts.queued_bytes, bytes)?;
        let settled = counts.delivered + counts.expired;
        agree("accepted", counts.accepted, settled + queued + in_flight)?;

        let devices = || self.devices.iter().map(|(_, device)| device);
        agree("connected", self.connected, devices().filter(|d| d.connection.is_some()).count())?;
        agree("by_id", self.by_id.len(), self.devices.len())?;
        agree("by_token", self.by_token.len(), devices().filter(|d| d.token.is_some()).count())?;
        agree(
            "deadlines",
            self.deadlines.len(),
            devices().filter(|d| d.scheduled.is_some()).count(),
        )?;
        agree(
            "forget_at",
            self.forget_at.len(),
            devices().filter(|d| d.forget_at.is_some()).count(),
        )?;
        for (slot, device) in &self.devices {
            let entry = |moment: Moment| (moment, slot as u32);
            let first = device.mailbox.next_deadline().unwrap_or(Moment::NEVER);
            let watched = device.scheduled.is_some_and(|moment| moment <= first);
            let fits = (watched || first == Moment::NEVER)
                && device.scheduled.is_none_or(|moment| self.deadlines.contains(&entry(moment)))
                && device.forget_at.is_none_or(|moment| self.forget_at.contains(&entry(moment)))
                && device.forget_at.is_some() != device.connection.is_some()
                && self.by_id.get(&device.id) == Some(&(slot as u32));
            if !fits {
                return Err(format!("the lists of {:?} do not fit", device.id));
            }
        }
        Ok(())
    }

    /// Entries in all collections: what is left when nobody is known any more.
    #[doc(hidden)]
    #[must_use]
    pub fn residue(&self) -> usize {
        self.devices.len()
            + self.by_id.len()
            + self.by_token.len()
            + self.exchanges.residue()
            + self.deadlines.len()
            + self.forget_at.len()
            + self.awaiting_notice.len()
            + self.pending.len()
            + self.settled.len()
    }
}

fn agree<T: PartialEq + std::fmt::Display>(what: &str, kept: T, found: T) -> Result<(), String> {
    if kept == found { Ok(()) } else { Err(format!("{what} says {kept}, there are {found}")) }
}
