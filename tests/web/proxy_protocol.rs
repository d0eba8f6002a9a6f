//! The PROXY protocol: whose header is believed, which connections need one, and which address counts then.

use std::net::IpAddr;
use std::time::Instant;

use proxy_header::{ProxiedAddress, ProxyHeader};
use sealpost::settings::Settings;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::http::{self, handshake, handshake_with, head};
use crate::support::peer::soon;
use crate::support::tls::Stream;
use crate::support::{RawClient, Relay};

/// The address of the proxy that the relay trusts is 127.0.0.1; each client has one connection.
fn relay() -> Relay {
    Relay::with(|settings| {
        settings.server.trusted_proxies = vec!["127.0.0.1/32".parse().expect("a network")];
        settings.server.proxy_protocol = true;
        settings.limits.connections_per_address = 1;
    })
}

fn header_of(client: &str) -> Vec<u8> {
    let relay = if client.contains('[') { "[2001:db8::7]:443" } else { "192.0.2.1:443" };
    let [client, relay] = [client, relay].map(|text| text.parse().expect("an address"));
    let mut header = Vec::new();
    let address = ProxiedAddress::stream(client, relay);
    ProxyHeader::with_address(address).encode_v2(&mut header).expect("a header");
    header
}

fn local() -> Vec<u8> {
    let mut header = Vec::new();
    ProxyHeader::with_local().encode_v2(&mut header).expect("a header");
    header
}

/// Sends these bytes in front of a handshake from 127.0.0.`host`; the status, if there is an answer.
async fn enter(relay: &Relay, host: u8, header: &[u8], lines: &[String]) -> Option<(u16, Stream)> {
    let from = IpAddr::from([127, 0, 0, host]);
    let mut socket = http::connect_tcp(relay.public, Some(from), None).await;
    soon("sending", socket.write_all(header)).await.expect("sent");
    let mut stream = Stream::try_open(socket, relay.public).await.ok()?;
    let _ = soon("sending", stream.write_all(&head(lines))).await;
    let mut first = [0];
    match soon("an answer", stream.read(&mut first)).await {
        Ok(1) => {}
        _ => return None,
    }
    let mut line = [0; 14];
    soon("a line", stream.read_exact(&mut line)).await.expect("a status line");
    let line = std::str::from_utf8(&line).expect("text");
    Some((line[8..11].parse().expect("a status"), stream))
}

async fn status(relay: &Relay, host: u8, header: &[u8]) -> Option<u16> {
    enter(relay, host, header, &handshake()).await.map(|(status, _)| status)
}

#[actix_rt::test]
async fn the_address_in_the_header_of_a_trusted_proxy_is_the_clients() {
    let relay = relay();
    let one = enter(&relay, 1, &header_of("198.51.100.1:1000"), &handshake()).await;
    assert_eq!(one.as_ref().map(|(status, _)| *status), Some(101));
    let two = enter(&relay, 1, &header_of("198.51.100.2:1000"), &handshake()).await;
    assert_eq!(two.as_ref().map(|(status, _)| *status), Some(101), "another client");
    let six = enter(&relay, 1, &header_of("[2001:db8::1]:1000"), &handshake()).await;
    assert_eq!(six.as_ref().map(|(status, _)| *status), Some(101), "another family");
    assert_eq!(status(&relay, 1, &header_of("198.51.100.1:2000")).await, Some(429));
    assert_eq!(status(&relay, 1, &header_of("[2001:db8::2]:2000")).await, Some(429));
    relay.wait_for("connections", 3).await;
}

#[actix_rt::test]
async fn x_forwarded_for_counts_only_if_the_address_in_the_header_is_a_trusted_proxy_too() {
    let relay = relay();
    let forwarded = |client: &str| handshake_with(&format!("X-Forwarded-For: {client}"));
    let by = async |header: &[u8], client: &str| {
        let entered = enter(&relay, 1, header, &forwarded(client)).await;
        let (status, stream) = entered.expect("an answer");
        (status, stream)
    };
    // A client that writes the header itself.
    let (status, _one) = by(&header_of("198.51.100.1:1"), "203.0.113.1").await;
    assert_eq!(status, 101);
    assert_eq!(by(&header_of("198.51.100.1:2"), "203.0.113.2").await.0, 429);
    // A proxy behind the proxy.
    let (status, _two) = by(&header_of("127.0.0.1:3"), "203.0.113.1").await;
    assert_eq!(status, 101);
    assert_eq!(by(&header_of("127.0.0.1:4"), "203.0.113.1").await.0, 429);
    // A proxy that names no client passes on what the client wrote.
    let (status, _three) = by(&local(), "203.0.113.3").await;
    assert_eq!(status, 101);
    assert_eq!(by(&local(), "203.0.113.4").await.0, 429, "both are the proxy's own");
}

