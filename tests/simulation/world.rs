//! Devices, a store and a sweeper around a router, moved by chance.

/// Writes down what happens, if anybody wants to know.
macro_rules! tell {
    ($world:expr, $($text:tt)*) => {
        if $world.told.is_some() {
            let text = format!($($text)*);
            $world.tell(text);
        }
    };
}

mod crash;
mod durability;

use std::collections::VecDeque;
use std::time::Duration;

use crate::chance::Chance;
use crate::model::{Dev, Kind, Memory, Message, Model, State};
use crate::store::{CommitPolicy, Notebook};
use crate::tally::Tally;
use sealpost::clock::{Moment, Now};
use sealpost::protocol::client::{AuthStep, Presence};
use sealpost::protocol::id::{DeviceId, MessageId};
use sealpost::protocol::refusal::Refusal;
use sealpost::protocol::server::{Token, error};
use sealpost::relay::command::{
    Command, ConnectionId, Deliveries, Registration, SendCommand, TokenHash,
};
use sealpost::relay::mailbox::Credit;
use sealpost::relay::mailbox_quota::MailboxQuota;
use sealpost::relay::router::{Expired, Router, Rules, Ticket};

/// Events that a failure shows.
const SHOWN: usize = 40;
/// Events from one full recount to the next.
const RECOUNT: u64 = 64;
/// The wall clock at the beginning, in Unix milliseconds.
const BEGIN: u64 = 1_700_000_000_000;

pub struct World {
    router: Router<Notebook, ()>,
    model: Model,
    chance: Chance,
    out: Deliveries<()>,
    now: Now,
    /// What the wall clock says, in Unix milliseconds.
    wall_ms: u64,
    /// Connections that are over, and the last mark they had.
    stale: Vec<(ConnectionId, u64)>,
    names: u64,
    events: u64,
    most_devices: usize,
    told: Option<VecDeque<String>>,
}

impl World {
    pub fn new(seed: u64, told: bool) -> Self {
        let mut chance = Chance::new(seed);
        let rules = rules(&mut chance);
        let pace =
            chance.pick(&[CommitPolicy::Never, CommitPolicy::Sometimes, CommitPolicy::Always]);
        let most_devices = chance.within(2, 8) as usize;
        let store = Notebook::new(pace, seed, rules.dedup_window);
        let mut world = Self {
            router: Router::new(rules, store),
            model: Model::new(rules),
            chance,
            out: Deliveries::default(),
            now: Now { mono: Moment(0), unix: BEGIN / 1_000 },
            wall_ms: BEGIN,
            stale: Vec::new(),
            names: 0,
            events: 0,
            most_devices,
            told: told.then(VecDeque::new),
        };
        world.set_clocks(Moment(0), BEGIN);
        world
    }

    /// Where this one has been.
    pub fn tally(&self) -> &Tally {
        &self.model.tally
    }

    pub fn told(&self) -> impl Iterator<Item = &String> {
        self.told.iter().flatten()
    }

    /// One event, whatever chance says, and everything that must hold after it.
    pub fn step(&mut self) {
        self.events += 1;
        match self.chance.below(100) {
            0..3 => self.register(),
            3..7 => self.resume(),
            7..9 => self.leave(),
            9..11 => self.stale(),
            11..38 => self.send(),
            38..43 => self.repeat(),
            43..62 => self.ack(),
            62..78 => self.take(),
            78..80 => self.status(),
            80..84 => self.auth(),
            84..88 => self.key(),
            88..91 => self.sweep(),
            91..94 => self.hear_of_store(),
            94..99 => self.pass_time(),
            _ => self.rarely(),
        }
        self.settle();
    }

    fn rarely(&mut self) {
        match self.chance.below(10) {
            0..2 => self.change_rules(),
            2..5 => self.crash(),
            5..7 => self.fail(),
            7 => self.fail_at_next_put(),
            _ => self.pass_time(),
        }
    }

    /// The posts of an event are heard, the books compared.
    fn settle(&mut self) {
        self.router.store_mut().end_step();
        self.model.hear(self.now, &mut self.out.items);
        self.out.unmatched_acks = 0;
        self.model.check(self.now, self.router.observe(), self.router.store_mut());
        if self.events.is_multiple_of(RECOUNT) {
            self.model.tidy();
            self.model.recount(self.router.store_mut());
            self.router.audit().unwrap();
        }
    }

