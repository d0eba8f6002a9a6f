//! The store: it writes, reports the writes later, fails, and recovers.

use sealpost::store::Store as _;

use super::World;
use crate::store::Report;

impl World {
    /// The store writes something, or the router gets a report on earlier writes.
    pub(super) fn advance_store(&mut self) {
        let choice = self.chance.below(10);
        if choice < 8 {
            self.write();
        }
        if choice >= 3 && !self.report() {
            self.take();
        }
    }

    fn write(&mut self) {
        let (ready, is_failing) = (self.store.borrow().ready(), self.store.borrow().is_failing());
        if is_failing {
            let room_for_more = self.chance.percent(60);
            event!(self, "the store writes {ready} steps, room for more {room_for_more}");
            self.store.borrow_mut().heal(room_for_more);
        } else if ready > 0 {
            let all = self.chance.percent(50);
            let steps = if all { ready } else { self.chance.within(1, ready as u64) as usize };
            event!(self, "the store writes {steps} steps of {ready}");
            self.store.borrow_mut().write(steps);
        }
    }

    pub(super) fn fail(&mut self) {
        let (ready, is_failing) = (self.store.borrow().ready(), self.store.borrow().is_failing());
        if ready == 0 || is_failing {
            return self.fail_at_next_put();
        }
        let steps = self.chance.within(1, ready as u64) as usize;
        let secretly = self.chance.percent(25);
        event!(self, "the store fails to write {steps} steps of {ready}, secretly not {secretly}");
        self.store.borrow_mut().fail(steps, secretly);
    }

    /// The store reports that it is not failing, and then fails at the next put.
    pub(super) fn fail_at_next_put(&mut self) {
        event!(self, "the store is about to fail");
        self.store.borrow_mut().set_about_to_fail(true);
    }

    /// Returns whether there was a report.
    fn report(&mut self) -> bool {
        let Some(report) = self.store.borrow_mut().report() else { return false };
        // An unnoticed expired item may or may not be acked, refused or put again; here the expiry is noticed first.
        self.look();
        event!(self, "the store reports {report:?}");
        let now = self.now;
        match report {
            Report::Committed(through) => {
                self.router.committed(&mut self.step, through);
                self.model.committed(now, through);
            }
            Report::Failed(through, _) => {
                self.router.failed(&mut self.step, through);
                self.model.failed(through);
            }
            Report::Recovered => {
                self.router.recovered(&mut self.step);
                while self.router.is_unfinished() {
                    self.router.continue_work(&mut self.step);
                }
                self.model.recovered(now, &mut self.store.borrow_mut());
            }
        }
        true
    }

    /// Faults stop, all steps are written, and the router gets all reports.
    pub(super) fn keep_everything(&mut self) {
        {
            let mut store = self.store.borrow_mut();
            store.set_about_to_fail(false);
            if store.is_failing() {
                store.heal(true);
            }
        }
        loop {
            let ready = self.store.borrow().ready();
            self.store.borrow_mut().write(ready);
            let more = self.report();
            self.settle();
            if !more {
                return;
            }
        }
    }
}
