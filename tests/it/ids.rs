//! The letters of ids: clients compare text, so an answer gives an id in the letters of the sender.

use serde_json::{Value, json};

use crate::support::{Device, Relay};

const SMALL: &str = "f47ac10b-58cc-4372-a567-0e02b2c3d479";
const CAPITAL: &str = "F47AC10B-58CC-4372-A567-0E02B2C3D479";
const MIXED: &str = "F47AC10B-58CC-4372-A567-0E02B2C3D47f";
const NOBODY: &str = "C0FFEE00-1234-4ABC-9DEF-0123456789AB";

/// The letters of an id as a client writes them, and as the relay answers.
const LETTERS: [(&str, &str); 3] =
    [(SMALL, SMALL), (CAPITAL, CAPITAL), (MIXED, "f47ac10b-58cc-4372-a567-0e02b2c3d47f")];

fn message(from: &Device, to: &str, id: &str, ttl: u64) -> Value {
    from.message_to(to, 1, json!({"message_id": id, "ttl": ttl}))
}

#[tokio::test]
async fn acks_and_receipts_give_the_id_in_the_letters_of_the_sender() {
    for (written, answered) in LETTERS {
        let relay = Relay::start();
        let mut alice = Device::with_receipts(&relay).await;
        let (mut bob, mut carol) = (Device::resumable(&relay).await, Device::plain(&relay).await);
        let frame = message(&alice, &bob.id, written, 300);
        alice.send(frame).await;
        let queued = alice.expect_frame("Ack").await;
        assert_eq!(
            (&queued["message_id"], &queued["status"]),
            (&json!(answered), &json!("queued"))
        );
        let frame = message(&alice, &carol.id.to_uppercase(), written, 300);
        alice.send(frame).await;
        let delivered = alice.expect_frame("Ack").await;
        assert_eq!(delivered, json!({"message_id": answered, "status": "delivered"}));
        for recipient in [&mut bob, &mut carol] {
            assert_eq!(recipient.expect_frame("Receive").await["message_id"], written, "unchanged");
        }
        // The letters of the recipient's Ack do not matter.
        bob.send(json!({"type": "Ack", "payload": {"message_id": written.to_lowercase()}})).await;
        let processed = alice.expect_frame("Ack").await;
        assert_eq!(processed, json!({"message_id": answered, "status": "processed"}));
    }
}

#[tokio::test]
async fn a_repeat_is_acked_in_its_own_letters_and_delivered_once() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    for (written, answered) in
        [(SMALL, SMALL), (CAPITAL, CAPITAL), ("F47ac10b-58cc-4372-a567-0e02b2c3d479", SMALL)]
    {
        let frame = message(&alice, &bob.id, written, 300);
        alice.send(frame).await;
        assert_eq!(alice.expect_frame("Ack").await, json!({"message_id": answered}));
    }
    assert_eq!(bob.expect_frame("Receive").await["message_id"], SMALL);
    bob.expect_nothing().await;
}

#[tokio::test]
async fn errors_give_both_ids_in_the_letters_of_the_sender() {
    let relay = Relay::with(|settings| settings.limits.message_bytes = 2_000);
    let mut alice = Device::plain(&relay).await;
    for (written, answered) in LETTERS {
        for recipient in [NOBODY.to_owned(), NOBODY.to_lowercase()] {
            let frame = message(&alice, &recipient, written, 300);
            let mut refused = vec![(frame.clone(), 404)];
            for (field, value, code) in [
                ("ttl", json!("soon"), 400),
                ("sender_id", json!(NOBODY), 403),
                ("signature", json!("s".repeat(2_000)), 413),
            ] {
                let mut frame = frame.clone();
                frame["payload"][field] = value;
                refused.push((frame, code));
            }
            for (frame, code) in refused {
                let error = alice.expect_refusal(frame, code).await;
                assert_eq!(error["message_id"], answered, "in {error}");
                assert_eq!(error["recipient_id"], json!(recipient), "in {error}");
            }
            for frame in [
                alice.key_update(&recipient, 7),
                alice.key_ack(&recipient, 7, true),
                alice.auth("AuthRequest", json!({"recipient_id": recipient})),
            ] {
                let error = alice.expect_refusal(frame, 404).await;
                assert_eq!(error["recipient_id"], json!(recipient), "in {error}");
            }
        }
    }
}

#[tokio::test]
async fn a_410_gives_both_ids_in_the_letters_of_the_sender_its_sentence_too() {
    for (written, answered) in LETTERS {
        let relay = Relay::with(|settings| settings.session.ttl *= 2);
        let (mut alice, bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
        let bob = bob.disconnect(&relay).await;
        let capital = bob.id.to_uppercase();
        let frame = message(&alice, &capital, written, 0);
        let error = alice.expect_refusal(frame, 410).await;
        assert_eq!(error["message"], format!("Message {answered} expired after 0 s undelivered."));
        assert_eq!(error["recipient_id"], json!(capital));

        let frame = message(&alice, &capital, written, 5);
        alice.send(frame).await;
        assert_eq!(alice.expect_frame("Ack").await, json!({"message_id": answered}));
        relay.advance(5);
        let error = alice.expect_error(410).await;
        assert_eq!(error["message"], format!("Message {answered} expired after 5 s undelivered."));
        assert_eq!(error["message_id"], answered);
        assert_eq!(error["recipient_id"], json!(capital));

        for (frame, ttl) in [
            (alice.auth("AuthRequest", json!({"recipient_id": capital})), 60),
            (alice.key_update(&capital, 7), 604_800),
        ] {
            alice.send(frame).await;
            alice.expect_nothing().await;
            relay.advance(ttl);
            assert_eq!(alice.expect_error(410).await["recipient_id"], json!(capital));
        }
    }
}
