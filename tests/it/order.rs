//! First in, first out for each pair, and no more at once than a device confirms.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::{Device, Relay, message_id};

#[tokio::test]
async fn what_each_sender_says_arrives_in_its_order() {
    let relay = Relay::generous(|_| {});
    let mut bob = Device::plain(&relay).await;
    let mut senders = [Device::plain(&relay).await, Device::plain(&relay).await];
    for round in 0..4 {
        for sender in &mut senders {
            let numbers = round * 50 + 1..=round * 50 + 50;
            let frames: Vec<_> =
                numbers.map(|number| sender.message_to(&bob.id, number, json!({}))).collect();
            sender.says_at_once(frames).await;
        }
    }
    let mut next = [1, 1];
    for _ in 0..400 {
        let payload = bob.hears("Receive").await;
        let from = usize::from(payload["sender_id"] == json!(senders[1].id));
        assert_eq!(payload["message_id"], json!(message_id(next[from])));
        next[from] += 1;
    }
    // One Ack each; what had to be kept first is acked later than what passed through.
    for sender in &mut senders {
        let mut acked = BTreeSet::new();
        for _ in 0..200 {
            acked.insert(sender.hears("Ack").await["message_id"].to_string());
        }
        assert_eq!(acked.len(), 200);
        sender.hears_nothing().await;
    }
}

#[tokio::test]
async fn keys_stand_in_the_order_of_messages() {
    let relay = Relay::start();
    let (mut alice, bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    let bob = bob.goes_away(&relay).await;
    let frames = [
        alice.message_to(&bob.id, 1, json!({})),
        alice.key_update(&bob.id, 7),
        alice.message_to(&bob.id, 2, json!({})),
    ];
    alice.says_at_once(frames).await;
    alice.hears_ack(1).await;
    alice.hears_ack(2).await;
    let mut bob = bob.comes_back(&relay).await;
    assert_eq!(bob.welcome["queued"], 3);
    bob.receives(1).await;
    assert_eq!(bob.hears("KeyRotationUpdate").await["key_id"], 7);
    bob.receives(2).await;
}

#[tokio::test]
async fn what_has_waited_comes_before_what_is_said_now() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    bob.is("Offline").await;
    bob.hears_nothing().await;
    for number in 1..=5 {
        alice.sends_to(&bob, number).await;
        alice.hears_ack(number).await;
    }
    bob.is("Online").await;
    for number in 6..=10 {
        alice.sends_to(&bob, number).await;
    }
    for number in 1..=10 {
        bob.receives(number).await;
    }
}

#[tokio::test]
async fn a_device_that_confirms_nothing_gets_64_and_then_one_for_each_it_confirms() {
    let relay = Relay::generous(|_| {});
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    assert_eq!(bob.welcome["limits"]["window"], 64);
    for number in 1..=70 {
        alice.sends_to(&bob, number).await;
        alice.hears_ack(number).await;
    }
    for number in 1..=64 {
        bob.receives(number).await;
    }
    bob.hears_nothing().await;
    bob.acks(30).await;
    bob.receives(65).await;
    bob.hears_nothing().await;
    bob.acks(1).await;
    bob.acks(2).await;
    bob.receives(66).await;
    bob.receives(67).await;
    bob.hears_nothing().await;
}

#[tokio::test]
async fn a_device_that_need_not_confirm_gets_everything() {
    let relay = Relay::generous(|_| {});
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    for number in 1..=200 {
        alice.sends_to(&bob, number).await;
        alice.hears_ack(number).await;
        bob.receives(number).await;
    }
}

#[tokio::test]
async fn unconfirmed_bytes_are_limited_too() {
    let relay = Relay::generous(|settings| settings.delivery.bytes = 64 * 1024);
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    let large = "e".repeat(30_000);
    for number in 1..=3 {
        let frame = alice.message_to(&bob.id, number, json!({"encrypted_data": large}));
        alice.says(frame).await;
        alice.hears_ack(number).await;
    }
    bob.receives(1).await;
    bob.receives(2).await;
    bob.hears_nothing().await;
    bob.acks(1).await;
    bob.receives(3).await;
}

#[tokio::test]
async fn one_message_in_makes_one_receive_and_one_answer() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    let mut carol = Device::plain(&relay).await;
    for number in 1..=20 {
        alice.sends_to(&bob, number).await;
        alice.hears_ack(number).await;
        bob.receives(number).await;
        for device in [&mut alice, &mut bob, &mut carol] {
            device.hears_nothing().await;
        }
    }
}

#[tokio::test]
async fn the_books_balance() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    for number in 1..=4 {
        let frame = alice.message_to(&bob.id, number, json!({"ttl": number * 10}));
        alice.says(frame).await;
        alice.hears_ack(number).await;
        bob.receives(number).await;
    }
    bob.acks(1).await;
    relay.passes(20);
    assert_eq!(alice.hears_error(410).await["message_id"], json!(message_id(2)));
    let _bob = bob.goes_away(&relay).await;
    let count = |health: &serde_json::Value, name: &str| health[name].as_u64().expect("a count");
    let health = relay.health().await;
    let parts = ["delivered", "expired", "queued", "in_flight"].map(|name| count(&health, name));
    assert_eq!(parts, [1, 1, 2, 0]);
    assert_eq!(count(&health, "accepted"), 4);
}
