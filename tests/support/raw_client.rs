//! A client in bytes: it reads and answers pings only when a test does so, and can choose its address.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::peer::{FIN, PING, PONG, Peer, TEXT, frame, text};
use super::{http, message_id};

/// A connection that was accepted.
pub struct RawClient {
    pub peer: Peer,
    pub id: String,
    /// The payload of its `RegisterResponse`.
    pub registration: Value,
}

/// How a client connects.
#[derive(Clone, Copy, Default)]
pub struct ConnectOptions {
    /// From which address of this machine.
    pub from: Option<IpAddr>,
    /// The size of the receive buffer, bytes.
    pub receive_buffer: Option<u32>,
}

impl RawClient {
    /// Sends nothing after the handshake.
    pub async fn connect(relay: SocketAddr) -> Self {
        Self::try_connect(relay, ConnectOptions::default()).await.expect("the relay upgrades")
    }

    /// Connects, or returns the refusal.
    pub async fn try_connect(
        relay: SocketAddr,
        options: ConnectOptions,
    ) -> Result<Self, http::Answer> {
        let mut stream = http::connect(relay, options.from, options.receive_buffer).await;
        let head = http::head(&http::handshake());
        tokio::io::AsyncWriteExt::write_all(&mut stream, &head).await.expect("the relay reads");
        let answer = http::answer(&mut stream).await;
        match answer.status {
            101 => Ok(Self { peer: Peer { stream }, id: String::new(), registration: Value::Null }),
            _ => Err(answer),
        }
    }

    /// A device without a resume token.
    pub async fn plain(relay: SocketAddr) -> Self {
        let mut client = Self::connect(relay).await;
        client.register(json!({"type": "Register"})).await;
        client
    }

    /// A device that can resume.
    pub async fn resumable(relay: SocketAddr) -> Self {
        let mut client = Self::connect(relay).await;
        client.register(json!({"type": "Register", "payload": {"resumable": true}})).await;
        client
    }

    /// A device on a new connection.
    pub async fn resume(relay: SocketAddr, token: &Value) -> Self {
        let mut client = Self::connect(relay).await;
        client.register(json!({"type": "Register", "payload": {"resume_token": token}})).await;
        client
    }

    /// Registers.
    pub async fn register(&mut self, register: Value) {
        self.send(register).await;
        self.registration = self.expect_frame("RegisterResponse").await;
        self.id = self.registration["device_id"].as_str().expect("an id").to_owned();
    }

    /// Sends one frame.
    pub async fn send(&mut self, frame: Value) {
        self.peer.send(&text(frame.to_string())).await;
    }

    /// A `Send`, whose data is `data`.
    pub fn message(&self, to: &str, number: u64, data: &str, ttl: u64) -> Value {
        json!({"type": "Send", "payload": {
            "recipient_id": to, "sender_id": self.id, "encrypted_data": data,
            "message_id": message_id(number), "ttl": ttl,
        }})
    }

    /// The next JSON frame; WebSocket pings are ignored and not answered.
    pub async fn receive_any(&mut self) -> Value {
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

    /// The next frame must have this type; returns its payload.
    pub async fn expect_frame(&mut self, kind: &str) -> Value {
        let mut frame = self.receive_any().await;
        assert_eq!(frame["type"], kind, "in {frame}");
        frame["payload"].take()
    }

    /// Sends a message to itself and receives it, with the Ack.
    pub async fn send_to_itself(&mut self, number: u64) {
        let id = self.id.clone();
        self.send(self.message(&id, number, "around", 60)).await;
        let (one, other) = (self.receive_any().await, self.receive_any().await);
        let mut kinds = [one["type"].clone(), other["type"].clone()];
        kinds.sort_by_key(Value::to_string);
        assert_eq!(kinds, ["Ack", "Receive"]);
    }

    /// The relay must close with this code; frames before the Close are ignored.
    pub async fn expect_closed_with(&mut self, code: u16) {
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
    pub async fn send_pong(&mut self) {
        self.peer.send(&frame(FIN | PONG, b"")).await;
    }
}
