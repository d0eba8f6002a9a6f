//! Notices: receipts and Errors for the sender of something that has left. They go beside the messages, not behind them.
//!
//! The notice of something that was stored leaves after the commit that removes this from the store: else a crash between both
//! could bring it back, and the sender would get a second notice that contradicts the first.

use super::directory::Slot;
use super::pending::{Acks, Pending};
use super::{Router, STEP_ENTRIES, frame};
use crate::clock::Moment;
use crate::protocol::envelope::{ENVELOPE_OVERHEAD, NoticeKind, Seq, Subject};
use crate::protocol::id::DeviceId;
use crate::relay::command::ConnectionId;
use crate::relay::delivery::{Delivery, Step};
use crate::relay::item::Item;
use crate::relay::notice_queue::NoticeNumber;
use crate::relay::on_demand::Empty as _;
use crate::relay::remaining::Remaining;
use crate::store::PutOutcome;

/// What a notice depends on of the thing that it reports.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reported {
    /// What it counted in every byte limit.
    pub bytes: u64,
    /// The store had it, and is asked in this step to remove it.
    pub stored: bool,
}

impl Router {
    /// Leaves a notice for a device, if the device is here or will come back.
    pub(super) fn notify(
        &mut self,
        step: &mut Step,
        to: DeviceId,
        kind: NoticeKind,
        text: String,
        reported: Reported,
    ) {
        let Some(slot) = self.directory.find_alive(step.now, to) else { return };
        let device = &self.directory[slot];
        let is_resumable = device.is_resumable();
        if device.connection.is_none() && !is_resumable {
            return;
        }
        let bytes = reported.bytes.min(ENVELOPE_OVERHEAD.saturating_add(text.len() as u64));
        let subject = Subject::Notice { kind, bytes };
        let envelope = frame(to, device.origin, subject, 0, text.into());
        let seq = self.next_seq;
        self.next_seq += 1;
        // A notice waits for as long as its device is known.
        let mut item = Item::new(seq, Moment::NEVER, envelope, is_resumable);
        self.mark_used(slot);
        self.counters.accepted(&item, false);
        let put = self.pending.next();
        let outcome = if is_resumable {
            self.store.put(item.record(self.boot, to), put)
        } else if reported.stored {
            self.store.report_commit(put)
        } else {
            PutOutcome::Durable
        };
        item.stored = is_resumable && outcome != PutOutcome::Rejected;
        if outcome != PutOutcome::Pending {
            // Nothing is committed while the store fails, and a sender must not wait for the end of that.
            self.push_notice(step, slot, item);
        } else if reported.stored {
            self.pending.push(Pending::Notice(Box::new((to, item))));
        } else {
            let number = self.push_notice(step, slot, item);
            self.pending.push(Pending::NoticeOnItsWay { device: to, number, seq });
        }
    }

    /// The store has reported on a notice that waits for a commit.
    pub(super) fn release_notice(
        &mut self,
        step: &mut Step,
        (to, mut item): (DeviceId, Item),
        is_committed: bool,
    ) {
        item.stored &= is_committed;
        let slot = self.directory.find(to).filter(|slot| {
            let device = &self.directory[*slot];
            let is_receipt = is_receipt(&item);
            (device.is_resumable() || device.connection.is_some())
                && (device.receipts || !is_receipt)
        });
        match slot {
            Some(slot) => {
                self.push_notice(step, slot, item);
            }
            None => self.drop_notice(&item),
        }
    }

    /// The store could not keep a notice that has left already.
    pub(super) fn notice_is_unstored(&mut self, device: DeviceId, number: NoticeNumber, seq: Seq) {
        if let Some(slot) = self.directory.find(device)
            && let Some(item) = self.directory[slot].notices.get_mut(number)
            // The numbers of a queue that was empty start anew.
            && item.seq == seq
        {
            item.stored = false;
        }
    }

    fn push_notice(&mut self, step: &mut Step, slot: Slot, item: Item) -> NoticeNumber {
        let number = self.directory[slot].notices.push(item);
        self.dispatch_notices(step, slot);
        number
    }

    /// Delivers the notices of a device, as many as its socket takes.
    pub(super) fn dispatch_notices(&mut self, step: &mut Step, slot: Slot) {
        let window = self.settings.delivery.window;
        let device = &mut self.directory[slot];
        if device.notices.is_empty() {
            return;
        }
        let connection = device.connection.as_ref().filter(|current| !current.delivery_paused);
        let Some(connection) = connection else { return };
        let (id, behind) = (connection.id, connection.last_seq);
        let needs_proof = device.token.is_some();
        while let Some(notice) = device.notices.hand_over(window, step.now.mono, behind) {
            let body = notice.item.envelope.body.clone();
            let kind = notice.item.envelope.subject.outgoing();
            step.deliver(id, Delivery::Notice { number: notice.number, body, kind, needs_proof });
        }
    }

