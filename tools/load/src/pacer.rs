//! Says when to send, more exactly than a timer wheel of milliseconds.
//!
//! The kernel's timer wakes a thread, the thread wakes us; the thread knows nothing of messages.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::sync::Notify;

use crate::stats::Stats;

/// Not more often than this is it looked what is due: a message may go out so much late, and it counts. Shorter, the
/// wake-ups would cost more than the messages.
const SHORTEST: Duration = Duration::from_micros(100);
/// And not less often.
const LONGEST: Duration = Duration::from_millis(100);

/// Calls `send` with 0, 1, 2… and the time at which each was due, `rate` times a second, until the run is stopped. Being
/// late moves nothing: what is overdue is sent at once, and its time stays what it was.
///
/// # Errors
///
/// When the system has no timer or no thread for us.
pub fn pace(
    stats: Rc<Stats>,
    rate: f64,
    mut send: impl FnMut(usize, u64),
) -> io::Result<impl Future<Output = ()>> {
    let tick = Arc::new(Notify::new());
    let interval = Duration::try_from_secs_f64(1.0 / rate).map_err(io::Error::other)?;
    let timer = timer(interval.clamp(SHORTEST, LONGEST))?;
    let ticking = Arc::downgrade(&tick);
    thread::Builder::new()
        .name("pacer".to_owned())
        .spawn(move || keep_ticking(&timer, &ticking))?;
    Ok(async move {
        let start = stats.now();
        let due = |number: usize| start + (number as f64 * 1e9 / rate) as u64;
        let mut number = 0;
        while !stats.is_stopped() {
            let now = stats.now();
            while due(number) <= now {
                send(number, due(number));
                number += 1;
            }
            tick.notified().await;
        }
    })
}

/// A timer that goes off again and again.
fn timer(interval: Duration) -> io::Result<OwnedFd> {
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
    let interval =
        Timespec { tv_sec: interval.as_secs() as i64, tv_nsec: interval.subsec_nanos().into() };
    let repeatedly = Itimerspec { it_interval: interval, it_value: interval };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &repeatedly)?;
    Ok(timer)
}

/// Until nobody listens any more.
fn keep_ticking(timer: &OwnedFd, tick: &Weak<Notify>) {
    while rustix::io::read(timer, &mut [0; 8]).is_ok() {
        let Some(tick) = tick.upgrade() else { return };
        tick.notify_one();
    }
}
