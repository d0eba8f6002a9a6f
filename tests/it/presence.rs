//! The presence of a device: online, away or offline.

use serde_json::json;

use crate::support::{Device, Relay};

#[tokio::test]
async fn an_offline_device_gets_its_messages_after_another_status() {
    for welcome in ["Online", "Away"] {
        let relay = Relay::start();
        let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
        bob.set_status("Offline").await;
        bob.expect_nothing().await;
        for number in 1..=3 {
            alice.send_to(&bob, number).await;
            alice.expect_ack(number).await;
        }
        bob.expect_nothing().await;
        bob.set_status(welcome).await;
        for number in 1..=3 {
            bob.receive(number).await;
        }
        alice.send_to(&bob, 4).await;
        bob.receive(4).await;
    }
}

#[tokio::test]
async fn an_away_device_gets_its_messages() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    bob.set_status("Away").await;
    bob.expect_nothing().await;
    alice.send_to(&bob, 1).await;
    bob.receive(1).await;
}

#[tokio::test]
async fn an_offline_device_may_send_and_gets_the_answers() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    alice.set_status("Offline").await;
    alice.send_to(&bob, 1).await;
    alice.expect_ack(1).await;
    bob.receive(1).await;
    let nobody = alice.message_to("c0ffee00-1234-4abc-9def-0123456789ab", 2, json!({}));
    alice.expect_refusal(nobody, 404).await;
}

#[tokio::test]
async fn an_offline_sender_gets_its_receipts_and_notices_later() {
    let relay = Relay::start();
    let (mut alice, mut bob) =
        (Device::with_receipts(&relay).await, Device::resumable(&relay).await);
    alice.set_status("Offline").await;
    for (number, ttl) in [(1, 10), (2, 20)] {
        let frame = alice.message_to(&bob.id, number, json!({"ttl": ttl}));
        alice.send(frame).await;
        assert_eq!(alice.expect_frame("Ack").await["status"], "queued");
        bob.receive(number).await;
    }
    bob.ack(2).await;
    relay.wait_until(|health| health["delivered"] == 1).await;
    relay.advance(10);
    relay.wait_until(|health| health["expired"] == 1).await;
    alice.expect_nothing().await;
    alice.set_status("Online").await;
    assert_eq!(alice.expect_frame("Ack").await["status"], "processed");
    alice.expect_error(410).await;
}

#[tokio::test]
async fn a_held_message_expires_at_its_deadline() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    bob.set_status("Offline").await;
    bob.expect_nothing().await;
    for (number, ttl) in [(1, 10), (2, 20)] {
        let frame = alice.message_to(&bob.id, number, json!({"ttl": ttl}));
        alice.send(frame).await;
        alice.expect_ack(number).await;
    }
    relay.advance(10);
    alice.expect_error(410).await;
    bob.set_status("Online").await;
    bob.receive(2).await;
    bob.expect_nothing().await;
}

#[tokio::test]
async fn a_new_connection_begins_online() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    bob.set_status("Offline").await;
    let bob = bob.disconnect(&relay).await;
    let frame = alice.message_to(&bob.id, 1, json!({}));
    alice.send(frame).await;
    alice.expect_ack(1).await;
    bob.reconnect(&relay).await.receive(1).await;
}

#[tokio::test]
async fn a_status_is_reported_to_no_other_device() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    alice.send_to(&bob, 1).await;
    alice.expect_ack(1).await;
    bob.receive(1).await;
    for status in ["Away", "Offline", "Online"] {
        bob.set_status(status).await;
        bob.expect_nothing().await;
        alice.expect_nothing().await;
    }
    bob.set_status("Offline").await;
    bob.expect_nothing().await;
    // The Ack is the same for an online and an offline recipient.
    alice.send_to(&bob, 2).await;
    alice.expect_ack(2).await;
    bob.expect_nothing_and_close().await;
    alice.expect_nothing_and_close().await;
}

#[tokio::test]
async fn any_other_status_is_refused() {
    let relay = Relay::start();
    let mut alice = Device::plain(&relay).await;
    for status in [json!("online"), json!("Busy"), json!(""), json!(1), json!(["Online"])] {
        let payload = json!({"device_id": alice.id, "status": status});
        let error = alice.expect_refusal(json!({"type": "Status", "payload": payload}), 400).await;
        let expected = "Malformed message: status of Status must be Online, Away or Offline.";
        assert_eq!(error["message"], expected);
    }
}
