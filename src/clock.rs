//! The only clock. An actor reads it once for each message and passes the time on as an argument; the router never reads
//! it, so that a test decides what time it is.
//!
//! Deadlines are in boot time, which goes on while the machine is suspended and which nobody sets. Timers only wake: they
//! stand still during a suspension, so what is due is decided by this clock.

use std::num::NonZeroU32;
use std::ops::{Add, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use uuid::Uuid;

const NANOS_PER_MS: u64 = 1_000_000;
const NANOS_PER_SEC: u64 = 1_000_000_000;

/// A point in the time of this boot of the machine (`CLOCK_BOOTTIME`): nanoseconds since the boot. Setting the wall clock
/// does not change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// The deadline of what does not expire.
    pub const NEVER: Self = Self(u64::MAX);
}

/// A second of this boot, for figures that people read. Its number begins with 1, so that an `Option` of it has four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootSecond(NonZeroU32);

impl BootSecond {
    /// The time since then.
    pub fn ago(self, now: Moment) -> Duration {
        Duration::from_secs(u64::from(
            now.second().0.get() - self.0.get().min(now.second().0.get()),
        ))
    }

    /// Later by a time, whole seconds of it; never later than in 136 years.
    pub fn later(self, by: Duration) -> Self {
        let seconds = u32::try_from(by.as_secs()).unwrap_or(u32::MAX);
        Self(self.0.saturating_add(seconds))
    }
}

impl Moment {
    /// The second in which it lies.
    pub fn second(self) -> BootSecond {
        let seconds = u32::try_from(self.0 / NANOS_PER_SEC).unwrap_or(u32::MAX);
        BootSecond(NonZeroU32::MIN.saturating_add(seconds))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;
    /// Saturates at [`Moment::NEVER`], 584 years after the boot.
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

/// The time of one step, on both clocks: boot time for what is measured and stored, wall time for what clients see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// For deadlines. Never runs backwards in a boot, whatever happens to the wall clock.
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

    /// Milliseconds since the boot.
    pub fn boot_ms(&self) -> i64 {
        signed(self.mono.0 / NANOS_PER_MS)
    }

    /// Milliseconds by which the wall clock is ahead of the boot time. Changes only when the wall clock is set.
    pub fn wall_offset_ms(&self) -> i64 {
        signed(self.wall_ms).saturating_sub(self.boot_ms())
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A clock whose clones share one time, and that a test can advance.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The time at which a clock that only [`Clock::advance`] moves was created, on both clocks.
    still: Option<(Moment, Duration)>,
    /// The sum of all calls of [`Clock::advance`], in nanoseconds.
    ahead: AtomicU64,
    /// By how many milliseconds a test has set the wall clock.
    wall_ahead_ms: AtomicI64,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::starting(None)
    }

    /// A clock that stands still until a test advances it, so that the test decides what is in time and what is late.
    pub fn still() -> Self {
        Self::starting(Some((since_boot(), since_1970())))
    }

    fn starting(still: Option<(Moment, Duration)>) -> Self {
        Self(Arc::new(Inner { still, ahead: AtomicU64::new(0), wall_ahead_ms: AtomicI64::new(0) }))
    }

    pub fn moment(&self) -> Moment {
        self.0.still.map_or_else(since_boot, |(moment, _)| moment) + self.ahead()
    }

    pub fn now(&self) -> Now {
        let since_1970 = self.0.still.map_or_else(since_1970, |(_, since_1970)| since_1970);
        let wall_ms = (since_1970 + self.ahead()).as_millis();
        let wall_ms = u64::try_from(wall_ms).unwrap_or(u64::MAX);
        let set = self.0.wall_ahead_ms.load(Ordering::Relaxed);
        Now { mono: self.moment(), wall_ms: wall_ms.saturating_add_signed(set) }
    }

    /// Lets a test pass a ttl without waiting for it.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.0.ahead.fetch_add(by, Ordering::Relaxed);
    }

    /// Lets a test set the wall clock, by this number of milliseconds altogether.
    pub fn set_wall_clock_ahead(&self, by_ms: i64) {
        self.0.wall_ahead_ms.store(by_ms, Ordering::Relaxed);
    }

    fn ahead(&self) -> Duration {
        Duration::from_nanos(self.0.ahead.load(Ordering::Relaxed))
    }
}

/// The id of this boot of the machine. `None` where the kernel's files cannot be read: then nobody can know whether the
/// machine has booted since the last start.
pub fn boot_id() -> Option<Uuid> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Uuid::parse_str(text.trim()).ok()
}

fn since_boot() -> Moment {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or_default());
    Moment(0) + seconds + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or_default())
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
    fn the_offset_of_the_wall_clock_is_exact_before_and_after_1970_plus_uptime() {
        let at = |mono_ms: u64, wall_ms| Now { mono: Moment(mono_ms * 1_000_000), wall_ms };
        assert_eq!(at(500, 2_000).wall_offset_ms(), 1_500);
        assert_eq!(at(2_000, 500).wall_offset_ms(), -1_500);
        assert_eq!(at(0, u64::MAX).wall_offset_ms(), i64::MAX);
    }

    #[test]
    fn two_clocks_of_one_boot_have_one_origin() {
        assert!(boot_id().is_some());
        let (first, second) = (Clock::system().moment(), Clock::system().moment());
        assert!(first <= second && second - first < Duration::from_secs(60));
        assert!(Clock::still().moment() >= second);
    }
}
