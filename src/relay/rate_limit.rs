//! Rate limits of devices. (protocol: Rate limits)
//!
//! The RateLimiter owns the [`RatePlan`]; each device has one [`Allowance`], which its session shares. Thus a session
//! checks the limits locally, without a message to another actor, and a reconnect does not reset them.

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

/// A device is flooding when more than this many times its burst are refused in one minute.
const FLOOD_FACTOR: u32 = 10;
const MINUTE: Duration = Duration::from_secs(60);

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

pub fn per_minute(rate: NonZeroU32, burst: NonZeroU32) -> Quota {
    Quota::per_minute(rate).allow_burst(burst)
}

/// The rates of all devices. A reload replaces them and increases `generation`, by which an [`Allowance`] notices it.
#[derive(Debug)]
pub struct RatePlan {
    generation: AtomicU64,
    rates: RwLock<RateLimit>,
    clock: Clock,
}

impl RatePlan {
    pub fn new(rates: RateLimit, clock: Clock) -> Arc<Self> {
        Arc::new(Self { generation: AtomicU64::new(0), rates: RwLock::new(rates), clock })
    }

    /// Replaces the rates; every device starts with its full burst again.
    pub fn change(&self, rates: RateLimit) {
        *self.rates.write().unwrap_or_else(PoisonError::into_inner) = rates;
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn buckets(&self) -> Buckets {
        let generation = self.generation.load(Ordering::Acquire);
        let rates = self.rates.read().unwrap_or_else(PoisonError::into_inner);
        let bucket = |rate, burst| {
            RateLimiter::direct_with_clock(per_minute(rate, burst), self.clock.clone())
        };
        let (messages, control) = (rates.messages_per_minute, rates.control_per_minute);
        let refusals = rates.burst.saturating_mul(NonZeroU32::MIN.saturating_add(FLOOD_FACTOR - 1));
        Buckets {
            generation,
            limits: [messages, control],
            buckets: [bucket(messages, rates.burst), bucket(control, control)],
            refused: bucket(refusals, refusals),
        }
    }
}

/// The limit to which a frame counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// `Send`, `Auth*`, `KeyRotation*`, `Status`.
    Message = 0,
    /// Pings, Pongs, unmatched Acks and malformed frames.
    Control = 1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    /// Above `limit` frames per minute.
    Limited {
        limit: u32,
        retry_after_ms: u64,
    },
    /// Also above the limit for refusals: the session closes the connection.
    Flooding,
}

type Bucket = RateLimiter<NotKeyed, InMemoryState, Clock, NoOpMiddleware<Moment>>;

#[derive(Debug)]
struct Buckets {
    generation: u64,
    limits: [NonZeroU32; 2],
    buckets: [Bucket; 2],
    /// Counts refusals, see [`FLOOD_FACTOR`].
    refused: Bucket,
}

#[derive(Debug)]
pub struct Allowance {
    plan: Arc<RatePlan>,
    buckets: Mutex<Buckets>,
}

impl Allowance {
    pub fn new(plan: Arc<RatePlan>) -> Arc<Self> {
        let buckets = Mutex::new(plan.buckets());
        Arc::new(Self { plan, buckets })
    }

    /// Counts one frame. New rates take effect here.
    pub fn check(&self, class: Class) -> Verdict {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.generation != self.plan.generation.load(Ordering::Acquire) {
            *buckets = self.plan.buckets();
        }
        let Err(early) = buckets.buckets[class as usize].check() else { return Verdict::Allowed };
        if buckets.refused.check().is_err() {
            return Verdict::Flooding;
        }
        let retry_after_ms = whole_ms(early.wait_time_from(self.plan.clock.moment()));
        Verdict::Limited { limit: buckets.limits[class as usize].get(), retry_after_ms }
    }
}

/// How often one device resumes: the time at which as many resumes as were made would be due, one after the other.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResumeRate(Moment);

impl ResumeRate {
    /// Counts one resume, or returns the time to wait: `per_minute` may come at once, and one more whenever one is due.
    pub fn check(&mut self, now: Moment, per_minute: NonZeroU32) -> Result<(), Duration> {
        let due = self.0.max(now) + MINUTE / per_minute.get();
        let latest = now + MINUTE;
        if due > latest {
            return Err(due - latest);
        }
        self.0 = due;
        Ok(())
    }
}

/// Milliseconds, rounded up, so that a client that waits that long has waited long enough.
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
    fn the_61st_message_of_a_minute_is_limited_and_the_verdict_has_the_time_to_wait() {
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
    fn ten_times_the_burst_in_refusals_is_flooding() {
        let (allowance, ..) = allowance();
        assert!(matches!(spend(&allowance, 60 + 600), Verdict::Limited { .. }));
        let flooding = (0..20).any(|_| allowance.check(Class::Message) == Verdict::Flooding);
        assert!(flooding);
    }

    #[test]
    fn a_changed_plan_reaches_every_allowance() {
        let (allowance, plan, _) = allowance();
        spend(&allowance, 61);
        let one = NonZeroU32::MIN;
        plan.change(RateLimit { messages_per_minute: one, burst: one, ..RateLimit::default() });
        assert_eq!(allowance.check(Class::Message), Verdict::Allowed);
        assert!(matches!(allowance.check(Class::Message), Verdict::Limited { limit: 1, .. }));
    }

    #[test]
    fn a_device_resumes_so_often_in_a_minute_and_then_whenever_one_is_due() {
        let (mut rate, limit) = (ResumeRate::default(), NonZeroU32::new(60).unwrap());
        let now = Moment::default() + Duration::from_secs(7);
        assert!((0..60).all(|_| rate.check(now, limit).is_ok()));
        assert_eq!(rate.check(now, limit), Err(Duration::from_secs(1)));
        assert_eq!(rate.check(now + Duration::from_secs(1), limit), Ok(()));
        assert!(rate.check(now + Duration::from_secs(1), limit).is_err());
        let later = now + Duration::from_secs(3_600);
        assert!((0..60).all(|_| rate.check(later, limit).is_ok()));
        assert!(rate.check(later, limit).is_err());
    }

    /// The bounds that the settings set for `rate_limit.*`: the limiter counts nanoseconds in 64 bits.
    #[test]
    fn the_largest_and_the_slowest_rates_that_settings_allow_can_be_counted() {
        let (one, max) = (NonZeroU32::MIN, NonZeroU32::MAX);
        let burst = NonZeroU32::new(300_000_000).unwrap();
        for (rate, burst) in [(one, burst), (max, burst), (max, one)] {
            let rates = RateLimit {
                messages_per_minute: rate,
                burst,
                control_per_minute: rate,
                registrations_per_minute: rate,
                resumes_per_minute: rate,
                resume_failures_per_minute: rate,
            };
            let allowance = Allowance::new(RatePlan::new(rates, Clock::system()));
            assert_eq!(allowance.check(Class::Message), Verdict::Allowed);
            assert_eq!(allowance.check(Class::Control), Verdict::Allowed);
        }
    }
}
