//! A naive model of the router: every device has one list of unsettled items, and every question is answered by a walk
//! through the list.
//!
//! The model gets each event after the router. It computes exactly which Acks, refusals and records must follow. Then it
//! checks each delivered frame: addressed to this device, the oldest that waits, in time, within the window.

#![allow(clippy::too_many_arguments, reason = "an event, and what was seen of it")]

mod auth;
mod correspondents;
mod deliveries;
mod durability;
mod expiry;
mod memory;
mod notices;
mod queue;
mod requests;
mod restart;

use auth::Exchange;
pub use correspondents::has_share;
pub use memory::Memory;
use memory::Sent;
pub use notices::{Notice, Pending};
pub use restart::Restart;

use std::collections::{HashMap, VecDeque};

use sealpost::clock::{Moment, Now};
use sealpost::protocol::envelope::{ENVELOPE_OVERHEAD, EXCHANGE_OVERHEAD, Origin, Seq};
use sealpost::protocol::id::{DeviceId, MessageId};
use sealpost::protocol::refusal::{CloseReason, Refusal};
use sealpost::protocol::{encode::Status, refusal::ErrorContext};
use sealpost::relay::command::ConnectionId;
use sealpost::relay::router::{Snapshot, Ticket};
use sealpost::store::boots::BootTime;
use sealpost::store::{PutOutcome, PutSeq, Store as _};

use crate::rules::Rules;
use crate::store::Notebook;
use crate::tally::Tally;

/// A device, by its place in the model.
pub type Dev = usize;
/// Anything in a mailbox, by its place in the model.
pub type Nr = usize;

const NEVER: u64 = u64::MAX;
const SECOND: u64 = 1_000_000_000;

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Message(MessageId),
    Key(u64),
    KeyAck(u64),
    Auth,
    Notice(Notice),
}

impl Kind {
    pub fn is_message(self, id: MessageId) -> bool {
        matches!(self, Self::Message(known) if known == id)
    }

    fn is_counted(self) -> bool {
        matches!(self, Self::Message(_) | Self::Key(_) | Self::KeyAck(_))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// A notice that waits for a report of the store.
    Held,
    Waiting,
    Flying,
    /// Expired; the sender has no notice yet.
    Aside,
    /// A notice that nobody wants any more, and that no sweep has found yet.
    Dropped,
    Delivered,
    Expired,
    /// Given back to its sender, because the store rejected it.
    Refused,
    /// Not on disk when the process ended.
    Lost,
}

/// The state of an item in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Care {
    /// The item was not put.
    None,
    /// The item was put, with this number.
    Asked(PutSeq),
    /// The store has reported it as durable.
    Safe,
    /// The store rejected or lost the item.
    Refused,
}

#[derive(Debug)]
pub struct Item {
    pub kind: Kind,
    pub from: Dev,
    pub to: Dev,
    ttl: u64,
    pub deadline: u64,
    body: Box<[u8]>,
    receipts: bool,
    /// Settled by the recipient's Ack; otherwise when the socket took the item.
    pub by_confirm: bool,
    pub state: State,
    /// The item was sent on a connection.
    pub seen: bool,
    care: Care,
    owed: u32,
    /// The item's place in the order of arrival since the last restart; 0 if the item was lost then.
    mark: Seq,
    ticket: bool,
    /// Hash of a message's content.
    content: u64,
    origin: Origin,
    /// Its sender was unknown to the recipient.
    unknown: bool,
    /// The item whose end a notice reports, if both were one step of the store.
    ends: Option<Nr>,
    /// The item whose end a notice reports that was held for the report on this end, and is not stored.
    reports: Option<Nr>,
    /// The sender was told of the item's end after the commit of that: no restart brings the item back.
    is_over_for_good: bool,
    /// The store lost the item after it was set aside, when the router did not look at it any more.
    lost_aside: bool,
    /// The step of the store in which receipts were turned on.
    receipts_since: Option<u64>,
    /// What the item counted when it came.
    counted_bytes: u64,
}

impl Item {
    pub fn bytes(&self) -> u64 {
        if let Kind::Notice(notice) = self.kind {
            return notice.bytes;
        }
        let key = match self.kind {
            Kind::Key(key) | Kind::KeyAck(key) => key.to_string().len() as u64,
            Kind::Auth => EXCHANGE_OVERHEAD,
            _ => 0,
        };
        self.body.len() as u64 + key + ENVELOPE_OVERHEAD
    }

    fn notice_bytes(&self) -> Option<u64> {
        if let Kind::Notice(notice) = self.kind { Some(notice.bytes) } else { None }
    }

    /// Whether a sweep may find the item: the item can expire, and its deadline has passed.
    pub fn is_over(&self, now: Now) -> bool {
        self.deadline <= now.mono.0
            && match self.state {
                State::Waiting => true,
                State::Flying => self.by_confirm,
                _ => false,
            }
    }

