//! How many connections are accepted, in all and from one address, and which forwarded addresses count. (threats: T6, T8)

use std::net::{IpAddr, SocketAddr};

use crate::support::http::{self, Answer, ask_lines, handshake_with};
use crate::support::{ConnectOptions, RawClient, Relay};

fn from(last: u8) -> ConnectOptions {
    ConnectOptions { from: Some(IpAddr::from([127, 0, 0, last])), ..ConnectOptions::default() }
}

async fn turned_away(relay: SocketAddr, options: ConnectOptions) -> Answer {
    match RawClient::try_connect(relay, options).await {
        Ok(_) => panic!("one too many was let in"),
        Err(answer) => answer,
    }
}

#[actix_rt::test]
async fn a_connection_over_the_global_cap_is_refused_and_the_others_stay_open() {
    let relay = Relay::with(|settings| settings.limits.connections = 3);
    let mut in_place = Vec::new();
    for _ in 0..3 {
        in_place.push(RawClient::plain(relay.public).await);
    }
    assert_eq!(http::get(relay.public, "/readyz").await.status, 503);
    let answer = turned_away(relay.public, ConnectOptions::default()).await;
    assert_eq!((answer.status, answer.header("Retry-After")), (503, Some("30")));
    for client in &mut in_place {
        client.send_to_itself(1).await;
    }
    drop(in_place.pop());
    relay.wait_for("connections", 2).await;
    assert_eq!(http::get(relay.public, "/readyz").await.status, 200);
    let _third = RawClient::plain(relay.public).await;
}

#[actix_rt::test]
async fn a_connection_over_the_cap_of_its_address_is_refused_and_other_addresses_are_accepted() {
    let relay = Relay::with(|settings| settings.limits.connections_per_address = 2);
    let mut one = RawClient::try_connect(relay.public, from(2)).await.expect("the first");
    let two = RawClient::try_connect(relay.public, from(2)).await.expect("the second");
    let answer = turned_away(relay.public, from(2)).await;
    assert_eq!((answer.status, answer.header("Retry-After")), (429, Some("60")));
    RawClient::try_connect(relay.public, from(3)).await.expect("another address");
    one.register(serde_json::json!({"type": "Register"})).await;
    drop(two);
    relay.wait_for("connections", 1).await;
    RawClient::try_connect(relay.public, from(2)).await.expect("a place is free again");
}

#[actix_rt::test]
async fn exempt_networks_are_not_counted_by_address_and_a_reload_changes_them() {
    let relay = Relay::with(|settings| {
        settings.limits.connections_per_address = 1;
        settings.limits.exempt_cidrs = vec!["127.0.0.2/32".parse().expect("a network")];
    });
    let mut kept = Vec::new();
    for _ in 0..5 {
        kept.push(RawClient::try_connect(relay.public, from(2)).await.expect("exempt"));
    }
    kept.push(RawClient::try_connect(relay.public, from(3)).await.expect("the first"));
    assert_eq!(turned_away(relay.public, from(3)).await.status, 429);

    let mut settings = sealpost::settings::Settings::default();
    settings.limits.connections_per_address = 1;
    settings.limits.exempt_cidrs = vec!["127.0.0.3/32".parse().expect("a network")];
    relay.reload_handle.reload(&settings);
    kept.push(RawClient::try_connect(relay.public, from(3)).await.expect("exempt by now"));
    // Connections that came while exempt were never counted; the next connection is the first.
    kept.push(RawClient::try_connect(relay.public, from(2)).await.expect("the first that counts"));
    assert_eq!(turned_away(relay.public, from(2)).await.status, 429);
}

