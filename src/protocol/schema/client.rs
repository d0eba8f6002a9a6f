//! The frames that a client may send, as the decoder reads them. Most are relayed as they are.
//!
//! The documentation of these types is what the schemas say.

use schemars::JsonSchema;
use serde_json::Value;

use super::{Frame, KeyId, read};
use crate::protocol::frame::{Accept, Presence};
use crate::protocol::id::{DeviceId, MessageId, Recipient};

/// All of them, in the order of docs/protocol.md.
pub(super) fn frames() -> Vec<Frame> {
    vec![
        read::<Register>(),
        read::<Unregister>(),
        read::<Send>(),
        read::<ClientAck>(),
        read::<ClientPing>(),
        read::<ClientPong>(),
        read::<AuthRequest>(),
        read::<AuthResponse>(),
        read::<AuthVerify>(),
        read::<AuthSuccess>(),
        read::<KeyRotationUpdate>(),
        read::<KeyRotationAck>(),
        read::<Status>(),
    ]
}

/// Declares a frame: its type on the wire and its payload.
macro_rules! frame {
    ($(#[doc = $doc:literal])* $name:ident = $kind:literal, $payload:ty) => {
        $(#[doc = $doc])*
        #[derive(Debug, JsonSchema)]
        pub struct $name {
            /// The type of the frame.
            #[schemars(extend("const" = $kind))]
            pub r#type: String,
            /// The fields of the frame.
            pub payload: $payload,
        }
    };
}
pub(super) use frame;

frame! {
    /// Asks for a device id for this connection, or to be an earlier device again. The first frame of a connection.
    Register = "Register", Option<RegisterPayload>
}
frame! {
    /// Ends this device.
    Unregister = "Unregister", Option<NoFields>
}
frame! {
    /// Sends a message to another device.
    Send = "Send", SendPayload
}
frame! {
    /// Confirms that this device has a message.
    ClientAck = "Ack", ClientAckPayload
}
frame! {
    /// Asks for a `Pong`.
    ClientPing = "Ping", Option<NoFields>
}
frame! {
    /// Answers a `Ping` of the relay.
    ClientPong = "Pong", Option<NoFields>
}
frame! {
    /// Opens an authentication: asks another device to prove who it is.
    AuthRequest = "AuthRequest", AuthRequestPayload
}
frame! {
    /// Answers the challenge of an `AuthRequest`, and puts one.
    AuthResponse = "AuthResponse", AuthResponsePayload
}
frame! {
    /// Answers the challenge of an `AuthResponse`.
    AuthVerify = "AuthVerify", AuthVerifyPayload
}
frame! {
    /// Tells the other device that it is trusted now, or not.
    AuthSuccess = "AuthSuccess", AuthSuccessPayload
}
frame! {
    /// New key material for another device.
    KeyRotationUpdate = "KeyRotationUpdate", KeyRotationUpdatePayload
}
frame! {
    /// The answer to a `KeyRotationUpdate`.
    KeyRotationAck = "KeyRotationAck", KeyRotationAckPayload
}
frame! {
    /// Steers what the relay hands to this device.
    Status = "Status", StatusPayload
}

/// Nothing: fields are ignored.
#[derive(Debug, JsonSchema)]
pub struct NoFields {}

/// With at least one field, the client declares that it understands extensions.
#[derive(Debug, JsonSchema)]
pub struct RegisterPayload {
    /// Asks for a device that outlives the connection.
    pub resumable: Option<bool>,
    /// Asks for a receipt for each message.
    pub receipts: Option<bool>,
    /// Be the device again that got this token.
    pub resume_token: Option<String>,
    /// Whose messages this device takes; everybody's unless it says otherwise.
    pub accept: Option<Accept>,
    /// Asks for a new resume token, together with the old one.
    pub renew_token: Option<bool>,
    /// Lets this client register where the operator asks for a token. Resuming needs none.
    pub access_token: Option<String>,
}

/// A message. A `Receive` has the same payload, byte for byte.
#[derive(Debug, JsonSchema)]
pub struct SendPayload {
    /// To whom the message is.
    pub recipient_id: Recipient,
    /// From whom it is: the id of this connection's device.
    pub sender_id: DeviceId,
    /// The sender's id for it. A repeat has the same.
    pub message_id: MessageId,
    /// The message, sealed. The relay never looks into it.
    pub encrypted_data: String,
    /// Seconds that the message may wait, written in digits; 0: only now. The relay has a default and a maximum.
    pub ttl: Option<u64>,
    /// The sender's signature. The relay does not verify it.
    pub signature: Option<String>,
    /// When the sender wrote the message, customarily in Unix seconds. Carried, not judged.
    pub timestamp: Option<Value>,
    /// What the message is: customarily "Text", "Image", "KeyPackage" or "Other". Carried, not judged.
    pub content_type: Option<Value>,
    /// How large the content is, customarily in bytes. Carried, not judged.
    pub size_bytes: Option<Value>,
}

/// Which message this device has.
#[derive(Debug, JsonSchema)]
pub struct ClientAckPayload {
    /// Id of the message.
    pub message_id: MessageId,
    /// Its sender, for the case that two senders used the same id.
    pub sender_id: Option<DeviceId>,
}

/// The first step of an authentication.
#[derive(Debug, JsonSchema)]
pub struct AuthRequestPayload {
    /// The id of the sender.
    pub device_id: DeviceId,
    /// To whom it is. Without it the relay chooses the one device that this one has exchanged messages with.
    pub recipient_id: Option<Recipient>,
    /// The public key of the sender.
    pub public_key: String,
    /// What the other device is to sign.
    pub challenge: String,
}

/// The second step of an authentication.
#[derive(Debug, JsonSchema)]
pub struct AuthResponsePayload {
    /// The id of the sender, which is the device that answers.
    pub device_id: DeviceId,
    /// To whom it is. Without it the relay chooses the device whose exchange waits for this step.
    pub recipient_id: Option<Recipient>,
    /// The signature under the challenge of the `AuthRequest`.
    pub challenge_response: String,
    /// What the first device is to sign in turn.
    pub challenge: String,
}

/// The third step of an authentication.
#[derive(Debug, JsonSchema)]
pub struct AuthVerifyPayload {
    /// The id of the sender, which is the device that began.
    pub device_id: DeviceId,
    /// To whom it is. Without it the relay chooses the device whose exchange waits for this step.
    pub recipient_id: Option<Recipient>,
    /// The signature under the challenge of the `AuthResponse`.
    pub challenge_response: String,
}

/// The end of an authentication, from either side.
#[derive(Debug, JsonSchema)]
pub struct AuthSuccessPayload {
    /// The device that is confirmed as trusted: the one that receives this message.
    pub device_id: Recipient,
    /// To whom it is, if not to `device_id`.
    pub recipient_id: Option<Recipient>,
    /// The id of the sender.
    pub sender_id: Option<DeviceId>,
    /// Whether the sender trusts the device.
    pub trusted: bool,
}

/// New key material.
#[derive(Debug, JsonSchema)]
pub struct KeyRotationUpdatePayload {
    /// The id of the sender.
    pub sender_id: DeviceId,
    /// To whom it is.
    pub recipient_id: Recipient,
    /// The key material, sealed. The relay never looks into it.
    pub encrypted_key_package: String,
    /// The sender's id for the key. A repeat has the same.
    pub key_id: KeyId,
}

/// What became of new key material.
#[derive(Debug, JsonSchema)]
pub struct KeyRotationAckPayload {
    /// The id of the device that acks.
    pub sender_id: DeviceId,
    /// The device that sent the key.
    pub recipient_id: Recipient,
    /// The id of the key, written as in its update.
    pub key_id: KeyId,
    /// Whether the device could use the key.
    pub success: bool,
}

/// The presence of a device.
#[derive(Debug, JsonSchema)]
pub struct StatusPayload {
    /// The id of this connection's device.
    pub device_id: DeviceId,
    /// What the relay does with messages for the device.
    pub status: Presence,
}
