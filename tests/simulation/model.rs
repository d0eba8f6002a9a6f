//! What must follow from each event, said the naive way: every device has one list of what is not settled, and every
//! question is answered by walking it.
//!
//! The model hears an event after the router has. It says which Acks, refusals and records must have come of it, exactly;
//! then it takes the mail that was handed over, piece by piece, and asks of each whether it may be: the recipient's own,
//! the oldest that waits, in time, within the window.

#![allow(clippy::too_many_arguments, reason = "an event, and what was seen of it")]

mod durability;
mod memory;
mod restart;

pub use memory::Memory;
use memory::Sent;
pub use restart::Restart;

use std::collections::{HashMap, VecDeque};

use sealpost::clock::Now;
use sealpost::protocol::client::AuthStep;
use sealpost::protocol::envelope::Seq;
use sealpost::protocol::id::{DeviceId, MessageId};
use sealpost::protocol::refusal::{CloseReason, Expired as What, Refusal};
use sealpost::protocol::server::{ErrorContext, Status, ack};
use sealpost::relay::command::{ConnectionId, Delivery};
use sealpost::relay::mailbox::Credit;
use sealpost::relay::router::{Expired, Rules, Snapshot, Ticket};
use sealpost::store::{PutOutcome, PutSeq, Store as _};

use crate::store::Notebook;
use crate::tally::{Place, Tally};

/// A device, by its place in the model.
pub type Dev = usize;
/// Anything in a mailbox, by its place in the model.
pub type Nr = usize;

const NEVER: u64 = u64::MAX;
const SECOND: u64 = 1_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Message(MessageId),
    Key(u64),
    KeyAck(u64),
    Auth,
    Notice,
}

impl Kind {
    fn is_counted(self) -> bool {
        matches!(self, Self::Message(_) | Self::Key(_) | Self::KeyAck(_))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Waiting,
    Flying,
    /// Expired, its sender not told yet.
    Aside,
    Delivered,
    Expired,
    /// Given back to its sender, for the store did not keep it.
    Refused,
    /// Not kept when the process ended.
    Lost,
}

/// What the store makes of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Care {
    /// It was not asked.
    None,
    /// It was put, in this turn.
    Asked(PutSeq),
    /// It has said that a restart brings it back.
    Safe,
    /// It could not.
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
    /// Delivered when the recipient confirms; else when its connection took it.
    pub by_confirm: bool,
    pub state: State,
    /// A connection had it.
    pub seen: bool,
    care: Care,
    owes: bool,
    /// Its place in the order of arrival since the last restart; 0 if it was gone then.
    mark: Seq,
    ticket: bool,
    /// Of a message.
    content: u64,
    /// What a notice says the end of, if both were one step of the store.
    ends: Option<Nr>,
}

impl Item {
    pub fn bytes(&self) -> u64 {
        self.body.len() as u64
    }

    /// What a sweep may find: it can expire, and its time is over.
    pub fn is_over(&self, now: Now) -> bool {
        self.deadline <= now.mono.0
            && match self.state {
                State::Waiting => true,
                State::Flying => self.by_confirm,
                _ => false,
            }
    }

    /// Whether the store has it, as far as the router can know.
    fn is_kept(&self) -> bool {
        matches!(self.care, Care::Asked(_) | Care::Safe)
    }

    /// Whether the store is asked for it once it waits for a device that can come back or cannot.
    fn must_be_stored(&self, resumable: bool) -> bool {
        self.kind.is_counted() || self.kind == Kind::Notice && resumable
    }

    fn is_held(&self) -> bool {
        self.state == State::Waiting || self.state == State::Flying && self.by_confirm
    }
}

#[derive(Debug)]
pub struct Conn {
    pub id: ConnectionId,
    pub holding: bool,
    receipts: bool,
    met: Vec<Dev>,
    /// Of the mail that its socket has not taken.
    pub marks: VecDeque<u64>,
    last_mark: u64,
    welcomed: bool,
    /// The rules have changed and nothing has happened here since.
    stale: bool,
}

#[derive(Debug)]
pub struct Device {
    pub id: DeviceId,
    pub resumable: bool,
    pub conn: Option<Conn>,
    pub ends: Option<u64>,
    /// The step of the store in which it last came or went, if it was told and there was no restart since.
    told: Option<u64>,
    /// Swept: nobody can tell it was ever here.
    forgotten: bool,
    /// What is not settled, in order of arrival.
    pub queue: Vec<Nr>,
    sent: HashMap<(Dev, MessageId), Sent>,
    sends: u64,
}

