//! How often a device may speak. (protocol: Rate limits)
//!
//! The RateLimiter owns the plan; each device has one [`Allowance`], leased to whatever session it has. So a check is no
//! question to anybody, and a device that reconnects finds its allowance as it left it.

use std::num::NonZeroU32;
use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use governor::clock::{Clock as GovernorClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::clock::{Clock, Moment};
use crate::settings::RateLimit;

/// Refused so many times its burst within a minute, a device is flooding.
const FLOOD: u32 = 10;

impl Add<Nanos> for Moment {
    type Output = Self;
    fn add(self, by: Nanos) -> Self {
        Self(self.0.saturating_add(by.as_u64()))
    }
}

impl Reference for Moment {
    fn duration_since(&self, earlier: Self) -> Nanos {
        self.0.saturating_sub(earlier.0).into()
    }

    fn saturating_sub(&self, by: Nanos) -> Self {
        Self(self.0.checked_sub(by.as_u64()).unwrap_or(self.0))
    }
}

impl GovernorClock for Clock {
    type Instant = Moment;
    fn now(&self) -> Moment {
        self.moment()
    }
}

/// So many in a minute, after a burst of so many.
#[must_use]
pub fn per_minute(rate: NonZeroU32, burst: NonZeroU32) -> Quota {
    Quota::per_minute(rate).allow_burst(burst)
}

/// What every device is allowed; replaced as a whole on a reload.
#[derive(Debug)]
pub struct RatePlan {
    generation: AtomicU64,
    rates: RwLock<RateLimit>,
    clock: Clock,
}

impl RatePlan {
    /// A plan that measures by this clock.
    #[must_use]
    pub fn new(rates: RateLimit, clock: Clock) -> Arc<Self> {
        Arc::new(Self { generation: AtomicU64::new(0), rates: RwLock::new(rates), clock })
    }

    /// From now on other rates; every device starts anew under them.
    pub fn change(&self, rates: RateLimit) {
        *self.rates.write().unwrap_or_else(PoisonError::into_inner) = rates;
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn buckets(&self) -> Buckets {
        let generation = self.generation.load(Ordering::Acquire);
        let rates = self.rates.read().unwrap_or_else(PoisonError::into_inner);
        let bucket = |rate, burst| {
            let quota = per_minute(rate, burst);
            RateLimiter::direct_with_clock(quota, self.clock.clone())
        };
        let refusals = rates.burst.saturating_mul(NonZeroU32::MIN.saturating_add(FLOOD - 1));
        Buckets {
            generation,
            limits: [rates.messages_per_minute, rates.control_per_minute],
            buckets: [
                bucket(rates.messages_per_minute, rates.burst),
                bucket(rates.control_per_minute, rates.control_per_minute),
            ],
            refused: bucket(refusals, refusals),
        }
    }
}

/// What a frame is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// `Send`, `Auth*`, `KeyRotation*`, `Status`.
    Message = 0,
    /// Pings, Pongs, stray Acks, malformed frames.
    Control = 1,
}

/// Whether a frame is within the allowance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Allowed,
    /// Over a limit of so many in a minute.
    Limited {
        /// The limit.
        limit: u32,
        /// When the next one is allowed.
        retry_after_ms: u64,
    },
    /// Far over, for long.
    Flooding,
}

type Bucket = RateLimiter<NotKeyed, InMemoryState, Clock, NoOpMiddleware<Moment>>;

#[derive(Debug)]
struct Buckets {
    generation: u64,
    limits: [NonZeroU32; 2],
    buckets: [Bucket; 2],
    refused: Bucket,
}

/// One device's allowance.
#[derive(Debug)]
pub struct Allowance {
    plan: Arc<RatePlan>,
    buckets: Mutex<Buckets>,
}

impl Allowance {
    /// A full one.
    #[must_use]
    pub fn new(plan: Arc<RatePlan>) -> Arc<Self> {
        let buckets = Mutex::new(plan.buckets());
        Arc::new(Self { plan, buckets })
    }

    /// Counts one frame.
    pub fn check(&self, class: Class) -> Verdict {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.generation != self.plan.generation.load(Ordering::Acquire) {
            *buckets = self.plan.buckets();
        }
        let Err(early) = buckets.buckets[class as usize].check() else { return Verdict::Allowed };
        if buckets.refused.check().is_err() {
            return Verdict::Flooding;
        }
        let wait = early.wait_time_from(self.plan.clock.moment());
        Verdict::Limited {
            limit: buckets.limits[class as usize].get(),
            retry_after_ms: whole_ms(wait),
        }
    }
}

/// Rounded up, so that whoever waits that long has waited long enough.
#[must_use]
pub fn whole_ms(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowance() -> (Arc<Allowance>, Arc<RatePlan>, Clock) {
        let clock = Clock::system();
        let plan = RatePlan::new(RateLimit::default(), clock.clone());
        (Allowance::new(plan.clone()), plan, clock)
    }

    fn spend(allowance: &Allowance, times: u32) -> Verdict {
        (0..times).map(|_| allowance.check(Class::Message)).last().unwrap()
    }

    #[test]
    fn the_61st_message_of_a_minute_is_over_and_says_when_to_try_again() {
        let (allowance, _, clock) = allowance();
        assert_eq!(spend(&allowance, 60), Verdict::Allowed);
        let Verdict::Limited { limit: 60, retry_after_ms } = allowance.check(Class::Message) else {
            panic!()
        };
        assert!((1..=1000).contains(&retry_after_ms), "{retry_after_ms}");
        clock.advance(Duration::from_millis(retry_after_ms));
        assert_eq!(allowance.check(Class::Message), Verdict::Allowed);
    }

    #[test]
    fn pings_have_an_allowance_of_their_own() {
        let (allowance, ..) = allowance();
        spend(&allowance, 61);
        assert_eq!(allowance.check(Class::Control), Verdict::Allowed);
    }

    #[test]
    fn ten_times_over_is_flooding() {
        let (allowance, ..) = allowance();
        assert!(matches!(spend(&allowance, 60 + 600), Verdict::Limited { .. }));
        let flooding = (0..20).any(|_| allowance.check(Class::Message) == Verdict::Flooding);
        assert!(flooding);
    }

    #[test]
    fn a_changed_plan_reaches_every_lease() {
        let (allowance, plan, _) = allowance();
        spend(&allowance, 61);
        let one = NonZeroU32::MIN;
        plan.change(RateLimit { messages_per_minute: one, burst: one, ..RateLimit::default() });
        assert_eq!(allowance.check(Class::Message), Verdict::Allowed);
        assert!(matches!(allowance.check(Class::Message), Verdict::Limited { limit: 1, .. }));
    }

    /// The bounds of `rate_limit.*` in `settings/written.rs`: the limiter counts nanoseconds in 64 bits.
    #[test]
    fn the_largest_and_the_slowest_rates_that_settings_take_can_be_counted() {
        let (one, most) = (NonZeroU32::MIN, NonZeroU32::MAX);
        let burst = NonZeroU32::new(300_000_000).unwrap();
        for (rate, burst) in [(one, burst), (most, burst), (most, one)] {
            let rates = RateLimit {
                messages_per_minute: rate,
                burst,
                control_per_minute: rate,
                registrations_per_minute: rate,
                resume_failures_per_minute: rate,
            };
            let allowance = Allowance::new(RatePlan::new(rates, Clock::system()));
            assert_eq!(allowance.check(Class::Message), Verdict::Allowed);
            assert_eq!(allowance.check(Class::Control), Verdict::Allowed);
        }
    }
}
