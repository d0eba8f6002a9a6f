//! The rates of devices that registered by an access token: the devices of one token share a plan, because the token may have a
//! rate of its own. (protocol: Access tokens)

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::rate_limit::{Allowance, RatePlan};
use crate::access::Policy;
use crate::clock::Clock;
use crate::settings::RateLimit;

#[derive(Debug)]
pub struct AccessRates {
    clock: Clock,
    /// Of tokens without a rate of their own.
    general: RateLimit,
    /// Messages each minute, of the tokens that have a rate of their own.
    own: HashMap<Arc<str>, NonZeroU32, RandomState>,
    /// Of tokens with devices.
    plans: HashMap<Arc<str>, Arc<RatePlan>, RandomState>,
}

impl AccessRates {
    pub fn new(general: RateLimit, policy: &Policy, clock: Clock) -> Self {
        let own = own_rates(policy);
        Self { clock, general, own, plans: HashMap::default() }
    }

    /// A full allowance for a device of the token with this name.
    pub fn allowance(&mut self, name: &Arc<str>) -> Arc<Allowance> {
        if let Some(plan) = self.plans.get(name) {
            return Allowance::new(plan.clone());
        }
        let plan = RatePlan::new(self.rates_of(name), self.clock.clone());
        self.plans.insert(name.clone(), plan.clone());
        Allowance::new(plan)
    }

    /// Replaces the rates of tokens without a rate of their own.
    pub fn set_general(&mut self, general: RateLimit) {
        self.general = general;
        self.apply();
    }

    pub fn set_policy(&mut self, policy: &Policy) {
        let before = std::mem::replace(&mut self.own, own_rates(policy));
        if let Policy::Tokens(table) = policy {
            // A token that is gone keeps its rate while it has devices: who loses it must gain nothing by that.
            let is_gone = |name: &str| !table.tokens().iter().any(|token| &*token.name == name);
            let has_devices = |name: &Arc<str>| {
                self.plans.get(name).is_some_and(|plan| Arc::strong_count(plan) > 1)
            };
            let kept = before.into_iter().filter(|(name, _)| is_gone(name) && has_devices(name));
            let kept: Vec<_> = kept.collect();
            self.own.extend(kept);
        }
        self.apply();
    }

    fn apply(&mut self) {
        self.plans.retain(|_, plan| Arc::strong_count(plan) > 1);
        for (name, plan) in &self.plans {
            plan.change(self.rates_of(name));
        }
    }

    fn rates_of(&self, name: &str) -> RateLimit {
        let general = self.general.clone();
        match self.own.get(name) {
            Some(&rate) => {
                let burst = general.burst.min(rate);
                RateLimit { messages_per_minute: rate, burst, ..general }
            }
            None => general,
        }
    }
}

fn own_rates(policy: &Policy) -> HashMap<Arc<str>, NonZeroU32, RandomState> {
    let Policy::Tokens(table) = policy else { return HashMap::default() };
    let rate = |token: &crate::access::AccessToken| {
        Some((token.name.clone(), token.bounds.messages_per_minute?))
    };
    table.tokens().iter().filter_map(rate).collect()
}
