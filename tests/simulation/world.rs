//! Devices, a store and a sweeper around a router, moved by chance.

/// Notes an event in the log, if there is one.
macro_rules! event {
    ($world:expr, $($text:tt)*) => {
        if $world.log.is_some() {
            let text = format!($($text)*);
            $world.note(text);
        }
    };
}

mod crash;
mod devices;
mod durability;
mod end;
mod requests;
mod sweep;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::access::policy;
use crate::chance::Chance;
use crate::model::{Dev, Model};
use crate::rules::Rules;
use crate::store::{Notebook, PendingPuts, SharedStore};
use crate::tally::Tally;
use sealpost::clock::{Clock, Moment, Now};
use sealpost::relay::command::{Command, ConnectionId};
use sealpost::relay::delivery::Step;
use sealpost::relay::mailbox::Credit;
use sealpost::relay::mailbox_quota::MailboxQuota;
use sealpost::relay::rate_limit::{Allowance, RatePlan};
use sealpost::relay::router::Router;
use sealpost::settings::RateLimit;

/// Events that a failure shows.
const SHOWN: usize = 40;
/// Events from one full recount to the next.
const RECOUNT: u64 = 64;
/// The wall clock at the beginning, in Unix milliseconds.
const BEGIN: u64 = 1_700_000_000_000;

pub struct World {
    router: Router,
    store: Rc<RefCell<Notebook>>,
    /// Of all devices: the router carries allowances and does not look at them.
    allowance: Arc<Allowance>,
    model: Model,
    chance: Chance,
    step: Step,
    now: Now,
    /// The id of the boot of the machine.
    boot_id: u128,
    /// Connections that have ended, and the last mark of each.
    stale: Vec<(ConnectionId, u64)>,
    connections: u64,
    names: u64,
    events: u64,
    most_devices: usize,
    log: Option<VecDeque<String>>,
}

impl World {
    pub fn new(seed: u64, log: bool) -> Self {
        let mut chance = Chance::new(seed);
        let rules = rules(&mut chance);
        let pending_puts =
            chance.pick(&[PendingPuts::Never, PendingPuts::Sometimes, PendingPuts::Always]);
        let most_devices = chance.within(2, 8) as usize;
        let store = Rc::new(RefCell::new(Notebook::new(pending_puts, seed, rules.dedup_window)));
        let now = Now { mono: Moment(0), wall_ms: BEGIN };
        let mut world = Self {
            router: Router::new(rules.settings(), Box::new(SharedStore(store.clone()))),
            store,
            allowance: Allowance::new(RatePlan::new(RateLimit::default(), Clock::still())),
            model: Model::new(rules),
            chance,
            step: Step::at(now),
            now,
            boot_id: 1,
            connections: 0,
            stale: Vec::new(),
            names: 0,
            events: 0,
            most_devices,
            log: log.then(VecDeque::new),
        };
        world.router.set_access(&policy());
        world.set_clocks(Moment(1), BEGIN);
        let loaded = world.store.borrow_mut().load(world.boot_id);
        world.router.restore(world.now, loaded, |_| world.allowance.clone());
        world
    }

    /// The situations that this run has reached.
    pub fn tally(&self) -> &Tally {
        &self.model.tally
    }

    pub fn log(&self) -> impl Iterator<Item = &String> {
        self.log.iter().flatten()
    }

    /// One random event, and every check that must hold after it.
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
            62..74 => self.take(),
            74..76 => self.take_notices(),
            76..78 => self.prove(),
            78..80 => self.status(),
            80..84 => self.auth(),
            84..88 => self.key(),
            88..91 => self.sweep(),
            91..94 => self.advance_store(),
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

    /// Checks the deliveries of an event, then the counters.
    fn settle(&mut self) {
        self.store.borrow_mut().end_step();
        for dev in self.model.live.clone() {
            let device = &mut self.model.devices[dev];
            device.forgotten |= !device.is_present(self.now) && !self.router.knows(device.id);
        }
        self.model.check_deliveries(self.now, &mut self.step.out);
        self.model.check(self.now, self.router.observe(), &self.store.borrow());
        if self.events.is_multiple_of(RECOUNT) {
            self.model.tidy();
            self.model.recount(&self.store.borrow());
            self.router.audit().unwrap();
        }
    }

    fn note(&mut self, text: String) {
        let Some(log) = &mut self.log else { return };
        if log.len() == SHOWN {
            log.pop_front();
        }
        log.push_back(format!(
            "{:>6} {:>9.3} s  {text}",
            self.events,
            self.now.mono.0 as f64 / 1e9
        ));
    }

    fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    fn connected(&mut self) -> Option<Dev> {
        self.some(|world, dev| world.model.devices[dev].conn.is_some())
    }

    fn anyone(&mut self) -> Option<Dev> {
        // Sometimes a device that the router has forgotten.
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

    fn new_connection(&mut self) -> ConnectionId {
        self.connections += 1;
        ConnectionId(self.connections)
    }

    fn conn(&self, dev: Dev) -> ConnectionId {
        self.model.conn(dev).id
    }

    /// The router handles a command of a device.
    fn command(&mut self, dev: Dev, command: Command) {
        let connection = self.conn(dev);
        self.router.handle(&mut self.step, connection, [command]);
        self.model.frame_came(self.now, dev);
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
        let before = if self.chance.percent(1) { self.set_wall_clock() } else { self.now.wall_ms };
        let wall_ms = before + time.as_millis() as u64;
        event!(self, "{time:?} pass, it is {wall_ms}");
        self.set_clocks(self.now.mono + time, wall_ms);
        if self.chance.percent(50) {
            self.store.borrow_mut().write_boot();
        }
    }

    fn set_clocks(&mut self, mono: Moment, wall_ms: u64) {
        self.now = Now { mono, wall_ms };
        self.step.now = self.now;
        self.store.borrow_mut().set_time(self.now);
    }

    fn new_rules(&mut self) -> Rules {
        Rules { dedup_window: self.model.rules.dedup_window, ..rules(&mut self.chance) }
    }

    fn change_rules(&mut self) {
        let rules = self.new_rules();
        event!(self, "{rules:?}");
        self.router.set_settings(rules.settings());
        self.model.rules_changed(rules);
    }
}

/// Narrow limits, so that each of them is met.
fn rules(chance: &mut Chance) -> Rules {
    let bytes = chance.within(1_500, 15_000);
    let window = chance.within(1, 8) as usize;
    Rules {
        credit: Credit { window, bytes: chance.within(350, 4_000) },
        quota: MailboxQuota {
            messages: chance.within(3, 40) as usize,
            bytes,
            sender_share: chance.pick(&[0.34, 0.5, 1.0]),
            unknown_share: chance.pick(&[0.3, 0.5, 1.0]),
            origin_share: chance.pick(&[0.25, 0.5, 1.0]),
            window,
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
        heartbeat_timeout: Duration::from_secs(chance.within(1, 20)),
    }
}
