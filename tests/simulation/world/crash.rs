//! How the process ends, and how the next one starts.

use std::cell::RefCell;
use std::rc::Rc;

use sealpost::clock::Moment;
use sealpost::relay::delivery::Step;
use sealpost::relay::router::Router;

use super::World;
use crate::model::Restart;
use crate::store::{Notebook, PendingPuts, SharedStore};

impl World {
    /// The memory is lost, some time passes, and a new router starts with the written records.
    pub(super) fn crash(&mut self) {
        self.model.recount(&self.store.borrow());
        let window = self.model.rules.dedup_window;
        let nothing = Notebook::new(PendingPuts::Never, 0, window);
        let mut store = std::mem::replace(&mut *self.store.borrow_mut(), nothing);
        let lost_through = store.lost_through();
        // Steps that were being written at the crash may be on disk.
        let ready = store.ready();
        let written = match self.chance.below(4) {
            0 => ready,
            1 => self.chance.below(ready + 1),
            _ => 0,
        };
        store.crash(written);

        let was = self.now;
        let (down, back) = (self.time_down(), self.set_back());
        let passed = down as i64 - back as i64;
        let origin = Moment(self.chance.below(10_000_000) as u64 * 1_000_000);
        event!(self, "it crashes and is down for {down} ms, the clock is set back by {back} ms");
        event!(self, "{written} steps of {ready} were written in the last moment");
        // Settings may have been changed meanwhile, too.
        let rules = if self.chance.percent(20) { self.new_rules() } else { self.model.rules };
        self.store = Rc::new(RefCell::new(store));
        self.router = Router::new(rules.settings(), Box::new(SharedStore(self.store.clone())));
        self.step = Step::at(self.now);
        self.stale.clear();
        self.set_clocks(origin, self.now.wall_ms + down - back);

        let loaded = self.store.borrow_mut().load();
        let restart = Restart { loaded: &loaded, was, now: self.now, passed, lost_through };
        self.model.restarted(&restart, rules, &self.store.borrow());
        event!(
            self,
            "{} devices and {} records are back",
            loaded.devices.len(),
            loaded.messages.len()
        );
        self.router.restore(self.now, loaded, || self.allowance.clone());
        self.store.borrow_mut().end_step();
        self.router.audit().unwrap();
        if self.chance.percent(30) {
            self.crash();
        }
    }

    /// How long no process runs, from 0 to longer than every session, in milliseconds.
    fn time_down(&mut self) -> u64 {
        match self.chance.below(10) {
            0..3 => 0,
            3..6 => self.chance.within(1, 2_000),
            6..8 => self.chance.within(2_000, 30_000),
            8 => self.chance.within(30_000, 120_000),
            _ => self.chance.within(120_000, 700_000),
        }
    }

    /// The wall clock was set back, by this number of milliseconds.
    fn set_back(&mut self) -> u64 {
        if self.chance.percent(10) { self.chance.within(1, 500_000) } else { 0 }
    }
}
