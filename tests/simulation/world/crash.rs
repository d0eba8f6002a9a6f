//! How the process ends, and how the next one starts.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use sealpost::clock::Moment;
use sealpost::relay::delivery::Step;
use sealpost::relay::router::Router;

use super::{BEGIN, World};
use crate::access::policy;
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
        let (down, is_same_boot) = (self.time_down(), self.chance.percent(50));
        let mono = if is_same_boot {
            was.mono + Duration::from_millis(down)
        } else {
            self.boot_id += 1;
            Moment(1 + self.chance.below(10_000_000) as u64 * 1_000_000)
        };
        let set = if self.chance.percent(30) { self.set_wall_clock() } else { was.wall_ms };
        let wall_ms = set + down;
        let boot = self.boot_id;
        event!(self, "it crashes, is down for {down} ms, and starts in boot {boot} at {wall_ms}");
        event!(self, "{written} steps of {ready} were written in the last moment");
        // Settings may have been changed meanwhile, too.
        let rules = if self.chance.percent(20) { self.new_rules() } else { self.model.rules };
        self.store = Rc::new(RefCell::new(store));
        self.router = Router::new(rules.settings(), Box::new(SharedStore(self.store.clone())));
        self.router.set_access(&policy());
        self.step = Step::at(self.now);
        self.stale.clear();
        self.set_clocks(mono, wall_ms);

        let loaded = self.store.borrow_mut().load(boot);
        let now = self.now;
        let restart = Restart { loaded: &loaded, was, now, is_same_boot, lost_through };
        self.model.restarted(&restart, rules, &self.store.borrow());
        event!(
            self,
            "{} devices and {} records are back",
            loaded.devices.len(),
            loaded.messages.len()
        );
        self.router.restore(self.now, loaded, |_| self.allowance.clone());
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

    /// What the wall clock is set to: back, ahead, to 1970 or right.
    pub(super) fn set_wall_clock(&mut self) -> u64 {
        let by = self.chance.within(1, 500_000);
        match self.chance.below(4) {
            0 => self.now.wall_ms.saturating_sub(by),
            1 => self.now.wall_ms + by,
            2 => by,
            _ => BEGIN + by,
        }
    }
}
