//! New keys for a peer.

use serde_json::{Value, json};

use crate::support::{Device, Relay};

const WEEK: u64 = 604_800;

#[tokio::test]
async fn a_key_and_its_answer_are_carried_as_they_came() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    for key_id in [json!(1_678_886_401), json!("epoch-7"), json!(-1.5), json!("")] {
        let frame = alice.key_update(&bob.id, key_id.clone());
        alice.send_through(&mut bob, frame).await;
        alice.expect_nothing().await;
        for success in [true, false] {
            let frame = bob.key_ack(&alice.id, key_id.clone(), success);
            bob.send_through(&mut alice, frame).await;
            bob.expect_nothing().await;
        }
    }
}

#[tokio::test]
async fn a_key_that_comes_twice_is_carried_twice() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    let frame = alice.key_update(&bob.id, 7);
    alice.send_through(&mut bob, frame.clone()).await;
    alice.send_through(&mut bob, frame).await;
}

#[tokio::test]
async fn a_key_waits_and_comes_again_until_it_is_answered() {
    let relay = Relay::start();
    let (mut alice, bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    let bob = bob.disconnect(&relay).await;
    let frame = alice.key_update(&bob.id, 7);
    alice.send(frame.clone()).await;
    alice.expect_nothing().await;
    let mut bob = bob.reconnect(&relay).await;
    assert_eq!(bob.registration["queued"], 1);
    assert_eq!(bob.receive_any().await, frame);
    // An answer to another key settles nothing, nor does the same number in another spelling.
    for other in [json!(8), json!("7"), json!(7.0)] {
        let ack = bob.key_ack(&alice.id, other, true);
        bob.send_through(&mut alice, ack).await;
    }
    let mut bob = bob.reconnect(&relay).await;
    assert_eq!(bob.receive_any().await, frame, "once more");
    let ack = bob.key_ack(&alice.id, 7, false);
    bob.send_through(&mut alice, ack).await;
    let mut bob = bob.reconnect(&relay).await;
    assert_eq!(bob.registration["queued"], 0);
    bob.expect_nothing().await;
}

#[tokio::test]
async fn a_string_key_is_answered_in_any_spelling() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    let spelled = |frame: Value, key_id: &str| frame.to_string().replace("\"KEY\"", key_id);
    for (key_id, answered, other) in [
        (r#""epoch/7""#, r#""epoch\/\u0037""#, r#""epoch\\/7""#),
        (r#""\u0037""#, r#""7""#, "7"),
        (r#""\ud800""#, r#""\uD800""#, r#""\ufffd""#),
    ] {
        let update = spelled(alice.key_update(&bob.id, "KEY"), key_id);
        alice.send_text(&update).await;
        assert!(bob.receive_text().await.contains(key_id), "byte for byte");
        let [wrong, right] =
            [other, answered].map(|key_id| spelled(bob.key_ack(&alice.id, "KEY", true), key_id));
        for (ack, left) in [(wrong, 1), (right, 0)] {
            bob.send_text(&ack).await;
            alice.receive_text().await;
            bob = bob.reconnect(&relay).await;
            assert_eq!(bob.queued(), left, "{ack}");
            if left > 0 {
                bob.receive_text().await;
            }
        }
    }
}

#[tokio::test]
async fn a_key_id_has_at_most_256_bytes_as_written() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    let spelled = |frame: Value, key_id: &str| frame.to_string().replace("\"KEY\"", key_id);
    for key_id in [format!("\"{}\"", "k".repeat(254)), "7".repeat(256)] {
        for frame in [alice.key_update(&bob.id, "KEY"), alice.key_ack(&bob.id, "KEY", true)] {
            alice.send_text(&spelled(frame, &key_id)).await;
            assert!(bob.receive_text().await.contains(&key_id));
        }
    }
    // 43 letters in 260 bytes.
    let escaped = format!("\"{}\"", "\\u0041".repeat(43));
    for key_id in [format!("\"{}\"", "k".repeat(255)), "7".repeat(257), escaped] {
        for (frame, kind) in [
            (alice.key_update(&bob.id, "KEY"), "KeyRotationUpdate"),
            (alice.key_ack(&bob.id, "KEY", true), "KeyRotationAck"),
        ] {
            alice.send_text(&spelled(frame, &key_id)).await;
            let error = alice.expect_error(400).await;
            let rule = "at most 256 bytes long as written";
            let expected = format!("Malformed message: key_id of {kind} must be {rule}.");
            assert_eq!(error["message"], expected);
            assert_eq!(error.get("key_id"), None, "a key that is not read is not named");
            assert_eq!(error["recipient_id"], json!(bob.id));
            alice.expect_nothing().await;
        }
    }
    bob.expect_nothing().await;
}

#[tokio::test]
async fn unanswered_keys_take_their_place_in_the_window() {
    let relay = Relay::without_origins(|settings| settings.delivery.window = 2);
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    for key_id in 1..=3 {
        let frame = alice.key_update(&bob.id, key_id);
        alice.send(frame).await;
    }
    for key_id in 1..=2 {
        assert_eq!(bob.expect_frame("KeyRotationUpdate").await["key_id"], key_id);
    }
    bob.expect_nothing().await;
    let ack = bob.key_ack(&alice.id, 1, true);
    bob.send(ack).await;
    assert_eq!(bob.expect_frame("KeyRotationUpdate").await["key_id"], 3);
}

#[tokio::test]
async fn an_undelivered_key_is_reported_with_its_key_id() {
    let relay = Relay::with(|settings| settings.session.ttl *= 2);
    let (mut alice, bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    let bob = bob.disconnect(&relay).await;
    for key_id in [json!(1_678_886_401), json!("epoch-7")] {
        let frame = alice.key_update(&bob.id, key_id.clone());
        alice.send(frame).await;
        alice.expect_nothing().await;
        relay.advance(WEEK - 1);
        alice.expect_nothing().await;
        relay.advance(1);
        let error = alice.expect_error(410).await;
        assert_eq!(error["message"], format!("Key rotation expired after {WEEK} s undelivered."));
        assert_eq!((&error["key_id"], &error["recipient_id"]), (&key_id, &json!(bob.id)));
        assert_eq!(error.get("message_id"), None);
        // Bob reconnects so that he is not forgotten.
        let _ = bob.reconnect(&relay).await.disconnect(&relay).await;
    }
}

#[tokio::test]
async fn a_ttl_in_a_key_rotation_is_ignored() {
    let relay = Relay::start();
    let (mut alice, bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    let bob = bob.disconnect(&relay).await;
    let mut frame = alice.key_update(&bob.id, 7);
    frame["payload"]["ttl"] = json!(0);
    alice.send(frame.clone()).await;
    alice.expect_nothing().await;
    relay.advance(3600);
    assert_eq!(bob.reconnect(&relay).await.receive_any().await, frame);
}

#[tokio::test]
async fn a_refused_key_is_named_in_the_error() {
    let relay = Relay::start();
    let mut alice = Device::plain(&relay).await;
    let nobody = "c0ffee00-1234-4abc-9def-0123456789ab";
    let frames = [alice.key_update(nobody, "k"), alice.key_ack(nobody, "k", true)];
    for frame in frames {
        let error = alice.expect_refusal(frame, 404).await;
        assert_eq!((&error["key_id"], &error["recipient_id"]), (&json!("k"), &json!(nobody)));
    }
    let malformed = |mut frame: Value, field: &str, value: Value| {
        frame["payload"][field] = value;
        frame
    };
    let frame = malformed(alice.key_update(nobody, "k"), "encrypted_key_package", json!(5));
    let error = alice.expect_refusal(frame, 400).await;
    assert_eq!((&error["key_id"], &error["recipient_id"]), (&json!("k"), &json!(nobody)));
    let frame = malformed(alice.key_ack(nobody, "k", true), "success", json!("yes"));
    assert_eq!(alice.expect_refusal(frame, 400).await["key_id"], json!("k"));
}
