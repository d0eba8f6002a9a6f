//! Who is here, and where a frame goes next.
//!
//! The router owns presence and every mailbox, so a message that arrives while its recipient is connecting is not lost.
//! `presence` is how devices come and go, `keeping` what outlives the process, `routing` what they say to each other, `expiry` what is never delivered.

mod audit;
mod durability;
mod expiry;
mod registration;
mod routing;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use foldhash::fast::RandomState;
use slab::Slab;

use super::auth_exchange::Exchanges;
use super::command::{ConnectionId, Deliveries, Delivery, TokenHash};
use super::dedup::DedupWindow;
use super::item::{Item, SettledBy};
use super::mailbox::{Credit, Mailbox, Next};
use super::mailbox_quota::MailboxQuota;
use crate::clock::{Moment, Now};
use crate::protocol::encode::{self, Status};
use crate::protocol::envelope::{Envelope, Seq, Subject};
use crate::protocol::id::{DeviceId, MessageId};
use crate::settings::Settings;
use crate::store::records::{Fingerprint, MessageRecord};
use crate::store::{PutOutcome, PutSeq, Store};

pub use expiry::{Expired, Ticket};

/// Everything the rules need of the settings; replaced on a reload.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// What may be in flight to one connection.
    pub credit: Credit,
    /// What may wait for one device.
    pub quota: MailboxQuota,
    /// What may wait in all.
    pub total_bytes: u64,
    /// Ttl of a `Send` that names none, in seconds.
    pub default_ttl: u64,
    /// Longest ttl, in seconds.
    pub max_ttl: u64,
    /// Ttl of key rotations, in seconds.
    pub key_rotation_ttl: u64,
    /// How long a repeat is recognised.
    pub dedup_window: Duration,
    /// How long a resumable device outlives a disconnect.
    pub session_ttl: Duration,
    /// How long a plain one does.
    pub plain_ttl: Duration,
    /// How long an authentication may take, in seconds.
    pub exchange_ttl: u64,
    /// Devices that may be known at once.
    pub devices: usize,
}

impl From<&Settings> for Rules {
    fn from(settings: &Settings) -> Self {
        Self {
            credit: Credit {
                window: settings.delivery.window,
                bytes: settings.delivery.bytes as u64,
            },
            quota: MailboxQuota {
                messages: settings.queue.messages,
                bytes: settings.queue.bytes as u64,
                sender_share: settings.queue.sender_share,
            },
            total_bytes: settings.queue.total_bytes as u64,
            default_ttl: settings.queue.default_ttl.as_secs(),
            max_ttl: settings.queue.max_ttl.as_secs(),
            key_rotation_ttl: settings.queue.key_rotation_ttl.as_secs(),
            dedup_window: settings.queue.dedup_window,
            session_ttl: settings.session.ttl,
            plain_ttl: settings.session.plain_ttl,
            exchange_ttl: settings.auth.exchange_ttl.as_secs(),
            devices: settings.limits.devices,
        }
    }
}

/// The books. At all times accepted = delivered + expired + queued + in_flight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Messages and key rotations that were accepted.
    pub accepted: u64,
    /// Of these, delivered.
    pub delivered: u64,
    /// Of these, expired, and their senders told.
    pub expired: u64,
    /// Of these, waiting.
    pub queued: u64,
    /// Of these, with a connection.
    pub in_flight: u64,
    /// Bytes of everything that waits or is unconfirmed.
    pub queued_bytes: u64,
    /// Client Acks that confirmed nothing.
    pub stray_acks: u64,
    /// The relay's own words that found no place.
    pub dropped_notices: u64,
}

/// What can be seen of the router from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Snapshot {
    /// Devices that are known.
    pub devices: usize,
    /// Devices that are connected.
    pub connected: usize,
    /// Authentications under way.
    pub exchanges: usize,
    /// The books.
    #[serde(flatten)]
    pub counts: Counts,
}

