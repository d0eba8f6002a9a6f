//! Receipts: the outcome of a message, and which device may confirm it. (threats: T18)

use serde_json::{Value, json};

use crate::support::{Device, Relay, message_id};

/// A device that wants receipts and cannot resume.
async fn plain_with_receipts(relay: &Relay) -> Device {
    Device::register(relay, json!({"type": "Register", "payload": {"receipts": true}})).await
}

fn ack(number: u64, status: &str) -> Value {
    json!({"message_id": message_id(number), "status": status})
}

async fn expect_queued(device: &mut Device, number: u64) {
    let mut ack = device.expect_frame("Ack").await;
    assert!(ack["expires_at"].take().is_u64(), "until when");
    let queued = json!({"message_id": message_id(number), "status": "queued", "expires_at": null});
    assert_eq!(ack, queued);
}

#[tokio::test]
async fn a_message_to_a_connected_plain_device_is_delivered_at_once() {
    let relay = Relay::start();
    let mut alice = plain_with_receipts(&relay).await;
    let mut bob = Device::plain(&relay).await;
    alice.send_to(&bob, 1).await;
    bob.receive(1).await;
    assert_eq!(alice.expect_frame("Ack").await, ack(1, "delivered"));
    bob.ack(1).await;
    bob.expect_nothing().await;
    alice.expect_nothing_and_close().await;
}

#[tokio::test]
async fn a_message_to_an_offline_plain_device_is_delivered_later() {
    let relay = Relay::start();
    let mut alice = plain_with_receipts(&relay).await;
    let mut bob = Device::plain(&relay).await;
    bob.set_status("Offline").await;
    bob.expect_nothing().await;
    alice.send_to(&bob, 1).await;
    expect_queued(&mut alice, 1).await;
    bob.set_status("Online").await;
    bob.receive(1).await;
    assert_eq!(alice.expect_frame("Ack").await, ack(1, "delivered"));
    alice.expect_nothing_and_close().await;
}

#[tokio::test]
async fn a_message_to_a_disconnected_plain_device_is_never_delivered() {
    let relay = Relay::start();
    let mut alice = plain_with_receipts(&relay).await;
    let bob = Device::plain(&relay).await;
    let id = bob.id.clone();
    bob.close().await;
    relay.wait_until(|health| health["connected"] == 1).await;
    let frame = alice.message_to(&id, 1, json!({"ttl": 5}));
    alice.send(frame).await;
    expect_queued(&mut alice, 1).await;
    relay.advance(5);
    alice.expect_error(410).await;
    alice.expect_nothing_and_close().await;
}

#[tokio::test]
async fn a_message_to_a_resumable_device_is_delivered_at_its_ack() {
    let relay = Relay::start();
    let mut alice = plain_with_receipts(&relay).await;
    let mut bob = Device::resumable(&relay).await;
    alice.send_to(&bob, 1).await;
    expect_queued(&mut alice, 1).await;
    bob.receive(1).await;
    bob.expect_nothing().await;
    alice.expect_nothing().await;
    bob.ack(1).await;
    assert_eq!(alice.expect_frame("Ack").await, ack(1, "processed"));
    alice.expect_nothing_and_close().await;
}

#[tokio::test]
async fn receipts_are_kept_for_a_sender_that_comes_back() {
    let relay = Relay::start();
    let mut alice = Device::with_receipts(&relay).await;
    let mut bob = Device::resumable(&relay).await;
    alice.send_to(&bob, 1).await;
    expect_queued(&mut alice, 1).await;
    let alice = alice.disconnect(&relay).await;
    bob.receive(1).await;
    bob.ack(1).await;
    bob.expect_nothing().await;
    let mut alice = alice.reconnect(&relay).await;
    assert_eq!(alice.expect_frame("Ack").await, ack(1, "processed"));
    let token = alice.token();
    alice.close().await;
    // This time the device does not ask for receipts.
    let mut alice = Device::resume(&relay, &token).await;
    alice.send_to(&bob, 2).await;
    alice.expect_ack(2).await;
    bob.receive(2).await;
    bob.ack(2).await;
    bob.expect_nothing().await;
    alice.expect_nothing_and_close().await;
}

#[tokio::test]
async fn without_receipts_there_is_one_bare_ack() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::resumable(&relay).await, Device::resumable(&relay).await);
    alice.send_to(&bob, 1).await;
    alice.expect_ack(1).await;
    bob.receive(1).await;
    bob.ack(1).await;
    bob.expect_nothing().await;
    alice.expect_nothing_and_close().await;
}

