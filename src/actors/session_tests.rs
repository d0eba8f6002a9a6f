use std::sync::mpsc;

use actix::{Arbiter, Recipient};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::DuplexStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message as Ws, protocol::Role};

use super::*;
use crate::access::Policy;
use crate::actors::abort_on_panic;
use crate::actors::access_control::AccessControl;
use crate::actors::registry::WriteProgress;
use crate::actors::test_probe::{RunOnActor, look};
use crate::clock::Clock;
use crate::relay::access_rates::AccessRates;
use crate::relay::rate_limit::{Allowance, RatePlan};
use crate::settings::Settings;
use crate::store::memory::Memory;
use crate::store::records::HashKey;
use crate::transport;
use crate::web::ingress::InForce;

/// A core on a thread of its own, as a session on another worker sees it.
async fn core_elsewhere(
    arbiter: &Arbiter,
    plan: &Arc<RatePlan>,
    clock: &Clock,
) -> Arc<CoreHandles> {
    let (core_sender, core_receiver) = tokio::sync::oneshot::channel();
    let (plan, clock) = (plan.clone(), clock.clone());
    arbiter.spawn_fn(move || {
        let settings = Arc::new(Settings::default());
        let watermarks = WriteWatermarks::default();
        let registry =
            Registry::new(clock.clone(), settings.clone(), Box::new(Memory), watermarks.clone());
        let registry = abort_on_panic::start("registry", registry);
        let rates = AccessRates::new(settings.rate_limit.clone(), &Policy::Open, clock.clone());
        let access = AccessControl::new(Arc::new(Policy::Open), rates);
        let key = HashKey::default();
        let limiter = RateLimiter::new(clock, plan, settings, key, access, registry.clone());
        let limiter = abort_on_panic::start("rate_limiter", limiter);
        let _ = core_sender.send(Arc::new(CoreHandles { registry, limiter, watermarks }));
    });
    core_receiver.await.expect("the core starts")
}

type Client = WebSocketStream<DuplexStream>;

async fn expect_text(client: &mut Client, what: &str) {
    let next = tokio::time::timeout(Duration::from_secs(20), client.next()).await;
    let text = next.expect("something in time").expect("a connection").expect("a message");
    assert!(text.to_text().expect("text").contains(what), "{text:?}");
}

/// A recipient that sends nothing has no batch, so no acknowledged batch resumes the reading of its socket.
#[actix::test]
#[allow(clippy::disallowed_methods, reason = "the flood is the test")]
async fn a_session_reads_its_socket_again_when_an_overloaded_registry_has_caught_up() {
    let (arbiter, clock, settings) =
        (Arbiter::new(), Clock::system(), Arc::new(Settings::default()));
    let plan = RatePlan::new(settings.rate_limit.clone(), clock.clone());
    let core = core_elsewhere(&arbiter, &plan, &clock).await;
    let (near, far) = tokio::io::duplex(64 * 1024);
    let session = {
        let (core, InForce { settings, transport: limits }) =
            (core.clone(), settings.clone().into());
        transport::connection(near, bytes::Bytes::new(), limits, move |socket| {
            let (id, address) = (ConnectionId(1), [127, 0, 0, 1].into());
            let allowance = Allowance::new(plan);
            Session::new(id, address, settings, core, allowance, None, socket)
        })
    };
    actix::spawn(session);
    let mut client = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
    client.send(Ws::text(r#"{"type":"Register"}"#)).await.expect("sent");
    expect_text(&mut client, "RegisterResponse").await;
    let session: Recipient<DeliveryBatch> =
        look(&core.registry, |registry| registry.session_of(ConnectionId(1))).await;

    // The Registry is blocked, and more messages wait than its mailbox should hold.
    let (free, freed) = mpsc::channel::<()>();
    core.registry.do_send(RunOnActor::new(move |_: &mut Registry| {
        let _ = freed.recv();
    }));
    for _ in 0..5000 {
        core.registry.do_send(WriteProgress);
    }
    for seq in 1..3 {
        let body = ByteString::from(format!("mail {seq}"));
        let deliveries = vec![Delivery::Frame { seq, body, kind: Outgoing::Receive }];
        session
            .send(DeliveryBatch { deliveries, ..DeliveryBatch::default() })
            .await
            .expect("it lives");
        expect_text(&mut client, &format!("mail {seq}")).await;
    }
    client.send(Ws::text(r#"{"type":"Ping"}"#)).await.expect("sent");
    free.send(()).expect("it waits");
    expect_text(&mut client, "Pong").await;
    arbiter.stop();
}
