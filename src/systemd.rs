//! What the relay tells a service manager that speaks the protocol of sd_notify(3): systemd, or one like it.
//!
//! Nothing happens without the variable `NOTIFY_SOCKET`. A notification that cannot be sent is a line in the log and no
//! failure: the relay serves all the same.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sd_notify::NotifyState;

/// How much longer a start may take than `TimeoutStartSec=`, from each [`NotifyState::ExtendTimeoutUsec`] on.
const EXTENSION: Duration = Duration::from_secs(30);
/// The time between two of them.
const EXTENSION_INTERVAL: Duration = Duration::from_secs(10);
/// A start that takes longer than about an hour is taken for one that hangs: the service manager may end it.
const EXTENSIONS: usize = 360;

/// Whether a service manager waits for notifications.
pub fn is_notified() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// The relay serves, for the first time or after a reload. `status` is a line for `systemctl status`.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The relay reads its settings again; [`ready`] follows, also if they were refused.
pub fn reloading() {
    // systemd compares this time with the one at which it sent the signal.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(failed) => log::warn!(error:% = failed; "the clock cannot be read"),
    }
}

/// The relay closes its sessions and ends.
pub fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("closing the sessions")]);
}

/// The relay is well, and is not to be restarted.
pub fn watchdog(status: &str) {
    notify(&[NotifyState::Watchdog, NotifyState::Status(status)]);
}

/// The relay serves, and something is wrong with it.
pub fn status(status: &str) {
    notify(&[NotifyState::Status(status)]);
}

/// How often [`watchdog`] must be called: half of the time after which the service manager restarts the relay. `None` if it
/// watches no process, or another one.
pub fn watchdog_interval() -> Option<Duration> {
    let limit = sd_notify::watchdog_enabled().filter(|_| is_notified())?;
    Some(limit / 2).filter(|interval| !interval.is_zero())
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(failed) = sd_notify::notify(states) {
        log::warn!(error:% = failed; "the service manager cannot be notified");
    }
}

/// While this value lives, the service manager gives the start more time: a long queue is read from the disk.
pub struct LongStart {
    /// Ends the thread when it is dropped.
    started: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl LongStart {
    /// Starts a thread, since the start blocks all others; none without a service manager.
    pub fn begin() -> Self {
        let (started, is_started) = channel();
        let extend = move || {
            for _ in 0..EXTENSIONS {
                let micros = u32::try_from(EXTENSION.as_micros()).unwrap_or(u32::MAX);
                let status = NotifyState::Status("reading the queue");
                notify(&[NotifyState::ExtendTimeoutUsec(micros), status]);
                let ended = is_started.recv_timeout(EXTENSION_INTERVAL);
                if ended != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("long_start".into());
        let thread = is_notified().then(|| thread.spawn(extend)).and_then(Result::ok);
        Self { started: Some(started), thread }
    }
}

impl Drop for LongStart {
    /// Waits for the thread, so that nothing of it comes after [`ready`].
    fn drop(&mut self) {
        self.started = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
