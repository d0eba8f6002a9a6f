//! The TtlSweeper: at an interval it asks the Registry for expired items, encodes an `Error` for each sender, and has the
//! Registry store the errors and delete the items in one step.
//!
//! It has its own timer, so a flooded Registry can delay but not starve it. It works in slices, between which the Registry
//! handles live traffic. If the second step never comes, the next sweep finds the same items again.

use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Recipient, WrapFuture};

use super::registry::{DropExpired, NextExpired};
use crate::protocol::encode;
use crate::relay::router::{ExpiryNotice, Sweep};

/// Items in one slice. Live traffic waits for one slice at most, which takes less time than a frame needs to pass the
/// relay.
const SLICE: usize = 64;
/// Pause between two slices. A million items that expire at once are not urgent, and live traffic shares the core with
/// the sweeper and with the store, which deletes as many records.
const PAUSE: Duration = Duration::from_millis(2);

pub struct TtlSweeper {
    interval: Duration,
    find: Recipient<NextExpired>,
    forget: Recipient<DropExpired>,
    sweeping: bool,
}

impl TtlSweeper {
    pub fn new(
        interval: Duration,
        find: Recipient<NextExpired>,
        forget: Recipient<DropExpired>,
    ) -> Self {
        Self { interval, find, forget, sweeping: false }
    }

    fn sweep(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.sweeping, true) {
            return;
        }
        let found = self.find.send(NextExpired { limit: SLICE }).into_actor(self);
        ctx.spawn(found.map(|found, sweeper, ctx| match found {
            Ok(Sweep { expired, more }) if !expired.is_empty() => {
                sweeper.report(expired, more, ctx);
            }
            Ok(Sweep { more, .. }) => sweeper.end_slice(more, ctx),
            Err(failed) => {
                sweeper.sweeping = false;
                log::error!(error:% = failed; "the registry does not answer the sweeper");
            }
        }));
    }

    /// Ends a slice; there is another one if there is more to find.
    fn end_slice(&mut self, more: bool, ctx: &mut Context<Self>) {
        self.sweeping = false;
        if more {
            ctx.run_later(PAUSE, Self::sweep);
        }
    }

    fn report(&mut self, expired: Vec<ExpiryNotice>, more: bool, ctx: &mut Context<Self>) {
        let more = more || expired.len() >= SLICE;
        let end = expired.last().map_or(0, |last| last.ticket + 1);
        let notices = expired
            .into_iter()
            .filter_map(|ExpiryNotice { ticket, error, .. }| {
                error.map(|(refusal, about)| (ticket, encode::error(refusal, &about)))
            })
            .collect();
        let dropped = self.forget.send(DropExpired { end, notices }).into_actor(self);
        ctx.spawn(dropped.map(move |_, sweeper, ctx| {
            sweeper.end_slice(more, ctx);
        }));
    }
}

impl Actor for TtlSweeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(self.interval, Self::sweep);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use actix::{Handler, MessageResult};
    use tokio::time::Instant;

    use super::*;
    use crate::protocol::id::DeviceId;
    use crate::relay::router::Ticket;

    /// A Registry with `left` expired items, whose tickets begin at `first`.
    struct Expiring {
        first: Ticket,
        left: Arc<AtomicUsize>,
    }

    impl Actor for Expiring {
        type Context = Context<Self>;
    }

    impl Handler<NextExpired> for Expiring {
        type Result = MessageResult<NextExpired>;

        fn handle(&mut self, asked: NextExpired, _: &mut Self::Context) -> Self::Result {
            let count = asked.limit.min(self.left.load(Ordering::Relaxed)) as Ticket;
            let sender = DeviceId::from_u128(1);
            let expired = |ticket| ExpiryNotice { ticket, sender, error: None };
            let expired = (self.first..self.first + count).map(expired).collect();
            MessageResult(Sweep { expired, more: false })
        }
    }

    impl Handler<DropExpired> for Expiring {
        type Result = ();

        fn handle(&mut self, dropped: DropExpired, _: &mut Self::Context) {
            let count = (dropped.end - self.first) as usize;
            assert!(count <= SLICE, "{count} in one slice");
            self.left.fetch_sub(count, Ordering::Relaxed);
            self.first = dropped.end;
        }
    }

    #[actix::test]
    async fn items_that_expire_at_once_are_dropped_in_slices_with_pauses() {
        let left = Arc::new(AtomicUsize::new(10 * SLICE + 1));
        let expiring = Expiring { first: 7, left: left.clone() }.start();
        let (find, forget) = (expiring.clone().recipient(), expiring.recipient());
        // One sweep only: the interval is too long for a second one, so every further slice comes from the sweeper itself.
        let hour = Duration::from_secs(3600);
        let started = Instant::now();
        TtlSweeper::create(|ctx| {
            let mut sweeper = TtlSweeper::new(hour, find, forget);
            sweeper.sweep(ctx);
            sweeper
        });
        while left.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        assert!(started.elapsed() >= 10 * PAUSE, "{:?}", started.elapsed());
    }
}
