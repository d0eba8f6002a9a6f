//! A client that knows the basic messages and nothing else, in their literal shapes.

use std::collections::HashMap;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::support::{Device, Relay};

const ALICE: &str = "d8f8a9b0-f6e1-4a2b-8d7c-1e9f0a1b2c3d";
const BOB: &str = "a1b2c3d4-e5f6-7890-1234-567890abcdef";

const SEND: &str = r#"{
  "type": "Send",
  "payload": {
    "recipient_id": "a1b2c3d4-e5f6-7890-1234-567890abcdef",
    "sender_id": "d8f8a9b0-f6e1-4a2b-8d7c-1e9f0a1b2c3d",
    "encrypted_data": "Base64EncodedEncryptedBlob==",
    "message_id": "f47ac10b-58cc-4372-a567-0e02b2c3d479",
    "timestamp": 1678886400,
    "ttl": 300,
    "signature": "OptionalBase64EncodedSignature==",
    "content_type": "Text", 
    "size_bytes": 12345
  }
}"#;

/// The message of the other direction, with the same id.
const SEND_BACK: &str = r#"{
  "type": "Send",
  "payload": {
    "recipient_id": "d8f8a9b0-f6e1-4a2b-8d7c-1e9f0a1b2c3d",
    "sender_id": "a1b2c3d4-e5f6-7890-1234-567890abcdef",
    "encrypted_data": "Base64EncodedEncryptedBlob==",
    "message_id": "f47ac10b-58cc-4372-a567-0e02b2c3d479",
    "timestamp": 1678886400,
    "ttl": 300,
    "signature": "OptionalBase64EncodedSignature==",
    "content_type": "Text",
    "size_bytes": 12345
  }
}"#;

const ACK: &str = r#"{
  "type": "Ack",
  "payload": {
    "message_id": "f47ac10b-58cc-4372-a567-0e02b2c3d479"
  }
}"#;

const AUTH_REQUEST: &str = r#"{
  "type": "AuthRequest",
  "payload": {
    "device_id": "d8f8a9b0-f6e1-4a2b-8d7c-1e9f0a1b2c3d", 
    "public_key": "Base64PublicKey==",
    "challenge": "RandomChallengeString"
  }
}"#;

const AUTH_RESPONSE: &str = r#"{
  "type": "AuthResponse",
  "payload": {
    "device_id": "a1b2c3d4-e5f6-7890-1234-567890abcdef", 
    "challenge_response": "Base64SignatureOfSendersChallenge==",
    "challenge": "NewRandomChallengeStringForSender"
  }
}"#;

const AUTH_VERIFY: &str = r#"{
  "type": "AuthVerify",
  "payload": {
    "device_id": "d8f8a9b0-f6e1-4a2b-8d7c-1e9f0a1b2c3d", 
    "challenge_response": "Base64SignatureOfRespondersChallenge=="
  }
}"#;

const AUTH_SUCCESS: &str = r#"{
  "type": "AuthSuccess",
  "payload": {
    "device_id": "a1b2c3d4-e5f6-7890-1234-567890abcdef", 
    "trusted": true
  }
}"#;

const KEY_ROTATION_UPDATE: &str = r#"{
  "type": "KeyRotationUpdate",
  "payload": {
    "sender_id": "d8f8a9b0-f6e1-4a2b-8d7c-1e9f0a1b2c3d",
    "recipient_id": "a1b2c3d4-e5f6-7890-1234-567890abcdef",
    "encrypted_key_package": "Base64EncryptedKeyData==",
    "key_id": 1678886401 
  }
}"#;

const KEY_ROTATION_ACK: &str = r#"{
  "type": "KeyRotationAck",
  "payload": {
    "sender_id": "a1b2c3d4-e5f6-7890-1234-567890abcdef", 
    "recipient_id": "d8f8a9b0-f6e1-4a2b-8d7c-1e9f0a1b2c3d", 
    "key_id": 1678886401,
    "success": true 
  }
}"#;

const STATUS: &str = r#"{
  "type": "Status",
  "payload": {
    "device_id": "d8f8a9b0-f6e1-4a2b-8d7c-1e9f0a1b2c3d",
    "status": "Online" 
  }
}"#;

