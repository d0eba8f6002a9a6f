//! Lets a test do anything inside a core actor: look, block, panic.

use actix::{Addr, Handler, Message};

use super::rate_limiter::RateLimiter;
use super::registry::Registry;
use super::ttl_sweeper::TtlSweeper;

/// What to do.
pub struct Deed<A>(Box<dyn FnOnce(&mut A) + Send>);

impl<A> Deed<A> {
    /// Does this.
    #[must_use]
    pub fn new(deed: impl FnOnce(&mut A) + Send + 'static) -> Self {
        Self(Box::new(deed))
    }
}

impl<A> Message for Deed<A> {
    type Result = ();
}

macro_rules! does_deeds {
    ($($actor:ty)*) => {$(
        impl Handler<Deed<$actor>> for $actor {
            type Result = ();

            fn handle(&mut self, Deed(deed): Deed<$actor>, _: &mut Self::Context) {
                deed(self);
            }
        }
    )*};
}

does_deeds!(Registry RateLimiter TtlSweeper);

/// What a look into the Registry finds.
pub async fn look<T: Send + 'static>(
    registry: &Addr<Registry>,
    look: impl FnOnce(&mut Registry) -> T + Send + 'static,
) -> T {
    let (tell, told) = tokio::sync::oneshot::channel();
    let deed = Deed::new(move |registry: &mut Registry| {
        let _ = tell.send(look(registry));
    });
    registry.send(deed).await.expect("the registry lives");
    told.await.expect("the look is over")
}
