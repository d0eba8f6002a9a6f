//! No device sends in the name of another, and an unregistered connection may not send messages. (threats: T10, T15, T44)

use serde_json::{Value, json};

use crate::support::{Device, Relay, message_id};

/// One frame of each type that names its sender, all sent by `from` to `to`.
fn everything(from: &str, to: &str) -> Vec<Value> {
    let payloads = [
        (
            "Send",
            json!({"sender_id": from, "recipient_id": to, "message_id": message_id(1), "encrypted_data": "x"}),
        ),
        (
            "KeyRotationUpdate",
            json!({"sender_id": from, "recipient_id": to, "encrypted_key_package": "x", "key_id": 1}),
        ),
        (
            "KeyRotationAck",
            json!({"sender_id": from, "recipient_id": to, "key_id": 1, "success": true}),
        ),
        (
            "AuthRequest",
            json!({"device_id": from, "recipient_id": to, "public_key": "x", "challenge": "x"}),
        ),
        (
            "AuthResponse",
            json!({"device_id": from, "recipient_id": to, "challenge_response": "x", "challenge": "x"}),
        ),
        ("AuthVerify", json!({"device_id": from, "recipient_id": to, "challenge_response": "x"})),
        ("AuthSuccess", json!({"device_id": to, "sender_id": from, "trusted": true})),
        ("Status", json!({"device_id": from, "status": "Offline"})),
    ];
    payloads.map(|(kind, payload)| json!({"type": kind, "payload": payload})).into()
}

#[tokio::test]
async fn no_frame_of_any_type_can_name_another_device_as_its_sender() {
    let relay = Relay::start();
    let mut mallory = Device::plain(&relay).await;
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    for frame in everything(&alice.id, &bob.id) {
        let error = mallory.expect_refusal(frame.clone(), 403).await;
        let field = if error["message"].as_str().unwrap_or_default().contains("sender_id") {
            "sender_id"
        } else {
            "device_id"
        };
        assert_eq!(error["message"], format!("The {field} is not this connection's device."));
        if frame["type"] != "Status" {
            assert_eq!(error["recipient_id"], json!(bob.id), "{frame}");
        }
        bob.expect_nothing().await;
        alice.expect_nothing().await;
    }
    // The Status that Mallory sent in Alice's name has not changed her presence.
    bob.send_to(&alice, 1).await;
    alice.receive(1).await;
}

#[tokio::test]
async fn an_id_in_capitals_is_the_same_device() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    let capitals = json!({"sender_id": alice.id.to_uppercase()});
    let frame = alice.message_to(&bob.id.to_uppercase(), 1, capitals);
    alice.send(frame.clone()).await;
    alice.expect_ack(1).await;
    assert_eq!(bob.receive(1).await, frame["payload"], "as it was written");
}

#[tokio::test]
async fn an_unregistered_connection_may_send_only_register_ping_and_pong() {
    let relay = Relay::start();
    let bob = Device::plain(&relay).await;
    let mut unregistered = Device::connect(&relay).await;
    let ack = json!({"type": "Ack", "payload": {"message_id": message_id(1)}});
    let mut frames = everything(&bob.id, &bob.id);
    frames.push(ack);
    for frame in frames {
        let error = unregistered.expect_refusal(frame.clone(), 401).await;
        assert_eq!(error["message"], "Not registered: send Register first.");
        if frame["type"] == "Send" {
            assert_eq!(error["message_id"], json!(message_id(1)));
            assert_eq!(error["recipient_id"], json!(bob.id));
        }
    }
    unregistered.send(json!({"type": "Register"})).await;
    unregistered.expect_frame("RegisterResponse").await;
    bob.expect_nothing_and_close().await;
}

#[tokio::test]
async fn a_frame_type_of_the_server_is_refused_from_a_client() {
    let relay = Relay::start();
    let (mut alice, bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    let receive = alice.message_to(&bob.id, 1, json!({}))["payload"].take();
    for (kind, payload) in [
        ("RegisterResponse", json!({"device_id": bob.id})),
        ("Receive", receive),
        (
            "Error",
            json!({"message": "Rate limit exceeded (60/60). Try again in a minute.", "code": 429}),
        ),
    ] {
        let error = alice.expect_refusal(json!({"type": kind, "payload": payload}), 400).await;
        assert_eq!(error["message"], format!("Only the server sends {kind}."));
    }
    bob.expect_nothing_and_close().await;
}

#[tokio::test]
async fn a_device_may_send_to_itself() {
    let relay = Relay::start();
    let mut alice = Device::plain(&relay).await;
    let own = alice.id.clone();
    let frame = alice.message_to(&own, 1, json!({}));
    alice.send(frame).await;
    let mut received = [alice.receive_any().await, alice.receive_any().await];
    received.sort_by_key(|frame| frame["type"].to_string());
    assert_eq!((&received[0]["type"], &received[1]["type"]), (&json!("Ack"), &json!("Receive")));
    alice.expect_nothing_and_close().await;
}

#[tokio::test]
async fn an_unregistered_connection_is_closed_at_the_register_timeout() {
    let relay = Relay::with(|settings| {
        settings.limits.register_timeout = std::time::Duration::from_millis(50);
    });
    let mut known = Device::plain(&relay).await;
    let mut unregistered = Device::connect(&relay).await;
    unregistered.send(json!({"type": "Pong"})).await;
    assert_eq!(unregistered.expect_close().await, Some(4401));
    // This connection was opened first, so its time would have been over too.
    known.expect_nothing().await;
}
