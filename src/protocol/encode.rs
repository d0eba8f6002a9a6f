//! What the relay may say: words in, the text of a frame out.

use bytestring::ByteString;
use serde::Serialize;
use serde_json::value::RawValue;

use super::frame::AuthStep;
use super::id::{DeviceId, MessageId};
use super::refusal::{ErrorContext, Refusal};

/// A frame that carries a client's payload to another client: only the `type` is the relay's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// `Receive`, made from a `Send`.
    Receive,
    /// One of the three first `Auth*` messages.
    Auth(AuthStep),
    /// `AuthSuccess`
    AuthSuccess,
    /// `KeyRotationUpdate`
    KeyRotationUpdate,
    /// `KeyRotationAck`
    KeyRotationAck,
}

/// Bytes that are copied at once. Longer copies are made by an instruction that is twenty times slower on some processors
/// when source and destination lie badly to each other, and behind a head of 29 bytes they do.
const PIECE: usize = 1024;

/// Puts a payload, byte for byte, behind the head of the frame that carries it on.
#[must_use]
pub fn splice(carried: Forwarded, payload: &str) -> ByteString {
    let head = match carried {
        Forwarded::Receive => r#"{"type":"Receive","payload":"#,
        Forwarded::Auth(AuthStep::Request) => r#"{"type":"AuthRequest","payload":"#,
        Forwarded::Auth(AuthStep::Response) => r#"{"type":"AuthResponse","payload":"#,
        Forwarded::Auth(AuthStep::Verify) => r#"{"type":"AuthVerify","payload":"#,
        Forwarded::AuthSuccess => r#"{"type":"AuthSuccess","payload":"#,
        Forwarded::KeyRotationUpdate => r#"{"type":"KeyRotationUpdate","payload":"#,
        Forwarded::KeyRotationAck => r#"{"type":"KeyRotationAck","payload":"#,
    };
    let mut frame = String::with_capacity(head.len() + payload.len() + 1);
    frame.push_str(head);
    let mut rest = payload;
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(rest.floor_char_boundary(PIECE));
        frame.push_str(piece);
        rest = more;
    }
    frame.push('}');
    frame.into()
}

/// `Ping`
pub const PING: &str = r#"{"type":"Ping"}"#;
/// `Pong`
pub const PONG: &str = r#"{"type":"Pong"}"#;

/// `RegisterResponse`.
#[derive(Debug, Clone, Serialize)]
pub struct RegisterResponse<'a> {
    /// The connection's device.
    pub device_id: DeviceId,
    /// Only for a client that asked for more than the seed's.
    #[serde(flatten)]
    pub extension: Option<&'a Extension>,
}

/// What `RegisterResponse` carries beyond the seed, for a client that sent a payload.
#[derive(Debug, Clone, Serialize)]
pub struct Extension {
    /// Present for a resumable device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume_token: Option<Token>,
    /// Whether this is the former identity.
    pub resumed: bool,
    /// Messages that wait.
    pub queued: usize,
    /// Seconds for which identity and queue outlive a disconnect.
    pub session_ttl: u64,
    /// Every limit that can hit this client.
    pub limits: ClientLimits,
}

/// A resume token in clear, on its way to its owner; it prints itself to nobody else.
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct Token(pub String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({} bytes)", self.0.len())
    }
}

/// The limits as a client sees them: bytes, messages, seconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ClientLimits {
    /// `limits.message_bytes`
    pub message_bytes: usize,
    /// `rate_limit.messages_per_minute`
    pub messages_per_minute: u32,
    /// `rate_limit.burst`
    pub burst: u32,
    /// `rate_limit.control_per_minute`
    pub control_per_minute: u32,
    /// `queue.messages`
    pub queue_messages: usize,
    /// `queue.bytes`
    pub queue_bytes: u64,
    /// `queue.max_ttl`
    pub max_ttl: u64,
    /// `queue.default_ttl`
    pub default_ttl: u64,
    /// `delivery.window`
    pub window: usize,
}

impl RegisterResponse<'_> {
    /// The frame's text.
    #[must_use]
    pub fn encode(&self) -> String {
        encode("RegisterResponse", self)
    }
}

/// What became of a message, for a sender that asked for receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It waits, until this Unix second.
    Queued(u64),
    /// The recipient's connection took it.
    Delivered,
    /// The recipient confirmed it.
    Processed,
}

/// The text of an `Ack`; without a status it is exactly the seed's.
#[must_use]
pub fn ack(id: MessageId, status: Option<Status>) -> String {
    let mut out = String::with_capacity(128);
    write_ack(&mut out, id, status);
    out
}

