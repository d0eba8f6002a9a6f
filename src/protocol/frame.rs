//! The frames of a client after decoding. A frame borrows from the text of the message.
//!
//! Field names are those of the wire. `payload` is always the whole payload as the client wrote it.

use std::borrow::Cow;

use super::id::{DeviceId, MessageId, Recipient};
use super::kind::Kind;

/// One frame of a client. Its shape is checked; nothing else is. (protocol: Core messages and after)
#[derive(Debug, PartialEq)]
pub enum ClientFrame<'a> {
    /// Asks for a new device id, or for the one of an earlier connection.
    Register(Register<'a>),
    /// Ends the device.
    Unregister,
    /// Sends a message to another device.
    Send(Send<'a>),
    /// Confirms that the client received and processed a message.
    Ack(Ack),
    /// Asks for a `Pong`.
    Ping,
    /// Answers a `Ping`.
    Pong,
    /// `AuthRequest`, `AuthResponse` or `AuthVerify`.
    Auth(Auth<'a>),
    /// Confirms another device as trusted.
    AuthSuccess(AuthSuccess<'a>),
    /// `KeyRotationUpdate`: sends new key material to another device.
    KeyRotation(KeyRotation<'a>),
    /// Confirms new key material.
    KeyRotationAck(KeyRotation<'a>),
    /// Changes the presence of the device.
    Status(StatusUpdate),
}

/// The payload of `Register`. (protocol: Register)
#[derive(Debug, Default, PartialEq)]
pub struct Register<'a> {
    /// Whether the payload has any field. Only then does the `RegisterResponse` have more than a `device_id`.
    pub extended: bool,
    /// Asks for a device that outlives the connection.
    pub resumable: bool,
    /// Asks for a receipt for each message.
    pub receipts: bool,
    /// The token of the device that the client wants to resume.
    pub resume_token: Option<Cow<'a, str>>,
    /// Whose messages the device takes from now on; `None` leaves that as it is.
    pub accept: Option<Accept>,
    /// Asks for a new resume token.
    pub renew_token: bool,
    /// The access token by which the client wants to register.
    pub access_token: Option<Secret<'a>>,
}

/// A secret of a client, in clear text; `Debug` shows its length only.
#[derive(PartialEq)]
pub struct Secret<'a>(pub Cow<'a, str>);

impl std::fmt::Debug for Secret<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// Whose messages a device takes. (protocol: Register)
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename_all = "lowercase"))]
pub enum Accept {
    /// Everybody's.
    #[default]
    Anyone,
    /// Only those of its correspondents. All others get the 404 of an unknown recipient.
    Correspondents,
}

/// The payload of `Send`. (protocol: Send)
#[derive(Debug, PartialEq)]
pub struct Send<'a> {
    /// The recipient.
    pub recipient_id: Recipient,
    /// The sender as the client states it; not verified yet.
    pub sender_id: DeviceId,
    /// The sender's id of this message.
    pub message_id: MessageId,
    /// Seconds that the message may wait; `None` means the relay's default.
    pub ttl: Option<u64>,
    /// The raw JSON string.
    pub encrypted_data: &'a str,
    /// The whole payload.
    pub payload: &'a str,
}

/// The payload of an `Ack` from a client. (protocol: Ack)
#[derive(Debug, PartialEq)]
pub struct Ack {
    /// Id of the message that the client confirms.
    pub message_id: MessageId,
    /// Sender of that message; needed when two senders used the same id.
    pub sender_id: Option<DeviceId>,
}

/// The steps of an authentication whose `device_id` is the sender. (protocol: Authentication messages)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthStep {
    /// `AuthRequest`, the first step.
    Request,
    /// `AuthResponse`, the second step.
    Response,
    /// `AuthVerify`, the third step.
    Verify,
}

impl AuthStep {
    /// The type of the frame.
    pub fn kind(self) -> Kind {
        match self {
            Self::Request => Kind::AuthRequest,
            Self::Response => Kind::AuthResponse,
            Self::Verify => Kind::AuthVerify,
        }
    }
}

/// The payload of `AuthRequest`, `AuthResponse` or `AuthVerify`. (protocol: Authentication messages)
#[derive(Debug, PartialEq)]
pub struct Auth<'a> {
    /// Which of the three.
    pub step: AuthStep,
    /// The sender as the client states it; not verified yet.
    pub device_id: DeviceId,
    /// The recipient, if the client names one.
    pub recipient_id: Option<Recipient>,
    /// The whole payload.
    pub payload: &'a str,
}

/// The payload of `AuthSuccess`. (protocol: AuthSuccess)
#[derive(Debug, PartialEq)]
pub struct AuthSuccess<'a> {
    /// The device that is confirmed as trusted; also the recipient if `recipient_id` is absent.
    pub device_id: Recipient,
    /// The recipient, if the client names one.
    pub recipient_id: Option<Recipient>,
    /// The sender, if the client names it; not verified yet.
    pub sender_id: Option<DeviceId>,
    /// The whole payload.
    pub payload: &'a str,
}

/// The payload of `KeyRotationUpdate` or `KeyRotationAck`. (protocol: Key rotation messages)
#[derive(Debug, PartialEq)]
pub struct KeyRotation<'a> {
    /// The sender as the client states it; not verified yet.
    pub sender_id: DeviceId,
    /// The recipient.
    pub recipient_id: Recipient,
    /// The raw JSON number or string.
    pub key_id: &'a str,
    /// The whole payload.
    pub payload: &'a str,
}

/// The payload of `Status`. (protocol: Status)
#[derive(Debug, PartialEq)]
pub struct StatusUpdate {
    /// The sender as the client states it; not verified yet.
    pub device_id: DeviceId,
    /// The new presence.
    pub presence: Presence,
}

/// Whether a connected device accepts messages now. (protocol: Status)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Presence {
    /// The relay delivers.
    Online,
    /// The relay delivers.
    Away,
    /// The relay queues, and delivers when the device is `Online` or `Away` again.
    Offline,
}