#[actix_rt::test]
async fn a_proxy_that_speaks_for_itself_has_its_own_address() {
    let relay = relay();
    let own = enter(&relay, 1, &local(), &handshake()).await;
    assert_eq!(own.as_ref().map(|(status, _)| *status), Some(101));
    assert_eq!(status(&relay, 1, &local()).await, Some(429));
}

#[actix_rt::test]
async fn a_trusted_proxy_without_a_header_of_version_2_is_closed() {
    let relay = relay();
    assert_eq!(status(&relay, 1, b"").await, None);
    assert_eq!(status(&relay, 1, b"PROXY TCP4 198.51.100.1 192.0.2.1 1 443\r\n").await, None);
    let mut too_long = header_of("198.51.100.1:1");
    (too_long[14], too_long[15]) = (0xff, 0xff);
    too_long.resize(16 + 0xffff, 0);
    let mut socket = http::connect_tcp(relay.public, None, None).await;
    let _ = soon("sending", socket.write_all(&too_long)).await;
    let end = soon("the end", socket.read(&mut [0])).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    relay.wait_for("connections", 0).await;
}

#[actix_rt::test]
async fn a_header_of_anybody_else_is_refused_and_others_need_none() {
    let relay = relay();
    for header in [header_of("198.51.100.1:1"), local(), b"PROXY UNKNOWN\r\n".to_vec()] {
        // No request and no handshake begins so.
        assert!(matches!(status(&relay, 2, &header).await, None | Some(400)), "{header:?}");
    }
    let direct = enter(&relay, 2, b"", &handshake()).await;
    assert_eq!(direct.as_ref().map(|(status, _)| *status), Some(101));
    assert_eq!(status(&relay, 2, b"").await, Some(429), "by its own address");
}

#[actix_rt::test]
async fn half_a_header_is_closed_in_the_time_of_a_head() {
    let relay = relay();
    let header = header_of("198.51.100.1:1");
    let started = Instant::now();
    let mut waiting = Vec::new();
    for length in [0, 11, 16, header.len() - 1] {
        let mut socket = http::connect_tcp(relay.public, None, None).await;
        soon("sending", socket.write_all(&header[..length])).await.expect("sent");
        waiting.push(socket);
    }
    for mut socket in waiting {
        let _ = soon("the end", socket.read(&mut [0])).await;
    }
    assert!((4.5..10.0).contains(&started.elapsed().as_secs_f64()), "{:?}", started.elapsed());
}

/// The caps of a client's sockets are its own too: one client cannot hold the places of all others behind its proxy.
#[actix_rt::test]
async fn a_client_behind_a_proxy_has_the_caps_of_its_own_address_before_its_request() {
    let relay = relay();
    // A silent socket is closed after five seconds, so they are opened until there are enough at the same time.
    let mut silent = Vec::new();
    crate::support::eventually("the cap", async || {
        for _ in 0..1 + 64 {
            let mut socket = http::connect_tcp(relay.public, None, None).await;
            // One over the cap is closed.
            let _ = socket.write_all(&header_of("198.51.100.1:1")).await;
            silent.push(socket);
        }
        status(&relay, 1, &header_of("198.51.100.1:2")).await.is_none()
    })
    .await;
    assert_eq!(status(&relay, 1, &header_of("198.51.100.2:1")).await, Some(101));
}

#[actix_rt::test]
async fn a_reload_turns_it_on_and_off() {
    let relay = Relay::start();
    assert_eq!(status(&relay, 1, b"").await, Some(101));
    let mut settings: Settings = relay.settings.clone();
    settings.server.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
    settings.server.proxy_protocol = true;
    relay.reload_handle.reload(&settings);
    assert_eq!(status(&relay, 1, b"").await, None);
    assert_eq!(status(&relay, 1, &header_of("198.51.100.1:1")).await, Some(101));
    relay.reload_handle.reload(&relay.settings);
    RawClient::plain(relay.public).await.send_to_itself(1).await;
}