    fn tell(&mut self, text: String) {
        let Some(told) = &mut self.told else { return };
        if told.len() == SHOWN {
            told.pop_front();
        }
        told.push_back(format!(
            "{:>6} {:>9.3} s  {text}",
            self.events,
            self.now.mono.0 as f64 / 1e9
        ));
    }

    fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    // Whom chance picks.

    fn connected(&mut self) -> Option<Dev> {
        self.some(|world, dev| world.model.devices[dev].conn.is_some())
    }

    fn anyone(&mut self) -> Option<Dev> {
        // Now and then one that nobody knows any more.
        if self.chance.percent(2) && !self.model.devices.is_empty() {
            return Some(self.chance.below(self.model.devices.len()));
        }
        self.some(|world, dev| world.model.devices[dev].is_present(world.now))
    }

    fn some(&mut self, fits: impl Fn(&Self, Dev) -> bool) -> Option<Dev> {
        let all = self.model.live.len();
        if all == 0 {
            return None;
        }
        let first = self.chance.below(all);
        (0..all).map(|step| self.model.live[(first + step) % all]).find(|dev| fits(self, *dev))
    }

    fn conn(&self, dev: Dev) -> ConnectionId {
        self.model.conn(dev).id
    }

    // How devices come and go.

    fn register(&mut self) {
        let alive =
            self.model.live.iter().filter(|dev| self.model.devices[**dev].is_present(self.now));
        if alive.count() >= self.most_devices {
            return self.pass_time();
        }
        let resumable = self.chance.percent(60);
        let receipts = self.chance.percent(40);
        let id = DeviceId::from_u128(self.model.devices.len() as u128 + 1);
        tell!(self, "{} registers, resumable {resumable}, receipts {receipts}", id.to_u128() - 1);
        let full = self.router.observe().devices >= self.model.rules.devices;
        let hello = Registration {
            resumable,
            receipts,
            resume: None,
            fresh_id: id,
            fresh_token: token(id),
        };
        match self.router.register(self.now, hello, (), &mut self.out) {
            Ok(conn) => {
                assert!(!full, "more devices than allowed");
                let dev = self.model.new_device(id, resumable);
                self.model.registered(self.now, dev, conn, receipts, self.router.store_mut());
            }
            Err(refusal) => assert!(full && refusal == Refusal::Full),
        }
    }

    /// A device comes back, with or without its older connection gone; or somebody tries with a token of nobody's.
    fn resume(&mut self) {
        // Now and then somebody pretends to be a plain one.
        let plain = self.chance.percent(3);
        let Some(dev) = self.some(|world, dev| {
            let device = &world.model.devices[dev];
            device.resumable != plain && (device.conn.is_none() || world.events.is_multiple_of(3))
        }) else {
            return self.register();
        };
        self.resume_as(dev);
    }

    fn resume_as(&mut self, dev: Dev) {
        let receipts = self.chance.percent(40);
        let device = &self.model.devices[dev];
        let present = device.resumable && device.is_present(self.now);
        let older = device.conn.as_ref().map(|conn| (conn.id, conn.marks.back().copied()));
        let resume = Some(token(device.id));
        let fresh_id = DeviceId::from_u128(u128::MAX);
        tell!(self, "{dev} resumes, receipts {receipts}");
        let hello = Registration {
            resumable: false,
            receipts,
            resume,
            fresh_id,
            fresh_token: token(fresh_id),
        };
        match self.router.register(self.now, hello, (), &mut self.out) {
            Ok(conn) => {
                assert!(present, "a session that is over is resumed");
                self.stale.extend(older.map(|(conn, mark)| (conn, mark.unwrap_or(u64::MAX))));
                self.model.registered(self.now, dev, conn, receipts, self.router.store_mut());
            }
            Err(refusal) => assert!(!present && refusal == Refusal::BadToken, "{refusal:?}"),
        }
    }

    fn leave(&mut self) {
        let Some(dev) = self.connected() else { return self.register() };
        self.leave_as(dev);
    }

    fn leave_as(&mut self, dev: Dev) {
        tell!(self, "{dev} leaves");
        let conn = self.model.conn(dev);
        let (id, mark) = (conn.id, conn.marks.back().copied().unwrap_or(u64::MAX));
        self.router.leave(self.now, id, &mut self.out);
        self.model.left(self.now, dev, self.router.store_mut());
        self.stale.push((id, mark));
        if self.stale.len() > 32 {
            self.stale.swap_remove(0);
        }
    }

