//! Encodes the frames that the relay sends.

use bytestring::ByteString;
use serde::Serialize;
use serde_json::value::RawValue;

use super::frame::AuthStep;
use super::id::{DeviceId, MessageId, Recipient};
use super::refusal::{ErrorContext, Refusal};

/// The type of a frame that carries the payload of one client to another. (protocol: Receive and after)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// `Receive`, made from a `Send`.
    Receive,
    /// `AuthRequest`, `AuthResponse` or `AuthVerify`.
    Auth(AuthStep),
    /// `AuthSuccess`, unchanged.
    AuthSuccess,
    /// `KeyRotationUpdate`, unchanged.
    KeyRotationUpdate,
    /// `KeyRotationAck`, unchanged.
    KeyRotationAck,
}

/// Bytes in one copy. For longer copies `memcpy` uses `rep movsb`, which is up to 20 times slower on some processors when
/// source and destination are misaligned to each other; a 29-byte prefix misaligns them.
const COPY_BYTES: usize = 1024;

/// Makes a frame from a payload: the payload's bytes stay unchanged behind the new `type`.
pub fn splice(forwarded: Forwarded, payload: &str) -> ByteString {
    let prefix = match forwarded {
        Forwarded::Receive => r#"{"type":"Receive","payload":"#,
        Forwarded::Auth(AuthStep::Request) => r#"{"type":"AuthRequest","payload":"#,
        Forwarded::Auth(AuthStep::Response) => r#"{"type":"AuthResponse","payload":"#,
        Forwarded::Auth(AuthStep::Verify) => r#"{"type":"AuthVerify","payload":"#,
        Forwarded::AuthSuccess => r#"{"type":"AuthSuccess","payload":"#,
        Forwarded::KeyRotationUpdate => r#"{"type":"KeyRotationUpdate","payload":"#,
        Forwarded::KeyRotationAck => r#"{"type":"KeyRotationAck","payload":"#,
    };
    let mut frame = String::with_capacity(prefix.len() + payload.len() + 1);
    frame.push_str(prefix);
    let mut rest = payload;
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(rest.floor_char_boundary(COPY_BYTES));
        frame.push_str(piece);
        rest = more;
    }
    frame.push('}');
    frame.into()
}

/// A whole `Ping` frame. (protocol: Ping)
pub const PING: &str = r#"{"type":"Ping"}"#;
/// A whole `Pong` frame. (protocol: Pong)
pub const PONG: &str = r#"{"type":"Pong"}"#;

/// The version of this protocol and its extensions, for clients that look for it. (protocol: RegisterResponse)
pub const PROTOCOL: u32 = 1;

/// The fields of `RegisterResponse` for a client whose `Register` had a field. (protocol: RegisterResponse)
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Extension {
    /// The version of the protocol: 1.
    pub protocol: u32,
    /// Whether the device outlives its connection: a client that misspelt `resumable` finds out.
    pub resumable: bool,
    /// The token with which the device resumes; a plain device has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Token"))]
    pub resume_token: Option<Token>,
    /// Whether the client got its earlier device again.
    pub resumed: bool,
    /// Messages that wait for the device and follow now, those included that it has got before and has not confirmed.
    pub queued: usize,
    /// Seconds for which the device and its queue outlive a disconnect; of a plain device, for which it stays known.
    pub session_ttl: u64,
    /// Every limit that applies to this client.
    pub limits: ClientLimits,
}

/// A resume token in clear text. It is a secret; `Debug` shows its length only.
#[derive(Clone, Serialize)]
#[serde(transparent)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(
        rename = "ResumeToken",
        description = "A resume token, a secret.",
        extend("pattern" = "^[0-9a-f]{64}$", "maxLength" = 64),
    )
)]
pub struct Token(pub String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({} bytes)", self.0.len())
    }
}

/// The limits that a client must know; each is a setting of the relay. (protocol: RegisterResponse)
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ClientLimits {
    /// `limits.message_bytes`, in bytes.
    pub message_bytes: usize,
    /// `rate_limit.messages_per_minute`, in messages.
    pub messages_per_minute: u32,
    /// `rate_limit.burst`, in messages.
    pub burst: u32,
    /// `rate_limit.control_per_minute`, in frames.
    pub control_per_minute: u32,
    /// `queue.messages`, in messages.
    pub queue_messages: usize,
    /// `queue.bytes`, in bytes.
    pub queue_bytes: u64,
    /// `queue.max_ttl`, in seconds.
    pub max_ttl: u64,
    /// `queue.default_ttl`, in seconds.
    pub default_ttl: u64,
    /// `delivery.window`, in messages.
    pub window: usize,
}

/// The `device_id` alone for a client whose `Register` had no field, else all. (protocol: RegisterResponse)
#[derive(Debug, Serialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "RegisterResponsePayload", transform = super::schema::all_or_none)
)]
pub struct RegisterResponsePayload<'a> {
    /// The id of this connection's device.
    pub device_id: DeviceId,
    /// All other fields.
    #[serde(flatten)]
    pub extension: Option<&'a Extension>,
}

/// Encodes a `RegisterResponse`. (protocol: RegisterResponse)
pub fn register_response(device_id: DeviceId, extension: Option<&Extension>) -> String {
    encode("RegisterResponse", &RegisterResponsePayload { device_id, extension })
}

/// The receipt in an `Ack`: the state of a message whose sender asked for receipts. (protocol: Ack)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The message waits, until this Unix time in seconds.
    Queued(u64),
    /// The socket of the recipient took the message.
    Delivered,
    /// The recipient acknowledged the message.
    Processed,
}