    /// The connection's socket has taken everything through this notice.
    pub fn on_notices_written(
        &mut self,
        step: &mut Step,
        connection: ConnectionId,
        through: NoticeNumber,
    ) {
        let Some(slot) = self.directory.find_by_connection(connection) else { return };
        let device = &mut self.directory[slot];
        device.notices.on_written(through);
        if !device.is_resumable() {
            device.notices.settle(through);
            self.remove_settled(slot);
        }
        self.dispatch_notices(step, slot);
    }

    /// A device has proved that it has everything through this notice.
    pub(super) fn on_notices_received(&mut self, slot: Slot, through: NoticeNumber) {
        self.directory[slot].notices.settle(through);
        self.remove_settled(slot);
    }

    /// A device has acked an item. If the item is in flight on its connection, then the device has every notice that was
    /// delivered before it.
    pub(super) fn settle_notices_before(&mut self, slot: Slot, acked: &Item) {
        let device = &mut self.directory[slot];
        if acked.in_flight && device.notices.awaits_proof() {
            device.notices.settle_before(acked.seq);
            self.remove_settled(slot);
        }
    }

    /// A frame has come from a device. What left shortly before may have crossed the frame on its way; what left before the
    /// longest time for which a dead connection stays open has arrived.
    pub(super) fn settle_long_delivered(&mut self, step: &Step, slot: Slot) {
        let device = &mut self.directory[slot];
        if !device.notices.awaits_proof() {
            return;
        }
        let (heartbeat, tcp) =
            (self.settings.heartbeat.timeout, self.settings.server.tcp_user_timeout);
        let than = Moment(0) + (step.now.mono - Moment(0)).saturating_sub(heartbeat.max(tcp));
        device.notices.settle_older(than);
        self.remove_settled(slot);
    }

    /// Removes some settled notices; the others in later steps.
    pub(super) fn remove_settled(&mut self, slot: Slot) {
        for _ in 0..STEP_ENTRIES {
            let Some(item) = self.directory[slot].notices.take_settled() else { return };
            self.drop_notice(&item);
        }
        self.unfinished.push(slot);
    }

    /// The device does not want receipts any more: those that wait for it are dropped, by the sweeper.
    pub(super) fn drop_receipts(&mut self, slot: Slot) {
        let device = &mut self.directory[slot];
        if device.notices.is_empty() {
            return;
        }
        let receipts = device.notices.take_receipts();
        if !receipts.is_empty() {
            self.expiry.push_ended(device.id, Remaining::Notices(receipts));
        }
    }

    /// Puts some of the notices of a device that are not stored, all after `number`. Returns the number to continue from.
    pub(super) fn store_notices(
        &mut self,
        slot: Slot,
        number: NoticeNumber,
    ) -> Option<NoticeNumber> {
        let Self { directory, store, pending, boot, .. } = self;
        let device = &mut directory[slot];
        if device.notices.is_empty() || !device.is_resumable() {
            return None;
        }
        let id = device.id;
        device.notices.visit_after(number, STEP_ENTRIES, |number, item| {
            if item.stored {
                return;
            }
            let outcome = store.put(item.record(*boot, id), pending.next());
            item.stored = outcome != PutOutcome::Rejected;
            if outcome == PutOutcome::Pending {
                pending.push(Pending::NoticeOnItsWay { device: id, number, seq: item.seq });
            }
        })
    }

    /// The answers to a message that has left; `waits` if a crash before the next commit would bring the message back.
    pub(super) fn ack_left(&mut self, step: &mut Step, acks: Acks, waits: bool) {
        if waits && self.store.report_commit(self.pending.next()) == PutOutcome::Pending {
            self.pending.push(Pending::Acks(acks));
        } else {
            self.send_acks(step, acks);
        }
    }

    /// Sends Acks to a device that is connected. One that is away repeats what it has no Ack for, and gets the Ack then.
    pub(super) fn send_acks(&self, step: &mut Step, acks: Acks) {
        let Acks { to, id, status, number } = acks;
        let Some(connection) = self.directory.connection_of(to) else { return };
        for _ in 0..number {
            step.deliver(connection, Delivery::Ack { id, status });
        }
    }

    fn drop_notice(&mut self, item: &Item) {
        self.counters.withdrawn(item);
        if item.stored {
            self.store.remove(item.seq, None);
        }
    }
}

fn is_receipt(item: &Item) -> bool {
    matches!(item.envelope.subject, Subject::Notice { kind: NoticeKind::Receipt, .. })
}
