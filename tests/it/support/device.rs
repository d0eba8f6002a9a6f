//! A client that speaks the protocol over a real WebSocket.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::Relay;

/// Longer than anything takes, on however busy a machine: what has not come by then never comes.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to the relay, and the device that it is.
pub struct Device {
    socket: WebSocketStream<TcpStream>,
    pub id: String,
    /// The payload of its `RegisterResponse`.
    pub welcome: Value,
}

/// A device that can resume and is not connected.
pub struct Away {
    pub id: String,
    resume: Value,
}

impl Away {
    /// The device on a new connection.
    pub async fn comes_back(&self, relay: &Relay) -> Device {
        let device = Device::registered(relay, self.resume.clone()).await;
        assert_eq!(device.id, self.id);
        device
    }
}

/// An id for a message; the same number is the same id.
pub fn message_id(number: u32) -> String {
    format!("{number:08x}-0000-4000-8000-000000000001")
}

impl Device {
    /// Connects and says nothing yet.
    pub async fn stranger(relay: &Relay) -> Self {
        Self::stranger_at(relay.public).await
    }

    /// Connects to whatever relay is there, and says nothing yet.
    pub async fn stranger_at(address: SocketAddr) -> Self {
        let tcp = TcpStream::connect(address).await.expect("the relay listens");
        tcp.set_nodelay(true).expect("a socket");
        let url = format!("ws://{address}/ws");
        let (socket, _) =
            tokio_tungstenite::client_async(url, tcp).await.expect("the relay upgrades");
        Self { socket, id: String::new(), welcome: Value::Null }
    }

    /// A device as the seed knows it.
    pub async fn plain(relay: &Relay) -> Self {
        Self::registered(relay, json!({"type": "Register"})).await
    }

    /// A device that can resume.
    pub async fn resumable(relay: &Relay) -> Self {
        let register = json!({"type": "Register", "payload": {"resumable": true}});
        Self::registered(relay, register).await
    }

    /// A device that sends exactly this to register.
    pub async fn registered(relay: &Relay, register: Value) -> Self {
        Self::registered_at(relay.public, register).await
    }

    /// A device of whatever relay is there.
    pub async fn registered_at(address: SocketAddr, register: Value) -> Self {
        let mut device = Self::stranger_at(address).await;
        device.says(register).await;
        device.welcome = device.hears("RegisterResponse").await;
        device.id = device.welcome["device_id"].as_str().expect("an id").to_owned();
        device
    }

    /// A device that can resume, and hears what becomes of its messages.
    pub async fn with_receipts(relay: &Relay) -> Self {
        let register =
            json!({"type": "Register", "payload": {"resumable": true, "receipts": true}});
        Self::registered(relay, register).await
    }

    /// What makes this device of a new connection.
    pub fn resume(&self) -> Value {
        let token = self.welcome["resume_token"].clone();
        assert!(token.is_string(), "it can resume");
        json!({"type": "Register", "payload": {"resume_token": token}})
    }

    /// The same device on a new connection, the old one just cut.
    pub async fn resumes(self, relay: &Relay) -> Self {
        let register = self.resume();
        drop(self);
        Self::registered(relay, register).await
    }

    /// Closes in an orderly way; answers what makes it of a new connection.
    pub async fn goes_away(self, relay: &Relay) -> Away {
        let away = Away { id: self.id.clone(), resume: self.resume() };
        let before = relay.health().await["connected"].as_u64().expect("a number");
        self.leaves().await;
        relay.comes_to(|health| health["connected"].as_u64() < Some(before)).await;
        away
    }

    /// Sends one frame.
    pub async fn says(&mut self, frame: Value) {
        self.says_text(&frame.to_string()).await;
    }

    /// Sends one text message as it is.
    pub async fn says_text(&mut self, text: &str) {
        self.says_raw(Message::text(text)).await;
    }

    /// Sends one WebSocket message.
    pub async fn says_raw(&mut self, message: Message) {
        self.socket.send(message).await.expect("the relay reads");
    }

    /// Sends one frame to a relay that may have closed the connection meanwhile.
    pub async fn tries_to_say(&mut self, frame: Value) {
        let _ = self.socket.send(Message::text(frame.to_string())).await;
    }

    /// Sends several frames before any of them can have been answered.
    pub async fn says_at_once(&mut self, frames: impl IntoIterator<Item = Value>) {
        for frame in frames {
            let message = Message::text(frame.to_string());
            self.socket.feed(message).await.expect("the relay reads");
        }
        self.socket.flush().await.expect("the relay reads");
    }

    /// A `Send` to another device, with these fields besides the usual ones.
    pub fn message_to(&self, to: &str, number: u32, more: Value) -> Value {
        let mut payload = json!({
            "recipient_id": to,
            "sender_id": self.id,
            "encrypted_data": format!("sealed {number}"),
            "message_id": message_id(number),
        });
        let fields = payload.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        json!({"type": "Send", "payload": payload})
    }

    /// Sends a message.
    pub async fn sends_to(&mut self, to: &Device, number: u32) {
        let frame = self.message_to(&to.id, number, json!({}));
        self.says(frame).await;
    }

