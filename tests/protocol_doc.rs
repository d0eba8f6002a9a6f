//! Checks every JSON block of `docs/protocol.md` against the relay, in the way that the comment at the top of that page
//! defines.

mod support;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use sealpost::protocol::decode::decode;
use sealpost::protocol::frame::{AuthStep, ClientFrame};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use support::vectors::{Vector, vectors};
use support::{Device, Relay};

const DOCUMENT: &str = include_str!("../docs/protocol.md");

/// The placeholder for the device that sends a refused frame.
const SENDER: &str = "d8f8a9b0-f6e1-4a2b-8d7c-1e9f0a1b2c3d";

/// Fields whose values depend on the time or on settings: only their types are compared.
const BY_TYPE_ONLY: [&str; 5] =
    ["expires_at", "retry_after_ms", "remaining", "session_ttl", "limits"];

/// The number of vectors of a kind, counted without the parser above.
fn written(kind: &str) -> usize {
    DOCUMENT.matches(&format!("\n<!-- vector: {kind} ")).count()
}

#[test]
fn every_vector_is_of_a_kind_that_is_run() {
    let kinds = ["client", "server", "refused", "conversation"];
    let all = vectors(DOCUMENT);
    for vector in &all {
        let known = kinds.iter().any(|kind| vector.of_kind(kind).is_some());
        assert!(known, "line {}: {}", vector.line, vector.comment);
    }
    assert_eq!(all.len(), DOCUMENT.matches("<!-- vector: ").count());
    assert_eq!(all.len(), kinds.iter().map(|kind| written(kind)).sum::<usize>());
    let blocks = all.iter().filter(|vector| vector.json.is_some()).count();
    assert_eq!(blocks, DOCUMENT.matches("```json").count());
}

#[test]
fn every_client_vector_decodes_as_its_type() {
    let mut run = 0;
    for vector in vectors(DOCUMENT) {
        let Some(kind) = vector.of_kind("client") else { continue };
        let frame = decode(vector.json());
        let frame = frame.unwrap_or_else(|refusal| panic!("line {}: {refusal:?}", vector.line));
        assert_eq!(name(&frame), kind, "line {}", vector.line);
        run += 1;
    }
    assert_eq!(run, written("client"));
}

