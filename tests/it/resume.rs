//! Resuming: a device on a new connection. (threats: T16, T17)

use serde_json::{Value, json};

use crate::support::{Device, Relay};

fn token_of(device: &Device) -> String {
    device.registration["resume_token"].as_str().expect("a token").to_owned()
}

fn resume_with(token: &str) -> Value {
    json!({"type": "Register", "payload": {"resume_token": token}})
}

#[tokio::test]
async fn the_response_has_only_the_requested_fields() {
    let relay = Relay::start();
    let keys = |device: &Device| -> Vec<String> {
        let fields = device.registration.as_object().expect("an object");
        let mut keys: Vec<String> = fields.keys().cloned().collect();
        keys.sort();
        keys
    };
    let register = |payload: Value| json!({"type": "Register", "payload": payload});
    let plain = Device::register(&relay, register(json!({}))).await;
    assert_eq!(keys(&plain), ["device_id"]);
    let plain = Device::register(&relay, register(json!({"receipts": false}))).await;
    let all = ["device_id", "limits", "protocol", "queued", "resumable", "resumed", "session_ttl"];
    assert_eq!(keys(&plain), all);
    assert_eq!(plain.registration["session_ttl"], 3600);
    // A client that misspells the field learns that the relay did not read it.
    for payload in [json!({"receipts": false}), json!({"resumeable": true})] {
        let plain = Device::register(&relay, register(payload)).await;
        assert_eq!(plain.registration["resumable"], false);
        assert_eq!(plain.registration["protocol"], 1);
    }
    let resumable = Device::resumable(&relay).await;
    let fields = keys(&resumable).into_iter().filter(|key| key != "resume_token");
    assert_eq!(fields.collect::<Vec<_>>(), all);
    let resumed = Device::resume(&relay, &resumable.token()).await;
    for resumable in [&resumable, &resumed] {
        assert_eq!(resumable.registration["resumable"], true);
        assert_eq!(resumable.registration["protocol"], 1);
    }
    assert_eq!(resumable.registration["session_ttl"], 604_800);
    assert_eq!(resumable.registration["resumed"], false);
    let token = token_of(&resumable);
    assert_eq!(token.len(), 64);
    assert!(token.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{token}");
}

#[tokio::test]
async fn the_token_stays_the_same_however_often_it_is_used() {
    let relay = Relay::start();
    let mut bob = Device::resumable(&relay).await;
    let (id, token) = (bob.id.clone(), token_of(&bob));
    for _ in 0..3 {
        bob = bob.disconnect(&relay).await.reconnect(&relay).await;
        assert_eq!((bob.id.as_str(), token_of(&bob)), (id.as_str(), token.clone()));
        assert_eq!(bob.registration["resumed"], true);
    }
    let welcome = bob.registration.clone();
    bob.send(resume_with(&token)).await;
    assert_eq!(bob.expect_frame("RegisterResponse").await, welcome, "the same response again");
}

#[tokio::test]
async fn unconfirmed_messages_come_again_before_waiting_ones_and_those_before_new_ones() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    for number in 1..=3 {
        alice.send_to(&bob, number).await;
        alice.expect_ack(number).await;
        bob.receive(number).await;
    }
    bob.ack(2).await;
    let bob = bob.disconnect(&relay).await;
    for number in 4..=5 {
        let frame = alice.message_to(&bob.id, number, json!({}));
        alice.send(frame).await;
        alice.expect_ack(number).await;
    }
    let mut bob = bob.reconnect(&relay).await;
    assert_eq!(bob.registration["queued"], 4);
    alice.send_to(&bob, 6).await;
    for number in [1, 3, 4, 5, 6] {
        bob.receive(number).await;
    }
    for number in [1, 3, 4, 5, 6] {
        bob.ack(number).await;
    }
    bob.expect_nothing().await;
    let bob = bob.disconnect(&relay).await.reconnect(&relay).await;
    assert_eq!(bob.registration["queued"], 0);
    bob.expect_nothing_and_close().await;
}

#[tokio::test]
async fn a_message_confirmed_on_the_next_connection_is_settled() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    alice.send_to(&bob, 1).await;
    bob.receive(1).await;
    let mut bob = bob.reconnect(&relay).await;
    bob.receive(1).await;
    bob.ack(1).await;
    bob.expect_nothing().await;
    relay.wait_until(|health| health["delivered"] == 1 && health["in_flight"] == 0).await;
}

#[tokio::test]
async fn every_wrong_token_is_refused_with_the_same_text() {
    let relay = Relay::start();
    let bob = Device::resumable(&relay).await;
    let plain = Device::plain(&relay).await;
    let token = token_of(&bob);
    let mut other = Device::connect(&relay).await;
    let wrong = [
        "0".repeat(64),
        token.to_uppercase() + "0",
        token[..63].to_owned(),
        String::new(),
        bob.id.clone(),
        plain.id.clone(),
        "\u{0}".repeat(64),
    ];
    for token in wrong {
        let error = other.expect_refusal(resume_with(&token), 401).await;
        assert_eq!(error["message"], "Resume token refused: register afresh.");
        let known = error.as_object().expect("an object").len();
        assert_eq!(known, 2, "the error does not distinguish the tokens: {error}");
    }
    other.send(json!({"type": "Register"})).await;
    other.expect_frame("RegisterResponse").await;
    // The wrong tokens have not disturbed the device.
    bob.expect_nothing_and_close().await;
}