    /// A step of an authentication, from this device, with these fields besides the usual ones.
    pub fn auth(&self, step: &str, more: Value) -> Value {
        let mut payload = match step {
            "AuthRequest" => json!({"public_key": "a key", "challenge": "first"}),
            "AuthResponse" => json!({"challenge_response": "first, signed", "challenge": "second"}),
            "AuthVerify" => json!({"challenge_response": "second, signed"}),
            _ => panic!("no step of an authentication by that device: {step}"),
        };
        let fields = payload.as_object_mut().expect("an object");
        fields.insert("device_id".to_owned(), json!(self.id));
        fields.extend(more.as_object().expect("an object").clone());
        json!({"type": step, "payload": payload})
    }

    /// A new key for another device.
    pub fn key_update(&self, to: &str, key_id: impl Into<Value>) -> Value {
        json!({"type": "KeyRotationUpdate", "payload": {
            "sender_id": self.id, "recipient_id": to,
            "encrypted_key_package": "a sealed key", "key_id": key_id.into(),
        }})
    }

    /// The answer to a new key.
    pub fn key_ack(&self, to: &str, key_id: impl Into<Value>, success: bool) -> Value {
        json!({"type": "KeyRotationAck", "payload": {
            "sender_id": self.id, "recipient_id": to, "key_id": key_id.into(), "success": success,
        }})
    }

    /// Says whether messages are welcome.
    pub async fn is(&mut self, status: &str) {
        let payload = json!({"device_id": self.id, "status": status});
        self.says(json!({"type": "Status", "payload": payload})).await;
    }

    /// Says a frame that is answered with an Error of that code, and nothing else.
    pub async fn is_refused(&mut self, frame: Value, code: u16) -> Value {
        self.says(frame).await;
        let error = self.hears_error(code).await;
        self.hears_nothing().await;
        error
    }

    /// Says a frame, and hears exactly this frame as another device's.
    pub async fn says_to(&mut self, other: &mut Device, frame: Value) {
        self.says(frame.clone()).await;
        assert_eq!(other.hears_any().await, frame);
    }

    /// Confirms a message.
    pub async fn acks(&mut self, number: u32) {
        self.says(json!({"type": "Ack", "payload": {"message_id": message_id(number)}})).await;
    }

    /// The text of the next frame, whatever it is.
    pub async fn hears_text(&mut self) -> String {
        match self.next().await {
            Message::Text(text) => text.to_string(),
            other => panic!("expected a text message, got {other:?}"),
        }
    }

    /// The next frame, whatever it is.
    pub async fn hears_any(&mut self) -> Value {
        serde_json::from_str(&self.hears_text().await).expect("the relay speaks JSON")
    }

    /// The code of the Close that comes next.
    pub async fn hears_close(&mut self) -> Option<u16> {
        match self.next().await {
            Message::Close(frame) => frame.map(|frame| frame.code.into()),
            other => panic!("expected a Close, got {other:?}"),
        }
    }

    /// The payload of the next frame, which must be of that type.
    pub async fn hears(&mut self, kind: &str) -> Value {
        let mut frame = self.hears_any().await;
        assert_eq!(frame["type"], kind, "in {frame}");
        frame["payload"].take()
    }

    /// The next frame is the bare Ack of that message.
    pub async fn hears_ack(&mut self, number: u32) {
        assert_eq!(self.hears("Ack").await, json!({"message_id": message_id(number)}));
    }

    /// The next frame is that message.
    pub async fn receives(&mut self, number: u32) -> Value {
        let payload = self.hears("Receive").await;
        assert_eq!(payload["message_id"], message_id(number), "in {payload}");
        payload
    }

    /// The next frame is an Error of that code.
    pub async fn hears_error(&mut self, code: u16) -> Value {
        let payload = self.hears("Error").await;
        assert_eq!(payload["code"], code, "in {payload}");
        payload
    }

    /// Nothing has come but the answer to a Ping, which comes after the answers to everything said before.
    pub async fn hears_nothing(&mut self) {
        self.says(json!({"type": "Ping"})).await;
        let frame = self.hears_any().await;
        assert_eq!(frame, json!({"type": "Pong"}));
    }

    /// The relay closes with that code; frames before it are passed over.
    pub async fn is_closed_with(&mut self, code: u16) {
        loop {
            if let Message::Close(frame) = self.next().await {
                assert_eq!(frame.map(|frame| u16::from(frame.code)), Some(code));
                return;
            }
        }
    }

    /// Closes in an orderly way; the next thing that comes is the relay's Close.
    pub async fn leaves_having_heard_all(mut self) {
        let bye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        self.says_raw(Message::Close(Some(bye))).await;
        assert_eq!(self.hears_close().await, Some(1000));
    }

    /// Closes in an orderly way and waits for the relay's Close.
    pub async fn leaves(mut self) {
        self.socket.close(None).await.expect("the relay reads");
        while let Some(Ok(_)) = self.socket.next().await {}
    }

    async fn next(&mut self) -> Message {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.socket.next()).await;
            match next.expect("something comes in time") {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return message,
                Some(Err(failed)) => panic!("the connection failed: {failed}"),
                None => panic!("the connection is over"),
            }
        }
    }
}
