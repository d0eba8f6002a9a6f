//! A client of the protocol over a real WebSocket.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::schema::assert_server_frame;
use super::tls::Stream;
use super::{Endpoints, PATIENCE, message_id};

/// The connection is over.
#[derive(Debug)]
pub struct Gone;

/// A connection to a relay, and the device that it is registered as.
pub struct Device {
    socket: WebSocketStream<Stream>,
    pub id: String,
    /// The payload of its `RegisterResponse`.
    pub registration: Value,
    /// Whether it asks for receipts at each resume.
    wants_receipts: bool,
}

/// A device that can resume and is not connected.
pub struct Away {
    pub id: String,
    resume: Value,
}

impl Away {
    /// The device on a new connection.
    pub async fn reconnect(&self, relay: &Endpoints) -> Device {
        let device = Device::register(relay, self.resume.clone()).await;
        assert_eq!(device.id, self.id);
        device
    }
}

impl Device {
    /// Connects and sends nothing yet.
    pub async fn connect(relay: &Endpoints) -> Self {
        Self::connect_from(relay, 1).await
    }

    /// Connects from 127.0.0.`host`: each host is an origin of its own.
    pub async fn connect_from(relay: &Endpoints, host: u8) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from(([127, 0, 0, host], 0))).expect("a loopback address");
        let tcp = socket.connect(relay.public).await.expect("the relay listens");
        Self::upgrade(format!("ws://{}/ws", relay.public), tcp).await
    }

    /// Upgrades a connection with this request.
    pub async fn upgrade(request: impl IntoClientRequest + Unpin, tcp: TcpStream) -> Self {
        tcp.set_nodelay(true).expect("a socket");
        let address = tcp.peer_addr().expect("a peer");
        let stream = Stream::open(tcp, address).await;
        let (socket, _) =
            tokio_tungstenite::client_async(request, stream).await.expect("the relay upgrades");
        Self { socket, id: String::new(), registration: Value::Null, wants_receipts: false }
    }

    /// A device without a resume token.
    pub async fn plain(relay: &Endpoints) -> Self {
        Self::register(relay, json!({"type": "Register"})).await
    }

    /// A device that can resume.
    pub async fn resumable(relay: &Endpoints) -> Self {
        let register = json!({"type": "Register", "payload": {"resumable": true}});
        Self::register(relay, register).await
    }

    /// A device that registers with exactly this frame.
    pub async fn register(relay: &Endpoints, register: Value) -> Self {
        Self::register_from(relay, 1, register).await
    }

    /// A device without a resume token, from 127.0.0.`host`.
    pub async fn plain_from(relay: &Endpoints, host: u8) -> Self {
        Self::register_from(relay, host, json!({"type": "Register"})).await
    }

    /// A device that registers with exactly this frame, from 127.0.0.`host`.
    pub async fn register_from(relay: &Endpoints, host: u8, register: Value) -> Self {
        let mut device = Self::connect_from(relay, host).await;
        device.wants_receipts = register["payload"]["receipts"] == true;
        device.send(register).await;
        device.registration = device.expect_frame("RegisterResponse").await;
        device.id = device.registration["device_id"].as_str().expect("an id").to_owned();
        device
    }

    /// A resumable device with additional fields in its `Register`, from 127.0.0.`host`.
    pub async fn resumable_from(relay: &Endpoints, host: u8, more: Value) -> Self {
        let mut payload = json!({"resumable": true});
        let fields = payload.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        Self::register_from(relay, host, json!({"type": "Register", "payload": payload})).await
    }

    /// A device that can resume, and wants receipts.
    pub async fn with_receipts(relay: &Endpoints) -> Self {
        let register =
            json!({"type": "Register", "payload": {"resumable": true, "receipts": true}});
        Self::register(relay, register).await
    }

    /// The device with this token, which must still be known, on a new connection.
    pub async fn resume(relay: &Endpoints, token: &Value) -> Self {
        let register = json!({"type": "Register", "payload": {"resume_token": token}});
        let device = Self::register(relay, register).await;
        assert_eq!(device.registration["resumed"], true);
        device
    }

    pub fn token(&self) -> Value {
        let token = self.registration["resume_token"].clone();
        assert!(token.is_string(), "it can resume");
        token
    }

    /// How many messages waited when it registered.
    pub fn queued(&self) -> u64 {
        self.registration["queued"].as_u64().expect("a number")
    }

    /// The frame that resumes this device on a new connection.
    pub fn resume_frame(&self) -> Value {
        let mut frame = json!({"type": "Register", "payload": {"resume_token": self.token()}});
        if self.wants_receipts {
            frame["payload"]["receipts"] = true.into();
        }
        frame
    }

    /// The same device on a new connection; the old one is cut without a Close.
    pub async fn reconnect(self, relay: &Endpoints) -> Self {
        let register = self.resume_frame();
        drop(self);
        Self::register(relay, register).await
    }

    /// Closes the connection of a resumable device, and waits until the relay knows.
    pub async fn disconnect(self, relay: &Endpoints) -> Away {
        let away = Away { id: self.id.clone(), resume: self.resume_frame() };
        self.leave(relay).await;
        away
    }

    /// Closes the connection, and waits until the relay knows.
    pub async fn leave(self, relay: &Endpoints) {
        let before = relay.figure("connected").await;
        self.close().await;
        relay.wait_until(|health| health["connected"].as_u64() < Some(before)).await;
    }

    /// Sends one frame.
    pub async fn send(&mut self, frame: Value) {
        self.send_text(&frame.to_string()).await;
    }

    /// Sends one text message as it is.
    pub async fn send_text(&mut self, text: &str) {
        self.send_raw(Message::text(text)).await;
    }

    /// Sends one WebSocket message.
    pub async fn send_raw(&mut self, message: Message) {
        self.socket.send(message).await.expect("the relay reads");
    }

    /// Sends one frame to a relay that may be gone.
    pub async fn try_send(&mut self, frame: Value) -> Result<(), Gone> {
        self.socket.send(Message::text(frame.to_string())).await.map_err(|_| Gone)
    }

    /// Sends several frames in one write.
    pub async fn send_all(&mut self, frames: impl IntoIterator<Item = Value>) {
        for frame in frames {
            let message = Message::text(frame.to_string());
            self.socket.feed(message).await.expect("the relay reads");
        }
        self.socket.flush().await.expect("the relay reads");
    }

    /// A `Send` to another device, with these additional fields.
    pub fn message_to(&self, to: &str, number: u64, more: Value) -> Value {
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
    pub async fn send_to(&mut self, to: &Device, number: u64) {
        self.send_message(&to.id, number, json!({})).await;
    }

    /// Sends a message with additional fields to the device with this id.
    pub async fn send_message(&mut self, to: &str, number: u64, more: Value) {
        let frame = self.message_to(to, number, more);
        self.send(frame).await;
    }

    /// Sends a message and waits for its Ack. If the recipient is away, all earlier changes are on disk then.
    pub async fn send_and_expect_ack(&mut self, to: &str, number: u64) {
        self.send_message(to, number, json!({})).await;
        self.expect_ack(number).await;
    }

    /// Sends messages, numbered from `first`, until the recipient's queue refuses one; returns how many were accepted.
    pub async fn fill_queue_of(&mut self, to: &str, first: u64) -> u64 {
        let mut accepted = 0;
        loop {
            self.send_message(to, first + accepted, json!({})).await;
            let answer = self.receive_any().await;
            if answer["type"] == "Error" {
                assert_eq!(answer["payload"]["code"], 507, "in {answer}");
                assert_eq!(answer["payload"]["message_id"], message_id(first + accepted));
                return accepted;
            }
            assert_eq!(answer["type"], "Ack", "in {answer}");
            accepted += 1;
        }
    }

    /// A step of an authentication, from this device, with these additional fields.
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

    /// Sends a `Status`.
    pub async fn set_status(&mut self, status: &str) {
        let payload = json!({"device_id": self.id, "status": status});
        self.send(json!({"type": "Status", "payload": payload})).await;
    }

    /// Sends a frame; the answer must be an Error with this code, and nothing else.
    pub async fn expect_refusal(&mut self, frame: Value, code: u16) -> Value {
        self.send(frame).await;
        let error = self.expect_error(code).await;
        self.expect_nothing().await;
        error
    }

    /// Sends a frame; the other device must receive exactly this frame.
    pub async fn send_through(&mut self, other: &mut Device, frame: Value) {
        self.send(frame.clone()).await;
        assert_eq!(other.receive_any().await, frame);
    }

    /// Acknowledges a message.
    pub async fn ack(&mut self, number: u64) {
        self.send(json!({"type": "Ack", "payload": {"message_id": message_id(number)}})).await;
    }

    /// The text of the next frame.
    pub async fn receive_text(&mut self) -> String {
        match self.next().await {
            Message::Text(text) => text.to_string(),
            other => panic!("expected a text message, got {other:?}"),
        }
    }

    /// The next frame.
    pub async fn receive_any(&mut self) -> Value {
        serde_json::from_str(&self.receive_text().await).expect("the relay speaks JSON")
    }

    /// The next message must be a Close; returns its code.
    pub async fn expect_close(&mut self) -> Option<u16> {
        match self.next().await {
            Message::Close(frame) => frame.map(|frame| frame.code.into()),
            other => panic!("expected a Close, got {other:?}"),
        }
    }

    /// The next frame must have this type; returns its payload.
    pub async fn expect_frame(&mut self, kind: &str) -> Value {
        let mut frame = self.receive_any().await;
        assert_eq!(frame["type"], kind, "in {frame}");
        frame["payload"].take()
    }

    /// The next frame must be the bare Ack of this message.
    pub async fn expect_ack(&mut self, number: u64) {
        assert_eq!(self.expect_frame("Ack").await, json!({"message_id": message_id(number)}));
    }

    /// The next frame must be this message.
    pub async fn receive(&mut self, number: u64) -> Value {
        let payload = self.expect_frame("Receive").await;
        assert_eq!(payload["message_id"], message_id(number), "in {payload}");
        payload
    }

    /// The next frame must be this message; acknowledges it.
    pub async fn receive_and_ack(&mut self, number: u64) -> Value {
        let payload = self.receive(number).await;
        self.send(confirmation(&payload)).await;
        payload
    }

    /// The next frame, if the connection still exists.
    pub async fn try_receive(&mut self) -> Result<Value, Gone> {
        match self.try_next().await? {
            Message::Text(text) => Ok(serde_json::from_str(&text).expect("the relay sends JSON")),
            _ => Err(Gone),
        }
    }

    /// The next frame must be an Error with this code.
    pub async fn expect_error(&mut self, code: u16) -> Value {
        let payload = self.expect_frame("Error").await;
        assert_eq!(payload["code"], code, "in {payload}");
        payload
    }

    /// The next frame must be the Pong to a new Ping, which follows the answers to all earlier frames.
    pub async fn expect_nothing(&mut self) {
        self.send(json!({"type": "Ping"})).await;
        let frame = self.receive_any().await;
        assert_eq!(frame, json!({"type": "Pong"}));
    }

    /// The relay must close with this code; frames before the Close are ignored.
    pub async fn expect_closed_with(&mut self, code: u16) {
        loop {
            if let Message::Close(frame) = self.next().await {
                assert_eq!(frame.map(|frame| u16::from(frame.code)), Some(code));
                return;
            }
        }
    }

    /// Sends a Close; the next message must be the relay's Close.
    pub async fn expect_nothing_and_close(mut self) {
        let bye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        self.send_raw(Message::Close(Some(bye))).await;
        assert_eq!(self.expect_close().await, Some(1000));
    }

    /// Sends a Close and waits for the end of the connection.
    pub async fn close(mut self) {
        self.socket.close(None).await.expect("the relay reads");
        while let Some(Ok(_)) = self.socket.next().await {}
    }

    async fn next(&mut self) -> Message {
        self.try_next().await.expect("the connection is open")
    }

    /// The next message that is neither a ping nor a pong. A text is a frame that docs/schemas allow.
    async fn try_next(&mut self) -> Result<Message, Gone> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let next = tokio::time::timeout_at(deadline, self.socket.next()).await;
            match next.expect("a message in time") {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => {
                    if let Message::Text(text) = &message {
                        assert_server_frame(text);
                    }
                    return Ok(message);
                }
                Some(Err(_)) | None => return Err(Gone),
            }
        }
    }
}

/// The Ack of a received message.
pub fn confirmation(received: &Value) -> Value {
    let (id, from) = (&received["message_id"], &received["sender_id"]);
    json!({"type": "Ack", "payload": {"message_id": id, "sender_id": from}})
}