const PING: &str = "{\n  \"type\": \"Ping\"\n}";
const PONG: &str = "{\n  \"type\": \"Pong\"\n}";
const REGISTER: &str = "{\n  \"type\": \"Register\"\n}";

/// Two devices that know nothing but the basic messages.
struct Two {
    relay: Relay,
    alice: Device,
    bob: Device,
}

impl Two {
    async fn meet() -> Self {
        let relay = Relay::start();
        let (alice, bob) = (register(&relay).await, register(&relay).await);
        Self { relay, alice, bob }
    }

    /// The text with the ids that the relay assigned.
    fn real(&self, text: &str) -> String {
        text.replace(ALICE, &self.alice.id).replace(BOB, &self.bob.id)
    }

    /// Alice's frame arrives at Bob with this type, and with its payload byte for byte.
    async fn alice_sends(&mut self, text: &str, kind: &str) {
        let text = self.real(text);
        self.alice.send_text(&text).await;
        assert_carried(&text, &self.bob.receive_text().await, kind);
    }

    async fn bob_sends(&mut self, text: &str, kind: &str) {
        let text = self.real(text);
        self.bob.send_text(&text).await;
        assert_carried(&text, &self.alice.receive_text().await, kind);
    }

    async fn end(self) {
        self.alice.expect_nothing_and_close().await;
        self.bob.expect_nothing_and_close().await;
        drop(self.relay);
    }
}

async fn register(relay: &Relay) -> Device {
    let mut device = Device::connect(relay).await;
    device.send_text(REGISTER).await;
    let response = device.receive_any().await;
    device.id = response["payload"]["device_id"].as_str().expect("an id").to_owned();
    let shape = json!({"type": "RegisterResponse", "payload": {"device_id": device.id}});
    assert_eq!(response, shape, "nothing but the id");
    device
}

fn assert_carried(sent: &str, received: &str, kind: &str) {
    let sent: HashMap<&str, &RawValue> = serde_json::from_str(sent).expect("JSON");
    let received: HashMap<&str, &RawValue> = serde_json::from_str(received).expect("JSON");
    assert_eq!(received["type"].get(), format!("\"{kind}\""));
    assert_eq!(received["payload"].get(), sent["payload"].get());
    assert_eq!(received.len(), 2);
}

fn bare_ack() -> Value {
    serde_json::from_str(ACK).expect("JSON")
}

#[tokio::test]
async fn a_device_id_is_random_and_its_own() {
    let relay = Relay::start();
    let (one, other) = (register(&relay).await, register(&relay).await);
    assert_ne!(one.id, other.id);
    for id in [&one.id, &other.id] {
        assert_eq!(id.len(), 36);
        assert_eq!(id, &id.to_lowercase());
        assert_eq!(id.as_bytes()[14], b'4', "version 4 of {id}");
        assert!(matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "variant of {id}");
    }
}

#[tokio::test]
async fn registering_twice_on_one_connection_gives_the_same_response() {
    let relay = Relay::start();
    let mut alice = Device::connect(&relay).await;
    alice.send_text(REGISTER).await;
    let first = alice.receive_text().await;
    for again in [REGISTER, r#"{"type":"Register","payload":{"resumable":true}}"#] {
        alice.send_text(again).await;
        assert_eq!(alice.receive_text().await, first);
    }
    alice.expect_nothing_and_close().await;
}

#[tokio::test]
async fn a_message_and_its_answer_go_through_in_the_literal_shapes() {
    let mut two = Two::meet().await;
    two.alice_sends(SEND, "Receive").await;
    assert_eq!(two.alice.receive_any().await, bare_ack());
    two.bob.send_text(ACK).await;
    two.bob_sends(SEND_BACK, "Receive").await;
    assert_eq!(two.bob.receive_any().await, bare_ack());
    two.alice.send_text(ACK).await;
    two.end().await;
}

#[tokio::test]
async fn every_content_type_is_carried() {
    let mut two = Two::meet().await;
    for (number, content) in ["Text", "Image", "KeyPackage", "Other"].iter().enumerate() {
        let text = SEND.replace("Text", content).replace("f47ac10b", &format!("f47ac1{number:02}"));
        two.alice_sends(&text, "Receive").await;
        two.alice.expect_frame("Ack").await;
    }
    two.end().await;
}

