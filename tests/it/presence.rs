//! Whether messages are welcome.

use serde_json::json;

use crate::support::{Device, Relay};

#[tokio::test]
async fn who_says_offline_gets_its_messages_when_it_says_otherwise() {
    for welcome in ["Online", "Away"] {
        let relay = Relay::start();
        let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
        bob.is("Offline").await;
        bob.hears_nothing().await;
        for number in 1..=3 {
            alice.sends_to(&bob, number).await;
            alice.hears_ack(number).await;
        }
        bob.hears_nothing().await;
        bob.is(welcome).await;
        for number in 1..=3 {
            bob.receives(number).await;
        }
        alice.sends_to(&bob, 4).await;
        bob.receives(4).await;
    }
}

#[tokio::test]
async fn who_is_away_gets_its_messages() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    bob.is("Away").await;
    bob.hears_nothing().await;
    alice.sends_to(&bob, 1).await;
    bob.receives(1).await;
}

#[tokio::test]
async fn who_says_offline_may_go_on_speaking_and_hears_the_answers() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    alice.is("Offline").await;
    alice.sends_to(&bob, 1).await;
    alice.hears_ack(1).await;
    bob.receives(1).await;
    let nobody = alice.message_to("c0ffee00-1234-4abc-9def-0123456789ab", 2, json!({}));
    alice.is_refused(nobody, 404).await;
}

#[tokio::test]
async fn who_says_offline_hears_later_what_became_of_its_messages() {
    let relay = Relay::start();
    let (mut alice, mut bob) =
        (Device::with_receipts(&relay).await, Device::resumable(&relay).await);
    alice.is("Offline").await;
    for (number, ttl) in [(1, 10), (2, 20)] {
        let frame = alice.message_to(&bob.id, number, json!({"ttl": ttl}));
        alice.says(frame).await;
        assert_eq!(alice.hears("Ack").await["status"], "queued");
        bob.receives(number).await;
    }
    bob.acks(2).await;
    relay.comes_to(|health| health["delivered"] == 1).await;
    relay.passes(10);
    relay.comes_to(|health| health["expired"] == 1).await;
    alice.hears_nothing().await;
    alice.is("Online").await;
    assert_eq!(alice.hears("Ack").await["status"], "processed");
    alice.hears_error(410).await;
}

#[tokio::test]
async fn what_is_held_expires_in_its_time() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    bob.is("Offline").await;
    bob.hears_nothing().await;
    for (number, ttl) in [(1, 10), (2, 20)] {
        let frame = alice.message_to(&bob.id, number, json!({"ttl": ttl}));
        alice.says(frame).await;
        alice.hears_ack(number).await;
    }
    relay.passes(10);
    alice.hears_error(410).await;
    bob.is("Online").await;
    bob.receives(2).await;
    bob.hears_nothing().await;
}

#[tokio::test]
async fn a_new_connection_begins_online() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    bob.is("Offline").await;
    let bob = bob.goes_away(&relay).await;
    let frame = alice.message_to(&bob.id, 1, json!({}));
    alice.says(frame).await;
    alice.hears_ack(1).await;
    bob.comes_back(&relay).await.receives(1).await;
}

#[tokio::test]
async fn presence_is_told_to_nobody() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    alice.sends_to(&bob, 1).await;
    alice.hears_ack(1).await;
    bob.receives(1).await;
    for status in ["Away", "Offline", "Online"] {
        bob.is(status).await;
        bob.hears_nothing().await;
        alice.hears_nothing().await;
    }
    bob.is("Offline").await;
    bob.hears_nothing().await;
    // The same Ack, whether Bob is there or not.
    alice.sends_to(&bob, 2).await;
    alice.hears_ack(2).await;
    bob.leaves_having_heard_all().await;
    alice.leaves_having_heard_all().await;
}

#[tokio::test]
async fn any_other_status_is_refused() {
    let relay = Relay::start();
    let mut alice = Device::plain(&relay).await;
    for status in [json!("online"), json!("Busy"), json!(""), json!(1), json!(["Online"])] {
        let payload = json!({"device_id": alice.id, "status": status});
        let error = alice.is_refused(json!({"type": "Status", "payload": payload}), 400).await;
        let said = "Malformed message: status of Status must be Online, Away or Offline.";
        assert_eq!(error["message"], said);
    }
}
