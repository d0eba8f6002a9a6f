//! The TtlSweeper: owns the expiry clock. It drops what expired and tells the senders.
//!
//! It has a timer of its own, so a flooded Registry delays it but never starves it, and it works in slices between which
//! live traffic passes. Notices first, deletion after: if the second step never comes, the first finds the same again.

use std::time::Duration;

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, Recipient, WrapFuture,
};

use super::registry::{DropExpired, NextExpired};
use crate::protocol::encode;
use crate::relay::router::Expired;

/// Items of one slice: live traffic waits for at most so many, and a slice holds it up for less time than it takes a frame
/// to pass the relay.
const SLICE: usize = 64;

/// Between two slices. A million that expire at once are no hurry, and live traffic shares the core not only with the
/// slices but with the disk, which has to forget as many.
const PAUSE: Duration = Duration::from_millis(2);

/// See the module.
pub struct TtlSweeper {
    interval: Duration,
    find: Recipient<NextExpired>,
    forget: Recipient<DropExpired>,
    sweeping: bool,
}

/// Looks for what has expired, now.
#[derive(Message)]
#[rtype(result = "()")]
struct Sweep;

impl TtlSweeper {
    /// Sweeps that Registry every `interval`.
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
            Ok(expired) if !expired.is_empty() => sweeper.report(expired, ctx),
            Ok(_) => sweeper.sweeping = false,
            Err(failed) => {
                sweeper.sweeping = false;
                log::error!("the registry does not answer the sweeper error={failed}");
            }
        }));
    }

    fn report(&mut self, expired: Vec<Expired>, ctx: &mut Context<Self>) {
        let full = expired.len() >= SLICE;
        let end = expired.last().map_or(0, |last| last.ticket + 1);
        let notices = expired
            .into_iter()
            .filter_map(|Expired { ticket, error, .. }| {
                error.map(|(refusal, about)| (ticket, encode::error(refusal, &about)))
            })
            .collect();
        let dropped = self.forget.send(DropExpired { end, notices }).into_actor(self);
        ctx.spawn(dropped.map(move |_, sweeper, ctx| {
            sweeper.sweeping = false;
            if full {
                ctx.notify_later(Sweep, PAUSE);
            }
        }));
    }
}

impl Actor for TtlSweeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(self.interval, |sweeper, ctx| sweeper.sweep(ctx));
    }
}

impl Handler<Sweep> for TtlSweeper {
    type Result = ();

    fn handle(&mut self, _: Sweep, ctx: &mut Self::Context) {
        self.sweep(ctx);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use actix::MessageResult;
    use tokio::time::Instant;

    use super::*;
    use crate::protocol::id::DeviceId;
    use crate::relay::router::Ticket;

    /// Expired things, by ticket, and how many were dropped.
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
            let expired = |ticket| Expired { ticket, sender, error: None };
            MessageResult((self.first..self.first + count).map(expired).collect())
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
    async fn what_expires_at_once_is_dropped_in_slices_with_pauses() {
        let left = Arc::new(AtomicUsize::new(10 * SLICE + 1));
        let expiring = Expiring { first: 7, left: left.clone() }.start();
        let (find, forget) = (expiring.clone().recipient(), expiring.recipient());
        // Swept once; what follows is up to the sweeper, not to its clock.
        let hour = Duration::from_secs(3600);
        let begun = Instant::now();
        TtlSweeper::new(hour, find, forget).start().try_send(Sweep).unwrap();
        while left.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        assert!(begun.elapsed() >= 10 * PAUSE, "{:?}", begun.elapsed());
    }
}
