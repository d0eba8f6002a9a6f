//! Lets a test do anything inside a core actor: look, block, panic.

use actix::{Addr, Handler, Message};

use super::rate_limiter::RateLimiter;
use super::registry::Registry;
use super::ttl_sweeper::TtlSweeper;

/// What to do.
pub struct RunOnActor<A>(Box<dyn FnOnce(&mut A) + Send>);

impl<A> RunOnActor<A> {
    /// Does this.
    #[must_use]
    pub fn new(test_probe: impl FnOnce(&mut A) + Send + 'static) -> Self {
        Self(Box::new(test_probe))
    }
}

impl<A> Message for RunOnActor<A> {
    type Result = ();
}

macro_rules! run_on_actor {
    ($($actor:ty)*) => {$(
        impl Handler<RunOnActor<$actor>> for $actor {
            type Result = ();

            fn handle(&mut self, RunOnActor(test_probe): RunOnActor<$actor>, _: &mut Self::Context) {
                test_probe(self);
            }
        }
    )*};
}

run_on_actor!(Registry RateLimiter TtlSweeper);

/// What a look into the Registry finds.
pub async fn look<T: Send + 'static>(
    registry: &Addr<Registry>,
    look: impl FnOnce(&mut Registry) -> T + Send + 'static,
) -> T {
    let (tell, told) = tokio::sync::oneshot::channel();
    let test_probe = RunOnActor::new(move |registry: &mut Registry| {
        let _ = tell.send(look(registry));
    });
    registry.send(test_probe).await.expect("the registry lives");
    told.await.expect("the look is over")
}