#[tokio::test]
async fn an_expired_token_is_refused_like_a_wrong_one() {
    let relay = Relay::start();
    let bob = Device::resumable(&relay).await;
    let resume = bob.resume_frame();
    let bob = bob.disconnect(&relay).await;
    relay.advance(604_799);
    let bob = bob.reconnect(&relay).await.disconnect(&relay).await;
    relay.advance(604_800);
    let mut unregistered = Device::connect(&relay).await;
    let error = unregistered.expect_refusal(resume, 401).await;
    assert_eq!(error["message"], "Resume token refused: register afresh.");
    let mut alice = Device::plain(&relay).await;
    relay.wait_until(|health| health["devices"] == 1).await;
    let frame = alice.message_to(&bob.id, 1, json!({}));
    alice.expect_refusal(frame, 404).await;
}

#[tokio::test]
async fn tokens_cannot_be_guessed() {
    let relay = Relay::start();
    let bob = Device::resumable(&relay).await;
    let mut guesser = Device::connect(&relay).await;
    for number in 0..10 {
        guesser.expect_refusal(resume_with(&format!("{number:064x}")), 401).await;
    }
    let mut again = Device::connect(&relay).await;
    for (guesser, time) in [(&mut guesser, 6_000), (&mut again, 12_000)] {
        let error = guesser.expect_refusal(resume_with(&"f".repeat(64)), 429).await;
        assert_eq!(error["message"], "Rate limit exceeded (10/10). Try again in a minute.");
        assert_eq!(error["retry_after_ms"], json!(time), "each has a time of its own");
    }
    // At its time each guess is answered again.
    for guesser in [&mut guesser, &mut again] {
        relay.advance(6);
        guesser.expect_refusal(resume_with(&"f".repeat(64)), 401).await;
        guesser.expect_refusal(resume_with(&"f".repeat(64)), 429).await;
    }
    // A new registration is not limited here.
    again.send(json!({"type": "Register"})).await;
    again.expect_frame("RegisterResponse").await;
    // The limit also delays a device with a valid token; later the device resumes.
    let resume = bob.resume_frame();
    relay.advance(60);
    let bob = bob.reconnect(&relay).await;
    assert_eq!(bob.resume_frame(), resume);
}

#[tokio::test]
async fn the_newer_connection_of_a_device_replaces_the_older() {
    let relay = Relay::start();
    let mut alice = Device::plain(&relay).await;
    let mut old = Device::resumable(&relay).await;
    alice.send_to(&old, 1).await;
    alice.expect_ack(1).await;
    old.receive(1).await;
    let mut new = Device::register(&relay, old.resume_frame()).await;
    assert_eq!((&new.id, &new.registration["resumed"]), (&old.id, &json!(true)));
    let error = old.expect_error(409).await;
    assert_eq!(error["message"], "Replaced by a newer connection of this device.");
    assert_eq!(old.expect_close().await, Some(4409));
    // The newer connection gets the messages that the older had not confirmed.
    new.receive(1).await;
    // The late end of the older connection changes nothing.
    drop(old);
    relay.wait_until(|health| health["connections"] == 2).await;
    alice.send_to(&new, 2).await;
    alice.expect_ack(2).await;
    new.receive(2).await;
    assert_eq!(relay.health().await["connected"], 2);
}

#[tokio::test]
async fn frames_of_a_replaced_connection_are_ignored() {
    let relay = Relay::start();
    let mut alice = Device::plain(&relay).await;
    let old = Device::resumable(&relay).await;
    let new = Device::register(&relay, old.resume_frame()).await;
    let mut old = old;
    let late = old.message_to(&alice.id, 1, json!({}));
    // The connection may be closed already.
    let _ = old.try_send(late).await;
    old.expect_closed_with(4409).await;
    relay.wait_until(|health| health["connections"] == 2).await;
    alice.expect_nothing().await;
    new.expect_nothing_and_close().await;
}

#[tokio::test]
async fn a_plain_device_cannot_be_claimed_again() {
    let relay = Relay::start();
    let bob = Device::plain(&relay).await;
    let id = bob.id.clone();
    bob.close().await;
    let mut other = Device::connect(&relay).await;
    let claim = json!({"type": "Register", "payload": {"device_id": id, "resume_token": id}});
    other.expect_refusal(claim, 401).await;
    let fresh = Device::register(&relay, json!({"type": "Register", "payload": {"device_id": id}}));
    assert_ne!(fresh.await.id, id);
}
