//! The one clock. Doers read it once per message and pass the time on; rules never read it.

use std::ops::{Add, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point on the monotonic clock: nanoseconds since the clock was made. It never jumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// Later than every moment that comes.
    pub const NEVER: Self = Self(u64::MAX);
}

impl Add<Duration> for Moment {
    type Output = Self;
    /// Saturates: 584 years are enough.
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Moment {
    type Output = Duration;
    /// Zero if `earlier` is later.
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The time of one step: monotonic for what is measured, Unix for what is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For deadlines.
    pub mono: Moment,
    /// Seconds since 1970, for clients' eyes only.
    pub unix: u64,
}

impl Now {
    /// The Unix second at which `deadline` falls, rounded up.
    #[must_use]
    pub fn unix_at(&self, deadline: Moment) -> u64 {
        let left = deadline - self.mono;
        self.unix.saturating_add(left.as_secs()).saturating_add(u64::from(left.subsec_nanos() > 0))
    }
}

/// A clock that all who share it can read, and that a test can put forward.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None` where time passes only by being put forward.
    origin: Option<Instant>,
    /// Since 1970, when the clock was made.
    since_1970: Duration,
    ahead: AtomicU64,
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::starting(Some(Instant::now()))
    }

    /// A clock that stands still until it is put forward, so that a test decides what comes in time and what too late.
    #[must_use]
    pub fn still() -> Self {
        Self::starting(None)
    }

    fn starting(origin: Option<Instant>) -> Self {
        let since_1970 = since_1970();
        Self(Arc::new(Inner { origin, since_1970, ahead: AtomicU64::new(0) }))
    }

    /// The monotonic time.
    #[must_use]
    pub fn moment(&self) -> Moment {
        let passed = self.0.origin.map_or(Duration::ZERO, |origin| origin.elapsed());
        Moment(0) + passed + self.ahead()
    }

    /// Both times.
    #[must_use]
    pub fn now(&self) -> Now {
        let since_1970 = if self.0.origin.is_some() { since_1970() } else { self.0.since_1970 };
        Now { mono: self.moment(), unix: (since_1970 + self.ahead()).as_secs() }
    }

    /// Milliseconds since 1970: what is written down, for nothing monotonic outlives the machine.
    #[must_use]
    pub fn unix_ms(&self) -> u64 {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from((since_1970 + self.ahead()).as_millis()).unwrap_or(u64::MAX)
    }

    /// The Unix millisecond at which `deadline` falls, rounded up.
    #[must_use]
    pub fn unix_ms_at(&self, deadline: Moment) -> u64 {
        let left = (deadline - self.moment()).as_nanos().div_ceil(1_000_000);
        self.unix_ms().saturating_add(u64::try_from(left).unwrap_or(u64::MAX))
    }

    /// Puts the clock forward: how a test lets a ttl pass without waiting for it.
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
    fn a_still_clock_passes_only_what_it_is_put_forward() {
        let clock = Clock::still();
        let before = clock.now();
        assert_eq!(clock.now(), before);
        clock.advance(Duration::from_secs(3));
        let after = Now { mono: before.mono + Duration::from_secs(3), unix: before.unix + 3 };
        assert_eq!(clock.now(), after);
    }

    #[test]
    fn a_clock_can_be_put_forward_for_all_who_share_it() {
        let (clock, before) = (Clock::system(), Clock::system().now());
        clock.clone().advance(Duration::from_secs(100));
        assert!(clock.now().mono - before.mono >= Duration::from_secs(99));
        assert!(clock.now().unix >= before.unix + 100);
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Moment(5) + Duration::MAX, Moment::NEVER);
        assert_eq!(Moment(5) - Moment(9), Duration::ZERO);
    }

    #[test]
    fn a_deadline_is_told_rounded_up() {
        let now = Now { mono: Moment(0), unix: 100 };
        assert_eq!(now.unix_at(Moment(1_000_000_001)), 102);
        assert_eq!(now.unix_at(Moment(1_000_000_000)), 101);
    }
}
