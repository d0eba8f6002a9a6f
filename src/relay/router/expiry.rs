//! What is never delivered: found when its time is over, dropped when its sender is told.
//!
//! Two steps, so that nothing is lost between them: what expired leaves its mailbox and waits, still on the books, until
//! whoever tells the senders comes back with the notices. Until then it is found again. (protocol: Error 410)

use super::{ExpiredItem, Router};
use crate::clock::{Moment, Now};
use crate::protocol::envelope::Subject;
use crate::protocol::id::{DeviceId, MessageId};
use crate::protocol::refusal::{self, ErrorContext, Refusal};
use crate::relay::command::Deliveries;
use crate::store::Store;

/// Names something expired until it is dropped; grows by one from each to the next.
pub type Ticket = u64;

/// Devices whose memory is tidied in one sweep.
const PRUNED_PER_SWEEP: usize = 256;

/// Something that expired, and what its sender is to be told.
#[derive(Debug, PartialEq)]
pub struct Expired {
    /// Its name for [`Router::drop_expired`].
    pub ticket: Ticket,
    /// Who is told.
    pub sender: DeviceId,
    /// What to say; nobody is told that a notice expired.
    pub error: Option<(Refusal, ErrorContext)>,
}

impl<S: Store, L: Clone> Router<S, L> {
    /// What has expired by now and is not dropped yet, at most so many, the longest expired first.
    pub fn next_expired(&mut self, now: Now, limit: usize) -> Vec<Expired> {
        self.collect(now, limit);
        let tickets = self.first_ticket..;
        tickets
            .zip(self.awaiting_notice.iter().take(limit))
            .map(|(ticket, lapsed)| Expired {
                ticket,
                sender: lapsed.item.envelope.from,
                error: lapsed.error(),
            })
            .collect()
    }

    /// Drops everything expired before `end`, each after its notice has been left for its sender.
    pub fn drop_expired(
        &mut self,
        now: Now,
        end: Ticket,
        notices: impl IntoIterator<Item = (Ticket, String)>,
        out: &mut Deliveries<L>,
    ) {
        let mut notices = notices.into_iter().peekable();
        while self.first_ticket < end {
            let Some(ExpiredItem { recipient, item }) = self.awaiting_notice.pop_front() else {
                return;
            };
            let ticket = self.first_ticket;
            self.first_ticket += 1;
            while notices.peek().is_some_and(|(told, _)| *told < ticket) {
                notices.next();
            }
            if let Some((_, text)) = notices.next_if(|(told, _)| *told == ticket) {
                self.notify(now, item.envelope.from, text, out);
            }
            if let Subject::Message(id) = item.envelope.subject {
                self.forget_send(item.envelope.from, recipient, id);
            }
            self.account_for_leaving(&item);
            self.counts.expired += u64::from(item.envelope.subject.is_counted());
            if item.stored {
                self.store.remove(item.seq, None);
            }
            // What expired unconfirmed gave back its credit.
            if let Some(slot) = self.slot_of(recipient) {
                self.dispatch(now, slot, out);
            }
        }
    }

    /// The moment of the next expiry, not later than it is.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        let due = self.deadlines.first().map(|(moment, _)| *moment);
        let ends = self.forget_at.first().map(|(moment, _)| *moment);
        let exchanges = self.exchanges.next_deadline();
        let untold = (!self.awaiting_notice.is_empty()).then_some(Moment::default());
        due.into_iter().chain(ends).chain(exchanges).chain(untold).min()
    }

    fn collect(&mut self, now: Now, limit: usize) {
        self.exchanges.expire(now.mono);
        self.prune_dedup(now);
        while self.awaiting_notice.len() < limit {
            let Some((deadline, slot)) = self.deadlines.first().copied() else { break };
            if deadline > now.mono {
                break;
            }
            // Only as far as nobody else has anything older: what came together leaves together, and the store, which
            // keeps it side by side, has less to touch.
            let next = self.deadlines.iter().nth(1).map_or(now.mono, |(moment, _)| *moment);
            let until = Now { mono: next.min(now.mono), ..now };
            self.expire_in(until, slot, limit);
        }
        while self.awaiting_notice.len() < limit {
            let Some((end, slot)) = self.forget_at.first().copied() else { break };
            if end > now.mono {
                break;
            }
            self.forget(slot);
        }
    }

    /// Makes place in a mailbox that would be called full.
    pub(super) fn expire_in(&mut self, now: Now, slot: u32, limit: usize) {
        let Self { devices, deadlines, awaiting_notice, counts, .. } = self;
        let device = &mut devices[slot as usize];
        if let Some(scheduled) = device.scheduled.take_if(|scheduled| *scheduled <= now.mono) {
            deadlines.remove(&(scheduled, slot));
        }
        device.mailbox.expire(now.mono, limit, |mut item| {
            if std::mem::take(&mut item.in_flight) {
                let counted = u64::from(item.envelope.subject.is_counted());
                counts.in_flight -= counted;
                counts.queued += counted;
            }
            awaiting_notice.push_back(ExpiredItem { recipient: device.id, item });
        });
        self.schedule(slot);
    }

    pub(super) fn forget_send(&mut self, sender: DeviceId, recipient: DeviceId, id: MessageId) {
        if let Some(slot) = self.slot_of(sender) {
            self.device(slot).dedup.forget(recipient, id);
        }
    }

    /// Lets some devices' old memories go, another some each time.
    fn prune_dedup(&mut self, now: Now) {
        let window = self.rules.dedup_window;
        let end = self.dedup_cursor + PRUNED_PER_SWEEP;
        for slot in self.dedup_cursor..end {
            if let Some(device) = self.devices.get_mut(slot) {
                device.dedup.rotate(now.mono, window);
            }
        }
        self.dedup_cursor = if end >= self.devices.capacity() { 0 } else { end };
    }
}

impl ExpiredItem {
    /// Whether it is the message of that name.
    pub(super) fn is(&self, recipient: DeviceId, from: DeviceId, id: MessageId) -> bool {
        let envelope = &self.item.envelope;
        self.recipient == recipient
            && envelope.from == from
            && envelope.subject == Subject::Message(id)
    }

    fn error(&self) -> Option<(Refusal, ErrorContext)> {
        let envelope = &self.item.envelope;
        let (what, about) = match &envelope.subject {
            Subject::Message(id) => {
                (refusal::Expired::Message(*id), ErrorContext::message(*id, self.recipient))
            }
            Subject::KeyRotation(key_id) | Subject::KeyRotationAck(key_id) => {
                (refusal::Expired::KeyRotation, ErrorContext::key(key_id, self.recipient))
            }
            Subject::Auth => (refusal::Expired::Auth, ErrorContext::recipient(self.recipient)),
            Subject::Notice => return None,
        };
        Some((Refusal::Expired(what, envelope.ttl), about))
    }
}