/// See the module. `S` keeps what must outlive the process; `L` is a device's allowance, which the router only carries.
#[derive(Debug)]
pub struct Router<S, L> {
    rules: Rules,
    store: S,
    devices: Slab<Device<L>>,
    by_id: HashMap<DeviceId, u32, RandomState>,
    by_token: HashMap<TokenHash, u32, RandomState>,
    exchanges: Exchanges,
    /// Who has something that can expire, by a moment not later than the first of it.
    deadlines: BTreeSet<(Moment, u32)>,
    /// Who is forgotten when.
    forget_at: BTreeSet<(Moment, u32)>,
    /// Expired, out of its mailbox, its sender not told yet.
    awaiting_notice: VecDeque<ExpiredItem>,
    first_ticket: Ticket,
    /// Accepted, not safe in the store yet.
    pending: VecDeque<(PutSeq, Seq, DeviceId)>,
    last_put: PutSeq,
    next_seq: Seq,
    next_epoch: u64,
    connected: usize,
    /// Room for what one step settles, kept from step to step.
    settled: Vec<Item>,
    /// Whose memory is tidied next.
    dedup_cursor: usize,
    counts: Counts,
}

#[derive(Debug)]
struct Device<L> {
    id: DeviceId,
    /// A resumable device has one.
    token: Option<TokenHash>,
    lease: L,
    connection: Option<Connection>,
    mailbox: Mailbox,
    dedup: DedupWindow,
    /// Its entry in `due`.
    scheduled: Option<Moment>,
    /// Its entry in `ends`.
    forget_at: Option<Moment>,
}

#[derive(Debug)]
struct Connection {
    epoch: u64,
    /// `Offline` while connected.
    delivery_paused: bool,
    receipts: bool,
    peers: Peers,
    /// Messages it was handed and has not acked: so many Acks are no unmatched_acks, even where they confirm nothing.
    unacked: u32,
}

impl Connection {
    /// It is handed a message.
    fn note_delivery(&mut self, sender: DeviceId) {
        self.peers.record(sender);
        self.unacked = self.unacked.saturating_add(1);
    }
}

/// Whom a connection has exchanged messages with, as far as an `Auth*` without recipient must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peers {
    Nobody,
    One(DeviceId),
    Several,
}

impl Peers {
    fn record(&mut self, other: DeviceId) {
        *self = match *self {
            Self::Nobody => Self::One(other),
            Self::One(known) if known == other => Self::One(known),
            _ => Self::Several,
        };
    }
}

#[derive(Debug)]
struct ExpiredItem {
    recipient: DeviceId,
    item: Item,
}

impl<S: Store, L: Clone> Router<S, L> {
    /// A relay where nobody is known yet.
    pub fn new(rules: Rules, store: S) -> Self {
        Self {
            rules,
            store,
            devices: Slab::new(),
            by_id: HashMap::default(),
            by_token: HashMap::default(),
            exchanges: Exchanges::default(),
            deadlines: BTreeSet::new(),
            forget_at: BTreeSet::new(),
            awaiting_notice: VecDeque::new(),
            first_ticket: 0,
            pending: VecDeque::new(),
            last_put: PutSeq::default(),
            next_seq: 1,
            next_epoch: 1,
            connected: 0,
            settled: Vec::new(),
            dedup_cursor: 0,
            counts: Counts::default(),
        }
    }

    /// New rules, from now on; what was accepted under the old ones stays.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// What can be seen from outside.
    #[must_use]
    pub fn observe(&self) -> Snapshot {
        Snapshot {
            devices: self.devices.len(),
            connected: self.connected,
            exchanges: self.exchanges.len(),
            counts: self.counts,
        }
    }

    /// Grows with every record that is handed to the store.
    #[must_use]
    pub fn last_put(&self) -> PutSeq {
        self.last_put
    }

    /// The store, for what only its owner can do with it.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    fn slot_of(&self, id: DeviceId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// Where the device of that id is, unless its session is over. (protocol: Send, 404)
    fn present(&self, now: Now, id: DeviceId) -> Option<u32> {
        let slot = self.slot_of(id)?;
        let over = self.devices[slot as usize].forget_at.is_some_and(|ends| ends <= now.mono);
        (!over).then_some(slot)
    }

    fn device(&mut self, slot: u32) -> &mut Device<L> {
        &mut self.devices[slot as usize]
    }

    /// Whether this connection is the one that its device has now.
    fn is_current(&self, conn: ConnectionId) -> bool {
        self.devices
            .get(conn.slot as usize)
            .and_then(|device| device.connection.as_ref())
            .is_some_and(|connection| connection.epoch == conn.epoch)
    }

