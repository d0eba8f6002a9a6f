//! The router: which devices are here, and where a frame goes next.
//!
//! The router owns presence and every mailbox, so a message that arrives while its recipient is connecting is not lost.
//! Each field of [`Router`] is a type that alone changes its own data.

mod access;
mod audit;
mod counters;
mod device_report;
mod directory;
mod durability;
mod expiry_queue;
mod holders;
mod notices;
mod oldest;
mod operator;
mod origins;
mod pending;
mod registration;
mod renewal;
mod room;
mod routing;
mod stuck;
mod sweep;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use foldhash::fast::FixedState;

use self::access::{AccessTokens, Ending};
use self::counters::Counters;
use self::directory::{Directory, Slot};
use self::durability::Recovery;
use self::expiry_queue::ExpiryQueue;
use self::notices::Reported;
use self::oldest::OldestWaiting;
use self::origins::Origins;
use self::pending::{Acks, Pending, PendingPuts};
use self::renewal::Renewal;
use self::stuck::StuckConnections;
use super::auth_exchange::Exchanges;
use super::command::ConnectionId;
use super::delivery::Step;
use super::item::{Item, SettledBy};
use super::mailbox::{Credit, Next};
use super::mailbox_quota::MailboxQuota;
use crate::clock::{Moment, Now};
use crate::metrics::histogram::Histogram;
use crate::protocol::encode::{self, Status};
use crate::protocol::envelope::{AccessKey, Envelope, NoticeKind, Origin, Seq, Subject};
use crate::protocol::id::{DeviceId, Letters, MessageId};
use crate::settings::Settings;
use crate::store::boots::BootTime;
use crate::store::records::{Fingerprint, HashKey};
use crate::store::{PutOutcome, PutSeq, Store, StoreStats};

pub use access::AccessRefusals;
pub use counters::Counts;
pub use device_report::{Cause, DeviceReport, Listed, ListedDevice};
pub use expiry_queue::Ticket;
pub use holders::{Cursor, HolderSlice};
pub use stuck::Stuck;
pub use sweep::{ExpiryNotice, Sweep};

/// Items, devices and exchanges that one step visits at most, so that no other connection waits for long. What is left is
/// visited in later steps.
pub const STEP_ENTRIES: usize = 4096;
/// Expired items that one delivery moves out of its way: a step of the sweeper delivers for each item that it drops.
const EXPIRED_PER_DISPATCH: usize = 64;

pub struct Router {
    settings: Arc<Settings>,
    store: Box<dyn Store>,
    directory: Directory,
    exchanges: Exchanges,
    expiry: ExpiryQueue,
    origins: Origins,
    stuck: StuckConnections,
    oldest: OldestWaiting,
    access: AccessTokens,
    /// Access tokens whose devices end.
    ending: VecDeque<Ending>,
    /// For hashes of devices.
    hash_key: HashKey,
    /// The number of the current boot in the store.
    boot: u32,
    pending: PendingPuts,
    /// Where the puts after a failure of the store have got to.
    recovery: Option<Recovery>,
    /// Connections whose new token is not committed yet.
    renewals: HashMap<ConnectionId, Renewal, FixedState>,
    /// Connections whose device has ended while the store failed.
    unregistered: Vec<ConnectionId>,
    /// Devices with more settled notices than one step removes.
    unfinished: Vec<Slot>,
    counters: Counters,
    times: Times,
    next_seq: Seq,
    /// Memory for the items that one write settles, kept from step to step.
    settled: Vec<Item>,
}

/// What can be seen of the router from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Snapshot {
    /// Devices that are known; `connected` ones among them.
    pub devices: usize,
    pub connected: usize,
    /// Authentications under way.
    pub exchanges: usize,
    /// Connected devices that have confirmed nothing for `delivery.stuck_after` although messages wait.
    pub stuck: usize,
    /// What the bounds of access tokens have refused; not in `/healthz`.
    #[serde(skip)]
    pub access_refusals: AccessRefusals,
    #[serde(flatten)]
    pub counts: Counts,
}

/// How long messages take. (operations: Seeing it)
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    /// From the acceptance of a message for a device that is there to the write of its last byte: of the newest message in each
    /// write.
    pub forward: Histogram,
    /// From the acceptance of a message that is stored to the commit that lets its Ack leave.
    pub ack: Histogram,
    /// From the deadline of an expired item to the step that finds it.
    pub sweep_lag: Histogram,
}

/// What [`Router::measure`] returns.
#[derive(Debug, Clone)]
pub struct Measured {
    pub snapshot: Snapshot,
    pub times: Times,
    pub store: StoreStats,
    /// The age of the oldest of the messages that wait, as of the last walk through the directory.
    pub oldest_waiting: Option<Duration>,
}

