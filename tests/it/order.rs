//! Messages of a pair arrive in order, and at most a window of unconfirmed ones is in flight.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::{Device, Relay, message_id};

#[tokio::test]
async fn the_messages_of_each_sender_arrive_in_order() {
    let relay = Relay::generous(|_| {});
    let mut bob = Device::plain(&relay).await;
    let mut senders = [Device::plain(&relay).await, Device::plain(&relay).await];
    for round in 0..4 {
        for sender in &mut senders {
            let numbers = round * 50 + 1..=round * 50 + 50;
            let frames: Vec<_> =
                numbers.map(|number| sender.message_to(&bob.id, number, json!({}))).collect();
            sender.send_all(frames).await;
        }
    }
    let mut next = [1, 1];
    for _ in 0..400 {
        let payload = bob.expect_frame("Receive").await;
        let from = usize::from(payload["sender_id"] == json!(senders[1].id));
        assert_eq!(payload["message_id"], json!(message_id(next[from])));
        next[from] += 1;
    }
    // One Ack each; a stored message is acked later than a message that passed through.
    for sender in &mut senders {
        let mut acked = BTreeSet::new();
        for _ in 0..200 {
            acked.insert(sender.expect_frame("Ack").await["message_id"].to_string());
        }
        assert_eq!(acked.len(), 200);
        sender.expect_nothing().await;
    }
}

#[tokio::test]
async fn keys_and_messages_arrive_in_one_order() {
    let relay = Relay::start();
    let (mut alice, bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    let bob = bob.disconnect(&relay).await;
    let frames = [
        alice.message_to(&bob.id, 1, json!({})),
        alice.key_update(&bob.id, 7),
        alice.message_to(&bob.id, 2, json!({})),
    ];
    alice.send_all(frames).await;
    alice.expect_ack(1).await;
    alice.expect_ack(2).await;
    let mut bob = bob.reconnect(&relay).await;
    assert_eq!(bob.registration["queued"], 3);
    bob.receive(1).await;
    assert_eq!(bob.expect_frame("KeyRotationUpdate").await["key_id"], 7);
    bob.receive(2).await;
}

#[tokio::test]
async fn waiting_messages_arrive_before_new_messages() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    bob.set_status("Offline").await;
    bob.expect_nothing().await;
    for number in 1..=5 {
        alice.send_to(&bob, number).await;
        alice.expect_ack(number).await;
    }
    bob.set_status("Online").await;
    for number in 6..=10 {
        alice.send_to(&bob, number).await;
    }
    for number in 1..=10 {
        bob.receive(number).await;
    }
}

#[tokio::test]
async fn a_device_that_confirms_nothing_gets_64_and_then_one_for_each_it_confirms() {
    let relay = Relay::generous(|_| {});
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    assert_eq!(bob.registration["limits"]["window"], 64);
    for number in 1..=70 {
        alice.send_to(&bob, number).await;
        alice.expect_ack(number).await;
    }
    for number in 1..=64 {
        bob.receive(number).await;
    }
    bob.expect_nothing().await;
    bob.ack(30).await;
    bob.receive(65).await;
    bob.expect_nothing().await;
    bob.ack(1).await;
    bob.ack(2).await;
    bob.receive(66).await;
    bob.receive(67).await;
    bob.expect_nothing().await;
}

#[tokio::test]
async fn a_device_that_need_not_confirm_gets_everything() {
    let relay = Relay::generous(|_| {});
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    for number in 1..=200 {
        alice.send_to(&bob, number).await;
        alice.expect_ack(number).await;
        bob.receive(number).await;
    }
}

#[tokio::test]
async fn unconfirmed_bytes_are_limited_too() {
    let relay = Relay::generous(|settings| settings.delivery.bytes = 64 * 1024);
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    let large = "e".repeat(30_000);
    for number in 1..=3 {
        let frame = alice.message_to(&bob.id, number, json!({"encrypted_data": large}));
        alice.send(frame).await;
        alice.expect_ack(number).await;
    }
    bob.receive(1).await;
    bob.receive(2).await;
    bob.expect_nothing().await;
    bob.ack(1).await;
    bob.receive(3).await;
}

#[tokio::test]
async fn one_message_in_makes_one_receive_and_one_answer() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    let mut carol = Device::plain(&relay).await;
    for number in 1..=20 {
        alice.send_to(&bob, number).await;
        alice.expect_ack(number).await;
        bob.receive(number).await;
        for device in [&mut alice, &mut bob, &mut carol] {
            device.expect_nothing().await;
        }
    }
}

#[tokio::test]
async fn the_counters_balance() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    for number in 1..=4 {
        let frame = alice.message_to(&bob.id, number, json!({"ttl": number * 10}));
        alice.send(frame).await;
        alice.expect_ack(number).await;
        bob.receive(number).await;
    }
    bob.ack(1).await;
    relay.advance(20);
    assert_eq!(alice.expect_error(410).await["message_id"], json!(message_id(2)));
    let _bob = bob.disconnect(&relay).await;
    let count = |health: &serde_json::Value, name: &str| health[name].as_u64().expect("a count");
    let health = relay.health().await;
    let parts = ["delivered", "expired", "queued", "in_flight"].map(|name| count(&health, name));
    assert_eq!(parts, [1, 1, 2, 0]);
    assert_eq!(count(&health, "accepted"), 4);
}