    /// A connection that is over speaks up late: nothing comes of it.
    fn stale(&mut self) {
        if self.stale.is_empty() {
            return self.leave();
        }
        let (conn, mark) = self.stale[self.chance.below(self.stale.len())];
        tell!(self, "{conn:?} is late");
        match self.chance.below(3) {
            0 => self.router.leave(self.now, conn, &mut self.out),
            1 => self.router.on_written(self.now, conn, mark, &mut self.out),
            _ => {
                let word = Command::Status(Presence::Offline);
                self.router.handle(self.now, conn, word, &mut self.out);
            }
        }
    }

    fn status(&mut self) {
        let Some(dev) = self.connected() else { return self.register() };
        let holding = self.model.conn(dev).holding;
        let presence = match self.chance.below(4) {
            0 if !holding => Presence::Offline,
            1 | 2 => Presence::Away,
            _ => Presence::Online,
        };
        self.status_as(dev, presence);
    }

    fn status_as(&mut self, dev: Dev, presence: Presence) {
        tell!(self, "{dev} is {presence:?}");
        let word = Command::Status(presence);
        self.router.handle(self.now, self.conn(dev), word, &mut self.out);
        self.model.status(dev, presence == Presence::Offline);
    }

    // What they say.

    fn send(&mut self) {
        let Some(from) = self.connected() else { return self.register() };
        // One in a while knows nobody.
        let to = if self.chance.percent(1) { None } else { self.anyone() };
        let to = if self.chance.percent(5) { Some(from) } else { to };
        let to_id = to.map_or(DeviceId::from_u128(u128::MAX - 1), |to| self.model.devices[to].id);
        let mut id = u128::from(self.name());
        if self.chance.percent(15) {
            // A name that others use, too.
            id = 1_000_000_000 + self.chance.below(6) as u128;
        }
        let mut id = MessageId::from_u128(id);
        let content = self.chance.next();
        if to.is_some_and(|to| !self.is_new(from, to, id, content)) {
            id = MessageId::from_u128(u128::from(self.name()));
        }
        let ttl = match self.chance.below(12) {
            0 => Some(0),
            1 | 2 => Some(1),
            3..6 => Some(self.chance.within(2, 15)),
            6..9 => None,
            9 => Some(u64::MAX),
            _ => Some(self.chance.within(10, 200)),
        };
        let length = self.chance.within(20, 120) as usize;
        let body = format!("{:.<length$}", format!("message {} of {from}", self.names));
        self.say(from, Message { to, to_id, id, ttl, content, body });
    }

    /// Whether nothing of that name is known, or still on its way.
    fn is_new(&self, from: Dev, to: Dev, id: MessageId, content: u64) -> bool {
        let known = self.model.memory(self.now, from, to, id, content);
        let mut unsettled = self.model.devices[to].queue.iter().map(|nr| &self.model.items[*nr]);
        known == Memory::New
            && !unsettled.any(|item| item.kind == Kind::Message(id) && item.from == from)
    }

    /// A message is sent again, with the same content or with other.
    fn repeat(&mut self) {
        let Some(from) = self.connected() else { return self.register() };
        let all = self.model.items.len();
        for _ in 0..20.min(all) {
            let back = self.chance.below(all.min(200));
            let item = &self.model.items[all - 1 - back];
            let Kind::Message(id) = item.kind else { continue };
            if item.from != from {
                continue;
            }
            let to = item.to;
            let content = match self.model.same_content(from, to, id) {
                Some(content) if self.chance.percent(85) => content,
                _ => self.chance.next(),
            };
            let memory = self.model.memory(self.now, from, to, id, content);
            let clear = match memory {
                Memory::Unsure => false,
                Memory::New => self.is_new(from, to, id, content),
                Memory::Same | Memory::Other => true,
            };
            if clear {
                let to_id = self.model.devices[to].id;
                let body = format!("again {} of {from}", self.name());
                let ttl = Some(self.chance.within(0, 20));
                return self.say(from, Message { to: Some(to), to_id, id, ttl, content, body });
            }
        }
        self.send();
    }

    fn say(&mut self, from: Dev, message: Message) {
        self.look_closer(message.to);
        tell!(self, "{from} sends {message:?}");
        let before = self.router.observe();
        let word = Command::Send(SendCommand {
            recipient: message.to_id,
            id: message.id,
            ttl: message.ttl,
            content: message.content,
            body: message.body.clone().into(),
        });
        self.router.handle(self.now, self.conn(from), word, &mut self.out);
        self.model.sent(self.now, from, &message, before, self.router.store_mut());
    }

