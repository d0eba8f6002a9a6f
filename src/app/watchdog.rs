//! The proof for a service manager that the relay is alive: the round trip of `/healthz`, through the Registry to the store
//! and back. A relay that does not come back in time is restarted by the service manager, which must not happen to one
//! that is only refused by its disk: it serves on, and a restart would find the same disk.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::web::health::{self, Checked};
use crate::web::ingress::Ingress;

/// What a check has found.
#[derive(Debug, PartialEq, Eq)]
pub enum Health {
    /// A line for the operator.
    Alive(String),
    /// What has not answered.
    Hangs(&'static str),
}

/// Checks a running relay from any thread.
#[derive(Clone)]
pub struct HealthCheck(pub(super) Arc<Ingress>);

impl HealthCheck {
    /// One round trip, which may take `longest`. A commit may take as long.
    pub async fn check(&self, longest: Duration) -> Health {
        match health::check(&self.0, longest).await {
            None => Health::Hangs("the core does not answer"),
            Some(Checked { store, .. }) if store.commit_for > longest => {
                Health::Hangs("a commit of the queue does not end")
            }
            Some(Checked { relay, store }) => {
                let trouble = if store.is_failing { "the queue cannot be written, " } else { "" };
                Health::Alive(format!(
                    "{trouble}{} devices connected, {} messages queued",
                    relay.connected, relay.counts.queued
                ))
            }
        }
    }

    /// Reports every check to `report`, one each `interval`, until it is dropped.
    pub async fn run(self, interval: Duration, report: impl Fn(&Health)) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            report(&self.check(interval).await);
        }
    }
}