impl Router {
    pub fn new(settings: Arc<Settings>, store: Box<dyn Store>) -> Self {
        Self {
            settings,
            store,
            directory: Directory::default(),
            exchanges: Exchanges::default(),
            expiry: ExpiryQueue::default(),
            origins: Origins::default(),
            stuck: StuckConnections::default(),
            oldest: OldestWaiting::default(),
            access: AccessTokens::default(),
            ending: VecDeque::new(),
            hash_key: HashKey::default(),
            boot: 0,
            pending: PendingPuts::default(),
            recovery: None,
            renewals: HashMap::default(),
            unregistered: Vec::new(),
            unfinished: Vec::new(),
            counters: Counters::default(),
            times: Times::default(),
            next_seq: 1,
            settled: Vec::new(),
        }
    }

    /// Replaces the settings; what was accepted under the old ones stays.
    pub fn set_settings(&mut self, settings: Arc<Settings>) {
        self.settings = settings;
    }

    pub fn observe(&self) -> Snapshot {
        Snapshot {
            devices: self.directory.len(),
            connected: self.directory.connected(),
            exchanges: self.exchanges.len(),
            stuck: self.stuck.len(),
            access_refusals: self.access.refusals(),
            counts: self.counters.counts(),
        }
    }

    /// Everything that is counted here, for `/metrics`.
    pub fn measure(&self, now: Now) -> Measured {
        Measured {
            snapshot: self.observe(),
            times: self.times,
            store: self.store.stats(),
            oldest_waiting: self.oldest_waiting(now),
        }
    }

    pub fn last_put(&self) -> PutSeq {
        self.pending.last
    }

    /// Asks the store for a report on everything that is staged.
    pub fn request_report(&mut self) {
        self.store.report_commit(self.pending.next());
    }

    pub fn store_mut(&mut self) -> &mut dyn Store {
        &mut *self.store
    }

    fn credit(&self) -> Credit {
        let delivery = &self.settings.delivery;
        Credit { window: delivery.window, bytes: delivery.bytes as u64 }
    }

    fn quota(&self) -> MailboxQuota {
        let queue = &self.settings.queue;
        MailboxQuota {
            messages: queue.messages,
            bytes: queue.bytes as u64,
            sender_share: queue.sender_share,
            unknown_share: queue.unknown_share,
            origin_share: self.settings.limits.origin_share,
            window: self.settings.delivery.window,
        }
    }

    /// Puts an envelope into its recipient's mailbox: in flight if the envelope overtakes nothing and there is credit, else
    /// behind what waits. Returns whether the sender's Ack must wait for the store.
    fn enqueue(&mut self, step: &mut Step, slot: Slot, envelope: Envelope, end: Moment) -> bool {
        self.mark_used(slot);
        let credit = self.credit();
        let is_remembered = self.is_remembered_at_delivery(slot, &envelope);
        let Self { directory, store, pending, counters, boot, .. } = self;
        let device = &mut directory[slot];
        let seq = self.next_seq;
        self.next_seq += 1;
        let mut item = Item::new(seq, end, envelope, device.is_resumable());
        let in_flight = device.has_credit(credit, item.bytes());
        let passes_through = in_flight && item.settles == SettledBy::Write;
        let keeps = !passes_through && item.must_be_stored(device.is_resumable());
        let outcome = keeps.then(|| store.put(item.record(*boot, device.id), pending.next()));
        item.stored = outcome.is_some_and(|outcome| outcome != PutOutcome::Rejected);
        let owes_ack = owes_ack(&item, outcome) || is_remembered;
        item.owed_acks = u32::from(owes_ack);
        if outcome == Some(PutOutcome::Pending) {
            pending.push(Pending::Item { recipient: device.id, seq });
        }
        counters.accepted(&item, in_flight);
        if item.envelope.subject.is_counted() {
            device.history.accepted = device.history.accepted.saturating_add(1);
        }
        match &mut device.connection {
            Some(connection) if in_flight => {
                connection.deliver(step, &item);
                device.mailbox.push_in_flight(item);
            }
            _ => {
                device.mailbox.push_waiting(item);
                // An item that waits for credit alone may find some.
                self.dispatch(step, slot);
            }
        }
        self.expiry.schedule(slot, &mut self.directory[slot]);
        if outcome == Some(PutOutcome::Rejected) {
            // The store failed since it was last asked. An item that is not in flight finds no place.
            self.refuse_unstored(step, slot, seq);
        }
        owes_ack
    }

    /// Delivers what waits for a device until there is no more credit.
    fn dispatch(&mut self, step: &mut Step, slot: Slot) {
        let credit = self.credit();
        let Self { directory, expiry, counters, stuck, settings, .. } = self;
        let device = &mut directory[slot];
        let Some(connection) = &mut device.connection else { return };
        if connection.delivery_paused {
            return stuck.window_is_open(connection);
        }
        let (mut expired, mut moved) = (0, false);
        // What is behind more expired items is delivered when the sweeper has dropped those.
        while expired < EXPIRED_PER_DISPATCH {
            match device.mailbox.next_deliverable(step.now.mono, credit) {
                Next::Nothing => break,
                Next::Expired(item) => {
                    counters.found_expired(&item);
                    expiry.push(device.id, item);
                    expired += 1;
                }
                Next::InFlight(item) => {
                    counters.dispatched(item);
                    connection.deliver(step, item);
                    moved = true;
                }
            }
        }
        if device.mailbox.waiting() == 0 {
            stuck.window_is_open(connection);
        } else {
            let (now, stuck_after) = (step.now.mono, settings.delivery.stuck_after);
            stuck.window_is_full(slot, connection, now, moved, stuck_after);
        }
    }