    /// Whether the router may assume that the store has the item.
    fn is_kept(&self) -> bool {
        matches!(self.care, Care::Asked(_) | Care::Safe)
    }

    /// Whether the item is put when it waits for a device that is `resumable` or plain.
    fn must_be_stored(&self, resumable: bool) -> bool {
        self.kind.is_counted() || matches!(self.kind, Kind::Notice(_)) && resumable
    }

    fn is_held(&self) -> bool {
        self.state == State::Waiting || self.state == State::Flying && self.by_confirm
    }
}

#[derive(Debug)]
pub struct Conn {
    pub id: ConnectionId,
    pub holding: bool,
    met: Vec<Dev>,
    /// Marks of the items that the socket has not taken.
    pub marks: VecDeque<u64>,
    last_mark: u64,
    /// Numbers of the notices that the socket has not taken.
    pub notices: VecDeque<u64>,
    last_notice: u64,
    /// The rules have changed, and no event of the notices has followed.
    notices_stale: bool,
    is_accepted: bool,
    /// The rules have changed, and no event of this connection has followed.
    stale: bool,
}

#[derive(Debug)]
pub struct Device {
    pub id: DeviceId,
    pub resumable: bool,
    pub conn: Option<Conn>,
    pub ends: Option<u64>,
    /// The store's step in which the device was last recorded, if no restart followed.
    recorded_at: Option<u64>,
    /// The router has forgotten the device.
    pub forgotten: bool,
    /// Unsettled items but notices, in order of arrival.
    pub queue: Vec<Nr>,
    /// Unsettled notices, in the order in which they leave.
    pub notices: Vec<Nr>,
    /// The connection there is or was last wants receipts.
    receipts: bool,
    sent: HashMap<(Dev, MessageId), Sent>,
    sends: u64,
    pub origin: Origin,
    /// Hashes of the devices that it has written to.
    correspondents: Vec<u64>,
    pub used: bool,
    /// When, in Unix milliseconds, and by which access token.
    registered: (u64, Option<&'static str>),
}

impl Device {
    /// Whether the device counts among those of the access token that may have few.
    pub fn is_alive_guest(&self) -> bool {
        let is_alive = !self.forgotten && (self.resumable || self.conn.is_some());
        is_alive && self.registered.1 == Some("guests")
    }

    pub fn is_present(&self, now: Now) -> bool {
        !self.forgotten && self.ends.is_none_or(|ends| ends > now.mono.0)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Ack(MessageId, Option<Status>),
    Refused(Refusal, ErrorContext),
    Close(CloseReason),
}

/// A message as its sender sends it.
#[derive(Debug, Clone)]
pub struct Message {
    pub to: Option<Dev>,
    pub to_id: DeviceId,
    pub id: MessageId,
    pub ttl: Option<u64>,
    pub content: u64,
    pub body: String,
}

pub struct Model {
    pub rules: Rules,
    pub devices: Vec<Device>,
    pub items: Vec<Item>,
    /// Devices that are worth a look: known, or with something unsettled.
    pub live: Vec<Dev>,
    pub tickets: VecDeque<Nr>,
    pub first_ticket: Ticket,
    pub pending: VecDeque<(PutSeq, Pending)>,
    next_seq: Seq,
    exchanges: Vec<Exchange>,
    accepted: u64,
    delivered: u64,
    expired: u64,
    unmatched_acks: u64,
    pub tally: Tally,
    expected_replies: Vec<(ConnectionId, Reply)>,
    possible_replies: Vec<(ConnectionId, Reply)>,
    /// Accepted in this event: the only item that may be in flight with a ttl of 0.
    fresh: Option<Nr>,
    /// Replaced in this event; the connection still gets a refusal and a Close.
    replaced: Option<ConnectionId>,
    /// The store is failing, or was failing when this event began.
    refusing: bool,
    /// Items that the store rejected in this event, and the sender's connection.
    unplaced: Vec<(Nr, Option<ConnectionId>)>,
    /// Messages by their fingerprints.
    prints: HashMap<(Dev, u64, u64), Nr>,
}

impl Model {
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            devices: Vec::new(),
            items: Vec::new(),
            live: Vec::new(),
            tickets: VecDeque::new(),
            first_ticket: 0,
            pending: VecDeque::new(),
            next_seq: 1,
            exchanges: Vec::new(),
            accepted: 0,
            delivered: 0,
            expired: 0,
            unmatched_acks: 0,
            tally: Tally::default(),
            expected_replies: Vec::new(),
            possible_replies: Vec::new(),
            fresh: None,
            replaced: None,
            refusing: false,
            unplaced: Vec::new(),
            prints: HashMap::new(),
        }
    }

