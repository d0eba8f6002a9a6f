//! What became of a message, and who may say so. (threats: T18)

use serde_json::{Value, json};

use crate::support::{Device, Relay, message_id};

/// A device that wants receipts and cannot resume.
async fn plain_with_receipts(relay: &Relay) -> Device {
    Device::registered(relay, json!({"type": "Register", "payload": {"receipts": true}})).await
}

fn says(number: u32, status: &str) -> Value {
    json!({"message_id": message_id(number), "status": status})
}

async fn hears_queued(device: &mut Device, number: u32) {
    let mut ack = device.hears("Ack").await;
    assert!(ack["expires_at"].take().is_u64(), "until when");
    let queued = json!({"message_id": message_id(number), "status": "queued", "expires_at": null});
    assert_eq!(ack, queued);
}

#[tokio::test]
async fn a_plain_device_that_is_there_has_the_message_at_once() {
    let relay = Relay::start();
    let mut alice = plain_with_receipts(&relay).await;
    let mut bob = Device::plain(&relay).await;
    alice.sends_to(&bob, 1).await;
    bob.receives(1).await;
    assert_eq!(alice.hears("Ack").await, says(1, "delivered"));
    bob.acks(1).await;
    bob.hears_nothing().await;
    alice.leaves_having_heard_all().await;
}

#[tokio::test]
async fn a_plain_device_that_holds_gets_it_later() {
    let relay = Relay::start();
    let mut alice = plain_with_receipts(&relay).await;
    let mut bob = Device::plain(&relay).await;
    bob.is("Offline").await;
    bob.hears_nothing().await;
    alice.sends_to(&bob, 1).await;
    hears_queued(&mut alice, 1).await;
    bob.is("Online").await;
    bob.receives(1).await;
    assert_eq!(alice.hears("Ack").await, says(1, "delivered"));
    alice.leaves_having_heard_all().await;
}

#[tokio::test]
async fn a_plain_device_that_has_gone_never_gets_it() {
    let relay = Relay::start();
    let mut alice = plain_with_receipts(&relay).await;
    let bob = Device::plain(&relay).await;
    let id = bob.id.clone();
    bob.leaves().await;
    relay.comes_to(|health| health["connected"] == 1).await;
    let frame = alice.message_to(&id, 1, json!({"ttl": 5}));
    alice.says(frame).await;
    hears_queued(&mut alice, 1).await;
    relay.passes(5);
    alice.hears_error(410).await;
    alice.leaves_having_heard_all().await;
}

#[tokio::test]
async fn a_device_that_can_resume_has_it_when_it_says_so() {
    let relay = Relay::start();
    let mut alice = plain_with_receipts(&relay).await;
    let mut bob = Device::resumable(&relay).await;
    alice.sends_to(&bob, 1).await;
    hears_queued(&mut alice, 1).await;
    bob.receives(1).await;
    bob.hears_nothing().await;
    alice.hears_nothing().await;
    bob.acks(1).await;
    assert_eq!(alice.hears("Ack").await, says(1, "processed"));
    alice.leaves_having_heard_all().await;
}

#[tokio::test]
async fn receipts_are_kept_for_a_sender_that_comes_back() {
    let relay = Relay::start();
    let mut alice = Device::with_receipts(&relay).await;
    let mut bob = Device::resumable(&relay).await;
    alice.sends_to(&bob, 1).await;
    hears_queued(&mut alice, 1).await;
    let alice = alice.goes_away(&relay).await;
    bob.receives(1).await;
    bob.acks(1).await;
    bob.hears_nothing().await;
    let mut alice = alice.comes_back(&relay).await;
    assert_eq!(alice.hears("Ack").await, says(1, "processed"));
    // It has not asked for receipts this time.
    alice.sends_to(&bob, 2).await;
    alice.hears_ack(2).await;
    bob.receives(2).await;
    bob.acks(2).await;
    bob.hears_nothing().await;
    alice.leaves_having_heard_all().await;
}

#[tokio::test]
async fn without_receipts_there_is_one_bare_ack() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::resumable(&relay).await, Device::resumable(&relay).await);
    alice.sends_to(&bob, 1).await;
    alice.hears_ack(1).await;
    bob.receives(1).await;
    bob.acks(1).await;
    bob.hears_nothing().await;
    alice.leaves_having_heard_all().await;
}