impl Device {
    pub fn is_present(&self, now: Now) -> bool {
        !self.forgotten && self.ends.is_none_or(|ends| ends > now.mono.0)
    }
}

#[derive(Debug)]
struct Exchange {
    a: Dev,
    b: Dev,
    stage: u8,
    deadline: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    Ack(MessageId, Option<Status>),
    Refused(Refusal, ErrorContext),
    Close(CloseReason),
}

/// A message as its sender says it.
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
    pub pending: VecDeque<(PutSeq, Nr)>,
    next_seq: Seq,
    exchanges: Vec<Exchange>,
    accepted: u64,
    delivered: u64,
    expired: u64,
    strays: u64,
    dropped: u64,
    pub tally: Tally,
    said: Vec<(ConnectionId, Request)>,
    maybe: Vec<(ConnectionId, Request)>,
    /// Accepted in this very event: the one thing that may fly with a ttl of 0.
    fresh: Option<Nr>,
    /// Sent away in this very event, with what it still hears.
    replaced: Option<ConnectionId>,
    /// The store is_failing, or did when this event began.
    refusing: bool,
    /// Refused by the store in this very event, and the sender's connection.
    unplaced: Vec<(Nr, Option<ConnectionId>)>,
    /// Messages by what is remembered of them.
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
            strays: 0,
            dropped: 0,
            tally: Tally::default(),
            said: Vec::new(),
            maybe: Vec::new(),
            fresh: None,
            replaced: None,
            refusing: false,
            unplaced: Vec::new(),
            prints: HashMap::new(),
        }
    }

    // Events, each after the router has heard it.

    pub fn rules_changed(&mut self, rules: Rules) {
        self.rules = rules;
        for conn in self.devices.iter_mut().filter_map(|device| device.conn.as_mut()) {
            conn.stale = true;
        }
    }

    pub fn new_device(&mut self, id: DeviceId, resumable: bool) -> Dev {
        self.devices.push(Device {
            id,
            resumable,
            conn: None,
            ends: None,
            told: None,
            forgotten: false,
            queue: Vec::new(),
            sent: HashMap::new(),
            sends: 0,
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
            assert!(conn.epoch > older.epoch, "an epoch does not grow");
            self.said.push((older, Request::Refused(Refusal::Replaced, ErrorContext::NOTHING)));
            self.said.push((older, Request::Close(CloseReason::Replaced)));
            self.replaced = Some(older);
            self.detach(now, dev, store);
        }
        let device = &mut self.devices[dev];
        device.ends = None;
        // A plain device is written down when it leaves.
        device.told = device.resumable.then(|| store.step());
        device.conn = Some(Conn {
            id: conn,
            holding: false,
            receipts,
            met: Vec::new(),
            marks: VecDeque::new(),
            last_mark: 0,
            welcomed: false,
            stale: false,
        });
    }

    pub fn left(&mut self, now: Now, dev: Dev, store: &mut Notebook) {
        self.detach(now, dev, store);
        let rules = self.rules;
        let device = &mut self.devices[dev];
        let ttl = if device.resumable { rules.session_ttl } else { rules.plain_ttl };
        device.ends = Some((now.mono + ttl).0);
        device.told = Some(store.step());
        if !device.resumable {
            device.sent.clear();
        }
    }

    pub fn status(&mut self, dev: Dev, offline: bool) {
        let conn = self.conn_mut(dev);
        conn.holding = offline;
        conn.stale = false;
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
            self.tell(now, nr, Status::Delivered, store);
        }
    }

    /// What an Ack may settle.
    pub fn confirmable(&self, dev: Dev, id: MessageId, from: Option<Dev>) -> Vec<Nr> {
        self.seen_by(dev, |item| {
            item.kind == Kind::Message(id) && from.is_none_or(|from| from == item.from)
        })
    }

    fn seen_by(&self, dev: Dev, fits: impl Fn(&Item) -> bool) -> Vec<Nr> {
        let queue = self.devices[dev].queue.iter().copied();
        queue
            .filter(|nr| {
                let item = &self.items[*nr];
                let there = matches!(item.state, State::Waiting | State::Flying);
                there && item.seen && item.by_confirm && fits(item)
            })
            .collect()
    }

    pub fn acked(
        &mut self,
        now: Now,
        dev: Dev,
        candidates: &[Nr],
        delivered: bool,
        strays: u32,
        store: &mut Notebook,
    ) {
        if self.first_confirmed(now, candidates, delivered) {
            self.conn_mut(dev).stale = false;
            assert_eq!(strays, 0, "what was confirmed is called stray");
            self.settle(now, candidates[0], Status::Processed, store);
        } else {
            // Whether it counts against the device depends on what that was handed: see the router's own tests.
            assert!(strays <= 1, "one Ack is reported as several stray ones");
            self.strays += 1;
        }
    }

    /// Whether the first candidate was confirmed. What is over may have been found so already.
    fn first_confirmed(&self, now: Now, candidates: &[Nr], delivered: bool) -> bool {
        let must = candidates.first().is_some_and(|nr| self.items[*nr].deadline > now.mono.0);
        let can = !candidates.is_empty();
        assert!(delivered || !must, "an Ack is taken for a stray one");
        assert!(!delivered || can, "an Ack settles what its device never had");
        delivered
    }

    pub fn sent(
        &mut self,
        now: Now,
        from: Dev,
        message: &Message,
        before: Snapshot,
        store: &mut Notebook,
    ) {
        let conn = self.conn(from).id;
        let about = ErrorContext::message(message.id, message.to_id);
        let refuse = |model: &mut Self, refusal| {
            model.said.push((conn, Request::Refused(refusal, about.clone())));
        };
        let Some(to) = message.to.filter(|to| self.devices[*to].is_present(now)) else {
            return refuse(self, Refusal::UnknownRecipient);
        };
        match self.memory(now, from, to, message.id, message.content) {
            Memory::New => {}
            Memory::Same => return self.repeated(now, from, to, message.id),
            Memory::Other => {
                if self.devices[from].sent[&(to, message.id)].is_old {
                    self.tally.reach(Place::OtherContent);
                }
                return refuse(self, Refusal::OtherContent);
            }
            Memory::Unsure => panic!("the driver asks only what can be told"),
        }
        let ttl = message.ttl.unwrap_or(self.rules.default_ttl).min(self.rules.max_ttl);
        let bytes = message.body.len() as u64;
        let flies = self.can_take(to, bytes);
        if ttl == 0 && !flies {
            return refuse(self, Refusal::Expired(What::Message(message.id), 0));
        }
        if let Some(refusal) = self.no_room(now, from, to, bytes, before) {
            return refuse(self, refusal);
        }
        let receipts = self.conn(from).receipts;
        self.meet(from, to);
        let deadline = now.mono.0 + ttl * SECOND;
        let kind = Kind::Message(message.id);
        let nr =
            self.accept(kind, from, to, ttl, deadline, message.body.as_bytes(), receipts, store);
        if !self.items[nr].owes {
            let status = receipts.then(|| Status::Queued(unix_at(now, deadline)));
            self.said.push((conn, Request::Ack(message.id, status)));
        }
        self.remember(now, from, to, nr, message);
    }

    pub fn key_rotated(
        &mut self,
        now: Now,
        from: Dev,
        to: Dev,
        key: u64,
        body: &str,
        before: Snapshot,
        store: &mut Notebook,
    ) {
        self.rotate(now, from, to, Kind::Key(key), body, before, store);
    }

    /// What a `KeyRotationAck` may settle.
    pub fn confirmable_keys(&self, dev: Dev, from: Dev, key: u64) -> Vec<Nr> {
        self.seen_by(dev, |item| item.kind == Kind::Key(key) && item.from == from)
    }

    pub fn key_acked(
        &mut self,
        now: Now,
        dev: Dev,
        to: Dev,
        key: u64,
        body: &str,
        candidates: &[Nr],
        delivered: bool,
        before: Snapshot,
        store: &mut Notebook,
    ) {
        let confirmed = self.first_confirmed(now, candidates, delivered);
        if confirmed {
            self.conn_mut(dev).stale = false;
            self.settle(now, candidates[0], Status::Processed, store);
        }
        self.rotate(now, dev, to, Kind::KeyAck(key), body, before, store);
    }

    fn rotate(
        &mut self,
        now: Now,
        from: Dev,
        to: Dev,
        kind: Kind,
        body: &str,
        before: Snapshot,
        store: &mut Notebook,
    ) {
        let (Kind::Key(key) | Kind::KeyAck(key)) = kind else { panic!("not a key") };
        let refusal = if self.devices[to].is_present(now) {
            self.no_room(now, from, to, body.len() as u64, before)
        } else {
            Some(Refusal::UnknownRecipient)
        };
        if let Some(refusal) = refusal {
            let about = ErrorContext::key(&key.to_string(), self.devices[to].id);
            self.said.push((self.conn(from).id, Request::Refused(refusal, about)));
            return;
        }
        self.meet(from, to);
        let ttl = self.rules.key_rotation_ttl;
        let deadline = now.mono.0 + ttl * SECOND;
        self.accept(kind, from, to, ttl, deadline, body.as_bytes(), false, store);
    }

    /// Whom an Auth step would go to, as the exchanges stand.
    pub fn auth_target(
        &self,
        now: Now,
        from: Dev,
        step: AuthStep,
        named: Option<Dev>,
    ) -> Result<Dev, Refusal> {
        if step == AuthStep::Request {
            return match (named, &self.conn(from).met[..]) {
                (Some(named), _) => Ok(named),
                (None, [one]) => Ok(*one),
                (None, []) => Err(Refusal::NobodyYet),
                (None, _) => Err(Refusal::Ambiguous),
            };
        }
        let (stage, by_opener) = if step == AuthStep::Response { (0, false) } else { (1, true) };
        let fits = |exchange: &&Exchange| {
            let speaker = if by_opener { exchange.a } else { exchange.b };
            exchange.stage == stage && speaker == from && exchange.deadline > now.mono.0
        };
        let peers: Vec<Dev> = self
            .exchanges
            .iter()
            .filter(fits)
            .map(|exchange| if by_opener { exchange.b } else { exchange.a })
            .filter(|peer| named.is_none_or(|named| named == *peer))
            .collect();
        match &peers[..] {
            [one] => Ok(*one),
            [] => Err(Refusal::NoExchange),
            _ => Err(Refusal::Ambiguous),
        }
    }

    pub fn auth_said(
        &mut self,
        now: Now,
        from: Dev,
        step: AuthStep,
        named: Option<Dev>,
        body: &str,
        before: Snapshot,
        store: &mut Notebook,
    ) {
        let outcome = self.auth_target(now, from, step, named).and_then(|to| {
            if !self.devices[to].is_present(now) {
                return Err(Refusal::UnknownRecipient);
            }
            let refused = self.no_room(now, from, to, body.len() as u64, before);
            refused.map_or(Ok(to), Err)
        });
        match outcome {
            Ok(to) => {
                let end = now.mono.0 + self.rules.exchange_ttl * SECOND;
                let exchange = match step {
                    AuthStep::Request => {
                        self.exchanges.retain(|exchange| !exchange.is_between(from, to));
                        let exchange = Exchange { a: from, b: to, stage: 0, deadline: end };
                        self.exchanges.push(exchange);
                        self.exchanges.last_mut()
                    }
                    _ => {
                        let mut all = self.exchanges.iter_mut();
                        let exchange = all.find(|exchange| exchange.is_between(from, to));
                        exchange.map(Exchange::advanced)
                    }
                };
                let deadline = exchange.expect("it is there").deadline;
                self.carry(from, to, deadline, body, store);
            }
            Err(refusal) => self.refuse_auth(from, named, refusal),
        }
    }

    pub fn success_said(
        &mut self,
        now: Now,
        from: Dev,
        to: Dev,
        body: &str,
        before: Snapshot,
        store: &mut Notebook,
    ) {
        let verified = self.exchanges.iter().find(|exchange| {
            exchange.is_between(from, to) && exchange.stage == 2 && exchange.deadline > now.mono.0
        });
        let Some(deadline) = verified.map(|exchange| exchange.deadline) else {
            return self.refuse_auth(from, Some(to), Refusal::NotVerified);
        };
        if !self.devices[to].is_present(now) {
            return self.refuse_auth(from, Some(to), Refusal::UnknownRecipient);
        }
        match self.no_room(now, from, to, body.len() as u64, before) {
            Some(refusal) => self.refuse_auth(from, Some(to), refusal),
            None => self.carry(from, to, deadline, body, store),
        }
    }

    fn carry(&mut self, from: Dev, to: Dev, deadline: u64, body: &str, store: &mut Notebook) {
        let ttl = self.rules.exchange_ttl;
        self.accept(Kind::Auth, from, to, ttl, deadline, body.as_bytes(), false, store);
    }

    fn refuse_auth(&mut self, from: Dev, named: Option<Dev>, refusal: Refusal) {
        let about = named
            .map_or(ErrorContext::NOTHING, |named| ErrorContext::recipient(self.devices[named].id));
        self.said.push((self.conn(from).id, Request::Refused(refusal, about)));
    }

    /// Checks what a sweep found.
    pub fn swept(&mut self, now: Now, found: &[Expired], limit: usize) {
        assert!(found.len() <= limit, "a sweep takes more than asked for");
        for (place, expired) in found.iter().enumerate() {
            assert_eq!(expired.ticket, self.first_ticket + place as u64, "tickets have gaps");
            let nr = match self.tickets.get(place) {
                Some(nr) => *nr,
                None => {
                    let nr = self.find_expired(now, expired);
                    let item = &mut self.items[nr];
                    item.ticket = true;
                    item.state = State::Aside;
                    self.tickets.push_back(nr);
                    nr
                }
            };
            assert!(self.describes(expired, nr), "{expired:?} came back as another");
        }
        assert!(found.len() >= self.tickets.len().min(limit), "what is not dropped comes back");
        if found.len() == limit {
            return;
        }
        // Everything was found that is over.
        self.exchanges.retain(|exchange| exchange.deadline > now.mono.0);
        for dev in self.live.clone() {
            let device = &mut self.devices[dev];
            let gone = device.ends.is_some_and(|ends| ends <= now.mono.0);
            device.forgotten |= gone;
            for nr in &device.queue {
                let item = &self.items[*nr];
                let aside = item.state == State::Aside;
                let missed = !item.ticket && (aside || gone || item.is_over(now));
                assert!(!missed, "a sweep has missed {item:?}");
            }
        }
    }

    fn find_expired(&self, now: Now, expired: &Expired) -> Nr {
        let all = self.live.iter().flat_map(|dev| self.devices[*dev].queue.iter().copied());
        let fitting = all.filter(|nr| {
            let item = &self.items[*nr];
            let gone = self.devices[item.to].ends.is_some_and(|ends| ends <= now.mono.0);
            let aside = item.state == State::Aside;
            let over = aside || gone || item.is_over(now);
            !item.ticket && over && self.describes(expired, *nr)
        });
        let first = fitting.min_by_key(|nr| {
            let item = &self.items[*nr];
            (item.state != State::Aside, item.deadline, *nr)
        });
        first.unwrap_or_else(|| panic!("{expired:?} is not over, or was never here"))
    }

    fn describes(&self, expired: &Expired, nr: Nr) -> bool {
        let item = &self.items[nr];
        let to = self.devices[item.to].id;
        let (what, about) = match item.kind {
            Kind::Message(id) => (What::Message(id), ErrorContext::message(id, to)),
            Kind::Key(key) | Kind::KeyAck(key) => {
                (What::KeyRotation, ErrorContext::key(&key.to_string(), to))
            }
            Kind::Auth => (What::Auth, ErrorContext::recipient(to)),
            Kind::Notice => {
                return expired.error.is_none() && expired.sender == self.devices[item.from].id;
            }
        };
        expired.sender == self.devices[item.from].id
            && expired.error == Some((Refusal::Expired(what, item.ttl), about))
    }

    /// The sweeper has told the senders, with these texts.
    pub fn dropped(
        &mut self,
        now: Now,
        end: Ticket,
        notices: &[(Ticket, String)],
        store: &mut Notebook,
    ) {
        let mut notices = notices.iter().peekable();
        while self.first_ticket < end {
            let nr = self.tickets.pop_front().expect("only what was found is dropped");
            let (from, to, kind) = (self.items[nr].from, self.items[nr].to, self.items[nr].kind);
            if let Some((_, text)) = notices.next_if(|(ticket, _)| *ticket == self.first_ticket) {
                self.notify(now, from, text, nr, store);
            }
            self.first_ticket += 1;
            if let Kind::Message(id) = kind {
                self.devices[from].sent.remove(&(to, id));
            }
            self.leaves(nr, State::Expired);
            if let Some(conn) = &mut self.devices[to].conn {
                conn.stale = false;
            }
        }
    }

    // What follows.

    /// Nothing can be told of whether something would be handed over at once: part of it is over, unnoticed perhaps.
    pub fn is_unclear(&self, now: Now, to: Dev) -> bool {
        let device = &self.devices[to];
        device.conn.as_ref().is_some_and(|conn| !conn.holding)
            && device.queue.iter().any(|nr| self.items[*nr].is_over(now))
    }

    fn can_take(&self, to: Dev, bytes: u64) -> bool {
        let device = &self.devices[to];
        let waits = device.queue.iter().any(|nr| self.items[*nr].state == State::Waiting);
        device.conn.as_ref().is_some_and(|conn| !conn.holding)
            && !waits
            && self.has_credit(to, bytes, |item| item.state == State::Flying)
    }

    fn has_credit(&self, dev: Dev, bytes: u64, counts: impl Fn(&Item) -> bool) -> bool {
        let flying = self.devices[dev].queue.iter().map(|nr| &self.items[*nr]);
        let (mut number, mut sum) = (0, 0);
        for item in flying.filter(|item| counts(item)) {
            number += 1;
            sum += item.bytes();
        }
        let Credit { window, bytes: most } = self.rules.credit;
        number == 0 || (number < window && sum + bytes <= most)
    }

    fn no_room(
        &self,
        now: Now,
        from: Dev,
        to: Dev,
        bytes: u64,
        before: Snapshot,
    ) -> Option<Refusal> {
        if !self.devices[to].resumable && self.can_take(to, bytes) {
            return None;
        }
        if before.counts.queued_bytes + bytes > self.rules.total_bytes {
            return Some(Refusal::Full);
        }
        if self.refusing && !self.can_take(to, bytes) {
            return Some(Refusal::Full);
        }
        let (mut all, mut own) = ((0, 0), (0, 0));
        for nr in &self.devices[to].queue {
            let item = &self.items[*nr];
            if item.kind == Kind::Notice || !item.is_held() || item.is_over(now) {
                continue;
            }
            all = (all.0 + 1, all.1 + item.bytes());
            if item.from == from {
                own = (own.0 + 1, own.1 + item.bytes());
            }
        }
        let quota = self.rules.quota;
        let messages = ((quota.messages as f64 * quota.sender_share) as usize).max(1);
        let most = (quota.bytes as f64 * quota.sender_share) as u64;
        let full = all.0 >= quota.messages
            || all.1 + bytes > quota.bytes
            || own.0 > 0 && (own.0 >= messages || own.1 + bytes > most);
        full.then_some(Refusal::QueueFull)
    }

    fn accept(
        &mut self,
        kind: Kind,
        from: Dev,
        to: Dev,
        ttl: u64,
        deadline: u64,
        body: &[u8],
        receipts: bool,
        store: &mut Notebook,
    ) -> Nr {
        let confirms = matches!(kind, Kind::Message(_) | Kind::Key(_)) && ttl > 0;
        let by_confirm = confirms && self.devices[to].resumable;
        let passes = !by_confirm && self.can_take(to, body.len() as u64);
        let nr = self.arrives(kind, from, to, ttl, deadline, body);
        let item = &mut self.items[nr];
        item.receipts = receipts;
        item.by_confirm = by_confirm;
        let mut owes = receipts;
        if kind.is_counted() {
            self.accepted += 1;
            if !passes {
                owes = self.put(nr, store) != PutOutcome::Durable;
            }
        }
        self.items[nr].owes = owes && kind.is_counted();
        if passes {
            self.fresh = Some(nr);
        }
        nr
    }

    /// Something takes its place behind everything else.
    fn arrives(
        &mut self,
        kind: Kind,
        from: Dev,
        to: Dev,
        ttl: u64,
        deadline: u64,
        body: &[u8],
    ) -> Nr {
        let (nr, mark) = (self.items.len(), self.next_seq);
        self.next_seq += 1;
        self.items.push(Item {
            kind,
            from,
            to,
            ttl,
            deadline,
            body: body.into(),
            receipts: false,
            by_confirm: false,
            state: State::Waiting,
            seen: false,
            care: Care::None,
            owes: false,
            mark,
            ticket: false,
            content: 0,
            ends: None,
        });
        self.devices[to].queue.push(nr);
        nr
    }

    fn settle(&mut self, now: Now, nr: Nr, status: Status, store: &mut Notebook) {
        self.leaves(nr, State::Delivered);
        self.tell(now, nr, status, store);
    }

    /// A sender hears what became of its message, if it still waits for that.
    fn tell(&mut self, now: Now, nr: Nr, status: Status, store: &mut Notebook) {
        let item = &self.items[nr];
        let (from, receipts, owes) = (item.from, item.receipts, item.owes);
        let Kind::Message(id) = item.kind else { return };
        if receipts {
            self.notify(now, from, &ack(id, Some(status)), nr, store);
        } else if owes && let Some(conn) = &self.devices[from].conn {
            self.said.push((conn.id, Request::Ack(id, None)));
        }
    }

    fn leaves(&mut self, nr: Nr, state: State) {
        let item = &mut self.items[nr];
        item.state = state;
        item.body = Box::default();
        let counted = u64::from(item.kind.is_counted());
        *(if state == State::Delivered { &mut self.delivered } else { &mut self.expired }) +=
            counted;
        let queue = &mut self.devices[item.to].queue;
        queue.retain(|other| *other != nr);
    }

    /// The relay has a word for a device, about the end of that item.
    fn notify(&mut self, now: Now, to: Dev, text: &str, about: Nr, store: &mut Notebook) {
        let device = &self.devices[to];
        if !device.is_present(now) || device.conn.is_none() && !device.resumable {
            return;
        }
        let notices = device.queue.iter().filter(|nr| {
            let item = &self.items[**nr];
            item.kind == Kind::Notice && item.state != State::Aside
        });
        if notices.count() >= self.rules.quota.messages {
            self.dropped += 1;
            return;
        }
        let nr = self.arrives(Kind::Notice, to, to, 0, NEVER, text.as_bytes());
        // Even if it flies at once: what it says the end of is gone from the store in this very step.
        if self.devices[to].resumable {
            let kept = self.put(nr, store);
            self.items[nr].ends = (kept != PutOutcome::Rejected).then_some(about);
        }
    }

    fn detach(&mut self, now: Now, dev: Dev, store: &mut Notebook) {
        self.devices[dev].conn = None;
        let plain = !self.devices[dev].resumable;
        let mut acks = Vec::new();
        for nr in self.devices[dev].queue.clone() {
            let item = &mut self.items[nr];
            if item.state != State::Flying {
                continue;
            }
            let lost = match item.kind {
                Kind::Notice => plain,
                _ => item.deadline <= now.mono.0,
            };
            if lost {
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

    // What was said.

    /// Checks every post of an event, in order.
    pub fn hear<L>(&mut self, now: Now, posts: &mut Vec<(ConnectionId, Delivery<L>)>) {
        self.place(posts);
        let mut closed = false;
        for (conn, post) in posts.drain(..) {
            if Some(conn) == self.replaced {
                assert!(!closed, "something is said after Close");
                match post {
                    Delivery::Refused(refused) => {
                        self.expected(conn, Request::Refused(refused.refusal, refused.about));
                    }
                    Delivery::Close(farewell) => {
                        self.expected(conn, Request::Close(farewell));
                        closed = true;
                    }
                    _ => panic!("a replaced connection is given something"),
                }
                continue;
            }
            let mut live = self.live.iter().copied();
            let dev =
                live.find(|dev| self.devices[*dev].conn.as_ref().is_some_and(|c| c.id == conn));
            let Some(dev) = dev else { panic!("a connection that is over is given something") };
            let welcome = matches!(post, Delivery::Registered(_));
            assert!(
                welcome != self.conn(dev).welcomed,
                "RegistrationAccepted is the first post, and once"
            );
            match post {
                Delivery::Registered(welcome) => {
                    self.conn_mut(dev).welcomed = true;
                    let device = &self.devices[dev];
                    let items = device.queue.iter().map(|nr| &self.items[*nr]);
                    let counted = items.filter(|item| {
                        item.kind.is_counted() && matches!(item.state, State::Waiting)
                    });
                    let (over, due): (Vec<_>, Vec<_>) = counted.partition(|item| item.is_over(now));
                    assert!(welcome.conn == conn && welcome.device == device.id);
                    assert_eq!(welcome.token.is_some(), device.resumable);
                    let queued = due.len()..=due.len() + over.len();
                    assert!(queued.contains(&welcome.queued), "{} queued", welcome.queued);
                }
                Delivery::Frame { seq, body } => self.handed(now, dev, seq, body.as_ref()),
                Delivery::Ack { id, status } => self.expected(conn, Request::Ack(id, status)),
                Delivery::Refused(refused) => {
                    self.expected(conn, Request::Refused(refused.refusal, refused.about));
                }
                Delivery::Close(_) => panic!("a connection is closed without a reason"),
            }
        }
        assert!(self.said.is_empty(), "not said: {:?}", self.said);
        self.maybe.clear();
        self.fresh = None;
        self.replaced = None;
    }

    fn expected(&mut self, conn: ConnectionId, said: Request) {
        let entry = (conn, said);
        for list in [&mut self.said, &mut self.maybe] {
            if let Some(place) = list.iter().position(|known| *known == entry) {
                list.remove(place);
                return;
            }
        }
        panic!("{entry:?} is said, for no reason");
    }

    fn handed(&mut self, now: Now, dev: Dev, mark: u64, body: &[u8]) {
        let mut queue = self.devices[dev].queue.iter().copied();
        let next = queue.find(|nr| {
            let item = &self.items[*nr];
            item.state == State::Waiting && (item.deadline > now.mono.0 || self.fresh == Some(*nr))
        });
        let text = String::from_utf8_lossy(body);
        let Some(nr) = next else { panic!("nothing is to be handed over, but {text} is") };
        let item = &self.items[nr];
        let next = String::from_utf8_lossy(&item.body);
        assert!(*item.body == *body, "{text} is handed over, {next} is to be");
        assert!(!item.seen || self.devices[dev].resumable, "{text} is handed over twice");
        assert_eq!(item.mark, mark, "{text} has another place");
        let (bytes, from) = (item.bytes(), item.from);
        let counted = item.kind.is_counted();
        let in_flight = |item: &Item| item.state == State::Flying && !item.is_over(now);
        assert!(self.has_credit(dev, bytes, in_flight), "{text} goes over the window");
        let conn = self.conn_mut(dev);
        assert!(!conn.holding, "{text} is handed to a device that holds");
        assert!(mark > conn.last_mark, "marks do not grow");
        conn.last_mark = mark;
        conn.marks.push_back(mark);
        if counted {
            self.meet(dev, from);
        }
        let item = &mut self.items[nr];
        item.seen = true;
        item.state = State::Flying;
    }

    /// What holds after every event.
    pub fn check(&mut self, now: Now, seen: Snapshot, store: &Notebook) {
        assert!(store.log.is_empty(), "the store keeps what it need not");
        let (mut queued, mut flying, mut over, mut bytes, mut kept) = (0, 0, 0, 0, 0);
        let (mut connected, mut known, mut unswept) = (0, 0, 0);
        for dev in &self.live {
            let device = &self.devices[*dev];
            let (mut first, mut blocked, mut unswept_mail) = (None, false, false);
            for nr in &device.queue {
                let item = &self.items[*nr];
                kept += usize::from(item.is_kept());
                if item.state != State::Flying || item.by_confirm {
                    bytes += item.bytes();
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
            if let Some(conn) = &device.conn {
                connected += 1;
                assert!(conn.welcomed, "a connection is not welcomed");
                // What a sweep finds gives its credit back when it is dropped.
                let idle = !conn.holding && !conn.stale && !unswept_mail;
                let has = |item: &Item| item.state == State::Flying;
                blocked = first.is_some_and(|bytes| idle && self.has_credit(*dev, bytes, has));
            }
            assert!(!blocked, "{dev} could be given what waits for it");
            known += usize::from(device.is_present(now));
            unswept += usize::from(!device.is_present(now) && !device.forgotten);
        }
        let counts = seen.counts;
        assert_eq!(counts.accepted, self.accepted, "accepted");
        assert_eq!(counts.delivered, self.delivered, "delivered");
        assert_eq!(counts.expired, self.expired, "expired");
        assert_eq!(counts.queued + counts.in_flight, queued + flying, "not settled");
        assert!((flying - over..=flying).contains(&counts.in_flight), "in flight");
        let settled = counts.delivered + counts.expired;
        assert_eq!(counts.accepted, settled + counts.queued + counts.in_flight, "conservation");
        assert_eq!(counts.queued_bytes, bytes, "queued_bytes");
        assert_eq!(counts.stray_acks, self.strays, "stray Acks");
        assert_eq!(counts.dropped_notices, self.dropped, "dropped notices");
        assert_eq!(seen.connected, connected, "connected");
        assert!((known..=known + unswept).contains(&seen.devices), "devices");
        assert_eq!(store.live.len(), kept, "kept");
        self.refusing = store.is_failing();
        let open = self.exchanges.iter().filter(|exchange| exchange.deadline > now.mono.0).count();
        assert!((open..=self.exchanges.len()).contains(&seen.exchanges), "exchanges");
    }

    /// Devices that are over and have nothing left are not looked at again.
    pub fn tidy(&mut self) {
        let devices = &self.devices;
        self.live.retain(|dev| !devices[*dev].forgotten || !devices[*dev].queue.is_empty());
    }
}

impl Exchange {
    fn advanced(&mut self) -> &mut Self {
        self.stage += 1;
        self
    }

    fn is_between(&self, a: Dev, b: Dev) -> bool {
        (self.a, self.b) == (a, b) || (self.a, self.b) == (b, a)
    }
}

fn unix_at(now: Now, deadline: u64) -> u64 {
    now.unix + (deadline - deadline.min(now.mono.0)).div_ceil(SECOND)
}
