//! Starts core actors so that the process ends if one of them panics.
//!
//! actix would drop the actor and leave its mailbox open: the relay would accept connections and lose what they send.
//! The guard ends the process before the panic has unwound, because actix would deliver the rest of the mailbox to the
//! broken actor.

use std::future::{Future as _, poll_fn};

use actix::{Actor, Addr, AsyncContext as _, Context};

use crate::abort_on_panic::AbortOnPanic;

/// Starts a core actor on this thread's arbiter.
pub fn start<A: Actor<Context = Context<A>>>(name: &'static str, actor: A) -> Addr<A> {
    create(name, |_| actor)
}

/// Starts an actor whose constructor needs its address.
pub fn create<A: Actor<Context = Context<A>>>(
    name: &'static str,
    actor: impl FnOnce(&Addr<A>) -> A,
) -> Addr<A> {
    let context = Context::new();
    let address = context.address();
    let mut life = Box::pin(context.into_future(actor(&address)));
    actix_rt::spawn(poll_fn(move |cx| {
        let _guard = AbortOnPanic(name);
        life.as_mut().poll(cx)
    }));
    address
}
