//! A core actor that panics ends the process.
//!
//! actix would leave a zombie: connections accepted, everything sent to it lost. The service manager starts the relay
//! anew, and nothing that was acked is lost. The process ends before the panic has unwound, because actix would let the
//! broken actor hear what is left in its mailbox.

use std::future::{Future as _, poll_fn};

use actix::{Actor, Addr, AsyncContext as _, Context};

/// The exit status of a relay whose core has panicked (EX_SOFTWARE of sysexits.h).
pub const EXIT_CODE: i32 = 70;

/// Starts a core actor on this thread's arbiter. From now on the process does not outlive it.
pub fn start<A: Actor<Context = Context<A>>>(name: &'static str, actor: A) -> Addr<A> {
    create(name, |_| actor)
}

/// The same for an actor that must know its own address from the beginning.
pub fn create<A: Actor<Context = Context<A>>>(
    name: &'static str,
    actor: impl FnOnce(&Addr<A>) -> A,
) -> Addr<A> {
    let context = Context::new();
    let address = context.address();
    let mut life = Box::pin(context.into_future(actor(&address)));
    actix_rt::spawn(poll_fn(move |cx| {
        let _fuse = AbortOnPanic(name);
        life.as_mut().poll(cx)
    }));
    address
}

/// Held while a core actor does anything; burns through if the stack unwinds.
struct AbortOnPanic(&'static str);

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            log::error!("core actor panicked, the process ends actor={}", self.0);
            log::logger().flush();
            std::process::exit(EXIT_CODE);
        }
    }
}