#[actix_rt::test]
async fn a_forwarded_address_counts_only_from_a_trusted_proxy() {
    let relay = Relay::with(|settings| {
        settings.limits.connections_per_address = 1;
        settings.server.trusted_proxies = vec!["127.0.0.1/32".parse().expect("a network")];
    });
    let enter = async |proxy: u8, forwarded: &str| {
        let line = format!("X-Forwarded-For: {forwarded}");
        let proxy = IpAddr::from([127, 0, 0, proxy]);
        let mut stream = http::connect(relay.public, Some(proxy), None).await;
        let head = http::head(&handshake_with(&line));
        tokio::io::AsyncWriteExt::write_all(&mut stream, &head).await.expect("sent");
        (http::answer(&mut stream).await.status, stream)
    };
    let (status, _one) = enter(1, "198.51.100.1").await;
    assert_eq!(status, 101);
    let (status, _two) = enter(1, "198.51.100.2").await;
    assert_eq!(status, 101, "another client of the same proxy");
    assert_eq!(enter(1, "198.51.100.2").await.0, 429);
    for written_by_client in ["203.0.113.7", "caf\u{e9}", "", "\"a,b", "[::1"] {
        let forwarded = format!("{written_by_client}, 198.51.100.2");
        assert_eq!(enter(1, &forwarded).await.0, 429, "a client may write what it likes");
    }
    let (status, _v6) = enter(1, "\"[2001:db8::1]:4711\"").await;
    assert_eq!(status, 101);
    assert_eq!(enter(1, "[2001:db8::1]").await.0, 429, "the same address in another spelling");
    let (status, _three) = enter(2, "198.51.100.3").await;
    assert_eq!(status, 101);
    assert_eq!(enter(2, "198.51.100.4").await.0, 429, "the header of an untrusted peer is ignored");
}

#[actix_rt::test]
async fn refused_connections_are_not_counted() {
    let relay = Relay::with(|settings| settings.limits.connections_per_address = 1);
    for _ in 0..20 {
        let evil = handshake_with("Origin: https://evil.example");
        assert_eq!(ask_lines(relay.public, &evil).await.status, 403);
    }
    let _first = RawClient::connect(relay.public).await;
    for _ in 0..20 {
        assert_eq!(turned_away(relay.public, ConnectOptions::default()).await.status, 429);
    }
    relay.wait_for("connections", 1).await;
}

/// Whether the relay closes a connection without an answer.
async fn is_shut(mut stream: tokio::net::TcpStream) -> bool {
    let mut byte = [0];
    let read = tokio::io::AsyncReadExt::read(&mut stream, &mut byte);
    matches!(crate::support::peer::soon("the end", read).await, Ok(0) | Err(_))
}

#[actix_rt::test]
async fn connections_that_never_send_a_request_are_counted_too() {
    let relay = Relay::with(|settings| {
        settings.limits.connections = 4;
        settings.limits.connections_per_address = 2;
    });
    let of = |last: u8| Some(IpAddr::from([127, 0, 0, last]));
    // One address opens as many silent connections as its cap allows…
    let mut idle = Vec::new();
    for _ in 0..2 + 64 {
        idle.push(http::connect_tcp(relay.public, of(2), None).await);
    }
    assert!(is_shut(http::connect_tcp(relay.public, of(2), None).await).await);
    // …and other addresses open the rest up to the global cap.
    for n in 0..4 + 512 - idle.len() {
        idle.push(http::connect_tcp(relay.public, of(3 + (n / 60) as u8), None).await);
    }
    assert!(is_shut(http::connect_tcp(relay.public, of(200), None).await).await);
    // The admin address is not affected.
    assert_eq!(http::get(relay.admin, "/livez").await.status, 200);
    assert_eq!(relay.health().await["status"], "ok");
    // A connection is accepted again as soon as another has ended.
    drop(idle.pop());
    drop(idle.remove(0));
    let options = from(2);
    crate::support::eventually("a place", async || {
        let mut stream = http::connect_tcp(relay.public, options.from, None).await;
        let head = http::head(&http::handshake());
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, &head).await;
        let mut byte = [0];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut byte).await.is_ok()
    })
    .await;
}
