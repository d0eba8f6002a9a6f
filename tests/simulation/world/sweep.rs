//! The sweeper: it looks for expired items, and drops a part of them.

use sealpost::protocol::encode::error;
use sealpost::relay::router::{ExpiryNotice, Ticket};

use super::World;
use crate::model::Dev;

impl World {
    pub(super) fn sweep(&mut self) {
        let limit = self.chance.pick(&[1, 2, 3, 8, 64]);
        let found = self.find_expired(limit);
        event!(self, "a sweep of {limit} finds {found:?}");
        self.model.swept(self.now, &found, limit);
        // Only a part of the found items is dropped; the next sweep finds the rest again.
        let part =
            if self.chance.percent(70) { found.len() } else { self.chance.below(found.len() + 1) };
        self.drop(&found[..part]);
    }

    pub(super) fn drop(&mut self, found: &[ExpiryNotice]) {
        let Some(last) = found.last() else { return };
        let end = last.ticket + 1;
        let notices: Vec<(Ticket, String)> = found
            .iter()
            .filter_map(|found| {
                let (refusal, about) = found.error.as_ref()?;
                Some((found.ticket, error(*refusal, about)))
            })
            .collect();
        event!(self, "everything before {end} is dropped");
        self.router.drop_expired(&mut self.step, end, notices.iter().cloned());
        self.model.dropped(self.now, end, &notices, &mut self.store.borrow_mut());
    }

    pub(super) fn find_expired(&mut self, limit: usize) -> Vec<ExpiryNotice> {
        let found = self.router.next_expired(self.now, limit).expired;
        self.store.borrow_mut().end_step();
        found
    }

    /// The sweeper searches, and drops nothing yet.
    pub(super) fn look(&mut self) {
        let found = self.find_expired(usize::MAX);
        event!(self, "a look finds {found:?}");
        self.model.swept(self.now, &found, usize::MAX);
    }

    /// An unnoticed expired item may decide whether another is sent; here the expiry is noticed first.
    pub(super) fn look_closer(&mut self, to: Option<Dev>) {
        if to.is_some_and(|to| self.model.is_unclear(self.now, to)) {
            self.look();
        }
    }
}