    fn ack(&mut self) {
        let Some(dev) = self.connected() else { return self.register() };
        let queue = &self.model.devices[dev].queue;
        let (id, sender) = if queue.is_empty() || self.chance.percent(8) {
            // A stray one: of a message that was settled long ago, or never was.
            let id = match self.model.items.last().map(|item| item.kind) {
                Some(Kind::Message(id)) => id,
                _ => MessageId::from_u128(u128::from(self.names)),
            };
            (id, self.anyone())
        } else {
            let near = queue.len().min(4);
            let item = &self.model.items[queue[self.chance.below(near)]];
            let (kind, from) = (item.kind, item.from);
            match kind {
                Kind::Message(id) => (id, Some(from)),
                Kind::Key(key) => return self.ack_key(dev, from, key),
                _ => return self.take_as(dev),
            }
        };
        let sender = sender.filter(|_| self.chance.percent(50));
        self.ack_as(dev, id, sender);
    }

    fn ack_as(&mut self, dev: Dev, id: MessageId, sender: Option<Dev>) {
        let candidates = self.model.confirmable(dev, id, sender);
        let over = candidates.iter().any(|nr| self.model.items[*nr].is_over(self.now));
        if candidates.len() > 1 && over {
            return self.pass_time();
        }
        tell!(self, "{dev} confirms {} of {sender:?}", id.to_u128());
        let before = self.router.observe().counts.delivered;
        let named = sender.map(|sender| self.model.devices[sender].id);
        let word = Command::Ack { message_id: id, sender: named };
        self.router.handle(self.now, self.conn(dev), word, &mut self.out);
        let delivered = self.router.observe().counts.delivered > before;
        let (strays, store) = (self.out.unmatched_acks, self.router.store_mut());
        self.model.acked(self.now, dev, &candidates, delivered, strays, store);
    }

    fn key(&mut self) {
        let Some(from) = self.connected() else { return self.register() };
        let Some(to) = self.anyone() else { return };
        if to == from {
            // Its key and its confirmation would be told apart by nothing when they expire.
            return self.pass_time();
        }
        let key = self.name();
        if self.chance.percent(10) {
            // Confirms a key that nobody sent.
            return self.ack_key(from, to, key);
        }
        self.look_closer(Some(to));
        tell!(self, "{from} sends key {key} to {to}");
        let body = format!("key {key} from {from} to {to}");
        let before = self.router.observe();
        let recipient = self.model.devices[to].id;
        let key_id = key.to_string().into();
        let word = Command::KeyRotation { recipient, key_id, body: body.clone().into() };
        self.router.handle(self.now, self.conn(from), word, &mut self.out);
        let store = self.router.store_mut();
        self.model.key_rotated(self.now, from, to, key, &body, before, store);
    }

    fn ack_key(&mut self, dev: Dev, to: Dev, key: u64) {
        let same = |nr: &usize| {
            let item = &self.model.items[*nr];
            item.kind == Kind::KeyAck(key) && item.from == dev
        };
        if self.model.devices[to].queue.iter().any(same) {
            return self.pass_time();
        }
        self.look_closer(Some(to));
        tell!(self, "{dev} confirms key {key} of {to}");
        let candidates = self.model.confirmable_keys(dev, to, key);
        let before = self.router.observe();
        let body = format!("key {key} confirmed from {dev} to {to}");
        let recipient = self.model.devices[to].id;
        let key_id = key.to_string().into();
        let word = Command::KeyRotationAck { recipient, key_id, body: body.clone().into() };
        self.router.handle(self.now, self.conn(dev), word, &mut self.out);
        let delivered = self.router.observe().counts.delivered > before.counts.delivered;
        let store = self.router.store_mut();
        self.model.key_acked(self.now, dev, to, key, &body, &candidates, delivered, before, store);
    }