    /// An envelope takes its place: in flight if it overtakes nothing and there is credit, else behind what waits.
    /// Answers whether its sender's Ack is still to come.
    fn enqueue(
        &mut self,
        now: Now,
        slot: u32,
        envelope: Envelope,
        deadline: Moment,
        out: &mut Deliveries<L>,
    ) -> bool {
        let seq = self.next_seq;
        self.next_seq += 1;
        let device = &mut self.devices[slot as usize];
        let counted = envelope.subject.is_counted();
        let mut item = Item::new(seq, deadline, envelope, device.token.is_some());
        let settles = item.settles;
        let flies = device.can_take(self.rules.credit, item.bytes());
        let passing = flies && settles == SettledBy::Write;
        // What the relay itself says passes no socket unstored: what it says the end of is forgotten in the same step.
        let is_notice = item.envelope.subject == Subject::Notice;
        let must_keep = (!passing || is_notice) && item.must_be_stored(device.token.is_some());
        let kept = must_keep.then(|| {
            self.last_put.0 += 1;
            self.store.put(record(now, &item, device.id), self.last_put)
        });
        item.stored = kept.is_some_and(|kept| kept != PutOutcome::Rejected);
        item.owes_ack = match (&item.envelope.subject, kept) {
            (Subject::Message(_), None) => item.envelope.receipts,
            (_, None) => false,
            (
                Subject::Message(_) | Subject::KeyRotation(_) | Subject::KeyRotationAck(_),
                Some(kept),
            ) => kept != PutOutcome::Durable,
            (Subject::Auth | Subject::Notice, Some(_)) => false,
        };
        let owes_ack = item.owes_ack;
        if kept == Some(PutOutcome::Pending) {
            self.pending.push_back((self.last_put, seq, device.id));
        }
        let tally = if flies { &mut self.counts.in_flight } else { &mut self.counts.queued };
        *tally += u64::from(counted);
        self.counts.accepted += u64::from(counted);
        if !passing {
            self.counts.queued_bytes += item.bytes();
        }
        match &mut device.connection {
            Some(connection) if flies => {
                if counted {
                    connection.note_delivery(item.envelope.from);
                }
                let conn = ConnectionId { slot, epoch: connection.epoch };
                out.push(conn, Delivery::Frame { seq, body: item.envelope.body.clone() });
                device.mailbox.push_in_flight(item);
            }
            _ => {
                device.mailbox.push_waiting(item);
                // What waits for credit alone may find it: notices and traffic arrive in any order.
                self.dispatch(now, slot, out);
            }
        }
        self.schedule(slot);
        if kept == Some(PutOutcome::Rejected) {
            // The store failed since it was last asked; what does not fly finds no place.
            self.refuse_unstored(now, slot, seq, out);
        }
        owes_ack
    }

    /// Hands over what waits, as far as there is credit.
    fn dispatch(&mut self, now: Now, slot: u32, out: &mut Deliveries<L>) {
        let Self { devices, awaiting_notice, counts, rules, .. } = self;
        let device = &mut devices[slot as usize];
        let Some(connection) =
            device.connection.as_mut().filter(|connection| !connection.delivery_paused)
        else {
            return;
        };
        loop {
            match device.mailbox.next_deliverable(now.mono, rules.credit) {
                Next::Nothing => return,
                Next::Expired(item) => {
                    awaiting_notice.push_back(ExpiredItem { recipient: device.id, item })
                }
                Next::InFlight(item) => {
                    let counted = item.envelope.subject.is_counted();
                    counts.queued -= u64::from(counted);
                    counts.in_flight += u64::from(counted);
                    if item.settles == SettledBy::Write {
                        counts.queued_bytes -= item.bytes();
                    }
                    if counted {
                        connection.note_delivery(item.envelope.from);
                    }
                    let conn = ConnectionId { slot, epoch: connection.epoch };
                    let body = item.envelope.body.clone();
                    out.push(conn, Delivery::Frame { seq: item.seq, body });
                }
            }
        }
    }

