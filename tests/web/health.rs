//! The health endpoints that operators use. (operations: Seeing it)

use std::time::Duration;

use crate::support::http::{ask, ask_lines, get, handshake, handshake_to};
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
    assert_eq!(
        ask_lines(relay.admin, &handshake_to("localhost")).await.status,
        404,
        "no WebSocket there"
    );
    let _client = RawClient::plain(relay.public).await;
    let health = relay.health().await;
    assert_eq!(health["status"], "ok");
    assert_eq!(
        (&health["connections"], &health["connected"], &health["devices"]),
        (&1.into(), &1.into(), &1.into())
    );
}

#[actix_rt::test]
async fn the_admin_listener_is_served_by_names_that_cannot_be_redirected() {
    let relay = Relay::start();
    let status_of = async |to, request: &str| ask(to, request.as_bytes()).await.status;
    let named = async |to, host: &str| {
        status_of(to, &format!("GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n")).await
    };
    for own in ["127.0.0.1", "192.0.2.7:9090", "[::1]:9090", "localhost", "LocalHost:9090"] {
        assert_eq!(named(relay.admin, own).await, 200, "{own}");
    }
    for foreign in ["evil.example", "evil.example:9090", "localhost.evil.example", "relay.example"]
    {
        assert_eq!(named(relay.admin, foreign).await, 403, "{foreign}");
        assert_eq!(named(relay.public, foreign).await, 200, "{foreign}");
    }
    for malformed in ["", "a b", "user@localhost", "localhost:port", "localhost:70000", "[::1"] {
        assert_eq!(named(relay.admin, malformed).await, 400, "{malformed:?}");
        assert_eq!(named(relay.public, malformed).await, 400, "{malformed:?}");
    }
    let target = "GET http://evil.example/livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(status_of(relay.admin, target).await, 403, "the target counts");
    assert_eq!(status_of(relay.admin, "GET /livez HTTP/1.0\r\n\r\n").await, 200, "no browser");

    let mut settings = sealpost::settings::Settings::default();
    settings.server.hosts = vec!["relay.example".to_owned()];
    relay.reload_handle.reload(&settings);
    assert_eq!(named(relay.admin, "Relay.example:9090").await, 200);
    assert_eq!(named(relay.admin, "127.0.0.1").await, 200);
    assert_eq!(named(relay.admin, "evil.example").await, 403);
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