/// Encodes an `Ack`, with a receipt if there is one. (protocol: Ack)
pub fn ack(id: MessageId, status: Option<Status>) -> String {
    let mut out = String::with_capacity(128);
    write_ack(&mut out, id, status);
    out
}

/// Appends the text that [`ack`] returns to `out`.
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

/// The `retry_after_ms` of a refusal by a full relay; the HTTP 503 of a full relay asks for the same 30 seconds.
const FULL_RETRY_AFTER_MS: u64 = 30_000;

/// What was refused or has expired, and why. (protocol: Error)
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "ErrorPayload"))]
pub struct ErrorPayload<'a> {
    /// What is wrong, for people. The sentences are fixed.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    message: std::fmt::Arguments<'a>,
    /// What is wrong, for programs: 400, 401, 403, 404, 409, 410, 413, 429, 503 or 507. More may come.
    code: u16,
    /// Id of the refused or expired message.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "MessageId"))]
    message_id: Option<MessageId>,
    /// `key_id` of the refused or expired key rotation, as its sender wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::KeyId"))]
    key_id: Option<&'a RawValue>,
    /// To whom the refused or expired message was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Recipient"))]
    recipient_id: Option<Recipient>,
    /// Milliseconds after which a new attempt can succeed; in 429 and 503.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "u64"))]
    retry_after_ms: Option<u64>,
    /// What the limit is; in 413, 429 and some 403.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Limit"))]
    limit: Option<Limit>,
    /// What is left of the allowance; in 429.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "u32"))]
    remaining: Option<u32>,
}

/// What a limit is, or which one. (protocol: Error, Access tokens)
#[derive(Debug, Serialize)]
#[serde(untagged)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "ErrorLimit"))]
enum Limit {
    /// Bytes in a 413, messages a minute in a 429.
    Number(u64),
    /// In a 403, the bound of the access token: `devices` or `queued_bytes`. More may come.
    Name(&'static str),
}

/// Encodes an `Error`. (protocol: Error)
pub fn error(refusal: Refusal, context: &ErrorContext) -> String {
    let (limit, remaining, retry_after_ms) = match refusal {
        Refusal::RateLimited(limit) => (Some(Limit::Number(u64::from(limit))), Some(0), None),
        Refusal::TooLarge(max) => (u64::try_from(max).ok().map(Limit::Number), None, None),
        Refusal::AccessLimit(bound) => (Some(Limit::Name(bound.name())), None, None),
        Refusal::Full => (None, None, Some(FULL_RETRY_AFTER_MS)),
        _ => (None, None, None),
    };
    encode(
        "Error",
        &ErrorPayload {
            message: format_args!("{refusal}"),
            code: refusal.code(),
            message_id: context.message_id,
            key_id: context.key_id.as_deref().and_then(|raw| serde_json::from_str(raw).ok()),
            recipient_id: context.recipient_id,
            retry_after_ms: context.retry_after_ms.or(retry_after_ms),
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
    // Cannot fail: the payload has only strings and numbers, and a String takes any length.
    serde_json::to_string(&Frame { r#type: kind, payload }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::envelope::Subject;
    use crate::protocol::refusal::AccessBound;

    const ID: &str = "f47ac10b-58cc-4372-a567-0e02b2c3d479";

    #[test]
    fn a_bare_ack_and_response_have_exactly_the_basic_shape() {
        assert_eq!(
            ack(MessageId::parse(ID).unwrap(), None),
            format!(r#"{{"type":"Ack","payload":{{"message_id":"{ID}"}}}}"#)
        );
        assert_eq!(
            register_response(DeviceId::parse(ID).unwrap(), None),
            format!(r#"{{"type":"RegisterResponse","payload":{{"device_id":"{ID}"}}}}"#)
        );
    }

    #[test]
    fn a_receipt_shows_the_state_of_the_message() {
        assert_eq!(
            ack(MessageId::parse(ID).unwrap(), Some(Status::Queued(7))),
            format!(
                r#"{{"type":"Ack","payload":{{"message_id":"{ID}","status":"queued","expires_at":7}}}}"#
            )
        );
    }

    #[test]
    fn an_error_has_only_the_fields_of_its_context() {
        assert_eq!(
            error(Refusal::UnknownType, &ErrorContext::NOTHING),
            r#"{"type":"Error","payload":{"message":"Unknown message type.","code":400}}"#
        );
        let context = ErrorContext { retry_after_ms: Some(900), ..ErrorContext::NOTHING };
        assert_eq!(
            error(Refusal::RateLimited(60), &context),
            r#"{"type":"Error","payload":{"message":"Rate limit exceeded (60/60). Try again in a minute.","code":429,"retry_after_ms":900,"limit":60,"remaining":0}}"#
        );
        assert!(
            error(Refusal::AccessLimit(AccessBound::Devices), &ErrorContext::NOTHING)
                .ends_with(r#""code":403,"limit":"devices"}}"#)
        );
        let context = ErrorContext::about(
            Some(&Subject::KeyRotation("1678886401".into())),
            Recipient::parse(ID),
        );
        assert!(error(Refusal::UnknownRecipient, &context).contains(r#""key_id":1678886401,"#));
    }

    #[test]
    fn a_long_payload_of_any_characters_is_forwarded_whole() {
        for (before, character) in [("", "x"), ("", "é"), ("x", "é"), ("xx", "€"), ("xyz", "🦭")]
        {
            let payload = [before, &character.repeat(3 * COPY_BYTES)].concat();
            let frame = splice(Forwarded::Receive, &payload);
            assert_eq!(frame, format!(r#"{{"type":"Receive","payload":{payload}}}"#));
        }
    }

    #[test]
    fn a_payload_is_forwarded_byte_for_byte() {
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
