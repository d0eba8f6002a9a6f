//! Which request is accepted: RFC 6455 section 4.2.1, the Origin, and the bounds of a request. (threats: T1 to T5)

use std::net::SocketAddr;

use sealpost::settings::Settings;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::Relay;
use crate::support::http::{
    self, Answer, KEY, ask, ask_lines, handshake, handshake_to, handshake_with, head,
};
use crate::support::peer::soon;

async fn with_origin(relay: &Relay, origin: &str) -> u16 {
    ask_lines(relay.public, &handshake_with(&format!("Origin: {origin}"))).await.status
}

/// The handshake with one line replaced; the replacement may be several lines, or none.
async fn with_line(to: SocketAddr, before: &str, after: &str) -> Answer {
    let mut lines = handshake();
    let at = lines.iter().position(|line| line.starts_with(before)).expect("such a line");
    lines.splice(at..=at, after.lines().map(str::to_owned));
    ask_lines(to, &lines).await
}

#[actix_rt::test]
async fn a_page_of_another_site_is_refused_before_the_upgrade() {
    let relay = Relay::with(|settings| {
        settings.server.allowed_origins = vec!["https://app.example".to_owned()];
        settings.server.hosts = vec!["relay.example".to_owned()];
    });
    assert_eq!(ask_lines(relay.public, &handshake()).await.status, 101, "a native client");
    for (origin, status) in [
        ("https://relay.example", 101),
        ("http://relay.example", 101),
        ("https://app.example", 101),
        ("wss://relay.example", 101),
        ("ws://RELAY.example:80/ws?token=1", 101),
        ("wss://App.example:443/", 101),
        ("https://user@relay.example", 403),
        ("https://relay.example, https://relay.example", 403),
        ("file://", 403),
        ("https://evil.example", 403),
        ("https://relay.example.evil.example", 403),
        ("https://relay.example:8443", 403),
        ("https://app.example.", 403),
        ("null", 403),
        ("", 403),
    ] {
        assert_eq!(with_origin(&relay, origin).await, status, "{origin:?}");
    }
    let twice = handshake_with("Origin: https://app.example\r\nOrigin: https://app.example");
    assert_eq!(ask_lines(relay.public, &twice).await.status, 403);
}

async fn status_of(relay: &Relay, host: &str, origin: &str) -> u16 {
    let mut lines = handshake_to(host);
    lines.push(format!("Origin: {origin}"));
    ask_lines(relay.public, &lines).await.status
}

#[actix_rt::test]
async fn a_name_that_was_redirected_to_this_machine_does_not_make_a_page_the_relays_own() {
    let relay = Relay::start();
    for own in ["127.0.0.1:8080", "[::1]:8080", "localhost", "a.localhost:8080"] {
        assert_eq!(status_of(&relay, own, &format!("http://{own}")).await, 101, "{own}");
    }
    let rebound = async || status_of(&relay, "evil.example:8080", "http://evil.example:8080").await;
    assert_eq!(rebound().await, 403);
    assert_eq!(
        ask_lines(relay.public, &handshake_to("evil.example")).await.status,
        101,
        "no Origin"
    );
    for malformed in ["", "a b", "u@relay.example", "relay.example:x", "[::1"] {
        let answer = ask_lines(relay.public, &handshake_to(malformed)).await;
        assert_eq!(answer.status, 400, "{malformed:?}");
    }
    let mut settings = Settings::default();
    settings.server.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
    relay.reload_handle.reload(&settings);
    assert_eq!(rebound().await, 101, "a proxy in front has its own names");
    settings.server.hosts = vec!["relay.example".to_owned()];
    relay.reload_handle.reload(&settings);
    assert_eq!(rebound().await, 403);
    assert_eq!(status_of(&relay, "relay.example", "https://relay.example").await, 101);
}

#[actix_rt::test]
async fn a_reload_applies_the_allowed_origins() {
    let relay = Relay::start();
    assert_eq!(with_origin(&relay, "https://app.example").await, 403);
    let mut settings = Settings::default();
    settings.server.allowed_origins = vec!["https://app.example".to_owned()];
    relay.reload_handle.reload(&settings);
    assert_eq!(with_origin(&relay, "https://app.example").await, 101);
    relay.reload_handle.reload(&Settings::default());
    assert_eq!(with_origin(&relay, "https://app.example").await, 403);
}

