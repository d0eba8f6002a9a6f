//! One timer per connection, armed lazily.
//!
//! Moving a deadline on with every message would cost more than the message. So a timer that was
//! armed too early is left to fire, and then armed for what is due next.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A sleep that is only moved when it must fire earlier than armed.
#[derive(Debug)]
pub(super) struct Timer {
    sleep: Pin<Box<Sleep>>,
}

impl Timer {
    pub(super) fn new(first: Instant) -> Self {
        Timer { sleep: Box::pin(sleep_until(first)) }
    }

    /// `Ready` once `due` has come; otherwise the task is woken then, or somewhat earlier.
    pub(super) fn poll(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<Instant> {
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
        Poll::Pending
    }
}
