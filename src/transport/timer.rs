//! One timer per connection, armed lazily.
//!
//! Moving a deadline on with every message would cost more than the message. So a timer that was
//! armed too early is left to fire, and then armed for the next deadline. Until then tokio's timer is
//! not read: the memory of an idle connection's timer has left the caches.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::{
    task::coop,
    time::{Instant, Sleep, sleep_until},
};

/// A sleep that is only moved when it must fire earlier than armed.
#[derive(Debug)]
pub(super) struct Timer {
    sleep: Pin<Box<Sleep>>,
    /// When it fires, and the waker of the task.
    armed: Option<(Instant, Waker)>,
}

impl Timer {
    pub(super) fn new(first: Instant) -> Self {
        Timer { sleep: Box::pin(sleep_until(first)), armed: None }
    }

    /// `Ready` once `due` has come; otherwise the task is woken then, or somewhat earlier.
    pub(super) fn poll(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<Instant> {
        if let Some((fires, waker)) = &self.armed
            && *fires <= due
            && Instant::now() < *fires
            && waker.will_wake(cx.waker())
        {
            return Poll::Pending;
        }
        self.armed = None;
        if due < self.sleep.deadline() {
            self.sleep.as_mut().reset(due);
        }
        while self.sleep.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if due <= now {
                return Poll::Ready(now);
            }
            self.sleep.as_mut().reset(due);
        }
        // A task without cooperative budget gets `Pending` before the timer has registered its waker.
        if coop::has_budget_remaining() {
            self.armed = Some((self.sleep.deadline(), cx.waker().clone()));
        }
        Poll::Pending
    }
}
