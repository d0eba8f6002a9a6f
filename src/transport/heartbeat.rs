//! The heartbeat of a connection, checked outside its actor, which therefore cannot delay it.
//!
//! Silence is added up between checks, and no check adds more than one beat. A process that was
//! stopped for a minute, or a machine that slept, has not read either, and must not
//! conclude that all peers are gone.

use std::time::Duration;

use tokio::time::Instant;

use super::Limits;

/// When the next beat is due, and how much silence has been counted.
#[derive(Debug)]
pub(super) struct Heartbeat {
    every: Duration,
    idle: Duration,
    beat: Instant,
    checked: Instant,
    next: Instant,
    silence: Duration,
    frame_seen: bool,
    reported: bool,
}

/// The result of a check.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// A heartbeat is due; whether no frame arrived since the last one.
    pub(super) beat: Option<bool>,
    /// The peer has been silent for too long; reported once.
    pub(super) silent: bool,
}

impl Heartbeat {
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        let beat = now + limits.heartbeat_interval;
        Heartbeat {
            every: limits.heartbeat_interval,
            idle: limits.idle_timeout,
            beat,
            checked: now,
            next: beat.min(now + limits.idle_timeout),
            silence: Duration::ZERO,
            frame_seen: false,
            reported: false,
        }
    }

    /// When to check next.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Counts the time since the last check. `frame` is when the last frame arrived, if one did since
    /// then; `blocked` means that input is not read now, and silence proves nothing.
    pub(super) fn check(&mut self, now: Instant, frame: Option<Instant>, blocked: bool) -> Found {
        let passed = now.duration_since(self.checked).min(self.every);
        self.checked = now;
        if let Some(at) = frame {
            self.silence = now.duration_since(at).min(passed);
            self.frame_seen = true;
            self.reported = false;
        } else if !blocked {
            self.silence += passed;
        }

        let mut found = Found::default();
        if now >= self.beat {
            found.beat = Some(!self.frame_seen && !blocked);
            self.frame_seen = false;
            self.beat = now + self.every;
        }
        if self.silence >= self.idle && !self.reported {
            found.silent = true;
            self.reported = true;
        }
        self.next = if self.reported {
            self.beat
        } else {
            self.beat.min(now + self.idle.saturating_sub(self.silence))
        };
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn heartbeat() -> (Heartbeat, Instant) {
        let start = Instant::now();
        (Heartbeat::new(&Limits::default(), start), start)
    }

    const QUIET: Found = Found { beat: Some(true), silent: false };

    #[test]
    fn silence_is_noticed_after_three_beats() {
        let (mut heartbeat, start) = heartbeat();
        for second in [25, 50] {
            assert_eq!(heartbeat.next(), start + second * SECOND);
            assert_eq!(heartbeat.check(heartbeat.next(), None, false), QUIET);
        }
        let found = heartbeat.check(heartbeat.next(), None, false);
        assert_eq!((found.beat, found.silent), (Some(true), true));
        let again = heartbeat.check(heartbeat.next(), None, false);
        assert_eq!((again.beat, again.silent), (Some(true), false), "reported once");
    }

    #[test]
    fn silence_is_counted_from_the_last_frame() {
        let (mut heartbeat, start) = heartbeat();
        let frame_at = start + 10 * SECOND;
        let found = heartbeat.check(heartbeat.next(), Some(frame_at), false);
        assert_eq!((found.beat, found.silent), (Some(false), false));
        heartbeat.check(heartbeat.next(), None, false);
        heartbeat.check(heartbeat.next(), None, false);
        assert_eq!(heartbeat.next(), frame_at + 75 * SECOND);
        assert!(heartbeat.check(heartbeat.next(), None, false).silent);
    }

    #[test]
    fn a_stopped_process_reports_no_silence() {
        let (mut heartbeat, start) = heartbeat();
        heartbeat.check(start + 25 * SECOND, None, false);
        let found = heartbeat.check(start + 3600 * SECOND, None, false);
        assert!(!found.silent, "an hour of our own counts as one beat");
    }

    #[test]
    fn silence_is_not_counted_while_input_is_not_read() {
        let (mut heartbeat, _) = heartbeat();
        for _ in 0..20 {
            let found = heartbeat.check(heartbeat.next(), None, true);
            assert_eq!((found.beat, found.silent), (Some(false), false));
        }
    }
}