    fn auth(&mut self) {
        let Some(from) = self.connected() else { return self.register() };
        let other = self.anyone();
        let named = other.filter(|_| self.chance.percent(40));
        let body = format!("auth {} of {from}", self.name());
        let step = match self.chance.below(4) {
            0 => AuthStep::Request,
            1 => AuthStep::Response,
            2 => AuthStep::Verify,
            _ => {
                let Some(to) = other else { return };
                self.look_closer(Some(to));
                tell!(self, "{from} says that {to} is trusted");
                let before = self.router.observe();
                let recipient = self.model.devices[to].id;
                let word = Command::AuthSuccess { recipient, body: body.clone().into() };
                self.router.handle(self.now, self.conn(from), word, &mut self.out);
                let store = self.router.store_mut();
                return self.model.success_said(self.now, from, to, &body, before, store);
            }
        };
        self.look_closer(self.model.auth_target(self.now, from, step, named).ok());
        tell!(self, "{from} says {step:?} to {named:?}");
        let before = self.router.observe();
        let recipient = named.map(|named| self.model.devices[named].id);
        let word = Command::Auth { step, recipient, body: body.clone().into() };
        self.router.handle(self.now, self.conn(from), word, &mut self.out);
        let store = self.router.store_mut();
        self.model.auth_said(self.now, from, step, named, &body, before, store);
    }

    // What happens to them.

    fn take(&mut self) {
        let Some(dev) = self.some(|world, dev| {
            world.model.devices[dev].conn.as_ref().is_some_and(|conn| !conn.marks.is_empty())
        }) else {
            return self.send();
        };
        self.take_as(dev);
    }

    fn take_as(&mut self, dev: Dev) {
        let marks = &self.model.conn(dev).marks;
        if marks.is_empty() {
            return;
        }
        // Often all of it, sometimes a part.
        let all = self.chance.percent(60);
        let place = if all { marks.len() - 1 } else { self.chance.below(marks.len()) };
        let mark = marks[place];
        tell!(self, "the socket of {dev} takes {mark}");
        self.router.on_written(self.now, self.conn(dev), mark, &mut self.out);
        self.model.on_written(self.now, dev, mark, self.router.store_mut());
    }

    fn pass_time(&mut self) {
        let step = match self.chance.below(40) {
            0 => self.chance.within(10_000, 90_000),
            1..8 => self.chance.within(500, 4_000),
            8..12 => 1_000,
            _ => self.chance.within(0, 200),
        };
        self.pass(Duration::from_millis(step));
    }

    fn pass(&mut self, time: Duration) {
        tell!(self, "{time:?} pass");
        self.set_clocks(self.now.mono + time, self.wall_ms + time.as_millis() as u64);
    }

    fn set_clocks(&mut self, mono: Moment, wall_ms: u64) {
        self.now = Now { mono, unix: wall_ms / 1_000 };
        self.wall_ms = wall_ms;
        self.router.store_mut().set_time(self.now, wall_ms);
    }

    fn sweep(&mut self) {
        let limit = self.chance.pick(&[1, 2, 3, 8, 64]);
        let found = self.find_expired(limit);
        tell!(self, "a sweep of {limit} finds {found:?}");
        self.model.swept(self.now, &found, limit);
        // Not everything that is found is dropped; the rest comes back.
        let part =
            if self.chance.percent(70) { found.len() } else { self.chance.below(found.len() + 1) };
        self.drop(&found[..part]);
    }

    fn drop(&mut self, found: &[Expired]) {
        let Some(last) = found.last() else { return };
        let end = last.ticket + 1;
        let notices: Vec<(Ticket, String)> = found
            .iter()
            .filter_map(|found| {
                let (refusal, about) = found.error.as_ref()?;
                Some((found.ticket, error(*refusal, about)))
            })
            .collect();
        tell!(self, "everything before {end} is dropped");
        self.router.drop_expired(self.now, end, notices.iter().cloned(), &mut self.out);
        self.model.dropped(self.now, end, &notices, self.router.store_mut());
    }

    fn find_expired(&mut self, limit: usize) -> Vec<Expired> {
        let found = self.router.next_expired(self.now, limit);
        self.router.store_mut().end_step();
        found
    }

    /// The sweeper looks, and drops nothing yet.
    fn look(&mut self) {
        let found = self.find_expired(usize::MAX);
        tell!(self, "a look finds {found:?}");
        self.model.swept(self.now, &found, usize::MAX);
    }

    /// What is over and unnoticed decides whether something flies; here it is noticed first.
    fn look_closer(&mut self, to: Option<Dev>) {
        if to.is_some_and(|to| self.model.is_unclear(self.now, to)) {
            self.look();
        }
    }

    fn new_rules(&mut self) -> Rules {
        Rules { dedup_window: self.model.rules.dedup_window, ..rules(&mut self.chance) }
    }

    fn change_rules(&mut self) {
        let rules = self.new_rules();
        tell!(self, "{rules:?}");
        self.router.set_rules(rules);
        self.model.rules_changed(rules);
    }

    // How it ends.

