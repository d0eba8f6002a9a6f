//! What others may ask the Registry about itself, its router and its store.

use std::time::Duration;

use actix::{Handler, Message, MessageResult};

use super::Registry;
use crate::relay::router::{Measured, Snapshot};

#[derive(Message)]
#[rtype(result = "Snapshot")]
pub struct Observe;

#[derive(Message)]
#[rtype(result = "StoreHealth")]
pub struct ObserveStore;

/// Whether the queue's disk takes what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreHealth {
    /// New messages are refused.
    pub is_failing: bool,
    /// How long the commit under way has taken.
    pub commit_for: Duration,
}

/// Asks for everything that is counted.
#[derive(Message)]
#[rtype(result = "CoreMetrics")]
pub struct Measure {
    /// The longest round counts anew from now on.
    pub resets: bool,
}

pub struct CoreMetrics {
    pub router: Measured,
    /// The most messages that one round handled since the last time: the depth of the mailbox.
    pub longest_round: u64,
}

impl Handler<Observe> for Registry {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, ctx: &mut Self::Context) -> Self::Result {
        MessageResult(self.step(0, ctx, |router, _| router.observe()))
    }
}

impl Handler<ObserveStore> for Registry {
    type Result = MessageResult<ObserveStore>;

    fn handle(&mut self, _: ObserveStore, _: &mut Self::Context) -> Self::Result {
        let store = self.router.store_mut();
        MessageResult(StoreHealth {
            is_failing: store.is_failing(),
            commit_for: store.commit_for(),
        })
    }
}

impl Handler<Measure> for Registry {
    type Result = MessageResult<Measure>;

    fn handle(&mut self, Measure { resets }: Measure, ctx: &mut Self::Context) -> Self::Result {
        let router = self.step(0, ctx, |router, step| router.measure(step.now));
        let longest_round = self.longest_round;
        if resets {
            self.longest_round = 0;
        }
        MessageResult(CoreMetrics { router, longest_round })
    }
}
