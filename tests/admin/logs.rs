//! What the log says of clients, so that an operator can act: who, why, and no more lines than one can read.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::http::{ask, ask_lines, handshake_with};
use crate::support::{Binary, Device, eventually};

/// The lines of JSON that came so far, of one text.
fn lines(relay: &Binary, text: &str) -> Vec<Value> {
    let all = relay.log.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    all.filter(|line| line["message"] == text).collect()
}

async fn json_relay(settings: &[(&str, &str)]) -> Binary {
    let settings = [&[("LOG__FORMAT", "json")], settings].concat();
    Binary::with(&settings).await
}

#[tokio::test]
async fn a_client_that_breaks_the_protocol_is_named_with_address_device_and_reason() {
    let mut relay = json_relay(&[("LIMITS__STRIKES", "2")]).await;
    let mut bob = Device::plain(&relay).await;
    for _ in 0..2 {
        bob.send_text("nonsense").await;
    }
    relay.expect_log("client closed for breaking the protocol").await;
    let line = &lines(&relay, "client closed for breaking the protocol")[0];
    assert_eq!(line["address"], "127.0.0.1");
    assert_eq!(line["reason"], "too many malformed messages");
    assert_eq!(line["level"], "info");
    assert_eq!(line["target"], "sealpost::clients");
    assert!(line["connection"].is_u64(), "a number is no text: {line}");
    let device = line["device"].as_str().expect("a device");
    assert!(device.len() < 20 && bob.id.starts_with(device.trim_end_matches('…')), "{line}");

    let mut carol = Device::plain(&relay).await;
    carol.send_raw(Message::Binary(vec![1].into())).await;
    relay.expect_log("binary messages are not served").await;
    let raw = b"GET /ws HTTP/1.0\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";
    ask(relay.public, raw).await;
    relay.expect_log("\"message\":\"request refused\"").await;
    let line = &lines(&relay, "request refused")[0];
    assert!(line["reason"].as_str().is_some_and(|why| why.starts_with("status 4")), "{line}");
}

#[tokio::test]
async fn a_wrong_frame_of_the_websocket_is_a_broken_protocol_too() {
    let mut relay = json_relay(&[]).await;
    let mut raw = crate::support::RawClient::plain(relay.public).await;
    // An unmasked text frame.
    raw.peer.send(&[0x81, 0x01, b'x']).await;
    relay.expect_log("client closed for breaking the protocol").await;
    let line = &lines(&relay, "client closed for breaking the protocol")[0];
    assert_eq!(line["reason"], "1002: protocol error");
}

#[tokio::test]
async fn a_flood_of_refusals_is_ten_lines_and_a_count() {
    let mut relay = json_relay(&[]).await;
    for _ in 0..25 {
        ask_lines(relay.public, &handshake_with("Origin: https://evil.example")).await;
    }
    // The line of another incident follows all of them.
    let mut device = Device::connect(&relay).await;
    device.send(json!({"type": "Register", "payload": {"resume_token": "0".repeat(64)}})).await;
    device.expect_error(401).await;
    relay.expect_log("resume token refused").await;
    let refused = lines(&relay, "connection of a page refused");
    assert_eq!(refused.len(), 10);
    let reason = refused[0]["reason"].as_str().expect("a reason");
    assert_eq!(refused[0]["origin"], "https://evil.example");
    assert!(reason.contains("server.allowed_origins"), "{reason}");
    let counted = async || {
        relay.scrape().await.value("sealpost_handshakes_rejected_total{reason=\"origin\"}")
    };
    eventually("the count", async || counted().await == 25.0).await;
    assert!(!relay.log.contains(&"0".repeat(64)), "no token is logged");
}

/// All devices seem to come from the proxy that nobody named.
#[tokio::test]
async fn a_forgotten_proxy_shows_as_one_address_with_all_the_connections() {
    let mut relay = json_relay(&[("LIMITS__CONNECTIONS_PER_ADDRESS", "2")]).await;
    let _held = [Device::plain(&relay).await, Device::plain(&relay).await];
    let answer = ask_lines(relay.public, &handshake_with("X-Forwarded-For: 192.0.2.7")).await;
    assert_eq!(answer.status, 429);
    relay.expect_log("connection refused, its address has too many").await;
    let line = &lines(&relay, "connection refused, its address has too many")[0];
    assert_eq!(line["address"], "127.0.0.1");
    assert_eq!(
        line["reason"],
        "limits.connections_per_address = 2, and 2 of all 2 connections are its; \
         if it is a proxy, name it in server.trusted_proxies"
    );
}

#[tokio::test]
async fn an_address_that_registers_too_often_and_a_full_relay_are_warnings() {
    let settings = [
        ("RATE_LIMIT__REGISTRATIONS_PER_MINUTE", "1"),
        ("LIMITS__CONNECTIONS", "2"),
        ("LIMITS__CONNECTIONS_PER_ADDRESS", "10"),
    ];
    let mut relay = json_relay(&settings).await;
    let _first = Device::plain(&relay).await;
    let mut second = Device::connect(&relay).await;
    second.send(json!({"type": "Register"})).await;
    second.expect_error(429).await;
    relay.expect_log("registrations of an address limited").await;
    let answer = ask_lines(relay.public, &handshake_with("X-Nothing: 1")).await;
    assert_eq!(answer.status, 503);
    relay.expect_log("connection refused, the relay is full").await;
    let line = &lines(&relay, "connection refused, the relay is full")[0];
    assert_eq!(
        (&line["level"], &line["reason"]),
        (&json!("warn"), &json!("limits.connections = 2"))
    );
}

/// A text line has the same fields behind its message.
#[tokio::test]
async fn a_text_line_has_its_fields_behind_the_message() {
    let mut relay = Binary::with(&[]).await;
    ask_lines(relay.public, &handshake_with("Origin: https://evil.example")).await;
    let line = relay.expect_log("connection of a page refused").await;
    assert!(line.contains(" WARN  sealpost::clients: "), "{line}");
    assert!(
        line.contains(
            "connection of a page refused address=127.0.0.1 origin=https://evil.example reason="
        ),
        "{line}"
    );
}