    /// Faults stop: whoever can come is here, takes everything and confirms it. Then nothing in time is left.
    pub fn calm_down(&mut self) {
        self.keep_everything();
        for dev in self.model.live.clone() {
            let device = &self.model.devices[dev];
            if device.conn.is_none() && device.resumable && device.is_present(self.now) {
                self.resume_as(dev);
                self.settle();
            }
            if self.model.devices[dev].conn.is_some() {
                self.status_as(dev, Presence::Online);
                self.settle();
            }
        }
        self.keep_everything();
        loop {
            let mut still = true;
            for dev in self.model.live.clone() {
                let Some(conn) = &self.model.devices[dev].conn else { continue };
                if let Some(mark) = conn.marks.back().copied() {
                    still = false;
                    tell!(self, "the socket of {dev} takes {mark}");
                    self.router.on_written(self.now, self.conn(dev), mark, &mut self.out);
                    self.model.on_written(self.now, dev, mark, self.router.store_mut());
                    self.settle();
                }
                for nr in self.model.devices[dev].queue.clone() {
                    let item = &self.model.items[nr];
                    let (kind, from, over) = (item.kind, item.from, item.is_over(self.now));
                    if item.state != State::Flying || !item.by_confirm || over {
                        continue;
                    }
                    still = false;
                    match kind {
                        Kind::Message(id) => self.ack_as(dev, id, Some(from)),
                        Kind::Key(key) => self.ack_key(dev, from, key),
                        _ => {}
                    }
                    self.settle();
                }
            }
            if self.sweep_all() == 0 && still {
                break;
            }
        }
        for dev in &self.model.live {
            let device = &self.model.devices[*dev];
            let left = device.queue.len();
            assert!(device.conn.is_none() || left == 0, "{left} are never delivered to {dev}");
        }
    }

    /// Answers how many were over.
    fn sweep_all(&mut self) -> usize {
        let mut all = 0;
        loop {
            let found = self.find_expired(64);
            tell!(self, "a sweep finds {found:?}");
            self.model.swept(self.now, &found, 64);
            self.drop(&found);
            self.settle();
            if found.is_empty() {
                return all;
            }
            all += found.len();
        }
    }

    /// Everybody leaves for good. Then nothing is left of anything.
    pub fn end(&mut self) {
        for dev in self.model.live.clone() {
            if self.model.devices[dev].conn.is_some() {
                self.leave_as(dev);
                self.settle();
            }
        }
        self.keep_everything();
        self.pass(Duration::from_secs(1_000_000));
        self.sweep_all();
        self.keep_everything();
        self.router.audit().unwrap();
        let seen = self.router.observe();
        let counts = seen.counts;
        assert_eq!((seen.devices, seen.connected, seen.exchanges), (0, 0, 0));
        assert_eq!((counts.queued, counts.in_flight, counts.queued_bytes), (0, 0, 0));
        assert_eq!(counts.accepted, counts.delivered + counts.expired);
        assert_eq!(self.router.residue(), 0, "something is left");
        assert_eq!(self.router.next_deadline(), None);
        let store = self.router.store_mut();
        assert!(store.live.is_empty(), "the store keeps what nobody wants");
        assert!(store.is_empty(), "the disk keeps what nobody wants");
    }
}

/// Narrow limits, so that each of them is met.
fn rules(chance: &mut Chance) -> Rules {
    let bytes = chance.within(400, 4_000);
    Rules {
        credit: Credit { window: chance.within(1, 8) as usize, bytes: chance.within(100, 1_000) },
        quota: MailboxQuota {
            messages: chance.within(3, 40) as usize,
            bytes,
            sender_share: chance.pick(&[0.34, 0.5, 1.0]),
        },
        total_bytes: bytes * chance.within(1, 6),
        default_ttl: chance.within(1, 30),
        max_ttl: chance.within(30, 120),
        key_rotation_ttl: chance.within(5, 100),
        dedup_window: Duration::from_secs(chance.within(5, 100)),
        session_ttl: Duration::from_secs(chance.within(5, 300)),
        plain_ttl: Duration::from_secs(chance.within(1, 60)),
        exchange_ttl: chance.within(5, 60),
        devices: chance.within(2, 12) as usize,
    }
}

fn token(id: DeviceId) -> (Token, TokenHash) {
    let mut hash = [7; 32];
    hash[..16].copy_from_slice(&id.to_u128().to_le_bytes());
    (Token(id.to_string()), TokenHash(hash))
}
