//! The core actors, on the thread of the first worker.

use std::sync::Arc;

use super::queue::{Queue, start_store};
use crate::access::Policy;
use crate::actors::abort_on_panic;
use crate::actors::access_control::AccessControl;
use crate::actors::rate_limiter::RateLimiter;
use crate::actors::registry::Registry;
use crate::actors::session::CoreHandles;
use crate::actors::ttl_sweeper::TtlSweeper;
use crate::actors::write_watermarks::WriteWatermarks;
use crate::clock::Clock;
use crate::relay::access_rates::AccessRates;
use crate::settings::Settings;
use crate::store::Loaded;
use crate::store::records::HashKey;
use crate::web::ingress::Ingress;

pub(super) fn start_core(
    settings: &Arc<Settings>,
    clock: &Clock,
    ingress: &Ingress,
    queue: Option<Queue>,
    policy: Arc<Policy>,
) -> CoreHandles {
    let watermarks = WriteWatermarks::default();
    let hash_key = match &queue {
        Some(queue) => queue.loaded.hash_key,
        None => getrandom::u64().map(HashKey).unwrap_or_default(),
    };
    let mut rates = AccessRates::new(settings.rate_limit.clone(), &policy, clock.clone());
    let registry = abort_on_panic::create("registry", |address| {
        let (store, loaded) =
            start_store(settings, clock, queue, address.clone(), &ingress.backups);
        let mut registry =
            Registry::new(clock.clone(), settings.clone(), store, watermarks.clone());
        registry.log_to(ingress.log.clone());
        registry.restore(Loaded { hash_key, ..loaded }, &policy, &ingress.plan, &mut rates);
        registry
    });
    let limiter = RateLimiter::new(
        clock.clone(),
        ingress.plan.clone(),
        settings.clone(),
        hash_key,
        AccessControl::new(policy, rates),
        registry.clone(),
    );
    let limiter = abort_on_panic::start("rate_limiter", limiter);
    let (find, forget) = (registry.clone().recipient(), registry.clone().recipient());
    let sweeper = TtlSweeper::new(settings.sweeper.interval, find, forget);
    abort_on_panic::start("ttl_sweeper", sweeper);
    CoreHandles { registry, limiter, watermarks, log: ingress.log.clone() }
}
