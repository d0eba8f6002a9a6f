//! How long a message lives. (threats: T31)

use serde_json::{Value, json};

use crate::support::{Away, Device, Relay, message_id};

const DEFAULT: u64 = 86_400;
const MAX: u64 = 604_800;

/// Alice, who gets receipts, and Bob, who is away.
async fn alice_and_bob_away(relay: &Relay) -> (Device, Away) {
    let alice = Device::with_receipts(relay).await;
    let bob = Device::resumable(relay).await.disconnect(relay).await;
    (alice, bob)
}

fn expired(number: u64, ttl: u64) -> String {
    format!("Message {} expired after {ttl} s undelivered.", message_id(number))
}

/// The ttl that the sender writes, and the seconds for which the message then waits.
fn accepted() -> Vec<(Value, u64)> {
    vec![
        (json!({}), DEFAULT),
        (json!({"ttl": null}), DEFAULT),
        (json!({"ttl": 1}), 1),
        (json!({"ttl": 300}), 300),
        (json!({"ttl": MAX}), MAX),
        (json!({"ttl": MAX + 1}), MAX),
        (json!({"ttl": u64::MAX}), MAX),
    ]
}

#[tokio::test]
async fn a_message_waits_for_its_ttl_clamped_and_not_a_moment_longer() {
    for (ttl, seconds) in accepted() {
        let relay = Relay::start();
        let (mut alice, bob) = alice_and_bob_away(&relay).await;
        let before = relay.clock.now().unix();
        let frame = alice.message_to(&bob.id, 1, ttl);
        alice.send(frame).await;
        let ack = alice.expect_frame("Ack").await;
        let expires_at = ack["expires_at"].as_u64().expect("a time");
        assert_eq!(expires_at, before + seconds, "{ack}");
        relay.advance(seconds);
        let error = alice.expect_error(410).await;
        assert_eq!(error["message"], expired(1, seconds));
        assert_eq!(error["message_id"], json!(message_id(1)));
        assert_eq!(error["recipient_id"], json!(bob.id));
        if seconds < MAX {
            let mut bob = bob.reconnect(&relay).await;
            assert_eq!(bob.registration["queued"], 0);
            bob.expect_nothing().await;
        }
        alice.expect_nothing_and_close().await;
    }
}

#[tokio::test]
async fn a_message_is_handed_over_until_the_moment_it_expires() {
    let relay = Relay::start();
    let (mut alice, bob) = alice_and_bob_away(&relay).await;
    let frame = alice.message_to(&bob.id, 1, json!({"ttl": 300}));
    alice.send(frame.clone()).await;
    alice.expect_frame("Ack").await;
    relay.clock.advance(std::time::Duration::from_nanos(300_000_000_000 - 1));
    let mut bob = bob.reconnect(&relay).await;
    assert_eq!(bob.receive(1).await, frame["payload"], "the ttl too, as it was written");
}

#[tokio::test]
async fn an_expired_message_is_not_handed_over_even_before_the_sweep() {
    let relay = Relay::with(|settings| {
        settings.sweeper.interval = std::time::Duration::from_secs(3600);
    });
    let (mut alice, bob) = alice_and_bob_away(&relay).await;
    for (number, ttl) in [(1, 300), (2, 301)] {
        let frame = alice.message_to(&bob.id, number, json!({"ttl": ttl}));
        alice.send(frame).await;
        alice.expect_frame("Ack").await;
    }
    relay.advance(300);
    let mut bob = bob.reconnect(&relay).await;
    assert_eq!(bob.registration["queued"], 1, "what has expired does not wait any more");
    bob.receive(2).await;
    bob.expect_nothing().await;
}

#[tokio::test]
async fn a_clamped_ttl_still_shows_what_the_sender_wrote() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    let frame = alice.message_to(&bob.id, 1, json!({"ttl": u64::MAX}));
    alice.send(frame).await;
    assert_eq!(bob.receive(1).await["ttl"], json!(u64::MAX));
}

#[tokio::test]
async fn a_ttl_beyond_64_bits_is_the_longest_one() {
    let relay = Relay::start();
    let (mut alice, bob) = alice_and_bob_away(&relay).await;
    let before = relay.clock.now().unix();
    let text = alice.message_to(&bob.id, 1, json!({"ttl": 7777})).to_string();
    alice.send_text(&text.replace("7777", &"9".repeat(60))).await;
    assert_eq!(alice.expect_frame("Ack").await["expires_at"], json!(before + MAX));
}

