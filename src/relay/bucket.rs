//! One limit, and the promises that its refusals make. (protocol: Rate limits)
//!
//! A [`Bucket`] is the generic cell rate algorithm (GCRA) with promises. The package `governor`, which counts
//! addresses in the RateLimiter, uses the same algorithm but keeps no trace of a refusal: it would give fifty refused
//! frames one time, at which forty-nine of them would be refused again. A bucket is two integers, which need no lock and no
//! allocation, while a limiter of `governor` has a quota and a clock of its own: too much for each of a million idle devices.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Moment;

/// A promise further ahead than this many times the places of a burst, or of a minute if those are more, is a flood.
const FLOOD_FACTOR: u64 = 10;
const MINUTE_NANOS: u64 = 60_000_000_000;

/// A rate in the numbers of the algorithm, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// From one place to the next.
    interval: u64,
    /// How far frames may be ahead of the rate: a burst without its first frame.
    tolerance: u64,
    /// How far ahead a place is promised, see [`FLOOD_FACTOR`].
    horizon: u64,
}

impl Rate {
    /// `rate` places each minute, of which `burst` may be used at once after a pause.
    pub fn per_minute(rate: NonZeroU32, burst: NonZeroU32) -> Self {
        let interval = MINUTE_NANOS / u64::from(rate.get());
        let (burst, most) = (u64::from(burst.get()), u64::from(rate.max(burst).get()));
        let tolerance = interval.saturating_mul(burst - 1);
        Self { interval, tolerance, horizon: interval.saturating_mul(most * FLOOD_FACTOR) }
    }
}

/// A frame that came before there was a place for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Early {
    /// Until the promised place, or the horizon if that is nearer.
    pub wait: Duration,
    /// The place is beyond the horizon: it is not promised.
    pub is_flood: bool,
}

/// The latest place that a refusal promised. The places promised before it are each one interval before the next. A promise
/// lapses when it falls due: its place then is free for whichever frame comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Promises(Moment);

impl Promises {
    /// Promises the next place after those promised before. `free` is when the next place is free if none is promised.
    pub fn promise(&mut self, now: Moment, free: Moment, rate: &Rate) -> Early {
        let next = if self.has_lapsed(now) {
            free
        } else {
            Moment(self.0.0.saturating_add(rate.interval))
        };
        let wait = next - now;
        let horizon = Duration::from_nanos(rate.horizon);
        if wait > horizon {
            return Early { wait: horizon, is_flood: true };
        }
        self.0 = next;
        Early { wait, is_flood: false }
    }

    /// Whether no promise is left.
    pub fn has_lapsed(&self, now: Moment) -> bool {
        self.0 <= now
    }

    /// When the bucket was last filled. Places come one by one while any is promised, so that a late repeat does not delay
    /// the place of the next one; else they come continuously.
    fn filled(&self, now: Moment, rate: &Rate) -> Moment {
        let Some(left) = self.0.0.checked_sub(now.0).filter(|left| *left > 0) else { return now };
        let since = rate.interval - 1 - (left - 1) % rate.interval;
        Moment(now.0.saturating_sub(since))
    }
}

/// One limit of one device. A new bucket has all its places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket {
    /// When all places are free: one interval after the last of them was used, and one more for each used before.
    full_at: Moment,
    promises: Promises,
}

impl Bucket {
    /// Counts one frame, or promises a place for its repeat.
    pub fn check(&mut self, now: Moment, rate: &Rate) -> Result<(), Early> {
        if self.full_at.0 <= now.0.saturating_add(rate.tolerance) {
            let full_at = self.full_at.max(self.promises.filled(now, rate));
            self.full_at = Moment(full_at.0.saturating_add(rate.interval));
            return Ok(());
        }
        let free = Moment(self.full_at.0 - rate.tolerance);
        Err(self.promises.promise(now, free, rate))
    }
}

impl Bucket {
    /// How many frames would pass now.
    fn left(&self, now: Moment, rate: &Rate) -> u64 {
        let latest = now.0.saturating_add(rate.tolerance);
        let full_at = self.full_at.max(self.promises.filled(now, rate)).0;
        latest.checked_sub(full_at).map_or(0, |ahead| ahead / rate.interval.max(1) + 1)
    }
}

