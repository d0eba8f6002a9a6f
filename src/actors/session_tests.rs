use std::sync::mpsc;

use actix::{Arbiter, Recipient};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::DuplexStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message as Ws, protocol::Role};

use super::*;
use crate::actors::deed::{Deed, look};
use crate::actors::fuse;
use crate::clock::Clock;
use crate::relay::quota::{Allowance, Plan};
use crate::relay::router::Rules;
use crate::settings::Settings;
use crate::store::memory::Memory;
use crate::transport;
use crate::web::doorway::Opening;

/// A core on a thread of its own, as a session on another worker sees it.
async fn core_elsewhere(arbiter: &Arbiter, plan: &Arc<Plan>, clock: &Clock) -> Arc<Core> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let (plan, clock) = (plan.clone(), clock.clone());
    arbiter.spawn_fn(move || {
        let settings = Settings::default();
        let rules = Rules::from(&settings);
        let marks = Marks::default();
        let registry = Registry::new(clock.clone(), rules, Box::new(Memory), marks.clone());
        let registry = fuse::start("registry", registry);
        let limiter = RateLimiter::new(clock, plan, &settings, registry.clone());
        let limiter = fuse::start("rate_limiter", limiter);
        let _ = tell.send(Arc::new(Core { registry, limiter, marks }));
    });
    told.await.expect("the core starts")
}

type Client = WebSocketStream<DuplexStream>;

async fn hears(client: &mut Client, what: &str) {
    let next = tokio::time::timeout(Duration::from_secs(20), client.next()).await;
    let heard = next.expect("something in time").expect("a connection").expect("a message");
    assert!(heard.to_text().expect("text").contains(what), "{heard:?}");
}

/// A recipient that says nothing itself has no batch whose answer would let its socket be read again.
#[actix::test]
#[allow(clippy::disallowed_methods, reason = "the flood is the test")]
async fn a_session_is_heard_again_when_a_registry_that_was_too_busy_for_its_marks_has_caught_up() {
    let (arbiter, clock, settings) = (Arbiter::new(), Clock::system(), Settings::default());
    let plan = Plan::new(settings.rate_limit.clone(), clock.clone());
    let core = core_elsewhere(&arbiter, &plan, &clock).await;
    let (near, far) = tokio::io::duplex(64 * 1024);
    let session = {
        let (core, opening) = (core.clone(), Opening::from(&settings));
        transport::connection(near, bytes::Bytes::new(), opening.transport, move |line| {
            let lease = Allowance::new(plan);
            Session::new(1, [127, 0, 0, 1].into(), opening.terms, core, lease, line)
        })
    };
    actix::spawn(session);
    let mut client = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
    client.send(Ws::text(r#"{"type":"Register"}"#)).await.expect("sent");
    hears(&mut client, "RegisterResponse").await;
    let session: Recipient<Turn> = look(&core.registry, |registry| registry.session_of(1)).await;

    // The Registry is busy, and has more before it than its mailbox should hold.
    let (free, freed) = mpsc::channel::<()>();
    core.registry.do_send(Deed::new(move |_: &mut Registry| {
        let _ = freed.recv();
    }));
    for _ in 0..5000 {
        core.registry.do_send(Marked);
    }
    for mark in 1..3 {
        let body = ByteString::from(format!("mail {mark}"));
        let posts = vec![Post::Mail { mark, body }];
        session.send(Turn { posts, ..Turn::default() }).await.expect("it lives");
        hears(&mut client, &format!("mail {mark}")).await;
    }
    client.send(Ws::text(r#"{"type":"Ping"}"#)).await.expect("sent");
    free.send(()).expect("it waits");
    hears(&mut client, "Pong").await;
    arbiter.stop();
}
