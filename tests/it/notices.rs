//! Notices: they do not wait behind messages, and come again until the device has proved that it has them.

use serde_json::{Value, json};

use crate::support::peer::TEXT;
use crate::support::{Device, RawClient, Relay, eventually, message_id};

fn processed(number: u64) -> Value {
    json!({"message_id": message_id(number), "status": "processed"})
}

/// Alice, who wants receipts, and Bob. Bob has processed message 1, and Alice has the Ack but not the receipt.
async fn with_a_receipt_on_its_way(relay: &Relay) -> (Device, Device) {
    let mut alice = Device::with_receipts(relay).await;
    let mut bob = Device::resumable(relay).await;
    alice.send_to(&bob, 1).await;
    alice.expect_frame("Ack").await;
    bob.receive_and_ack(1).await;
    bob.expect_nothing().await;
    (alice, bob)
}

impl Device {
    /// Reads, and answers pings, until the relay holds nothing.
    async fn answers_until_nothing_is_held(&mut self, relay: &Relay) {
        eventually("a proof", async || {
            self.expect_nothing().await;
            relay.figure("queued_bytes").await == 0
        })
        .await;
    }
}

#[tokio::test]
async fn a_receipt_comes_again_after_a_connection_that_has_not_answered_a_ping_and_not_after_one_that_has()
 {
    let relay = Relay::start();
    let (alice, _bob) = with_a_receipt_on_its_way(&relay).await;
    // The kernel may have taken the receipt, and nobody has read it.
    let mut alice = alice.reconnect(&relay).await;
    assert_eq!(alice.expect_frame("Ack").await, processed(1));
    alice.answers_until_nothing_is_held(&relay).await;
    let alice = alice.reconnect(&relay).await;
    alice.expect_nothing_and_close().await;
}

#[tokio::test]
async fn a_410_comes_again_until_it_is_proved_to_have_arrived() {
    let relay = Relay::start();
    let mut alice = Device::resumable(&relay).await;
    let bob = Device::resumable(&relay).await;
    let bob = bob.disconnect(&relay).await;
    alice.send_message(&bob.id, 1, json!({"ttl": 1})).await;
    alice.expect_ack(1).await;
    relay.advance(1);
    let expired = alice.expect_error(410).await;
    let mut alice = alice.reconnect(&relay).await;
    assert_eq!(alice.expect_error(410).await, expired);
    alice.answers_until_nothing_is_held(&relay).await;
    alice.reconnect(&relay).await.expect_nothing_and_close().await;
}

#[tokio::test]
async fn the_ack_of_a_later_message_proves_a_receipt() {
    let relay = Relay::start();
    let (mut alice, mut bob) = with_a_receipt_on_its_way(&relay).await;
    assert_eq!(alice.expect_frame("Ack").await, processed(1));
    bob.send_to(&alice, 2).await;
    bob.expect_ack(2).await;
    alice.receive_and_ack(2).await;
    relay.wait_for("delivered", 2).await;
    alice.reconnect(&relay).await.expect_nothing_and_close().await;
}

/// Some libraries do not answer WebSocket pings.
#[tokio::test]
async fn where_no_pong_comes_the_answer_to_a_json_ping_proves_a_receipt() {
    let relay = Relay::start();
    let (alice, _bob) = with_a_receipt_on_its_way(&relay).await;
    let mut client = RawClient::connect(relay.public).await;
    client.send(alice.resume_frame()).await;
    let mut texts = Vec::new();
    loop {
        let (first, payload) = client.peer.frame().await.expect("the connection is open");
        if first & 0xf != TEXT {
            // A ping: not answered.
            continue;
        }
        let frame: Value = serde_json::from_slice(&payload).expect("JSON");
        texts.push(frame["type"].as_str().expect("a type").to_owned());
        if frame["type"] == "Ping" {
            break;
        }
    }
    assert_eq!(texts, ["RegisterResponse", "Ack", "Ping"]);
    assert!(relay.figure("queued_bytes").await > 0);
    client.send(json!({"type": "Pong"})).await;
    relay.wait_for("queued_bytes", 0).await;
    alice.reconnect(&relay).await.expect_nothing_and_close().await;
}

#[tokio::test]
async fn receipts_do_not_wait_behind_messages_that_are_not_confirmed() {
    let relay = Relay::generous(|_| ());
    let mut alice = Device::with_receipts(&relay).await;
    let mut bob = Device::resumable(&relay).await;
    for number in 1..=65 {
        bob.send_and_expect_ack(&alice.id, number).await;
    }
    for number in 1..=64 {
        alice.receive(number).await;
    }
    alice.expect_nothing().await;
    alice.send_to(&bob, 100).await;
    alice.expect_frame("Ack").await;
    bob.receive_and_ack(100).await;
    assert_eq!(alice.expect_frame("Ack").await, processed(100));
}

#[tokio::test]
async fn a_resume_without_receipts_drops_receipts_and_no_410() {
    let relay = Relay::start();
    let (mut alice, bob) = with_a_receipt_on_its_way(&relay).await;
    let bob = bob.disconnect(&relay).await;
    alice.send_message(&bob.id, 2, json!({"ttl": 1})).await;
    assert_eq!(alice.expect_frame("Ack").await, processed(1));
    alice.expect_frame("Ack").await;
    let token = alice.token();
    drop(alice);
    relay.advance(1);
    let mut alice = Device::resume(&relay, &token).await;
    alice.expect_error(410).await;
    alice.answers_until_nothing_is_held(&relay).await;
    alice.close().await;
    let resume = json!({"type": "Register", "payload": {"resume_token": token, "receipts": true}});
    Device::register(&relay, resume).await.expect_nothing_and_close().await;
}

#[tokio::test]
async fn a_repeat_with_receipts_turns_them_on() {
    let relay = Relay::start();
    let mut alice = Device::resumable(&relay).await;
    let mut bob = Device::resumable(&relay).await;
    alice.send_to(&bob, 1).await;
    alice.expect_ack(1).await;
    let token = alice.token();
    drop(alice);
    let resume = json!({"type": "Register", "payload": {"resume_token": token, "receipts": true}});
    let mut alice = Device::register(&relay, resume).await;
    alice.send_to(&bob, 1).await;
    assert_eq!(alice.expect_frame("Ack").await["status"], "queued");
    bob.receive_and_ack(1).await;
    assert_eq!(alice.expect_frame("Ack").await, processed(1));
    bob.expect_nothing().await;
}