#[tokio::test]
async fn no_device_can_ack_a_message_of_another_recipient() {
    let relay = Relay::start();
    let mut alice = Device::with_receipts(&relay).await;
    let (bob, mut mallory) = (Device::resumable(&relay).await, Device::resumable(&relay).await);
    let mut bob = bob;
    alice.send_to(&bob, 1).await;
    expect_queued(&mut alice, 1).await;
    bob.receive(1).await;
    mallory.ack(1).await;
    let named = json!({"message_id": message_id(1), "sender_id": alice.id});
    mallory.send(json!({"type": "Ack", "payload": named})).await;
    alice.ack(1).await;
    for device in [&mut mallory, &mut alice] {
        device.expect_nothing().await;
    }
    assert_eq!(relay.health().await["stray_acks"], 3, "counted");
    let mut bob = bob.reconnect(&relay).await;
    bob.receive(1).await;
}

#[tokio::test]
async fn an_ack_that_confirms_nothing_is_ignored() {
    let relay = Relay::start();
    let (mut alice, mut bob) =
        (Device::with_receipts(&relay).await, Device::resumable(&relay).await);
    alice.send_to(&bob, 1).await;
    expect_queued(&mut alice, 1).await;
    bob.receive(1).await;
    bob.ack(99).await;
    let other = json!({"message_id": message_id(1), "sender_id": bob.id});
    bob.send(json!({"type": "Ack", "payload": other})).await;
    bob.expect_nothing().await;
    alice.expect_nothing().await;
    bob.ack(1).await;
    bob.ack(1).await;
    bob.expect_nothing().await;
    assert_eq!(alice.expect_frame("Ack").await, ack(1, "processed"));
    alice.expect_nothing_and_close().await;
    assert_eq!(relay.health().await["stray_acks"], 3);
}

#[tokio::test]
async fn a_message_that_was_not_handed_over_cannot_be_acked() {
    let relay = Relay::generous(|settings| settings.delivery.window = 2);
    let (mut alice, mut bob) =
        (Device::with_receipts(&relay).await, Device::resumable(&relay).await);
    for number in 1..=6 {
        alice.send_to(&bob, number).await;
        expect_queued(&mut alice, number).await;
    }
    bob.receive(1).await;
    bob.receive(2).await;
    bob.ack(6).await;
    bob.expect_nothing().await;
    alice.expect_nothing().await;
    for number in 1..=4 {
        bob.ack(number).await;
        assert_eq!(alice.expect_frame("Ack").await, ack(number, "processed"));
        bob.receive(number + 2).await;
    }
}

#[tokio::test]
async fn two_senders_may_use_one_id() {
    let relay = Relay::start();
    let mut bob = Device::resumable(&relay).await;
    let (mut alice, mut carol) =
        (plain_with_receipts(&relay).await, plain_with_receipts(&relay).await);
    for sender in [&mut alice, &mut carol] {
        sender.send_to(&bob, 1).await;
        expect_queued(sender, 1).await;
        bob.receive(1).await;
    }
    let of_carol = json!({"message_id": message_id(1), "sender_id": carol.id});
    bob.send(json!({"type": "Ack", "payload": of_carol})).await;
    assert_eq!(carol.expect_frame("Ack").await, ack(1, "processed"));
    alice.expect_nothing().await;
    bob.ack(1).await;
    assert_eq!(alice.expect_frame("Ack").await, ack(1, "processed"));
    carol.expect_nothing().await;
}

#[tokio::test]
async fn a_receipt_does_not_wait_behind_messages_that_are_not_confirmed() {
    let relay = Relay::generous(|settings| settings.delivery.window = 2);
    let (mut alice, mut bob) =
        (Device::with_receipts(&relay).await, Device::resumable(&relay).await);
    for number in 1..=3 {
        bob.send_to(&alice, number).await;
        bob.expect_ack(number).await;
    }
    alice.receive(1).await;
    alice.receive(2).await;
    alice.send_to(&bob, 9).await;
    expect_queued(&mut alice, 9).await;
    bob.receive(9).await;
    bob.ack(9).await;
    assert_eq!(alice.expect_frame("Ack").await, ack(9, "processed"));
    alice.ack(1).await;
    alice.receive(3).await;
}
