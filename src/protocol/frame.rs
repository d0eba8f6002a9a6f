//! The frames of a client, decoded. Each borrows from the text of the frame.

use std::borrow::Cow;

use super::id::{DeviceId, MessageId};

/// One frame of a client, its shape checked.
#[derive(Debug, PartialEq)]
pub enum ClientFrame<'a> {
    /// Asks for a device id, or for the former one.
    Register(Register<'a>),
    /// A message for another device.
    Send(Send<'a>),
    /// Confirms that a message was received and processed.
    Ack(Ack),
    /// Asks for a `Pong`.
    Ping,
    /// Answers a `Ping`.
    Pong,
    /// One of the first three steps of an authentication.
    Auth(Auth<'a>),
    /// Confirms another device as trusted.
    AuthSuccess(AuthSuccess<'a>),
    /// New key material for another device.
    KeyRotation(KeyRotation<'a>),
    /// Confirms key material.
    KeyRotationAck(KeyRotation<'a>),
    /// Says whether messages are welcome now.
    Status(Status),
}

/// `Register`, with its optional extensions.
#[derive(Debug, Default, PartialEq)]
pub struct Register<'a> {
    /// Whether the payload held anything at all: only then does the response carry more than the seed's.
    pub extended: bool,
    /// Wants an identity that outlives the connection.
    pub resumable: bool,
    /// Wants to know what became of each message.
    pub receipts: bool,
    /// Wants its former identity back.
    pub resume_token: Option<Cow<'a, str>>,
}

/// `Send`.
#[derive(Debug, PartialEq)]
pub struct Send<'a> {
    /// For whom.
    pub recipient_id: DeviceId,
    /// From whom, as the client says.
    pub sender_id: DeviceId,
    /// The client's name for it.
    pub message_id: MessageId,
    /// Seconds; saturated at `u64::MAX`.
    pub ttl: Option<u64>,
    /// The raw JSON string; opaque.
    pub encrypted_data: &'a str,
    /// The whole payload as the client wrote it.
    pub payload: &'a str,
}

/// `Ack` from a client.
#[derive(Debug, PartialEq)]
pub struct Ack {
    /// What is confirmed.
    pub message_id: MessageId,
    /// Whose, when two senders used one id.
    pub sender_id: Option<DeviceId>,
}

/// The steps of an authentication that name the device which sends them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthStep {
    /// `AuthRequest`
    Request,
    /// `AuthResponse`
    Response,
    /// `AuthVerify`
    Verify,
}

/// `AuthRequest`, `AuthResponse` or `AuthVerify`.
#[derive(Debug, PartialEq)]
pub struct Auth<'a> {
    /// Which of the three.
    pub step: AuthStep,
    /// The sender, as the client says.
    pub device_id: DeviceId,
    /// Extension: for whom.
    pub recipient_id: Option<DeviceId>,
    /// The whole payload as the client wrote it.
    pub payload: &'a str,
}

/// `AuthSuccess`.
#[derive(Debug, PartialEq)]
pub struct AuthSuccess<'a> {
    /// The device that is confirmed as trusted, and the recipient.
    pub device_id: DeviceId,
    /// Extension: for whom, if it is said.
    pub recipient_id: Option<DeviceId>,
    /// Extension: from whom, if it is said.
    pub sender_id: Option<DeviceId>,
    /// The whole payload as the client wrote it.
    pub payload: &'a str,
}

/// `KeyRotationUpdate` or `KeyRotationAck`.
#[derive(Debug, PartialEq)]
pub struct KeyRotation<'a> {
    /// From whom, as the client says.
    pub sender_id: DeviceId,
    /// For whom.
    pub recipient_id: DeviceId,
    /// The raw JSON number or string.
    pub key_id: &'a str,
    /// The whole payload as the client wrote it.
    pub payload: &'a str,
}

/// `Status`.
#[derive(Debug, PartialEq)]
pub struct Status {
    /// Whose, as the client says.
    pub device_id: DeviceId,
    /// What is said.
    pub presence: Presence,
}

/// What a connected device says of itself. (protocol: Status)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Deliver.
    Online,
    /// Deliver.
    Away,
    /// Hold: queue, and deliver when it is back.
    Offline,
}