/// A [`Bucket`] that several connections of one device may use at the same time.
#[derive(Debug, Default)]
pub(super) struct SharedBucket {
    full_at: AtomicU64,
    promised: AtomicU64,
}

impl SharedBucket {
    pub fn check(&self, now: Moment, rate: &Rate) -> Result<(), Early> {
        loop {
            let [full_at, promised] =
                [&self.full_at, &self.promised].map(|moment| moment.load(Ordering::Relaxed));
            let mut bucket =
                Bucket { full_at: Moment(full_at), promises: Promises(Moment(promised)) };
            let checked = bucket.check(now, rate);
            // A check changes one of the two. Nothing else is read by their values, so that no ordering is needed.
            let (moment, old, new) = match checked {
                Ok(()) => (&self.full_at, full_at, bucket.full_at),
                Err(_) => (&self.promised, promised, bucket.promises.0),
            };
            let swapped = moment.compare_exchange(old, new.0, Ordering::Relaxed, Ordering::Relaxed);
            if swapped.is_ok() {
                return checked;
            }
        }
    }

    pub fn left(&self, now: Moment, rate: &Rate) -> u64 {
        let [full_at, promised] =
            [&self.full_at, &self.promised].map(|moment| Moment(moment.load(Ordering::Relaxed)));
        Bucket { full_at, promises: Promises(promised) }.left(now, rate)
    }

    pub fn refill(&self) {
        self.full_at.store(0, Ordering::Relaxed);
        self.promised.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).unwrap()
    }

    /// Numbers without a pattern, the same in each run.
    fn noise(seed: u64) -> impl FnMut(u64) -> u64 {
        let mut state = seed;
        move |below| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 20) % below
        }
    }

    #[test]
    fn a_repeat_that_is_late_does_not_delay_the_places_of_others() {
        let mut noise = noise(1);
        for (rate, burst) in [(60, 1), (7, 1), (60, 3), (600, 2), (33, 5)] {
            let rate_of = Rate::per_minute(count(rate), count(burst));
            let mut bucket = Bucket::default();
            let mut now = Moment(noise(1 << 40));
            assert!((0..burst).all(|_| bucket.check(now, &rate_of).is_ok()));
            let promises = 0..10 * rate.max(burst);
            let places = promises.map(|_| now + bucket.check(now, &rate_of).unwrap_err().wait);
            for (number, place) in places.collect::<Vec<_>>().into_iter().enumerate() {
                // Never more overdue repeats than a burst.
                let late = noise(rate_of.interval * u64::from(burst));
                now = now.max(place + Duration::from_nanos(late));
                assert_eq!(bucket.check(now, &rate_of), Ok(()), "{number} at {rate}, {burst}");
            }
        }
    }

    #[test]
    fn no_more_pass_than_the_burst_and_the_rate_whatever_was_promised() {
        let mut noise = noise(2);
        for (rate, burst) in [(60, 1), (7, 1), (60, 3), (600, 2), (33, 5), (60, 60)] {
            let rate_of = Rate::per_minute(count(rate), count(burst));
            let (mut bucket, mut now, mut passed) = (Bucket::default(), Moment(0), Vec::new());
            for _ in 0..20_000 {
                let pause = [0, 1, rate_of.interval / 3, rate_of.interval, rate_of.tolerance];
                now = Moment(now.0 + pause[noise(5) as usize] + noise(2) * noise(1_000_000));
                if bucket.check(now, &rate_of).is_ok() {
                    passed.push(now.0);
                }
            }
            // Any burst and one more within less than one interval would be too many, and so on.
            for span in [1, 2, 10, 100, 1_000] {
                for window in passed.windows(burst as usize + span + 1) {
                    let took = window.last().unwrap() - window[0];
                    assert!(took > rate_of.interval * (span as u64 - 1), "{rate} {burst} {span}");
                }
            }
        }
    }
}