/// The same, behind what is there already.
pub fn write_ack(out: &mut String, id: MessageId, status: Option<Status>) {
    out.push_str(r#"{"type":"Ack","payload":{"message_id":""#);
    id.write_to(out);
    match status {
        None => out.push('"'),
        Some(Status::Delivered) => out.push_str(r#"","status":"delivered""#),
        Some(Status::Processed) => out.push_str(r#"","status":"processed""#),
        Some(Status::Queued(expires_at)) => {
            out.push_str(r#"","status":"queued","expires_at":"#);
            out.push_str(&expires_at.to_string());
        }
    }
    out.push_str("}}");
}

/// How long a client waits that met a full relay: as long as one that was refused at the door.
const FULL_PAUSE_MS: u64 = 30_000;

/// The text of an `Error`.
#[must_use]
pub fn error(refusal: Refusal, about: &ErrorContext) -> String {
    #[derive(Serialize)]
    struct Payload<'a> {
        message: &'a str,
        code: u16,
        #[serde(skip_serializing_if = "Option::is_none")]
        message_id: Option<MessageId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        key_id: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        recipient_id: Option<DeviceId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        remaining: Option<u32>,
    }
    let (limit, remaining) = match refusal {
        Refusal::RateLimited(limit) => (Some(u64::from(limit)), Some(0)),
        Refusal::TooLarge(most) => (u64::try_from(most).ok(), None),
        _ => (None, None),
    };
    let pause = (refusal == Refusal::Full).then_some(FULL_PAUSE_MS);
    encode(
        "Error",
        &Payload {
            message: &refusal.sentence(),
            code: refusal.code(),
            message_id: about.message_id,
            key_id: about.key_id.as_deref().and_then(|raw| serde_json::from_str(raw).ok()),
            recipient_id: about.recipient_id,
            retry_after_ms: about.retry_after_ms.or(pause),
            limit,
            remaining,
        },
    )
}

fn encode(kind: &'static str, payload: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct Frame<'a, P> {
        r#type: &'static str,
        payload: &'a P,
    }
    // Strings and numbers only: there is no map key and no writer that could fail.
    serde_json::to_string(&Frame { r#type: kind, payload }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "f47ac10b-58cc-4372-a567-0e02b2c3d479";

    #[test]
    fn a_bare_ack_and_response_are_exactly_the_seeds() {
        assert_eq!(
            ack(MessageId::parse(ID).unwrap(), None),
            format!(r#"{{"type":"Ack","payload":{{"message_id":"{ID}"}}}}"#)
        );
        let response =
            RegisterResponse { device_id: DeviceId::parse(ID).unwrap(), extension: None };
        assert_eq!(
            response.encode(),
            format!(r#"{{"type":"RegisterResponse","payload":{{"device_id":"{ID}"}}}}"#)
        );
    }

    #[test]
    fn a_receipt_says_what_became_of_the_message() {
        assert_eq!(
            ack(MessageId::parse(ID).unwrap(), Some(Status::Queued(7))),
            format!(
                r#"{{"type":"Ack","payload":{{"message_id":"{ID}","status":"queued","expires_at":7}}}}"#
            )
        );
    }

    #[test]
    fn an_error_carries_only_what_helps() {
        assert_eq!(
            error(Refusal::UnknownType, &ErrorContext::NOTHING),
            r#"{"type":"Error","payload":{"message":"Unknown message type.","code":400}}"#
        );
        let about = ErrorContext { retry_after_ms: Some(900), ..ErrorContext::NOTHING };
        assert_eq!(
            error(Refusal::RateLimited(60), &about),
            r#"{"type":"Error","payload":{"message":"Rate limit exceeded (60/60). Try again in a minute.","code":429,"retry_after_ms":900,"limit":60,"remaining":0}}"#
        );
        let about = ErrorContext::key("1678886401", DeviceId::parse(ID).unwrap());
        assert!(error(Refusal::UnknownRecipient, &about).contains(r#""key_id":1678886401,"#));
    }

    #[test]
    fn a_long_payload_is_carried_whole_whatever_its_characters() {
        for (before, character) in [("", "x"), ("", "é"), ("x", "é"), ("xx", "€"), ("xyz", "🦭")]
        {
            let payload = [before, &character.repeat(3 * PIECE)].concat();
            let frame = splice(Forwarded::Receive, &payload);
            assert_eq!(frame, format!(r#"{{"type":"Receive","payload":{payload}}}"#));
        }
    }

    #[test]
    fn a_payload_is_carried_byte_for_byte() {
        assert_eq!(
            splice(Forwarded::Receive, "{ \"x\" :1}"),
            r#"{"type":"Receive","payload":{ "x" :1}}"#
        );
    }

    #[test]
    fn a_token_does_not_print_itself() {
        assert_eq!(format!("{:?}", Token("secret".into())), "Token(6 bytes)");
    }
}
