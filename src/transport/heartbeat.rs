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

/// The input since the last check.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Input {
    /// Whether a frame ended.
    pub(super) frame_seen: bool,
    /// When bytes were read that prove a living peer; may lie before the last check.
    pub(super) read_at: Option<Instant>,
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

    /// Counts the time since the last check. `blocked` means that input is not read now, and silence proves
    /// nothing.
    pub(super) fn check(&mut self, now: Instant, input: Input, blocked: bool) -> Found {
        let passed = now.duration_since(self.checked).min(self.every);
        let has_read = input.read_at.is_some_and(|at| at > self.checked);
        self.checked = now;
        self.frame_seen |= input.frame_seen;
        if input.frame_seen || has_read {
            self.silence = now.duration_since(input.read_at.unwrap_or(now)).min(passed);
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

    const NOTHING: Input = Input { frame_seen: false, read_at: None };
    const QUIET: Found = Found { beat: Some(true), silent: false };

    #[test]
    fn silence_is_noticed_after_three_beats() {
        let (mut heartbeat, start) = heartbeat();
        for second in [25, 50] {
            assert_eq!(heartbeat.next(), start + second * SECOND);
            assert_eq!(heartbeat.check(heartbeat.next(), NOTHING, false), QUIET);
        }
        let found = heartbeat.check(heartbeat.next(), NOTHING, false);
        assert_eq!((found.beat, found.silent), (Some(true), true));
        let again = heartbeat.check(heartbeat.next(), NOTHING, false);
        assert_eq!((again.beat, again.silent), (Some(true), false), "reported once");
    }

    #[test]
    fn silence_is_counted_from_the_last_frame() {
        let (mut heartbeat, start) = heartbeat();
        let frame_at = start + 10 * SECOND;
        let found = heartbeat.check(
            heartbeat.next(),
            Input { frame_seen: true, read_at: Some(frame_at) },
            false,
        );
        assert_eq!((found.beat, found.silent), (Some(false), false));
        heartbeat.check(heartbeat.next(), NOTHING, false);
        heartbeat.check(heartbeat.next(), NOTHING, false);
        assert_eq!(heartbeat.next(), frame_at + 75 * SECOND);
        assert!(heartbeat.check(heartbeat.next(), NOTHING, false).silent);
    }

    #[test]
    fn bytes_of_a_long_message_are_no_frame_and_no_silence() {
        let (mut heartbeat, start) = heartbeat();
        for second in [25, 50, 75, 100, 125] {
            let now = start + second * SECOND;
            let input = Input { frame_seen: false, read_at: Some(now - SECOND) };
            assert_eq!(heartbeat.check(now, input, false), QUIET);
        }
        let old = Input { frame_seen: false, read_at: Some(start + 124 * SECOND) };
        assert_eq!(heartbeat.check(start + 150 * SECOND, old, false), QUIET);
        assert_eq!(heartbeat.check(start + 175 * SECOND, old, false), QUIET);
        assert!(
            heartbeat.check(start + 199 * SECOND, old, false).silent,
            "75 s after the last byte"
        );
    }

    #[test]
    fn a_stopped_process_reports_no_silence() {
        let (mut heartbeat, start) = heartbeat();
        heartbeat.check(start + 25 * SECOND, NOTHING, false);
        let found = heartbeat.check(start + 3600 * SECOND, NOTHING, false);
        assert!(!found.silent, "an hour of our own counts as one beat");
    }

    #[test]
    fn silence_is_not_counted_while_input_is_not_read() {
        let (mut heartbeat, _) = heartbeat();
        for _ in 0..20 {
            let found = heartbeat.check(heartbeat.next(), NOTHING, true);
            assert_eq!((found.beat, found.silent), (Some(false), false));
        }
    }
}
