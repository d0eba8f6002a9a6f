//! When a connection counts as alive, and how a dead connection ends. (platform: H14; threats: T23, 60 s SIGSTOP)

use std::time::Duration;

use sealpost::settings::Settings;
use serde_json::json;

use crate::support::peer::{FIN, PING, PONG, TEXT, frame};
use crate::support::{Binary, RawClient, Relay, message_id};

const BEAT: Duration = Duration::from_millis(100);

fn quick(settings: &mut Settings) {
    settings.heartbeat.interval = BEAT;
    settings.heartbeat.timeout = 5 * BEAT;
}

#[actix_rt::test]
async fn a_silent_client_gets_pings_of_both_kinds_and_then_a_close() {
    let relay = Relay::with(quick);
    let mut client = RawClient::plain(relay.public).await;
    let mut frames = Vec::new();
    let code = loop {
        match client.peer.frame().await.expect("a close") {
            (0x88, payload) => break u16::from_be_bytes([payload[0], payload[1]]),
            (first, payload) => frames.push((first, String::from_utf8(payload).expect("text"))),
        }
    };
    assert_eq!(code, 4408);
    assert!(frames.contains(&(FIN | PING, String::new())), "{frames:?}");
    let json_ping = frames.iter().any(|(first, payload)| {
        *first == FIN | TEXT && payload.parse::<serde_json::Value>().unwrap()["type"] == "Ping"
    });
    assert!(json_ping, "{frames:?}");
    relay.wait_for("connections", 0).await;
}

#[actix_rt::test]
async fn a_client_that_answers_only_websocket_pings_stays_connected() {
    let relay = Relay::with(quick);
    let mut client = RawClient::plain(relay.public).await;
    // Four times as long as a silent connection stays open.
    for _ in 0..20 {
        let (first, _) = client.peer.frame().await.expect("a ping");
        // A late heartbeat may run before the last pong has arrived, and then sends a JSON Ping.
        if first == FIN | PING {
            client.send_pong().await;
        }
    }
    client.send_to_itself(1).await;
}

#[actix_rt::test]
async fn a_client_that_answers_only_json_pings_stays_connected() {
    let relay = Relay::with(quick);
    let mut client = RawClient::plain(relay.public).await;
    let mut answered = 0;
    while answered < 10 {
        match client.peer.frame().await.expect("a ping") {
            (first, _) if first == FIN | TEXT => {
                answered += 1;
                client.send(json!({"type": "Pong"})).await;
            }
            (first, _) => assert_eq!(first, FIN | PING),
        }
    }
    client.send_to_itself(1).await;
}

#[actix_rt::test]
async fn an_unconfirmed_message_of_a_half_open_connection_goes_to_the_next_connection() {
    let relay = Relay::with(quick);
    let mut alice = RawClient::plain(relay.public).await;
    // The peer's kernel takes all bytes, as a proxy's would, but the peer never answers.
    let bob = RawClient::resumable(relay.public).await;
    for number in 0..3 {
        alice.send(alice.message(&bob.id, number, "sealed", 600)).await;
        while alice.receive_any().await["type"] != "Ack" {}
    }
    alice.send_pong().await;
    let deadline = async {
        loop {
            let (first, _) = alice.peer.frame().await.expect("a ping");
            if first == FIN | PING {
                alice.peer.send(&frame(FIN | PONG, b"")).await;
                if relay.health().await["connections"] == 1 {
                    return;
                }
            }
        }
    };
    crate::support::peer::soon("the end of the half-open one", deadline).await;
    let mut bob = RawClient::resume(relay.public, &bob.registration["resume_token"]).await;
    for number in 0..3 {
        let received = bob.expect_frame("Receive").await;
        assert_eq!(received["message_id"], message_id(number));
    }
}

#[actix_rt::test]
async fn a_relay_that_was_stopped_for_a_while_closes_no_connection() {
    let relay =
        Binary::with(&[("HEARTBEAT__INTERVAL", "200ms"), ("HEARTBEAT__TIMEOUT", "600ms")]).await;
    let mut client = RawClient::plain(relay.public).await;
    relay.signal("STOP");
    relay.wait_until_stopped(true).await;
    // The stopped relay cannot report the end of this time.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    relay.signal("CONT");
    relay.wait_until_stopped(false).await;
    for _ in 0..10 {
        let (first, payload) = client.peer.frame().await.expect("a ping");
        assert_ne!(first, 0x88, "{payload:?}");
        if first == FIN | PING {
            client.send_pong().await;
        }
    }
    client.send(json!({"type": "Ping"})).await;
    while client.receive_any().await["type"] != "Pong" {}
}
