//! The TtlSweeper: owns the expiry clock. It drops what expired and tells the senders.
//!
//! It has a timer of its own, so a flooded Registry delays it but never starves it, and it works in slices between which
//! live traffic passes. Notices first, deletion after: if the second step never comes, the first finds the same again.

use std::time::Duration;

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, Recipient, WrapFuture,
};

use super::registry::{DropExpired, NextExpired};
use crate::protocol::server;
use crate::relay::router::Expired;

/// Items of one slice.
const SLICE: usize = 512;

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
                error.map(|(refusal, about)| (ticket, server::error(refusal, &about)))
            })
            .collect();
        let dropped = self.forget.send(DropExpired { end, notices }).into_actor(self);
        ctx.spawn(dropped.map(move |_, sweeper, ctx| {
            sweeper.sweeping = false;
            if full {
                // Through the own mailbox, so that others have their turn before the next slice.
                ctx.notify(Sweep);
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
