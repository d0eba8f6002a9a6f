//! The only clock. An actor reads it once for each message and passes the time on as an argument; the router never reads
//! it, so that a test decides what time it is.

use std::ops::{Add, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const NANOS_PER_MS: u64 = 1_000_000;
const NANOS_PER_SEC: u64 = 1_000_000_000;

/// A point on the monotonic clock: nanoseconds since the clock was created. Setting the wall clock does not change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// The deadline of what does not expire.
    pub const NEVER: Self = Self(u64::MAX);
}

impl Add<Duration> for Moment {
    type Output = Self;
    /// Saturates at [`Moment::NEVER`], 584 years after the start.
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Moment {
    type Output = Duration;
    /// Zero if `earlier` is the later one.
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The time of one step, on both clocks: monotonic for what is measured, wall time for what clients see and what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For deadlines.
    pub mono: Moment,
    /// Unix milliseconds.
    pub wall_ms: u64,
}

impl Now {
    /// Unix seconds, as clients see them.
    pub fn unix(&self) -> u64 {
        self.wall_ms / 1_000
    }

    /// The Unix second at which `deadline` falls: the time left is rounded up.
    pub fn unix_at(&self, deadline: Moment) -> u64 {
        self.unix().saturating_add(deadline.0.saturating_sub(self.mono.0).div_ceil(NANOS_PER_SEC))
    }

    /// The Unix millisecond at which `deadline` falls, rounded up; `u64::MAX` for [`Moment::NEVER`].
    pub fn wall_ms_at(&self, deadline: Moment) -> u64 {
        if deadline == Moment::NEVER {
            return u64::MAX;
        }
        let left = deadline.0.saturating_sub(self.mono.0);
        self.wall_ms.saturating_add(left.div_ceil(NANOS_PER_MS))
    }

    /// The deadline that was stored as `wall_ms`; [`Moment::NEVER`] for `u64::MAX`. The wall clock may have been set back
    /// since, so the deadline is at most `longest` from now.
    pub fn deadline(&self, wall_ms: u64, longest: Duration) -> Moment {
        if wall_ms == u64::MAX {
            return Moment::NEVER;
        }
        self.mono + Duration::from_millis(wall_ms.saturating_sub(self.wall_ms)).min(longest)
    }
}

/// A clock whose clones share one time, and that a test can advance.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None` for a clock that only [`Clock::advance`] moves.
    origin: Option<Instant>,
    /// The wall time at which the clock was created.
    since_1970: Duration,
    /// The sum of all calls of [`Clock::advance`], in nanoseconds.
    ahead: AtomicU64,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::starting(Some(Instant::now()))
    }

    /// A clock that stands still until a test advances it, so that the test decides what is in time and what is late.
    pub fn still() -> Self {
        Self::starting(None)
    }

    fn starting(origin: Option<Instant>) -> Self {
        Self(Arc::new(Inner { origin, since_1970: since_1970(), ahead: AtomicU64::new(0) }))
    }

    pub fn moment(&self) -> Moment {
        let passed = self.0.origin.map_or(Duration::ZERO, |origin| origin.elapsed());
        Moment(0) + passed + self.ahead()
    }

    pub fn now(&self) -> Now {
        let since_1970 = if self.0.origin.is_some() { since_1970() } else { self.0.since_1970 };
        let wall_ms = (since_1970 + self.ahead()).as_millis();
        Now { mono: self.moment(), wall_ms: u64::try_from(wall_ms).unwrap_or(u64::MAX) }
    }

    /// Lets a test pass a ttl without waiting for it.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.0.ahead.fetch_add(by, Ordering::Relaxed);
    }

    fn ahead(&self) -> Duration {
        Duration::from_nanos(self.0.ahead.load(Ordering::Relaxed))
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_still_clock_moves_only_when_it_is_advanced() {
        let clock = Clock::still();
        let before = clock.now();
        assert_eq!(clock.now(), before);
        clock.advance(Duration::from_secs(3));
        let after =
            Now { mono: before.mono + Duration::from_secs(3), wall_ms: before.wall_ms + 3_000 };
        assert_eq!(clock.now(), after);
    }

    #[test]
    fn all_clones_of_a_clock_are_advanced_together() {
        let (clock, before) = (Clock::system(), Clock::system().now());
        clock.clone().advance(Duration::from_secs(100));
        assert!(clock.now().mono - before.mono >= Duration::from_secs(99));
        assert!(clock.now().unix() >= before.unix() + 100);
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Moment(5) + Duration::MAX, Moment::NEVER);
        assert_eq!(Moment(5) - Moment(9), Duration::ZERO);
    }

    #[test]
    fn a_deadline_in_unix_seconds_is_rounded_up() {
        let now = Now { mono: Moment(0), wall_ms: 100_000 };
        assert_eq!(now.unix_at(Moment(1_000_000_001)), 102);
        assert_eq!(now.unix_at(Moment(1_000_000_000)), 101);
    }
    #[test]
    fn a_deadline_survives_on_the_wall_clock_and_never_grows_beyond_its_longest() {
        const HOUR: Duration = Duration::from_secs(3600);
        let put = Now { mono: Moment(7), wall_ms: 5_000_000 };
        let deadline = put.mono + Duration::from_millis(90);
        let stored = put.wall_ms_at(deadline);
        assert_eq!(stored, 5_000_090);
        assert_eq!(put.wall_ms_at(Moment(8)), 5_000_001, "rounded up");
        assert_eq!(put.deadline(stored, HOUR), deadline);
        let loaded = |wall_ms| Now { mono: Moment(3), wall_ms };
        assert_eq!(loaded(stored).deadline(stored, HOUR), Moment(3));
        assert_eq!(loaded(u64::MAX).deadline(stored, HOUR), Moment(3));
        assert_eq!(loaded(0).deadline(stored, HOUR), Moment(3) + HOUR, "the clock was set back");
        assert_eq!(put.wall_ms_at(Moment::NEVER), u64::MAX);
        assert_eq!(loaded(0).deadline(u64::MAX, HOUR), Moment::NEVER);
    }
}