#[tokio::test]
async fn two_peers_authenticate_without_naming_each_other() {
    let mut two = Two::meet().await;
    two.alice_sends(SEND, "Receive").await;
    assert_eq!(two.alice.receive_any().await, bare_ack());
    two.alice_sends(AUTH_REQUEST, "AuthRequest").await;
    two.bob_sends(AUTH_RESPONSE, "AuthResponse").await;
    two.alice_sends(AUTH_VERIFY, "AuthVerify").await;
    two.alice_sends(AUTH_SUCCESS, "AuthSuccess").await;
    let back = AUTH_SUCCESS.replace(BOB, ALICE);
    two.bob_sends(&back, "AuthSuccess").await;
    two.end().await;
}

#[tokio::test]
async fn a_device_that_only_received_may_start_an_authentication() {
    let mut two = Two::meet().await;
    two.bob_sends(SEND_BACK, "Receive").await;
    assert_eq!(two.bob.receive_any().await, bare_ack());
    two.alice_sends(AUTH_REQUEST, "AuthRequest").await;
    two.end().await;
}

#[tokio::test]
async fn a_new_key_and_its_acknowledgment_go_through() {
    let mut two = Two::meet().await;
    two.alice_sends(KEY_ROTATION_UPDATE, "KeyRotationUpdate").await;
    two.bob_sends(KEY_ROTATION_ACK, "KeyRotationAck").await;
    let failed = KEY_ROTATION_ACK.replace("true", "false");
    two.bob_sends(&failed, "KeyRotationAck").await;
    two.end().await;
}

#[tokio::test]
async fn a_status_is_not_answered() {
    let mut two = Two::meet().await;
    for status in ["Online", "Away", "Offline", "Online"] {
        let text = two.real(&STATUS.replace("Online", status));
        two.alice.send_text(&text).await;
        two.alice.expect_nothing().await;
        two.bob.expect_nothing().await;
    }
    two.end().await;
}

#[tokio::test]
async fn a_ping_is_answered_before_and_after_registering() {
    let relay = Relay::start();
    let mut alice = Device::connect(&relay).await;
    let ping = |payload: &str| format!(r#"{{"type":"Ping"{payload}}}"#);
    for payload in ["", r#","payload":null"#, r#","payload":{}"#] {
        alice.send_text(&ping(payload)).await;
        assert_eq!(alice.receive_any().await, json!({"type": "Pong"}));
    }
    alice.send_text(PONG).await;
    alice.send_text(REGISTER).await;
    alice.expect_frame("RegisterResponse").await;
    alice.send_text(PONG).await;
    alice.send_text(PING).await;
    assert_eq!(alice.receive_any().await, json!({"type": "Pong"}));
    alice.expect_nothing_and_close().await;
}

#[tokio::test]
async fn an_error_has_a_message_and_a_code() {
    let mut two = Two::meet().await;
    let nobody = "c0ffee00-1234-4abc-9def-0123456789ab";
    let text = two.real(&SEND.replace(BOB, nobody));
    two.alice.send_text(&text).await;
    let error = two.alice.expect_error(404).await;
    assert_eq!(error["message"], "Unknown recipient.");
    two.end().await;
}

#[tokio::test]
async fn a_pong_comes_after_the_answers_to_earlier_frames() {
    let relay = Relay::start();
    let mut alice = Device::plain(&relay).await;
    let nobody = "c0ffee00-1234-4abc-9def-0123456789ab";
    for _ in 0..5 {
        let ping = json!({"type": "Ping"});
        let frames: Vec<Value> = (1..=5)
            .flat_map(|number| [alice.message_to(nobody, number, json!({})), ping.clone()])
            .collect();
        alice.send_all(frames).await;
        let (mut errors, mut pongs) = (0, 0);
        while pongs < 5 {
            match alice.receive_any().await["type"].as_str() {
                Some("Error") => errors += 1,
                Some("Pong") => pongs += 1,
                other => panic!("{other:?}"),
            }
            assert!(errors >= pongs, "{pongs} Pongs after {errors} answers");
        }
        assert_eq!(errors, 5);
    }
}
