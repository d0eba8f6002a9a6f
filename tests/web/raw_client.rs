//! A client in bytes: it reads only when a test says so, answers a ping only when a test says so, and chooses its address.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::http;
use crate::peer::{FIN, PING, PONG, Peer, TEXT, frame, text};
use crate::support::message_id;

/// A connection that was let in.
pub struct RawClient {
    pub peer: Peer,
    pub id: String,
    /// The payload of its `RegisterResponse`.
    pub welcome: Value,
}

/// How a guest comes.
#[derive(Clone, Copy, Default)]
pub struct Manner {
    /// From which address of this machine.
    pub from: Option<IpAddr>,
    /// With a receive buffer of so many bytes.
    pub receive_buffer: Option<u32>,
}

impl RawClient {
    /// Says nothing after the handshake.
    pub async fn stranger(relay: SocketAddr) -> Self {
        Self::coming(relay, Manner::default()).await.expect("the relay upgrades")
    }

    /// Tries to come in.
    pub async fn coming(relay: SocketAddr, manner: Manner) -> Result<Self, http::Answer> {
        let mut stream = http::connect(relay, manner.from, manner.receive_buffer).await;
        let head = http::head(&http::handshake());
        tokio::io::AsyncWriteExt::write_all(&mut stream, &head).await.expect("the relay reads");
        let answer = http::answer(&mut stream).await;
        match answer.status {
            101 => Ok(Self { peer: Peer { stream }, id: String::new(), welcome: Value::Null }),
            _ => Err(answer),
        }
    }

    /// A device as the seed knows it.
    pub async fn plain(relay: SocketAddr) -> Self {
        let mut guest = Self::stranger(relay).await;
        guest.registers(json!({"type": "Register"})).await;
        guest
    }

    /// A device that can resume.
    pub async fn resumable(relay: SocketAddr) -> Self {
        let mut guest = Self::stranger(relay).await;
        guest.registers(json!({"type": "Register", "payload": {"resumable": true}})).await;
        guest
    }

    /// A device that was here before.
    pub async fn resuming(relay: SocketAddr, token: &Value) -> Self {
        let mut guest = Self::stranger(relay).await;
        guest.registers(json!({"type": "Register", "payload": {"resume_token": token}})).await;
        guest
    }

    /// Becomes a device.
    pub async fn registers(&mut self, register: Value) {
        self.says(register).await;
        self.welcome = self.hears("RegisterResponse").await;
        self.id = self.welcome["device_id"].as_str().expect("an id").to_owned();
    }

    /// Sends one frame.
    pub async fn says(&mut self, words: Value) {
        self.peer.send(&text(words.to_string())).await;
    }

    /// A `Send`, whose data is `data`.
    pub fn message(&self, to: &str, number: u32, data: &str, ttl: u64) -> Value {
        json!({"type": "Send", "payload": {
            "recipient_id": to, "sender_id": self.id, "encrypted_data": data,
            "message_id": message_id(number), "ttl": ttl,
        }})
    }

    /// The next frame that is JSON; pings of the WebSocket are passed over, unanswered.
    pub async fn hears_any(&mut self) -> Value {
        loop {
            match self.peer.frame().await {
                Some((first, payload)) if first == FIN | TEXT => {
                    return serde_json::from_slice(&payload).expect("the relay speaks JSON");
                }
                Some((first, _)) if first == FIN | PING || first == FIN | PONG => {}
                Some((first, payload)) => panic!("{first:#x} {payload:?}"),
                None => panic!("the connection is over"),
            }
        }
    }

    /// The payload of the next frame, which is of that type.
    pub async fn hears(&mut self, kind: &str) -> Value {
        let mut words = self.hears_any().await;
        assert_eq!(words["type"], kind, "in {words}");
        words["payload"].take()
    }

    /// A message goes round: to itself, with the Ack.
    pub async fn talks_to_itself(&mut self, number: u32) {
        let id = self.id.clone();
        self.says(self.message(&id, number, "around", 60)).await;
        let (one, other) = (self.hears_any().await, self.hears_any().await);
        let mut kinds = [one["type"].clone(), other["type"].clone()];
        kinds.sort_by_key(Value::to_string);
        assert_eq!(kinds, ["Ack", "Receive"]);
    }

    /// The relay closes with that code; what it says before is passed over.
    pub async fn is_closed_with(&mut self, code: u16) {
        loop {
            match self.peer.frame().await {
                Some((0x88, payload)) => {
                    let found = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                    assert_eq!(found, Some(code));
                    return;
                }
                Some(_) => {}
                None => panic!("the connection is over without a Close"),
            }
        }
    }

    /// Answers a ping.
    pub async fn pongs(&mut self) {
        self.peer.send(&frame(FIN | PONG, b"")).await;
    }
}