fn name(frame: &ClientFrame<'_>) -> &'static str {
    match frame {
        ClientFrame::Register(_) => "Register",
        ClientFrame::Unregister => "Unregister",
        ClientFrame::Send(_) => "Send",
        ClientFrame::Ack(_) => "Ack",
        ClientFrame::Ping => "Ping",
        ClientFrame::Pong => "Pong",
        ClientFrame::Auth(auth) => match auth.step {
            AuthStep::Request => "AuthRequest",
            AuthStep::Response => "AuthResponse",
            AuthStep::Verify => "AuthVerify",
        },
        ClientFrame::AuthSuccess(_) => "AuthSuccess",
        ClientFrame::KeyRotation(_) => "KeyRotationUpdate",
        ClientFrame::KeyRotationAck(_) => "KeyRotationAck",
        ClientFrame::Status(_) => "Status",
    }
}

#[test]
fn every_server_vector_has_its_shape() {
    let mut run = 0;
    for vector in vectors(DOCUMENT) {
        let Some(kind) = vector.of_kind("server") else { continue };
        let frame: Value = serde_json::from_str(vector.json()).expect("JSON");
        assert_eq!(frame["type"], kind, "line {}", vector.line);
        assert!(has_shape(kind, &frame), "line {}: no {kind} of the server", vector.line);
        run += 1;
    }
    assert_eq!(run, written("server"));
}

/// Whether the server could send this frame.
fn has_shape(kind: &str, frame: &Value) -> bool {
    let payload = &frame["payload"];
    let fields: BTreeSet<&str> =
        payload.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    let only = |needed: &[&str], more: &[&str]| {
        let needed: BTreeSet<&str> = needed.iter().copied().collect();
        let known: BTreeSet<&str> = needed.iter().chain(more).copied().collect();
        fields.is_superset(&needed) && fields.is_subset(&known)
    };
    match kind {
        "Ping" | "Pong" => *frame == json!({"type": kind}),
        "RegisterResponse" if fields.len() == 1 => only(&["device_id"], &[]),
        "RegisterResponse" => {
            let limits = payload["limits"].as_object().into_iter().flatten();
            let named: BTreeSet<&str> = limits.map(|(key, _)| key.as_str()).collect();
            let expected = BTreeSet::from([
                "message_bytes",
                "messages_per_minute",
                "burst",
                "control_per_minute",
                "queue_messages",
                "queue_bytes",
                "max_ttl",
                "default_ttl",
                "window",
            ]);
            let always = ["device_id", "protocol", "resumable", "resumed", "queued", "session_ttl"];
            only(&[&always[..], &["limits"]].concat(), &["resume_token"])
                && payload["resumable"] == payload.get("resume_token").is_some()
                && named == expected
        }
        "Ack" => match payload["status"].as_str() {
            None => only(&["message_id"], &[]),
            Some("queued") => only(&["message_id", "status", "expires_at"], &[]),
            Some("delivered" | "processed") => only(&["message_id", "status"], &[]),
            Some(_) => false,
        },
        "Error" => {
            let context = ["message_id", "key_id", "recipient_id"];
            let limits = ["retry_after_ms", "limit", "remaining"];
            only(&["message", "code"], &[context, limits].concat()) && payload["code"].is_u64()
        }
        // All other types have the payload of a client.
        _ => {
            let sent = if kind == "Receive" { "Send" } else { kind };
            let text = json!({"type": sent, "payload": payload}).to_string();
            decode(&text).is_ok_and(|frame| name(&frame) == sent)
        }
    }
}

#[tokio::test]
async fn every_refused_vector_is_refused_with_its_exact_text() {
    let mut run = 0;
    for vector in vectors(DOCUMENT) {
        let Some(rest) = vector.of_kind("refused") else { continue };
        let (code, sentence) = rest.split_once(' ').expect("a code and a sentence");
        let relay = Relay::start();
        let mut device = match code {
            "401" => Device::connect(&relay).await,
            _ => Device::plain(&relay).await,
        };
        let text = match device.id.as_str() {
            "" => vector.json().to_owned(),
            id => vector.json().replace(SENDER, id),
        };
        device.send_text(&text).await;
        let error = device.expect_frame("Error").await;
        let received = (error["code"].to_string(), error["message"].as_str().unwrap_or_default());
        assert_eq!(received, (code.to_owned(), sentence), "line {}", vector.line);
        device.expect_nothing().await;
        run += 1;
    }
    assert_eq!(run, written("refused"));
}

#[tokio::test]
async fn the_conversations_go_as_they_are_written() {
    let vectors = vectors(DOCUMENT);
    let mut scripts: BTreeMap<&str, Vec<(&Vector, &str)>> = BTreeMap::new();
    for vector in &vectors {
        let Some(rest) = vector.of_kind("conversation") else { continue };
        let (name, step) = rest.split_once(' ').expect("a name and a step");
        scripts.entry(name).or_default().push((vector, step));
    }
    let mut run = 0;
    for steps in scripts.values() {
        let mut stage = Stage::default();
        for (vector, step) in steps {
            stage.play(vector, step).await;
            run += 1;
        }
        for (_, device) in stage.on {
            device.expect_nothing_and_close().await;
        }
    }
    assert_eq!(run, written("conversation"));
}

/// A relay, and the clients of one conversation.
struct Stage {
    relay: Relay,
    on: HashMap<String, Device>,
    /// Each id and token of the page, with the value that the relay gave.
    real: Vec<(String, String)>,
    /// The raw payloads that clients sent.
    sent: BTreeSet<String>,
}

impl Default for Stage {
    fn default() -> Self {
        let relay = Relay::start();
        Self { relay, on: HashMap::new(), real: Vec::new(), sent: BTreeSet::new() }
    }
}

impl Stage {
    async fn play(&mut self, vector: &Vector, step: &str) {
        let line = vector.line;
        let parts: Vec<&str> = step.split(' ').collect();
        match parts[..] {
            [who, "->", "server"] => {
                let text = self.substituted(vector.json());
                if let Some(payload) = raw_payload(&text) {
                    self.sent.insert(payload);
                }
                if !self.on.contains_key(who) {
                    self.on.insert(who.to_owned(), Device::connect(&self.relay).await);
                }
                self.device(who, line).send_text(&text).await;
            }
            ["server", "->", who] => {
                let mut written: Value = serde_json::from_str(vector.json()).expect("JSON");
                self.let_expire(&written);
                let text = self.device(who, line).receive_text().await;
                let mut received: Value = serde_json::from_str(&text).expect("JSON");
                if written["type"] == "RegisterResponse" {
                    self.learn(&written["payload"], &received["payload"]);
                }
                written =
                    serde_json::from_str(&self.substituted(&written.to_string())).expect("JSON");
                for field in BY_TYPE_ONLY {
                    blank(&mut written["payload"], field);
                    blank(&mut received["payload"], field);
                }
                assert_eq!(received, written, "line {line}");
                let kind = received["type"].as_str().unwrap_or_default();
                if kind == "Receive" || kind.starts_with("Auth") || kind.starts_with("KeyRotation")
                {
                    let carried = raw_payload(&text).expect("a payload");
                    assert!(
                        self.sent.contains(&carried),
                        "line {line}: not as it was sent: {carried}"
                    );
                }
            }
            [who, "leaves"] => {
                assert!(vector.json.is_none(), "line {line}: a step without a block");
                let device = self.on.remove(who).unwrap_or_else(|| panic!("line {line}: {who}?"));
                device.expect_nothing_and_close().await;
            }
            ["server", "closes", who, code] => {
                assert!(vector.json.is_none(), "line {line}: a step without a block");
                let closed = self.device(who, line).expect_close().await;
                assert_eq!(closed, code.parse().ok(), "line {line}");
                self.on.remove(who);
            }
            _ => panic!("line {line}: no step of a conversation: {step}"),
        }
    }

    fn device(&mut self, who: &str, line: usize) -> &mut Device {
        self.on.get_mut(who).unwrap_or_else(|| panic!("line {line}: {who} is not connected"))
    }

    /// Replaces the ids and tokens of the page by those that the relay gave.
    fn substituted(&self, text: &str) -> String {
        self.real.iter().fold(text.to_owned(), |text, (name, real)| text.replace(name, real))
    }

    fn learn(&mut self, written: &Value, received: &Value) {
        for field in ["device_id", "resume_token"] {
            if let (Some(name), Some(real)) = (written[field].as_str(), received[field].as_str())
                && !self.real.iter().any(|(known, _)| known == name)
            {
                self.real.push((name.to_owned(), real.to_owned()));
            }
        }
    }

    /// Advances the clock by the ttl that an `Error` of the page names as expired.
    fn let_expire(&self, written: &Value) {
        let sentence = written["payload"]["message"].as_str().unwrap_or_default();
        if let Some((_, rest)) = sentence.split_once(" expired after ") {
            let seconds = rest.split(' ').next().and_then(|ttl| ttl.parse().ok());
            self.relay.clock.advance(Duration::from_secs(seconds.expect("a ttl")));
        }
    }
}

/// The raw text of the payload.
fn raw_payload(frame: &str) -> Option<String> {
    let mut frame: HashMap<String, Box<RawValue>> = serde_json::from_str(frame).expect("JSON");
    frame.remove("payload").map(|payload| payload.get().to_owned())
}

/// Replaces the value of a field by the name of its type.
fn blank(payload: &mut Value, field: &str) {
    if let Some(value) = payload.get_mut(field) {
        *value = match value {
            Value::Number(_) => json!("a number"),
            Value::Object(_) => json!("an object"),
            other => panic!("{field} = {other}"),
        };
    }
}