    /// Closes the books on what its recipient has; tells a sender that is still to be told.
    fn delivered(
        &mut self,
        now: Now,
        recipient: DeviceId,
        item: Item,
        status: Status,
        out: &mut Deliveries<L>,
    ) {
        self.account_for_leaving(&item);
        if item.envelope.subject.is_counted() {
            self.counts.delivered += 1;
        }
        if let Subject::Message(id) = item.envelope.subject {
            self.tell(now, &item, id, status, out);
        }
        if item.stored {
            let fingerprint = self.repeatable(now, recipient, &item);
            self.store.remove(item.seq, fingerprint);
        }
    }

    /// Tells the sender of a message what became of it, if it waits for that.
    fn tell(
        &mut self,
        now: Now,
        item: &Item,
        id: MessageId,
        status: Status,
        out: &mut Deliveries<L>,
    ) {
        if item.envelope.receipts {
            let text = encode::ack(id, Some(status));
            self.notify(now, item.envelope.from, text, out);
        } else if item.owes_ack
            && let Some(conn) = self.connection_of(item.envelope.from)
        {
            // A resumable sender that is away repeats what it has no Ack for, and is acked then.
            out.push(conn, Delivery::Ack { id, status: None });
        }
    }

    /// Leaves the relay's own word in a device's mailbox, if it is here or will come back.
    fn notify(&mut self, now: Now, to: DeviceId, text: String, out: &mut Deliveries<L>) {
        let Some(slot) = self.present(now, to) else { return };
        let most = self.rules.quota.messages;
        let device = self.device(slot);
        if device.connection.is_none() && device.token.is_none() {
            return;
        }
        if device.mailbox.notices() >= most {
            self.counts.dropped_notices += 1;
            return;
        }
        let envelope = Envelope {
            from: to,
            subject: Subject::Notice,
            ttl: 0,
            body: text.into(),
            receipts: false,
            content: 0,
        };
        // It waits for as long as its device is known.
        self.enqueue(now, slot, envelope, Moment::NEVER, out);
    }

    /// What must be remembered of a message that is gone, for its sender may come back and repeat it.
    fn repeatable(&self, now: Now, recipient: DeviceId, item: &Item) -> Option<Fingerprint> {
        let Subject::Message(id) = item.envelope.subject else { return None };
        let sender = item.envelope.from;
        let resumable = |slot: u32| self.devices[slot as usize].token.is_some();
        self.slot_of(sender).filter(|slot| resumable(*slot))?;
        let print = Fingerprint::new(sender, recipient, id, item.envelope.content);
        let print = print.handed_over_at_once(item.envelope.ttl == 0);
        Some(Fingerprint { recorded_at: now.wall_ms, ..print })
    }

    fn connection_of(&self, id: DeviceId) -> Option<ConnectionId> {
        let slot = self.slot_of(id)?;
        let connection = self.devices[slot as usize].connection.as_ref()?;
        Some(ConnectionId { slot, epoch: connection.epoch })
    }

    /// An item that has left its mailbox leaves the gauges.
    fn account_for_leaving(&mut self, item: &Item) {
        if item.envelope.subject.is_counted() {
            let tally =
                if item.in_flight { &mut self.counts.in_flight } else { &mut self.counts.queued };
            *tally -= 1;
        }
        if !item.in_flight || item.settles == SettledBy::Ack {
            self.counts.queued_bytes -= item.bytes();
        }
    }

    /// Keeps `due` not later than the mailbox's first deadline.
    fn schedule(&mut self, slot: u32) {
        let device = &mut self.devices[slot as usize];
        let Some(next) = device.mailbox.next_deadline() else { return };
        if device.scheduled.is_some_and(|scheduled| scheduled <= next) {
            return;
        }
        if let Some(later) = device.scheduled.replace(next) {
            self.deadlines.remove(&(later, slot));
        }
        self.deadlines.insert((next, slot));
    }
}

impl<L> Device<L> {
    /// Whether something of so many bytes could be handed to its connection at once, overtaking nothing.
    fn can_take(&self, credit: Credit, bytes: u64) -> bool {
        self.connection.as_ref().is_some_and(|connection| !connection.delivery_paused)
            && self.mailbox.has_credit(credit, bytes)
    }
}

fn record(now: Now, item: &Item, to: DeviceId) -> MessageRecord<&Envelope> {
    let expires_at = now.wall_ms_at(item.deadline);
    MessageRecord { seq: item.seq, to, expires_at, envelope: &item.envelope }
}

#[cfg(test)]
mod tests;
