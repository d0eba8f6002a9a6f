//! The frames that the relay may send.
//!
//! The documentation of these types is what the schemas say.

use schemars::JsonSchema;
use serde_json::json;

use super::client::{
    AuthRequest, AuthResponse, AuthSuccess, AuthVerify, KeyRotationAck, KeyRotationUpdate,
    SendPayload, frame,
};
use super::{Frame, read, written};
use crate::protocol::encode::{ErrorPayload, RegisterResponsePayload};
use crate::protocol::id::MessageId;

/// All of them, in the order of docs/protocol.md.
pub(super) fn frames() -> Vec<Frame> {
    vec![
        written::<RegisterResponse>(),
        read::<Receive>(),
        written::<ServerAck>(),
        written::<ServerPing>(),
        written::<ServerPong>(),
        written::<ServerError>(),
        read::<AuthRequest>(),
        read::<AuthResponse>(),
        read::<AuthVerify>(),
        read::<AuthSuccess>(),
        read::<KeyRotationUpdate>(),
        read::<KeyRotationAck>(),
    ]
}

frame! {
    /// Gives this connection its device. The first frame of a registered connection.
    RegisterResponse = "RegisterResponse", RegisterResponsePayload<'static>
}
frame! {
    /// A message from another device. The payload is the one of its `Send`, byte for byte.
    Receive = "Receive", SendPayload
}
frame! {
    /// The relay has a message of this device, or tells what became of it.
    ServerAck = "Ack", ServerAckPayload
}
frame! {
    /// Something was refused, or has expired.
    ServerError = "Error", ErrorPayload<'static>
}

/// Asks for a `Pong`.
#[derive(Debug, JsonSchema)]
pub struct ServerPing {
    /// The type of the frame.
    #[schemars(extend("const" = "Ping"))]
    pub r#type: String,
}

/// Answers a `Ping` of the client.
#[derive(Debug, JsonSchema)]
pub struct ServerPong {
    /// The type of the frame.
    #[schemars(extend("const" = "Pong"))]
    pub r#type: String,
}

/// Which message, and what became of it.
#[derive(Debug, JsonSchema)]
#[schemars(transform = queued_has_a_time)]
pub struct ServerAckPayload {
    /// Id of the message.
    pub message_id: MessageId,
    /// What became of the message. Only for a device that asked for receipts.
    #[schemars(with = "ReceiptStatus", skip_serializing_if = "Option::is_none")]
    pub status: Option<ReceiptStatus>,
    /// Until when the message may wait, Unix seconds. Only with the status `queued`.
    #[schemars(with = "u64", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

/// What became of a message.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum ReceiptStatus {
    /// Durably queued; another word follows.
    Queued,
    /// The connection of a plain recipient took it.
    Delivered,
    /// A resumable recipient confirmed it.
    Processed,
}

fn queued_has_a_time(schema: &mut schemars::Schema) {
    let queued = json!({"properties": {"status": {"const": "queued"}}, "required": ["status"]});
    let no_time = json!({"properties": {"expires_at": false}});
    schema.insert("if".to_owned(), queued);
    schema.insert("then".to_owned(), json!({"required": ["expires_at"]}));
    schema.insert("else".to_owned(), no_time);
}
