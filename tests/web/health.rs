//! The health endpoints that operators use. (operations: Seeing it)

use std::time::Duration;

use crate::support::http::{ask_lines, get, handshake};
use crate::support::{RawClient, Relay, eventually};

#[actix_rt::test]
async fn liveness_and_readiness_are_served_on_both_listeners_and_health_only_on_the_admin_listener()
{
    let relay = Relay::start();
    for address in [relay.public, relay.admin] {
        assert_eq!(get(address, "/livez").await.status, 200);
        assert_eq!(get(address, "/readyz").await.status, 200);
    }
    assert_eq!(get(relay.public, "/healthz").await.status, 404);
    assert_eq!(ask_lines(relay.admin, &handshake()).await.status, 404, "no WebSocket there");
    let _client = RawClient::plain(relay.public).await;
    let health = relay.health().await;
    assert_eq!(health["status"], "ok");
    assert_eq!(
        (&health["connections"], &health["connected"], &health["devices"]),
        (&1.into(), &1.into(), &1.into())
    );
}

#[actix_rt::test]
async fn a_draining_relay_accepts_no_connection_and_reports_that_it_is_not_ready() {
    let mut relay = Relay::with(|settings| settings.server.drain_timeout = Duration::from_secs(1));
    // A connection that has not answered its Close keeps the relay draining.
    let mut client = RawClient::plain(relay.public).await;
    let (public, admin) = (relay.public, relay.admin);
    let stopped = std::thread::spawn(move || relay.stop());
    client.expect_closed_with(1001).await;
    for address in [public, admin] {
        let answer = get(address, "/readyz").await;
        assert_eq!((answer.status, answer.body.as_str()), (503, "draining\n"));
        assert_eq!(get(address, "/livez").await.status, 200);
    }
    let answer = ask_lines(public, &handshake()).await;
    assert_eq!((answer.status, answer.header("Retry-After")), (503, Some("5")));
    drop(client);
    eventually("the end", async || stopped.is_finished()).await;
    stopped.join().expect("no panic").expect("a good end");
}
