//! Who may register by the access tokens in force, for the RateLimiter. (protocol: Access tokens)

use std::sync::Arc;

use crate::access::{Denied, Policy, Presented};
use crate::relay::access_rates::AccessRates;
use crate::relay::rate_limit::Allowance;

/// Registrations that were denied, by reason. What a used-up token denies is counted in the router's
/// [`AccessRefusals`](crate::relay::router::AccessRefusals).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AccessDenials {
    pub missing: u64,
    pub unknown: u64,
    pub expired: u64,
    /// Unknown or expired, from an address that has tried too many tokens.
    pub limited: u64,
}

/// The tokens in force, and the rates that follow from them.
pub struct AccessControl {
    policy: Arc<Policy>,
    rates: AccessRates,
    denials: AccessDenials,
}

impl AccessControl {
    /// `rates` are those of `policy`, and devices that were restored have allowances of them.
    pub fn new(policy: Arc<Policy>, rates: AccessRates) -> Self {
        Self { policy, rates, denials: AccessDenials::default() }
    }

    /// The name of the token by which a new device registers; `None` if no token is needed.
    pub fn find(&self, presented: Presented, now_ms: u64) -> Result<Option<Arc<str>>, Denied> {
        match &*self.policy {
            Policy::Open => Ok(None),
            Policy::Tokens(table) => Ok(Some(table.find(presented, now_ms)?.name.clone())),
        }
    }

    /// Counts a registration that was denied; `is_limited` if its address has tried too many tokens.
    pub fn count(&mut self, denied: Denied, is_limited: bool) {
        let AccessDenials { missing, unknown, expired, limited } = &mut self.denials;
        *match denied {
            Denied::Missing => missing,
            _ if is_limited => limited,
            Denied::Unknown => unknown,
            Denied::Expired => expired,
        } += 1;
    }

    /// The allowance of a new device of the token with this name.
    pub fn allowance(&mut self, name: &Arc<str>) -> Arc<Allowance> {
        self.rates.allowance(name)
    }

    pub fn denials(&self) -> AccessDenials {
        self.denials
    }

    pub fn rates_mut(&mut self) -> &mut AccessRates {
        &mut self.rates
    }

    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        self.rates.set_policy(&policy);
        self.policy = policy;
    }
}