    /// An item is delivered: its sender learns the status, the store removes the record.
    fn delivered(&mut self, step: &mut Step, recipient: Slot, item: Item, status: Status) {
        self.counters.delivered(&item);
        let is_remembered = self.is_remembered_at_delivery(recipient, &item.envelope);
        if item.envelope.subject.is_counted() {
            let history = &mut self.directory[recipient].history;
            history.delivered = history.delivered.saturating_add(1);
        }
        let recipient = self.directory[recipient].id;
        if item.stored {
            let fingerprint = self.fingerprint_to_store(step, recipient, &item);
            self.store.remove(item.seq, fingerprint);
        } else if is_remembered
            && let Some(fingerprint) = self.fingerprint_to_store(step, recipient, &item)
        {
            self.store.put_fingerprint(fingerprint);
        }
        if let Subject::Message(id) = item.envelope.subject {
            self.report(step, &item, id, status, is_remembered);
        }
    }

    /// Reports the status of a message to its sender, if the sender waits for one. `is_remembered` if a restart must know of the
    /// message before the sender has an answer.
    fn report(
        &mut self,
        step: &mut Step,
        item: &Item,
        id: MessageId,
        status: Status,
        is_remembered: bool,
    ) {
        let (from, mut acks) = (item.envelope.from, item.owed_acks);
        let wants_receipt = item.envelope.receipts && self.wants_receipts(from);
        let stored = item.stored || is_remembered;
        if wants_receipt {
            let reported = Reported { bytes: item.bytes(), stored };
            let text = encode::ack(id, Some(status));
            self.notify(step, from, NoticeKind::Receipt, text, reported);
            acks = acks.saturating_sub(1);
        }
        if acks > 0 {
            let status = wants_receipt.then_some(status);
            let acks = Acks { to: from, id, status, number: acks };
            self.ack_left(step, acks, is_remembered || stored && status.is_some());
        }
    }

    /// Whether a device gets receipts, by its connection or its last one.
    fn wants_receipts(&self, id: DeviceId) -> bool {
        self.directory.find(id).is_some_and(|slot| self.directory[slot].receipts)
    }

    /// Whether the sender of a message gets the Ack when the fingerprint is committed: a message for this moment only is never
    /// stored, and a resumable sender that got no Ack before a crash repeats the message after it.
    fn is_remembered_at_delivery(&self, recipient: Slot, envelope: &Envelope) -> bool {
        let is_resumable = |slot: Slot| self.directory[slot].is_resumable();
        is_instant(envelope)
            && is_resumable(recipient)
            && self.directory.find(envelope.from).is_some_and(is_resumable)
    }

    /// The fingerprint that a restart needs of a delivered message: its sender may come back and repeat the message.
    fn fingerprint_to_store(
        &self,
        step: &Step,
        recipient: DeviceId,
        item: &Item,
    ) -> Option<Fingerprint> {
        let Subject::Message(id) = item.envelope.subject else { return None };
        let sender = item.envelope.from;
        self.directory.find(sender).filter(|slot| self.directory[*slot].is_resumable())?;
        let fingerprint = Fingerprint::new(sender, recipient, id, item.envelope.content);
        let recorded_at = BootTime { boot: self.boot, at: step.now.mono };
        Some(Fingerprint { recorded_at, ..fingerprint.with_ttl(item.envelope.ttl) })
    }
}

/// A message for this moment only: it is delivered at once or refused, and never stored.
fn is_instant(envelope: &Envelope) -> bool {
    envelope.ttl == 0 && matches!(envelope.subject, Subject::Message(_))
}

/// Whether the sender of a new item waits for an Ack after the put: until the commit, or, with receipts, until the delivery.
fn owes_ack(item: &Item, outcome: Option<PutOutcome>) -> bool {
    match (&item.envelope.subject, outcome) {
        (Subject::Message(_), None) => item.envelope.receipts,
        (Subject::Auth | Subject::Notice { .. }, _) | (_, None) => false,
        (_, Some(outcome)) => outcome != PutOutcome::Durable,
    }
}

/// Every frame but a message: nobody gets receipts for it or repeats it.
fn frame(from: DeviceId, origin: Origin, subject: Subject, ttl: u64, body: ByteString) -> Envelope {
    Envelope {
        from,
        subject,
        ttl,
        body,
        receipts: false,
        content: 0,
        origin,
        access: AccessKey::NONE,
        from_unknown: false,
        recipient_letters: Letters::Small,
    }
}

#[cfg(test)]
mod tests;
