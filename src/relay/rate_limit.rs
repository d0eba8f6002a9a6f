//! Rate limits of devices. (protocol: Rate limits)
//!
//! The RateLimiter owns the [`RatePlan`]; each device has one [`Allowance`], which its sessions share. Thus a session
//! checks the limits locally, without a message to another actor, and a reconnect does not reset them.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::bucket::{Bucket, Rate, SharedBucket};
use crate::clock::{Clock, Moment};
use crate::settings::RateLimit;

/// The rates of all devices. A reload replaces them and increases `generation`, by which an [`Allowance`] notices it.
#[derive(Debug)]
pub struct RatePlan {
    generation: AtomicU32,
    /// By [`Class`]; frames each minute in the upper half, the burst in the lower, so that both are read at once.
    rates: [AtomicU64; 2],
    clock: Clock,
}

impl RatePlan {
    pub fn new(rates: RateLimit, clock: Clock) -> Arc<Self> {
        let rates = packed(&rates).map(AtomicU64::new);
        Arc::new(Self { generation: AtomicU32::new(0), rates, clock })
    }

    /// Replaces the rates; if they are others, every device starts with its full burst again, and without promises.
    pub fn change(&self, rates: RateLimit) {
        let mut changed = false;
        for (old, new) in self.rates.iter().zip(packed(&rates)) {
            changed |= old.swap(new, Ordering::Relaxed) != new;
        }
        if changed {
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    fn rate(&self, class: Class) -> (u32, Rate) {
        let packed = self.rates[class as usize].load(Ordering::Relaxed);
        let [rate, burst] = [packed >> 32, packed & u64::from(u32::MAX)].map(|half| {
            u32::try_from(half).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
        });
        (rate.get(), Rate::per_minute(rate, burst))
    }
}

fn packed(rates: &RateLimit) -> [u64; 2] {
    let (messages, control) = (rates.messages_per_minute, rates.control_per_minute);
    [(messages, rates.burst), (control, control)]
        .map(|(rate, burst)| u64::from(rate.get()) << 32 | u64::from(burst.get()))
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
    /// Above `limit` frames per minute. A place is promised after `retry_after_ms`.
    Limited {
        limit: u32,
        retry_after_ms: u64,
    },
    /// The next place is too far ahead to be promised: the session closes the connection.
    Flooding,
}

/// The limits of one device. Every idle device has one, so it holds no more than the state of its two buckets.
#[derive(Debug)]
pub struct Allowance {
    plan: Arc<RatePlan>,
    /// By [`Class`].
    buckets: [SharedBucket; 2],
    /// Of the rates under which the buckets were used last.
    generation: AtomicU32,
}

impl Allowance {
    pub fn new(plan: Arc<RatePlan>) -> Arc<Self> {
        let generation = AtomicU32::new(plan.generation.load(Ordering::Acquire));
        Arc::new(Self { plan, buckets: Default::default(), generation })
    }

    /// How many messages would pass now.
    pub fn messages_left(&self) -> u64 {
        let (_, rate) = self.plan.rate(Class::Message);
        self.buckets[Class::Message as usize].left(self.plan.clock.moment(), &rate)
    }

    /// How many messages each minute, and how many at once.
    pub fn message_rate(&self) -> (u32, u32) {
        let packed = self.plan.rates[Class::Message as usize].load(Ordering::Relaxed);
        let half = |half: u64| u32::try_from(half).unwrap_or(u32::MAX);
        (half(packed >> 32), half(packed & u64::from(u32::MAX)))
    }

    /// Counts one frame. New rates take effect here.
    pub fn check(&self, class: Class) -> Verdict {
        let generation = self.plan.generation.load(Ordering::Acquire);
        if self.generation.load(Ordering::Relaxed) != generation
            && self.generation.swap(generation, Ordering::Relaxed) != generation
        {
            self.buckets.iter().for_each(SharedBucket::refill);
        }
        let (limit, rate) = self.plan.rate(class);
        match self.buckets[class as usize].check(self.plan.clock.moment(), &rate) {
            Ok(()) => Verdict::Allowed,
            Err(early) if early.is_flood => Verdict::Flooding,
            Err(early) => Verdict::Limited { limit, retry_after_ms: whole_ms(early.wait) },
        }
    }
}

/// How often one device resumes.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResumeRate(Bucket);

impl ResumeRate {
    /// Counts one resume, or returns the time to wait: a sixth of `per_minute` may come at once, and one more whenever one is
    /// due.
    pub fn check(&mut self, now: Moment, per_minute: NonZeroU32) -> Result<(), Duration> {
        // A resume costs far more than a message: many devices must not save up a minute of them.
        let burst = NonZeroU32::new(per_minute.get() / 6).unwrap_or(NonZeroU32::MIN);
        let rate = Rate::per_minute(per_minute, burst);
        self.0.check(now, &rate).map_err(|early| early.wait)
    }
}

/// Milliseconds, rounded up, so that a client that waits that long has waited long enough.
pub fn whole_ms(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowance_of(rates: RateLimit) -> (Arc<Allowance>, Arc<RatePlan>, Clock) {
        let clock = Clock::still();
        let plan = RatePlan::new(rates, clock.clone());
        (Allowance::new(plan.clone()), plan, clock)
    }

    fn allowance() -> (Arc<Allowance>, Arc<RatePlan>, Clock) {
        allowance_of(RateLimit::default())
    }

    fn count(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).unwrap()
    }

    fn with_burst(burst: u32) -> RateLimit {
        RateLimit { burst: count(burst), ..RateLimit::default() }
    }

    fn spend(allowance: &Allowance, times: u32) -> Verdict {
        (0..times).map(|_| allowance.check(Class::Message)).last().unwrap()
    }

    /// The time in the refusal of one more message.
    fn refused(allowance: &Allowance) -> u64 {
        match allowance.check(Class::Message) {
            Verdict::Limited { retry_after_ms, .. } => retry_after_ms,
            other => panic!("{other:?}"),
        }
    }

    fn advance(clock: &Clock, ms: u64) {
        clock.advance(Duration::from_millis(ms));
    }

    #[test]
    fn the_61st_message_of_a_minute_is_limited_and_the_verdict_has_the_time_to_wait() {
        let (allowance, _, clock) = allowance();
        assert_eq!(spend(&allowance, 60), Verdict::Allowed);
        let limited = Verdict::Limited { limit: 60, retry_after_ms: 1_000 };
        assert_eq!(allowance.check(Class::Message), limited);
        advance(&clock, 1_000);
        assert_eq!(allowance.check(Class::Message), Verdict::Allowed);
    }

    #[test]
    fn each_refusal_promises_a_place_of_its_own_and_each_repeat_finds_it() {
        for burst in [1, 2, 60, 100] {
            let (allowance, _, clock) = allowance_of(with_burst(burst));
            advance(&clock, 3_600_700);
            assert_eq!(spend(&allowance, burst), Verdict::Allowed);
            let times: Vec<_> = (0..50).map(|_| refused(&allowance)).collect();
            assert_eq!(times, (1..=50).map(|n| n * 1_000).collect::<Vec<_>>());
            for number in 1..=50 {
                advance(&clock, 1_000);
                assert_eq!(
                    allowance.check(Class::Message),
                    Verdict::Allowed,
                    "{number} of {burst}"
                );
            }
            assert_eq!(refused(&allowance), 1_000);
        }
    }

    #[test]
    fn promises_lapse_as_they_fall_due() {
        let (allowance, _, clock) = allowance_of(with_burst(2));
        spend(&allowance, 2);
        assert_eq!([(); 10].map(|()| refused(&allowance)).last(), Some(&10_000));
        advance(&clock, 5_500);
        assert_eq!(spend(&allowance, 2), Verdict::Allowed, "five have lapsed, a burst is saved up");
        assert_eq!(refused(&allowance), 5_500, "after those that are left");
        advance(&clock, 6_000);
        assert_eq!(spend(&allowance, 2), Verdict::Allowed);
        assert_eq!(refused(&allowance), 1_000, "none is left");
    }

    #[test]
    fn pings_have_an_allowance_of_their_own() {
        let (allowance, ..) = allowance();
        spend(&allowance, 61);
        assert_eq!(allowance.check(Class::Control), Verdict::Allowed);
    }

    #[test]
    fn a_promise_further_ahead_than_ten_times_the_burst_or_a_minute_is_flooding() {
        for (burst, promises) in [(1, 600), (60, 600), (100, 1_000)] {
            let (allowance, _, clock) = allowance_of(with_burst(burst));
            spend(&allowance, burst);
            let last = (0..promises).fold(None, |_, _| Some(refused(&allowance)));
            assert_eq!(last, Some(promises * 1_000));
            assert_eq!(allowance.check(Class::Message), Verdict::Flooding);
            // Each promise that lapses leaves room for another.
            advance(&clock, 1_000);
            assert_eq!(allowance.check(Class::Message), Verdict::Allowed);
            assert_eq!(refused(&allowance), promises * 1_000);
            assert_eq!(allowance.check(Class::Message), Verdict::Flooding);
        }
    }

    #[test]
    fn connections_of_one_device_on_several_threads_share_one_burst() {
        let (allowance, ..) = allowance();
        let allowed = || {
            let verdicts = (0..100).map(|_| allowance.check(Class::Message));
            verdicts.filter(|verdict| *verdict == Verdict::Allowed).count()
        };
        let allowed: usize = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(allowed));
            threads.map(|thread| thread.join().unwrap()).iter().sum()
        });
        assert_eq!(allowed, 60);
        assert_eq!(refused(&allowance), 341_000, "340 places were promised");
    }

    #[test]
    fn an_idle_device_has_a_small_allowance() {
        let counts_of_the_arc = 2 * size_of::<usize>();
        assert!(size_of::<Allowance>() + counts_of_the_arc <= 64);
        assert!(size_of::<ResumeRate>() <= 16);
    }

    #[test]
    fn a_reload_with_the_same_rates_changes_nothing() {
        let (allowance, plan, _) = allowance();
        spend(&allowance, 61);
        plan.change(RateLimit { registrations_per_minute: count(5), ..RateLimit::default() });
        assert_eq!(refused(&allowance), 2_000);
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
    fn a_device_resumes_ten_times_at_once_and_then_whenever_one_is_due() {
        let (mut rate, limit) = (ResumeRate::default(), count(60));
        let now = Moment::default() + Duration::from_secs(7);
        let second = Duration::from_secs(1);
        assert!((0..10).all(|_| rate.check(now, limit).is_ok()));
        assert_eq!(rate.check(now, limit), Err(second));
        assert_eq!(
            rate.check(now, limit),
            Err(2 * second),
            "the second is promised the next place"
        );
        assert_eq!(rate.check(now + second, limit), Ok(()));
        assert_eq!(rate.check(now + 2 * second, limit), Ok(()));
        assert_eq!(rate.check(now + 2 * second, limit), Err(second));
        let later = now + Duration::from_secs(3_600);
        assert!((0..10).all(|_| rate.check(later, limit).is_ok()));
        assert!(rate.check(later, limit).is_err());
        let mut rate = ResumeRate::default();
        assert!(rate.check(later, NonZeroU32::MIN).is_ok(), "one is always free");
        assert!(rate.check(later, NonZeroU32::MIN).is_err());
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