    pub fn rules_changed(&mut self, rules: Rules) {
        self.rules = rules;
        for conn in self.devices.iter_mut().filter_map(|device| device.conn.as_mut()) {
            conn.stale = true;
            conn.notices_stale = true;
        }
    }

    pub fn new_device(
        &mut self,
        id: DeviceId,
        resumable: bool,
        origin: Origin,
        registered: (Now, Option<&'static str>),
    ) -> Dev {
        self.devices.push(Device {
            id,
            resumable,
            conn: None,
            ends: None,
            recorded_at: None,
            forgotten: false,
            queue: Vec::new(),
            notices: Vec::new(),
            receipts: false,
            sent: HashMap::new(),
            sends: 0,
            origin,
            correspondents: Vec::new(),
            used: false,
            registered: (registered.0.wall_ms, registered.1),
        });
        self.live.push(self.devices.len() - 1);
        self.devices.len() - 1
    }

    pub fn registered(
        &mut self,
        now: Now,
        dev: Dev,
        conn: ConnectionId,
        receipts: bool,
        store: &mut Notebook,
    ) {
        if let Some(older) = &self.devices[dev].conn {
            let older = older.id;
            assert!(conn > older, "an id does not grow");
            self.expected_replies
                .push((older, Reply::Refused(Refusal::Replaced, ErrorContext::NOTHING)));
            self.expected_replies.push((older, Reply::Close(CloseReason::Replaced)));
            self.replaced = Some(older);
            self.detach(now, dev, store);
        }
        let device = &mut self.devices[dev];
        device.ends = None;
        // A plain device is recorded when it leaves.
        device.recorded_at = device.resumable.then(|| store.step());
        device.receipts = receipts;
        device.conn = Some(Conn {
            id: conn,
            holding: false,
            met: Vec::new(),
            marks: VecDeque::new(),
            last_mark: 0,
            notices: VecDeque::new(),
            last_notice: 0,
            notices_stale: false,
            is_accepted: false,
            stale: false,
        });
        if !receipts {
            self.drop_receipts(dev);
        }
    }

    pub fn left(&mut self, now: Now, dev: Dev, store: &mut Notebook) {
        self.detach(now, dev, store);
        let rules = self.rules;
        let device = &mut self.devices[dev];
        let ttl = if device.resumable { rules.session_ttl } else { rules.plain_ttl };
        device.ends = Some((now.mono + ttl).0);
        device.recorded_at = Some(store.step());
        if !device.resumable {
            device.sent.clear();
        }
    }

    pub fn status(&mut self, dev: Dev, offline: bool) {
        let conn = self.conn_mut(dev);
        conn.holding = offline;
        conn.stale = false;
        conn.notices_stale = false;
    }

    pub fn on_written(&mut self, now: Now, dev: Dev, mark: u64, store: &mut Notebook) {
        let conn = self.conn_mut(dev);
        conn.stale = false;
        conn.marks.retain(|known| *known > mark);
        let mut settled = Vec::new();
        for nr in self.devices[dev].queue.clone() {
            let item = &self.items[nr];
            if item.state == State::Flying && !item.by_confirm && item.mark <= mark {
                self.leaves(nr, State::Delivered);
                settled.push(nr);
            }
        }
        for nr in settled {
            self.report_status(now, nr, Status::Delivered, store);
        }
    }

    fn detach(&mut self, now: Now, dev: Dev, store: &mut Notebook) {
        self.devices[dev].conn = None;
        self.detach_notices(dev);
        let plain = !self.devices[dev].resumable;
        let mut acks = Vec::new();
        for nr in self.devices[dev].queue.clone() {
            let item = &mut self.items[nr];
            if item.state != State::Flying {
                continue;
            }
            if item.deadline <= now.mono.0 {
                item.state = State::Aside;
                continue;
            }
            item.state = State::Waiting;
            if item.must_be_stored(!plain)
                && !item.is_kept()
                && self.put(nr, store) == PutOutcome::Durable
            {
                acks.push(nr);
            }
        }
        for nr in acks {
            self.ack_kept(now, nr);
        }
    }

    fn meet(&mut self, dev: Dev, other: Dev) {
        let met = &mut self.conn_mut(dev).met;
        if !met.contains(&other) {
            met.push(other);
        }
    }

    pub fn conn(&self, dev: Dev) -> &Conn {
        self.devices[dev].conn.as_ref().expect("it is connected")
    }

    fn conn_mut(&mut self, dev: Dev) -> &mut Conn {
        self.devices[dev].conn.as_mut().expect("it is connected")
    }

    /// Checks the invariants after every event.
    pub fn check(&mut self, now: Now, seen: Snapshot, store: &Notebook) {
        let is_seen = store.log.is_empty() && store.asked.is_empty();
        assert!(is_seen && store.replaced.is_empty(), "the store keeps what it need not");
        assert!(store.fingerprints.is_empty(), "a fingerprint is kept for nothing");
        let (mut queued, mut flying, mut over, mut bytes, mut kept) = (0, 0, 0, 0, 0);
        let mut unfound = 0;
        let (mut connected, mut known, mut unswept) = (0, 0, 0);
        for dev in &self.live {
            let device = &self.devices[*dev];
            let (mut first, mut blocked, mut unswept_mail) = (None, false, false);
            for nr in &device.queue {
                let item = &self.items[*nr];
                kept += usize::from(item.is_kept());
                if item.is_held() {
                    bytes += item.bytes();
                    let is_found = device.forgotten || item.is_over(now);
                    unfound += if is_found { item.bytes() } else { 0 };
                }
                let counted = u64::from(item.kind.is_counted());
                if item.state == State::Flying {
                    flying += counted;
                    over += counted * u64::from(item.is_over(now));
                } else {
                    queued += counted;
                }
                if item.state == State::Waiting && item.must_be_stored(device.resumable) {
                    assert!(item.care != Care::None, "nobody was asked to keep {item:?}");
                }
                unswept_mail |= item.is_over(now) || item.state == State::Aside;
                if first.is_none() && item.state == State::Waiting {
                    first = Some(item.bytes());
                }
            }
            let mut notice_waits = false;
            for nr in &device.notices {
                let item = &self.items[*nr];
                kept += usize::from(item.is_kept());
                if item.state == State::Aside {
                    continue;
                }
                bytes += item.bytes();
                let is_found = device.forgotten || item.state == State::Dropped;
                unfound += if is_found { item.bytes() } else { 0 };
                notice_waits |= item.state == State::Waiting;
            }
            if let Some(conn) = &device.conn {
                connected += 1;
                let has_room = conn.notices.len() < self.rules.credit.window;
                let waits = notice_waits && has_room && !conn.holding && !conn.notices_stale;
                assert!(!waits, "{dev} could be given a notice");
                assert!(conn.is_accepted, "a connection is not accepted");
                // An item that a sweep finds returns its credit when it is dropped.
                let idle = !conn.holding && !conn.stale && !unswept_mail;
                let has = |item: &Item| item.state == State::Flying;
                blocked = first.is_some_and(|bytes| idle && self.has_credit(*dev, bytes, has));
            }
            assert!(!blocked, "{dev} could be given what waits for it");
            known += usize::from(device.is_present(now));
            unswept += usize::from(!device.is_present(now) && !device.forgotten);
        }
        for item in self.held_notices() {
            bytes += item.bytes();
            kept += usize::from(item.is_kept());
        }
        let counts = seen.counts;
        assert_eq!(counts.accepted, self.accepted, "accepted");
        assert_eq!(counts.delivered, self.delivered, "delivered");
        assert_eq!(counts.expired, self.expired, "expired");
        assert_eq!(counts.queued + counts.in_flight, queued + flying, "not settled");
        assert!((flying - over..=flying).contains(&counts.in_flight), "in flight");
        let settled = counts.delivered + counts.expired;
        assert_eq!(counts.accepted, settled + counts.queued + counts.in_flight, "conservation");
        let found = bytes - unfound..=bytes;
        assert!(
            found.contains(&counts.queued_bytes),
            "queued_bytes {}: {found:?}",
            counts.queued_bytes
        );
        assert_eq!(counts.stray_acks, self.unmatched_acks, "stray Acks");
        assert_eq!(seen.connected, connected, "connected");
        assert!((known..=known + unswept).contains(&seen.devices), "devices");
        assert_eq!(store.live.len(), kept, "kept");
        self.refusing = store.is_failing();
        let open = self.exchanges.iter().filter(|exchange| exchange.deadline > now.mono.0).count();
        assert!((open..=self.exchanges.len()).contains(&seen.exchanges), "exchanges");
    }

    /// A device whose session is over and that has no items is not checked again.
    pub fn tidy(&mut self) {
        let devices = &self.devices;
        self.live.retain(|dev| {
            let device = &devices[*dev];
            !device.forgotten || !device.queue.is_empty() || !device.notices.is_empty()
        });
    }

    /// Notices that wait for a report of the store.
    fn held_notices(&self) -> impl Iterator<Item = &Item> {
        self.pending.iter().filter_map(|(_, pending)| match pending {
            Pending::Notice(nr) => Some(&self.items[*nr]),
            _ => None,
        })
    }
}

/// A deadline as it is stored in a boot.
fn stored(boot: u32, deadline: u64) -> BootTime {
    match deadline {
        NEVER => BootTime::NEVER,
        _ => BootTime { boot, at: Moment(deadline) },
    }
}

fn unix_at(now: Now, deadline: u64) -> u64 {
    now.wall_ms / 1_000 + (deadline - deadline.min(now.mono.0)).div_ceil(SECOND)
}
