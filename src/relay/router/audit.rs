//! Whether the router's counters and indexes agree with its items; for tests.

use super::Router;
use crate::relay::item::SettledBy;

impl Router {
    /// Recounts everything that is kept twice.
    ///
    /// # Errors
    ///
    /// What does not agree.
    #[doc(hidden)]
    pub fn audit(&self) -> Result<(), String> {
        let (mut in_flight, mut queued, mut bytes) = (0, 0, 0);
        for (_, device) in self.directory.iter() {
            device.mailbox.audit().map_err(|error| format!("{:?}: {error}", device.id))?;
            for item in device.mailbox.items() {
                let counted = u64::from(item.envelope.subject.is_counted());
                *(if item.in_flight { &mut in_flight } else { &mut queued }) += counted;
                if !item.in_flight || item.settles == SettledBy::Ack {
                    bytes += item.bytes();
                }
            }
        }
        for (_, expired) in self.expiry.iter() {
            queued += u64::from(expired.item.envelope.subject.is_counted());
            bytes += expired.item.bytes();
        }
        let counts = self.counters.counts();
        agree("in_flight", counts.in_flight, in_flight)?;
        agree("queued", counts.queued, queued)?;
        agree("queued_bytes", counts.queued_bytes, bytes)?;
        let settled = counts.delivered + counts.expired;
        agree("accepted", counts.accepted, settled + queued + in_flight)?;
        self.directory.audit()?;
        self.expiry.audit(self.directory.iter())
    }

    /// Entries in all collections: what is left when no device is known any more.
    #[doc(hidden)]
    pub fn residue(&self) -> usize {
        self.directory.residue()
            + self.exchanges.residue()
            + self.expiry.residue()
            + self.pending.len()
            + self.settled.len()
    }
}

fn agree(what: &str, kept: u64, found: u64) -> Result<(), String> {
    if kept == found { Ok(()) } else { Err(format!("{what} says {kept}, there are {found}")) }
}
