//! A device on a relay that may be gone in the next moment.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::process::{PATIENCE, Process};

/// The relay is gone.
#[derive(Debug)]
pub struct Gone;

/// A connection that may end at any time.
pub struct Client {
    socket: WebSocketStream<TcpStream>,
    pub id: String,
    /// The payload of its `RegisterResponse`.
    pub welcome: Value,
}

/// An id for a message; the same number is the same id.
pub fn message_id(number: u64) -> String {
    format!("{number:08x}-0000-4000-8000-000000000001")
}

impl Client {
    /// Connects and says this; what comes back first.
    pub async fn begins(relay: &Process, payload: Value) -> Result<(Self, Value), Gone> {
        let tcp = TcpStream::connect(relay.public).await.map_err(|_| Gone)?;
        tcp.set_nodelay(true).map_err(|_| Gone)?;
        let url = format!("ws://{}/ws", relay.public);
        let (socket, _) = tokio_tungstenite::client_async(url, tcp).await.map_err(|_| Gone)?;
        let mut client = Self { socket, id: String::new(), welcome: Value::Null };
        client.tries(json!({"type": "Register", "payload": payload})).await?;
        let first = client.next().await?;
        Ok((client, first))
    }

    async fn registers(relay: &Process, payload: Value) -> Self {
        let (mut client, mut first) = Self::begins(relay, payload).await.expect("it serves");
        assert_eq!(first["type"], "RegisterResponse", "{first}");
        client.welcome = first["payload"].take();
        client.id = client.welcome["device_id"].as_str().expect("an id").to_owned();
        client
    }

    pub async fn plain(relay: &Process) -> Self {
        Self::registers(relay, json!({})).await
    }

    pub async fn resumable(relay: &Process) -> Self {
        Self::registers(relay, json!({"resumable": true})).await
    }

    pub async fn resumes(relay: &Process, token: &Value) -> Self {
        let client = Self::registers(relay, json!({"resume_token": token})).await;
        assert_eq!(client.welcome["resumed"], true);
        client
    }

    pub fn token(&self) -> Value {
        assert!(self.welcome["resume_token"].is_string(), "it can resume");
        self.welcome["resume_token"].clone()
    }

    /// How many messages waited for it.
    pub fn waited(&self) -> u64 {
        self.welcome["queued"].as_u64().expect("a number")
    }

    /// Sends a frame, if anybody is there.
    pub async fn tries(&mut self, frame: Value) -> Result<(), Gone> {
        self.socket.send(Message::text(frame.to_string())).await.map_err(|_| Gone)
    }

    pub async fn says(&mut self, frame: Value) {
        self.tries(frame).await.expect("the relay is there");
    }

    /// Puts a frame into the buffer.
    pub async fn writes(&mut self, frame: Value) {
        self.socket.feed(Message::text(frame.to_string())).await.expect("the relay is there");
    }

    /// Sends the buffer.
    pub async fn flushes(&mut self) {
        self.socket.flush().await.expect("the relay is there");
    }

    /// The next frame, if anybody is there.
    pub async fn next(&mut self) -> Result<Value, Gone> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.socket.next()).await;
            match next.expect("something comes in time") {
                Some(Ok(Message::Text(text))) => {
                    return Ok(serde_json::from_str(&text).expect("the relay speaks JSON"));
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(Gone),
                Some(Ok(_)) => {}
            }
        }
    }

    /// The payload of the next frame, which must be of that type.
    pub async fn hears(&mut self, kind: &str) -> Value {
        let mut frame = self.next().await.expect("the relay is there");
        assert_eq!(frame["type"], kind, "in {frame}");
        frame["payload"].take()
    }

    pub async fn hears_ack(&mut self, number: u64) {
        assert_eq!(self.hears("Ack").await, json!({"message_id": message_id(number)}));
    }

    pub async fn hears_error(&mut self, code: u16) -> Value {
        let payload = self.hears("Error").await;
        assert_eq!(payload["code"], code, "in {payload}");
        payload
    }

    /// The next frame is that message; confirms it.
    pub async fn receives(&mut self, number: u64) -> Value {
        let payload = self.hears("Receive").await;
        assert_eq!(payload["message_id"], message_id(number), "in {payload}");
        self.says(confirmation(&payload)).await;
        payload
    }

    /// Nothing has come but the answer to a Ping.
    pub async fn hears_nothing(&mut self) {
        self.says(json!({"type": "Ping"})).await;
        assert_eq!(self.next().await.expect("the relay is there"), json!({"type": "Pong"}));
    }

    /// A `Send`, with these fields besides the usual ones.
    pub fn message(&self, to: &str, number: u64, more: Value) -> Value {
        let mut payload = json!({
            "recipient_id": to,
            "sender_id": self.id,
            "encrypted_data": format!("{} to {to}, {number}", self.id),
            "message_id": message_id(number),
        });
        let fields = payload.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        json!({"type": "Send", "payload": payload})
    }

    /// Sends a message.
    pub async fn sends(&mut self, to: &str, number: u64, more: Value) {
        let frame = self.message(to, number, more);
        self.says(frame).await;
    }

    /// Sends a message and has it acked: everything that the relay did before is on disk, if `to` is away.
    pub async fn has_kept(&mut self, to: &str, number: u64) {
        self.sends(to, number, json!({})).await;
        self.hears_ack(number).await;
    }

    /// Closes in an orderly way, and the relay knows.
    pub async fn leaves(mut self, relay: &Process) {
        let before = relay.figure("connected");
        let _ = self.socket.close(None).await;
        while self.next().await.is_ok() {}
        relay.has("connected", before - 1);
    }
}

/// What confirms a message that was received.
pub fn confirmation(received: &Value) -> Value {
    let (id, from) = (&received["message_id"], &received["sender_id"]);
    json!({"type": "Ack", "payload": {"message_id": id, "sender_id": from}})
}
