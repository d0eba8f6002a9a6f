//! Messages that wait for one device leave room for those of other devices. (threats: T27)

use std::time::Duration;

use serde_json::json;

use crate::support::{Device, Relay, message_id};

#[tokio::test]
async fn one_sender_cannot_fill_a_queue_against_the_others() {
    let relay = Relay::without_origins(|settings| settings.queue.messages = 4);
    let bob = Device::resumable(&relay).await.disconnect(&relay).await;
    let mut alice = Device::plain(&relay).await;
    for number in 1..=2 {
        let frame = alice.message_to(&bob.id, number, json!({}));
        alice.send(frame).await;
        alice.expect_ack(number).await;
    }
    let third = alice.message_to(&bob.id, 3, json!({}));
    let error = alice.expect_refusal(third.clone(), 507).await;
    assert_eq!(error["message"], "The recipient's queue is full.");
    assert_eq!(error["message_id"], json!(message_id(3)));
    assert_eq!(error["recipient_id"], json!(bob.id));
    let mut carol = Device::plain(&relay).await;
    for number in 4..=5 {
        let frame = carol.message_to(&bob.id, number, json!({}));
        carol.send(frame).await;
        carol.expect_ack(number).await;
    }
    let mut dave = Device::plain(&relay).await;
    let frame = dave.message_to(&bob.id, 6, json!({}));
    dave.expect_refusal(frame, 507).await;
    let frame = dave.key_update(&bob.id, "k");
    assert_eq!(dave.expect_refusal(frame, 507).await["key_id"], "k");
    // No older message was dropped for the refused one.
    let mut bob = bob.reconnect(&relay).await;
    for number in [1, 2, 4, 5] {
        bob.receive(number).await;
        bob.ack(number).await;
    }
    bob.expect_nothing().await;
    // A refused message may be sent again under its id.
    alice.send(third).await;
    alice.expect_ack(3).await;
    bob.receive(3).await;
}

#[tokio::test]
async fn expired_messages_do_not_fill_a_queue() {
    let relay = Relay::with(|settings| {
        settings.queue.messages = 2;
        settings.sweeper.interval = Duration::from_secs(3600);
    });
    let bob = Device::resumable(&relay).await.disconnect(&relay).await;
    let mut alice = Device::plain(&relay).await;
    let frame = alice.message_to(&bob.id, 1, json!({"ttl": 5}));
    alice.send(frame).await;
    alice.expect_ack(1).await;
    let frame = alice.message_to(&bob.id, 2, json!({}));
    alice.expect_refusal(frame.clone(), 507).await;
    relay.advance(5);
    alice.send(frame).await;
    alice.expect_ack(2).await;
}

#[tokio::test]
async fn bytes_are_limited_as_messages_are() {
    let relay = Relay::without_origins(|settings| {
        settings.queue.bytes = 2500;
        settings.queue.sender_share = 1.0;
    });
    let bob = Device::resumable(&relay).await.disconnect(&relay).await;
    let mut alice = Device::plain(&relay).await;
    let frame = alice.message_to(&bob.id, 1, json!({"encrypted_data": "e".repeat(1200)}));
    alice.send(frame).await;
    alice.expect_ack(1).await;
    let frame = alice.message_to(&bob.id, 2, json!({"encrypted_data": "e".repeat(1200)}));
    alice.expect_refusal(frame, 507).await;
    let frame = alice.message_to(&bob.id, 3, json!({"encrypted_data": "e"}));
    alice.send(frame).await;
    alice.expect_ack(3).await;
}

#[tokio::test]
async fn a_full_relay_names_the_time_of_the_next_attempt() {
    let relay = Relay::with(|settings| settings.queue.total_bytes = 1000);
    let bob = Device::resumable(&relay).await.disconnect(&relay).await;
    let (mut alice, mut carol) = (Device::plain(&relay).await, Device::plain(&relay).await);
    let frame = alice.message_to(&bob.id, 1, json!({"encrypted_data": "e".repeat(2000)}));
    let error = alice.expect_refusal(frame, 503).await;
    assert_eq!(error["message"], "The relay is full. Try again later.");
    assert_eq!(error["message_id"], json!(message_id(1)));
    assert!(error["retry_after_ms"].is_u64(), "{error}");
    // A message that only passes through takes no room.
    alice.send_to(&carol, 2).await;
    alice.expect_ack(2).await;
    carol.receive(2).await;
}

#[tokio::test]
async fn a_relay_at_its_device_limit_registers_no_new_device() {
    let relay = Relay::without_origins(|settings| settings.limits.devices = 2);
    let (alice, _bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    let mut unregistered = Device::connect(&relay).await;
    let error = unregistered.expect_refusal(json!({"type": "Register"}), 503).await;
    assert!(error["retry_after_ms"].is_u64(), "{error}");
    alice.expect_nothing_and_close().await;
}

#[tokio::test]
async fn ten_thousand_invented_recipients_cost_the_relay_nothing() {
    let relay = Relay::generous(|_| {});
    let mut alice = Device::plain(&relay).await;
    for hundred in 0..100u64 {
        let frames: Vec<_> = (0..100u64)
            .map(|number| {
                let id = format!("c0ffee00-1234-4abc-9def-{:012x}", hundred * 100 + number);
                alice.message_to(&id, number, json!({}))
            })
            .collect();
        alice.send_all(frames).await;
        for number in 0..100u64 {
            let error = alice.expect_error(404).await;
            assert_eq!(error["message_id"], json!(message_id(number)));
        }
    }
    let health = relay.health().await;
    assert_eq!((&health["devices"], &health["accepted"]), (&json!(1), &json!(0)));
    assert_eq!(health["queued_bytes"], 0);
}