#[tokio::test]
async fn a_message_with_ttl_zero_is_handed_over_at_once_or_refused() {
    let relay = Relay::start();
    let (mut alice, away) = alice_and_bob_away(&relay).await;
    let frame = alice.message_to(&away.id, 1, json!({"ttl": 0}));
    let error = alice.expect_refusal(frame, 410).await;
    assert_eq!(error["message"], expired(1, 0));
    assert_eq!(error["message_id"], json!(message_id(1)));
    let mut bob = away.reconnect(&relay).await;
    bob.expect_nothing().await;

    let frame = alice.message_to(&bob.id, 2, json!({"ttl": 0}));
    alice.send(frame).await;
    bob.receive(2).await;
    let ack = json!({"message_id": message_id(2), "status": "delivered"});
    assert_eq!(alice.expect_frame("Ack").await, ack);
    // A message with ttl 0 is handed over once and never comes again.
    let mut bob = bob.reconnect(&relay).await;
    bob.expect_nothing().await;

    bob.set_status("Offline").await;
    bob.expect_nothing().await;
    let frame = alice.message_to(&bob.id, 3, json!({"ttl": 0}));
    alice.expect_refusal(frame, 410).await;
}

#[tokio::test]
async fn a_refused_ttl_names_its_message() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    for ttl in ["-1", "1.5", "\"300\"", "1e2", "-0", "[]", "{}", "true"] {
        let text = alice.message_to(&bob.id, 1, json!({"ttl": 7777})).to_string();
        alice.send_text(&text.replace("7777", ttl)).await;
        let error = alice.expect_error(400).await;
        let expected =
            "Malformed message: ttl of Send must be a whole number of seconds, 0 or more.";
        assert_eq!(error["message"], expected, "{ttl}");
        assert_eq!(error["message_id"], json!(message_id(1)));
        assert_eq!(error["recipient_id"], json!(bob.id));
        alice.expect_nothing().await;
    }
    bob.expect_nothing().await;
}

#[tokio::test]
async fn a_message_to_a_disconnected_plain_device_ends_in_a_410() {
    let relay = Relay::start();
    let (mut alice, bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    let id = bob.id.clone();
    bob.close().await;
    relay.wait_until(|health| health["connected"] == 1).await;
    for (number, ttl) in [(1, 60), (2, MAX)] {
        let frame = alice.message_to(&id, number, json!({"ttl": ttl}));
        alice.send(frame).await;
        alice.expect_ack(number).await;
    }
    relay.advance(60);
    assert_eq!(alice.expect_error(410).await["message"], expired(1, 60));
    // A plain device is forgotten an hour after it left; no message can wait for it longer.
    relay.advance(3540);
    assert_eq!(alice.expect_error(410).await["message"], expired(2, MAX));
    // The device was forgotten before its messages were reported.
    let frame = alice.message_to(&id, 3, json!({}));
    alice.expect_refusal(frame, 404).await;
}

#[tokio::test]
async fn a_resumable_sender_gets_its_410_when_it_resumes() {
    let relay = Relay::start();
    let (mut alice, bob) = alice_and_bob_away(&relay).await;
    let frame = alice.message_to(&bob.id, 1, json!({"ttl": 300}));
    alice.send(frame).await;
    alice.expect_frame("Ack").await;
    let alice = alice.disconnect(&relay).await;
    relay.advance(300);
    relay.wait_until(|health| health["expired"] == 1).await;
    let mut alice = alice.reconnect(&relay).await;
    assert_eq!(alice.registration["queued"], 0, "a notice is no message");
    assert_eq!(alice.expect_error(410).await["message"], expired(1, 300));
    alice.expect_nothing_and_close().await;
}

#[tokio::test]
async fn an_unconfirmed_message_expires_like_any_other() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    let frame = alice.message_to(&bob.id, 1, json!({"ttl": 300}));
    alice.send(frame).await;
    alice.expect_ack(1).await;
    bob.receive(1).await;
    relay.advance(300);
    assert_eq!(alice.expect_error(410).await["message"], expired(1, 300));
    let mut bob = bob.reconnect(&relay).await;
    assert_eq!(bob.registration["queued"], 0);
    bob.expect_nothing().await;
}