#[actix_rt::test]
async fn a_key_that_is_not_sixteen_bytes_in_base64_or_stands_twice_is_refused() {
    let relay = Relay::start();
    for keys in [
        "",
        "Sec-WebSocket-Key:",
        "Sec-WebSocket-Key: junk",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZWVl",
        "Sec-WebSocket-Key: !!!!IHNhbXBsZSBub25jZQ==",
        &format!("Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Key: {KEY}"),
    ] {
        let answer = with_line(relay.public, "Sec-WebSocket-Key", keys).await;
        assert_eq!(answer.status, 400, "{keys:?}");
    }
    let answer = ask_lines(relay.public, &handshake()).await;
    assert_eq!(answer.header("Sec-WebSocket-Accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
}

/// Some embedded clients compare the names of headers byte by byte.
#[actix_rt::test]
async fn the_acceptance_is_spelt_as_in_the_rfc_and_answers_no_offer() {
    let relay = Relay::start();
    let mut lines = handshake_with("Sec-WebSocket-Protocol: chat, mqtt");
    lines.push("Sec-WebSocket-Extensions: permessage-deflate".to_owned());
    let answer = ask_lines(relay.public, &lines).await;
    let expected = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    ];
    assert_eq!(answer.head.trim_end().split("\r\n").collect::<Vec<_>>(), expected);
}

#[actix_rt::test]
async fn another_websocket_version_is_refused_with_the_supported_version() {
    let relay = Relay::start();
    for version in [
        "Sec-WebSocket-Version: 7",
        "Sec-WebSocket-Version: 8",
        "Sec-WebSocket-Version: 12",
        "Sec-WebSocket-Version: 130",
        "Sec-WebSocket-Version: 13, 8",
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 8",
        "",
    ] {
        let answer = with_line(relay.public, "Sec-WebSocket-Version", version).await;
        assert_eq!(answer.status, 426, "{version:?}");
        assert_eq!(answer.header("Sec-WebSocket-Version"), Some("13"), "{version:?}");
    }
}

#[actix_rt::test]
async fn a_request_that_only_resembles_a_handshake_is_refused() {
    let relay = Relay::start();
    for (before, after, status) in [
        ("GET", "GET /ws HTTP/1.0", 400),
        ("GET", "POST /ws HTTP/1.1", 405),
        ("GET", "PUT /ws HTTP/1.1", 405),
        ("GET", "GET / HTTP/1.1", 404),
        ("GET", "GET /ws/ HTTP/1.1", 404),
        ("GET", "GET /WS HTTP/1.1", 404),
        ("GET", "GET /livez HTTP/1.1", 404),
        ("GET", "GET /ws?token=abc HTTP/1.1", 101),
        ("Upgrade", "Upgrade: xwebsocketx", 400),
        ("Upgrade", "Upgrade: websocket, h2c", 400),
        ("Upgrade", "Upgrade: websocket\r\nUpgrade: websocket", 400),
        ("Upgrade", "Upgrade: h2c", 400),
        ("Upgrade", "Upgrade: WebSocket", 101),
        ("Connection", "", 400),
        ("Connection", "Connection: keep-alive", 400),
        ("Connection", "Connection: keep-alive, Upgrade", 101),
    ] {
        let answer = with_line(relay.public, before, after).await;
        assert_eq!(answer.status, status, "{after:?} {answer:?}");
        if status == 405 {
            assert_eq!(answer.header("Allow"), Some("GET"), "{after:?}");
        }
    }
    let answer = http::get(relay.public, "/ws").await;
    assert_eq!((answer.status, answer.header("Upgrade")), (426, Some("websocket")));
    assert_eq!(http::get(relay.public, "/elsewhere").await.status, 404);
    relay.wait_for("connections", 0).await;
}

#[actix_rt::test]
async fn a_body_with_the_handshake_is_refused_and_is_no_second_request() {
    let relay = Relay::start();
    let smuggled = "GET /livez HTTP/1.1\r\nHost: relay.example\r\n\r\n";
    for more in [
        format!("Content-Length: {}\r\n\r\n{smuggled}", smuggled.len()),
        format!("Content-Length: {}\r\n\r\n{}", 1 << 20, "x".repeat(1 << 20)),
        format!(
            "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{smuggled}\r\n0\r\n\r\n",
            smuggled.len()
        ),
        "Content-Length: 1\r\nContent-Length: 2\r\n\r\nx".to_owned(),
        "Content-Length: -1\r\n\r\n".to_owned(),
    ] {
        let request = [handshake().join("\r\n").into_bytes(), b"\r\n".to_vec(), more.into_bytes()];
        let mut stream = http::connect(relay.public, None, None).await;
        let _ = soon("sending", stream.write_all(&request.concat())).await;
        let answer = http::answer(&mut stream).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        let mut rest = Vec::new();
        let _ = soon("the end", stream.read_to_end(&mut rest)).await;
        assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    }
}

#[actix_rt::test]
async fn a_head_with_too_many_headers_or_too_many_bytes_is_refused() {
    let relay = Relay::start();
    let many = |count: usize| {
        let mut lines = handshake();
        lines.extend((lines.len()..count + 1).map(|n| format!("X-Header-{n}: n")));
        head(&lines)
    };
    assert_eq!(ask(relay.public, &many(96)).await.status, 101);
    assert_eq!(ask(relay.public, &many(97)).await.status, 431);
    let long = head(&handshake_with(&format!("X-Long: {}", "x".repeat(129 * 1024))));
    assert_eq!(ask(relay.public, &long).await.status, 431);
}

#[actix_rt::test]
async fn a_frame_that_is_sent_with_the_handshake_is_handled() {
    let relay = Relay::start();
    let register = crate::support::peer::text(r#"{"type":"Register"}"#);
    let mut stream = http::connect(relay.public, None, None).await;
    let bytes = [head(&handshake()), register].concat();
    soon("sending", stream.write_all(&bytes)).await.expect("sent");
    assert_eq!(http::answer(&mut stream).await.status, 101);
    let mut client = crate::support::RawClient {
        peer: crate::support::peer::Peer { stream },
        id: String::new(),
        registration: serde_json::Value::Null,
    };
    client.expect_frame("RegisterResponse").await;
}