#[tokio::test]
async fn nobody_confirms_what_is_anothers() {
    let relay = Relay::start();
    let mut alice = Device::with_receipts(&relay).await;
    let (bob, mut mallory) = (Device::resumable(&relay).await, Device::resumable(&relay).await);
    let mut bob = bob;
    alice.sends_to(&bob, 1).await;
    hears_queued(&mut alice, 1).await;
    bob.receives(1).await;
    mallory.acks(1).await;
    let named = json!({"message_id": message_id(1), "sender_id": alice.id});
    mallory.says(json!({"type": "Ack", "payload": named})).await;
    alice.acks(1).await;
    for device in [&mut mallory, &mut alice] {
        device.hears_nothing().await;
    }
    assert_eq!(relay.health().await["stray_acks"], 3, "counted");
    let mut bob = bob.resumes(&relay).await;
    bob.receives(1).await;
}

#[tokio::test]
async fn an_ack_that_confirms_nothing_is_ignored() {
    let relay = Relay::start();
    let (mut alice, mut bob) =
        (Device::with_receipts(&relay).await, Device::resumable(&relay).await);
    alice.sends_to(&bob, 1).await;
    hears_queued(&mut alice, 1).await;
    bob.receives(1).await;
    bob.acks(99).await;
    let other = json!({"message_id": message_id(1), "sender_id": bob.id});
    bob.says(json!({"type": "Ack", "payload": other})).await;
    bob.hears_nothing().await;
    alice.hears_nothing().await;
    bob.acks(1).await;
    bob.acks(1).await;
    bob.hears_nothing().await;
    assert_eq!(alice.hears("Ack").await, says(1, "processed"));
    alice.leaves_having_heard_all().await;
    assert_eq!(relay.health().await["stray_acks"], 3);
}

#[tokio::test]
async fn what_has_not_been_handed_over_cannot_be_confirmed() {
    let relay = Relay::generous(|settings| settings.delivery.window = 2);
    let (mut alice, mut bob) =
        (Device::with_receipts(&relay).await, Device::resumable(&relay).await);
    for number in 1..=6 {
        alice.sends_to(&bob, number).await;
        hears_queued(&mut alice, number).await;
    }
    bob.receives(1).await;
    bob.receives(2).await;
    bob.acks(6).await;
    bob.hears_nothing().await;
    alice.hears_nothing().await;
    for number in 1..=4 {
        bob.acks(number).await;
        assert_eq!(alice.hears("Ack").await, says(number, "processed"));
        bob.receives(number + 2).await;
    }
}

#[tokio::test]
async fn two_senders_may_use_one_id() {
    let relay = Relay::start();
    let mut bob = Device::resumable(&relay).await;
    let (mut alice, mut carol) =
        (plain_with_receipts(&relay).await, plain_with_receipts(&relay).await);
    for sender in [&mut alice, &mut carol] {
        sender.sends_to(&bob, 1).await;
        hears_queued(sender, 1).await;
        bob.receives(1).await;
    }
    let of_carol = json!({"message_id": message_id(1), "sender_id": carol.id});
    bob.says(json!({"type": "Ack", "payload": of_carol})).await;
    assert_eq!(carol.hears("Ack").await, says(1, "processed"));
    alice.hears_nothing().await;
    bob.acks(1).await;
    assert_eq!(alice.hears("Ack").await, says(1, "processed"));
    carol.hears_nothing().await;
}

#[tokio::test]
async fn a_receipt_waits_like_a_message_for_a_reader_that_confirms() {
    let relay = Relay::generous(|settings| settings.delivery.window = 2);
    let (mut alice, mut bob) =
        (Device::with_receipts(&relay).await, Device::resumable(&relay).await);
    for number in 1..=3 {
        bob.sends_to(&alice, number).await;
        bob.hears_ack(number).await;
    }
    alice.receives(1).await;
    alice.receives(2).await;
    alice.sends_to(&bob, 9).await;
    hears_queued(&mut alice, 9).await;
    bob.receives(9).await;
    bob.acks(9).await;
    relay.comes_to(|health| health["delivered"] == 1).await;
    alice.hears_nothing().await;
    alice.acks(1).await;
    alice.receives(3).await;
    alice.hears_nothing().await;
    alice.acks(2).await;
    assert_eq!(alice.hears("Ack").await, says(9, "processed"));
}
