use std::process::Command;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::oneshot;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::abort_on_panic::EXIT_CODE;
use crate::access::Policy;
use crate::actors::abort_on_panic;
use crate::actors::rate_limiter::RateLimiter;
use crate::actors::registry::{Observe, Registry};
use crate::actors::test_probe::RunOnActor;
use crate::actors::ttl_sweeper::TtlSweeper;

/// The environment variable that names the actor that panics in a child process of this test.
const PANIC_IN: &str = "SEALPOST_TEST_PANIC_IN";

/// The test runs itself again, in child processes that end.
#[test]
fn a_core_actor_that_panics_ends_the_process() {
    if let Ok(actor) = std::env::var(PANIC_IN) {
        return actix_rt::System::new().block_on(panics_in(&actor));
    }
    for actor in ["registry", "rate_limiter", "ttl_sweeper"] {
        let program = std::env::current_exe().expect("this program");
        let name = "app::tests::a_core_actor_that_panics_ends_the_process";
        let ended = Command::new(program).args(["--exact", name]).env(PANIC_IN, actor).output();
        let ended = ended.expect("it runs");
        assert_eq!(ended.status.code(), Some(EXIT_CODE), "{actor} {ended:?}");
    }
}

async fn panics_in(actor: &str) {
    let (settings, clock) = (Arc::new(Settings::default()), Clock::system());
    let plan = RatePlan::new(settings.rate_limit.clone(), clock.clone());
    let ingress = Ingress::new(settings.clone(), None, None, plan, clock.clone());
    let core = start_core(&settings, &clock, &ingress, None, Arc::new(Policy::Open));
    let sent = match actor {
        "registry" => {
            core.registry.try_send(RunOnActor::new(|_: &mut Registry| panic!("a deliberate panic")))
        }
        "rate_limiter" => {
            let sent = core
                .limiter
                .try_send(RunOnActor::new(|_: &mut RateLimiter| panic!("a deliberate panic")));
            assert!(sent.is_ok());
            Ok(())
        }
        _ => {
            let sweeper = TtlSweeper::new(
                settings.sweeper.interval,
                core.registry.clone().recipient(),
                core.registry.clone().recipient(),
            );
            let sweeper = abort_on_panic::start("ttl_sweeper", sweeper);
            assert!(
                sweeper
                    .try_send(RunOnActor::new(|_: &mut TtlSweeper| panic!("a deliberate panic")))
                    .is_ok()
            );
            Ok(())
        }
    };
    assert!(sent.is_ok());
    tokio::time::sleep(Duration::from_secs(20)).await;
}

type Client = WebSocketStream<tokio::net::TcpStream>;

async fn device(relay: SocketAddr) -> Client {
    let tcp = tokio::net::TcpStream::connect(relay).await.expect("the relay listens");
    let url = format!("ws://{relay}/ws");
    let (mut client, _) = tokio_tungstenite::client_async(url, tcp).await.expect("an upgrade");
    client.send(Message::text(r#"{"type":"Register"}"#)).await.expect("sent");
    assert!(next(&mut client).await.to_text().expect("text").contains("RegisterResponse"));
    client
}

async fn next(client: &mut Client) -> Message {
    let next = tokio::time::timeout(Duration::from_secs(20), client.next()).await;
    next.expect("something in time").expect("a connection").expect("a message")
}

#[actix_rt::test]
async fn a_session_that_panics_ends_alone() {
    let mut settings = Settings::default();
    settings.server.listen.set_port(0);
    settings.server.admin_listen = AdminAddress::Tcp(settings.server.listen);
    // This test needs no queue, and must not create one among the sources.
    settings.queue.durable = false;
    let app = App::build(settings, Clock::system()).expect("free ports");
    let (relay, ingress) = (app.public_address(), app.ingress.clone());
    let (stop, stopped) = oneshot::channel::<()>();
    let running = actix_rt::spawn(app.run(async {
        let _ = stopped.await;
    }));
    let (mut bystander, mut victim) = (device(relay).await, device(relay).await);
    victim.send(Message::text("panic")).await.expect("sent");
    match next(&mut victim).await {
        Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1011),
        other => panic!("{other:?}"),
    }
    while victim.next().await.is_some_and(|message| message.is_ok()) {}
    bystander.send(Message::text(r#"{"type":"Ping"}"#)).await.expect("sent");
    assert!(next(&mut bystander).await.to_text().expect("text").contains("Pong"));
    let core = ingress.core.get().expect("a core").clone();
    assert_eq!(core.registry.send(Observe).await.expect("it lives").connected, 1);
    drop((bystander, victim));
    tokio::time::timeout(Duration::from_secs(20), ingress.connections.all_closed())
        .await
        .expect("all");
    drop(stop);
    running.await.expect("no panic").expect("a good end");
}

#[actix_rt::test]
async fn the_hook_before_serving_runs_once_and_before_the_first_connection() {
    let mut settings = Settings::default();
    settings.server.listen.set_port(0);
    settings.server.admin_listen = AdminAddress::Tcp(settings.server.listen);
    settings.server.workers = 2;
    settings.queue.durable = false;
    let app = App::build(settings, Clock::system()).expect("free ports");
    let (relay, runs) = (app.public_address(), Arc::new(AtomicUsize::new(0)));
    app.before_serving({
        let (runs, ingress) = (runs.clone(), app.ingress.clone());
        move || {
            assert!(ingress.core.get().is_none(), "nothing is served without a core");
            runs.fetch_add(1, Relaxed);
        }
    });
    assert_eq!(runs.load(Relaxed), 0);
    let (stop, stopped) = oneshot::channel::<()>();
    let running = actix_rt::spawn(app.run(async {
        let _ = stopped.await;
    }));
    let client = device(relay).await;
    assert_eq!(runs.load(Relaxed), 1);
    drop((client, stop));
    running.await.expect("no panic").expect("a good end");
}

/// A Registry that is blocked answers no check, and is well when it goes on.
#[actix_rt::test]
async fn a_core_that_hangs_is_not_reported_as_alive() {
    let mut settings = Settings::default();
    settings.server.listen.set_port(0);
    settings.server.admin_listen = AdminAddress::Tcp(settings.server.listen);
    settings.queue.durable = false;
    let app = App::build(settings, Clock::system()).expect("free ports");
    let (relay, ingress, check) = (app.public_address(), app.ingress.clone(), app.health_check());
    let soon = Duration::from_millis(50);
    let (stop, stopped) = oneshot::channel::<()>();
    let running = actix_rt::spawn(app.run(async {
        let _ = stopped.await;
    }));
    let client = device(relay).await;
    let patience = Duration::from_secs(20);
    let well = Health::Alive("1 devices connected, 0 messages queued".to_owned());
    assert_eq!(check.check(patience).await, well);

    let (go_on, blocked) = std::sync::mpsc::channel::<()>();
    let core = ingress.core.get().expect("a core");
    let block = RunOnActor::new(move |_: &mut Registry| {
        let _ = blocked.recv();
    });
    assert!(core.registry.try_send(block).is_ok());
    assert_eq!(check.check(soon).await, Health::Hangs("the core does not answer"));
    drop(go_on);
    assert_eq!(check.check(patience).await, well);
    drop((client, stop));
    running.await.expect("no panic").expect("a good end");
}
