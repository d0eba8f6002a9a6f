//! What is never delivered: found when its time is over, dropped when its sender has a notice.
//!
//! An expired item leaves its mailbox and waits, still counted as queued, until the sweeper comes back with the notice.
//! (protocol: Error 410)

use super::expiry_queue::ExpiredItem;
use super::notices::Reported;
use super::{Router, STEP_ENTRIES, Slot, Ticket};
use crate::clock::{Moment, Now};
use crate::protocol::envelope::{NoticeKind, Subject};
use crate::protocol::id::{DeviceId, Recipient};
use crate::protocol::refusal::{ErrorContext, ExpiredKind, Refusal};
use crate::relay::delivery::Step;

/// What one step of a sweep found.
#[derive(Debug, PartialEq)]
pub struct Sweep {
    pub expired: Vec<ExpiryNotice>,
    /// The step ended before it had looked everywhere.
    pub more: bool,
}

/// What the sender of an expired item receives.
#[derive(Debug, PartialEq)]
pub struct ExpiryNotice {
    pub ticket: Ticket,
    pub sender: DeviceId,
    /// `None` for a notice: nobody is notified of its end.
    pub error: Option<(Refusal, ErrorContext)>,
}

impl Router {
    /// At most `limit` items that have expired and are not dropped yet, the longest expired first.
    pub fn next_expired(&mut self, now: Now, limit: usize) -> Sweep {
        let mut visits = STEP_ENTRIES;
        visits -= self.exchanges.expire(now.mono, visits);
        self.directory.prune_dedup(now, self.settings.queue.dedup_window);
        self.walk_for_oldest(now);
        self.find_expired(now, limit.saturating_sub(self.expiry.len()), &mut visits);
        while self.expiry.len() < limit
            && visits > 0
            && let Some(slot) = self.expiry.next_to_forget(now.mono)
        {
            visits -= 1;
            self.forget(slot);
            self.find_ended(limit.saturating_sub(self.expiry.len()), &mut visits);
        }
        let found = self.expiry.iter().take(limit).map(|(ticket, expired)| ExpiryNotice {
            ticket,
            sender: expired.from,
            error: error_for_sender(expired),
        });
        Sweep { expired: found.collect(), more: visits == 0 }
    }

    /// Drops every expired item before `end`, each after its notice is left for its sender. `notices` are in the order of
    /// their tickets.
    pub fn drop_expired(
        &mut self,
        step: &mut Step,
        end: Ticket,
        notices: impl IntoIterator<Item = (Ticket, String)>,
    ) {
        let mut notices = notices.into_iter().peekable();
        let mut recipients = Vec::new();
        while let Some((ticket, expired)) = self.expiry.pop_before(end) {
            while notices.next_if(|(of, _)| *of < ticket).is_some() {}
            if let Some((_, text)) = notices.next_if(|(of, _)| *of == ticket) {
                let reported = Reported { bytes: expired.bytes, stored: expired.stored };
                self.notify(step, expired.from, NoticeKind::Error, text, reported);
            }
            if let Subject::Message(id) = expired.subject {
                self.forget_send(expired.from, expired.recipient, id);
            }
            self.counters.expired(&expired.subject);
            if expired.stored {
                self.store.remove(expired.seq, None);
            }
            // An item that expired in flight has given back its credit.
            if let Some(slot) = self.directory.find(expired.recipient) {
                self.directory[slot].history.count_expired(step.now);
                recipients.push(slot);
                self.dispatch(step, slot);
            }
        }
        // Each record is written once, whatever has expired for its device.
        recipients.sort_unstable();
        recipients.dedup();
        for slot in recipients {
            if self.directory[slot].has_record() {
                self.store_device(slot);
            }
        }
    }

    /// When the sweeper should look again; never too late.
    pub fn next_deadline(&self) -> Option<Moment> {
        self.expiry.next_deadline().into_iter().chain(self.exchanges.next_deadline()).min()
    }

    /// Moves at most `limit` expired items out of their mailboxes, and counts down `visits` by items and devices.
    pub(super) fn find_expired(&mut self, now: Now, limit: usize, visits: &mut usize) {
        let end = self.expiry.len().saturating_add(limit);
        self.find_ended(limit, visits);
        while self.expiry.len() < end
            && *visits > 0
            && let Some((slot, until)) = self.expiry.next_scheduled(now.mono)
        {
            let before = self.expiry.len();
            self.expire_mailbox(slot, until, (end - before).min(*visits));
            *visits = visits.saturating_sub(1 + self.expiry.len() - before);
        }
    }

    /// Moves at most `limit` items of devices that are no longer known to those that wait for their notices.
    fn find_ended(&mut self, limit: usize, visits: &mut usize) {
        for _ in 0..limit.min(*visits) {
            let Some((recipient, item)) = self.expiry.pop_ended() else { return };
            *visits -= 1;
            self.counters.found_expired(&item);
            self.expiry.push(recipient, item);
        }
    }

    /// Moves at most `limit` expired items out of a mailbox.
    pub(super) fn expire_mailbox(&mut self, slot: Slot, now: Moment, limit: usize) {
        let Self { directory, expiry, counters, times, .. } = self;
        let device = &mut directory[slot];
        expiry.unschedule_due(slot, device, now);
        let id = device.id;
        device.mailbox.expire(now, limit, |item| {
            times.sweep_lag.observe(now - item.deadline);
            counters.found_expired(&item);
            expiry.push(id, item);
        });
        expiry.schedule(slot, device);
        if device.connection.is_none() {
            device.mailbox.trim();
        }
    }
}

fn error_for_sender(expired: &ExpiredItem) -> Option<(Refusal, ErrorContext)> {
    let kind = match &expired.subject {
        Subject::Message(id) => ExpiredKind::Message(*id),
        Subject::KeyRotation(_) | Subject::KeyRotationAck(_) => ExpiredKind::KeyRotation,
        Subject::Auth => ExpiredKind::Auth,
        Subject::Notice { .. } => return None,
    };
    let recipient = Recipient { id: expired.recipient, letters: expired.recipient_letters };
    let context = ErrorContext::about(Some(&expired.subject), Some(recipient));
    Some((Refusal::Expired(kind, expired.ttl), context))
}
