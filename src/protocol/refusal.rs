//! Refusals and close reasons, each with its code and its text. The texts are fixed; the only value of a client that they
//! repeat is a message id.

use std::fmt;

use super::envelope::Subject;
use super::id::{MessageId, Recipient};
use super::kind::Kind;

/// Why the relay did not do what a frame asks for. Each refusal becomes one `Error` frame; the connection stays open.
/// (protocol: Error codes)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 400: the text is not a JSON object with a `type`.
    NotAnObject,
    /// 400: a field (second) that the type requires is absent.
    Missing(Kind, &'static str),
    /// 400: a field (second) does not follow its rule (third).
    Wrong(Kind, &'static str, &'static str),
    /// 400: a key occurs twice in one object; the key, if it is one of the protocol's.
    Twice(Option<&'static str>),
    /// 400: nested deeper than 128 levels.
    TooDeep,
    /// 400: the type does not exist.
    UnknownType,
    /// 400: only the relay sends this type.
    ServerOnly(&'static str),
    /// 400: an `Auth*` names no recipient, and its sender has exchanged messages with no device yet.
    NobodyYet,
    /// 401: before `RegisterResponse`, only Register, Ping and Pong are allowed.
    NotRegistered,
    /// 403: an operator has blocked the device.
    Blocked,
    /// 401: the resume token is unknown, expired or wrong. One text for all three, so that a guess reveals nothing.
    BadToken,
    /// 401: registering needs an access token, and the one that was given, if any, is unknown or expired. One text for all, so
    /// that a guess reveals nothing.
    NoAccess,
    /// 403: the devices of the access token have all that they may have of this.
    AccessLimit(AccessBound),
    /// 403: the `sender_id` is not the connection's device.
    ForeignSender,
    /// 403: the `device_id` is not the connection's device.
    ForeignDevice,
    /// 403: an `AuthSuccess` without an exchange that has reached `AuthVerify`.
    NotVerified,
    /// 404: the recipient never registered, or its session is over.
    UnknownRecipient,
    /// 404: no open exchange waits for this step.
    NoExchange,
    /// 409: the sender used this message id for other content.
    OtherContent,
    /// 409: several devices could be the recipient.
    Ambiguous,
    /// 409: a newer connection of the same device replaced this one.
    Replaced,
    /// 410: the ttl (seconds) passed before delivery.
    Expired(ExpiredKind, u64),
    /// 413: larger than `limits.message_bytes`, which is given.
    TooLarge(usize),
    /// 429: more frames in one minute than this limit.
    RateLimited(u32),
    /// 503: the relay shuts down.
    Draining,
    /// 503: a global limit is reached.
    Full,
    /// 507: the recipient's queue, or the sender's share of that queue, is full.
    QueueFull,
}

/// What the devices of one access token may have together. (protocol: Access tokens)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessBound {
    /// Devices that are alive.
    Devices,
    /// Bytes of what they have sent and that waits.
    QueuedBytes,
}

impl AccessBound {
    /// The `limit` of the `Error` frame.
    pub fn name(self) -> &'static str {
        match self {
            Self::Devices => "devices",
            Self::QueuedBytes => "queued_bytes",
        }
    }
}

/// The kind of message that expired. (protocol: Error codes, 410)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiredKind {
    /// A `Send`, by its id.
    Message(MessageId),
    /// A `KeyRotationUpdate` or `KeyRotationAck`.
    KeyRotation,
    /// One of the `Auth*` messages.
    Auth,
}

impl Refusal {
    /// The `code` of the `Error` frame.
    pub fn code(self) -> u16 {
        match self {
            Self::NotAnObject
            | Self::Missing(..)
            | Self::Wrong(..)
            | Self::Twice(_)
            | Self::TooDeep
            | Self::UnknownType
            | Self::ServerOnly(_)
            | Self::NobodyYet => 400,
            Self::NotRegistered | Self::BadToken | Self::NoAccess => 401,
            Self::AccessLimit(_)
            | Self::Blocked
            | Self::ForeignSender
            | Self::ForeignDevice
            | Self::NotVerified => 403,
            Self::UnknownRecipient | Self::NoExchange => 404,
            Self::OtherContent | Self::Ambiguous | Self::Replaced => 409,
            Self::Expired(..) => 410,
            Self::TooLarge(_) => 413,
            Self::RateLimited(_) => 429,
            Self::Draining | Self::Full => 503,
            Self::QueueFull => 507,
        }
    }

    /// The code as text.
    pub fn code_name(self) -> &'static str {
        match self.code() {
            400 => "400",
            401 => "401",
            403 => "403",
            404 => "404",
            409 => "409",
            410 => "410",
            413 => "413",
            429 => "429",
            503 => "503",
            507 => "507",
            _ => "other",
        }
    }

    /// Whether the frame itself is malformed, which costs a strike. (protocol: Error codes)
    pub fn is_malformed(self) -> bool {
        self.code() == 400 && self != Self::NobodyYet
    }
}

/// The `message` of the `Error` frame.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAnObject => "Malformed message: not a JSON object with a type.",
            Self::Missing(kind, field) => {
                return write!(f, "Malformed message: {} needs the field {field}.", kind.name());
            }
            Self::Wrong(kind, field, rule) => {
                return write!(f, "Malformed message: {field} of {} must be {rule}.", kind.name());
            }
            Self::Twice(None) => "Malformed message: a key appears twice.",
            Self::Twice(Some(key)) => {
                return write!(f, "Malformed message: the key {key} appears twice.");
            }
            Self::TooDeep => "Malformed message: nested deeper than 128.",
            Self::UnknownType => "Unknown message type.",
            Self::ServerOnly(name) => return write!(f, "Only the server sends {name}."),
            Self::NobodyYet => {
                "Name the recipient: set recipient_id in the payload, this device has exchanged messages with nobody yet."
            }
            Self::NotRegistered => "Not registered: send Register first.",
            Self::Blocked => "This device is blocked.",
            Self::BadToken => "Resume token refused: register afresh.",
            Self::NoAccess => "A valid access token is needed to register.",
            Self::AccessLimit(AccessBound::Devices) => {
                "The access token has all the devices that it may have."
            }
            Self::AccessLimit(AccessBound::QueuedBytes) => {
                "The access token has all the bytes waiting that it may have."
            }
            Self::ForeignSender => "The sender_id is not this connection's device.",
            Self::ForeignDevice => "The device_id is not this connection's device.",
            Self::NotVerified => "No authentication exchange with this device has been verified.",
            Self::UnknownRecipient => "Unknown recipient.",
            Self::NoExchange => "No open authentication exchange.",
            Self::OtherContent => "This message_id was used for other content.",
            Self::Ambiguous => "Ambiguous recipient: set recipient_id in the payload.",
            Self::Replaced => "Replaced by a newer connection of this device.",
            Self::Expired(expired, ttl) => {
                match expired {
                    ExpiredKind::Message(id) => write!(f, "Message {id}")?,
                    ExpiredKind::KeyRotation => f.write_str("Key rotation")?,
                    ExpiredKind::Auth => f.write_str("Authentication message")?,
                }
                return write!(f, " expired after {ttl} s undelivered.");
            }
            Self::TooLarge(max) => return write!(f, "Message too large: {max} bytes at most."),
            // Clients may know this text: its words must not change.
            Self::RateLimited(limit) => {
                return write!(f, "Rate limit exceeded ({limit}/{limit}). Try again in a minute.");
            }
            Self::Draining => "The relay is draining. Reconnect.",
            Self::Full => "The relay is full. Try again later.",
            Self::QueueFull => "The recipient's queue is full.",
        })
    }
}

/// The fields of an `Error` that show its receiver which of its frames was refused. (protocol: Error)
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorContext {
    /// Id of the refused message.
    pub message_id: Option<MessageId>,
    /// `key_id` of the refused key rotation: the client's raw JSON.
    pub key_id: Option<Box<str>>,
    /// Recipient of the refused message or key rotation.
    pub recipient_id: Option<Recipient>,
    /// Milliseconds after which a new attempt can succeed.
    pub retry_after_ms: Option<u64>,
}

impl ErrorContext {
    /// The context that adds no field.
    pub const NOTHING: Self =
        Self { message_id: None, key_id: None, recipient_id: None, retry_after_ms: None };

    /// The context of a frame from what is known of it: the one place that decides what an `Error` names.
    pub fn about(subject: Option<&Subject>, recipient: Option<Recipient>) -> Self {
        let (message_id, key_id) = match subject {
            Some(Subject::Message(id)) => (Some(*id), None),
            Some(Subject::KeyRotation(key_id) | Subject::KeyRotationAck(key_id)) => {
                (None, Some(key_id.clone()))
            }
            _ => (None, None),
        };
        Self { message_id, key_id, recipient_id: recipient, retry_after_ms: None }
    }
}

/// Why the relay closes a connection. (protocol: Close codes; RFC 6455 §7.4)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// 1000: the client has ended its device.
    Unregistered,
    /// 1001: the relay shuts down; the client reconnects after a random delay.
    Draining,
    /// 1003: the client sent a binary message.
    Binary,
    /// 1008: too many malformed frames, one after the other.
    Strikes,
    /// 1008: far above a rate limit, for a long time.
    Flooding,
    /// 1011: an error of the relay.
    Internal,
    /// 1012: an operator has closed the connection; the client may come back.
    Kicked,
    /// 1013: the client does not read what the relay sends.
    SlowConsumer,
    /// 4403: the operator has ended the device.
    Ended,
    /// 4401: no Register within the time limit.
    NotRegistered,
    /// 4403: an operator has blocked the device.
    Blocked,
    /// 4408: no frame within the time limit.
    Idle,
    /// 4409: a newer connection of the same device replaced this one.
    Replaced,
}

impl CloseReason {
    /// The status code of the Close frame.
    pub fn code(self) -> u16 {
        self.code_and_reason().0
    }

    /// The reason text of the Close frame, at most 123 bytes. (RFC 6455 §5.5)
    pub fn reason(self) -> &'static str {
        self.code_and_reason().1
    }

    fn code_and_reason(self) -> (u16, &'static str) {
        match self {
            Self::Unregistered => (1000, "unregistered"),
            Self::Draining => (1001, "the relay is draining"),
            Self::Binary => (1003, "binary messages are not served"),
            Self::Strikes => (1008, "too many malformed messages"),
            Self::Flooding => (1008, "flooding"),
            Self::Internal => (1011, "internal error"),
            Self::Kicked => (1012, "closed by the operator"),
            Self::SlowConsumer => (1013, "slow consumer"),
            Self::Ended => (4403, "ended by the operator"),
            Self::NotRegistered => (4401, "no Register in time"),
            Self::Blocked => (4403, "blocked by the operator"),
            Self::Idle => (4408, "idle"),
            Self::Replaced => (4409, "replaced by a newer connection"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_limit_text_does_not_change() {
        assert_eq!(
            Refusal::RateLimited(60).to_string(),
            "Rate limit exceeded (60/60). Try again in a minute."
        );
    }

    #[test]
    fn a_reason_fits_into_a_close_frame() {
        for reason in [
            CloseReason::Unregistered,
            CloseReason::Draining,
            CloseReason::Binary,
            CloseReason::Strikes,
            CloseReason::Flooding,
            CloseReason::Internal,
            CloseReason::Kicked,
            CloseReason::SlowConsumer,
            CloseReason::NotRegistered,
            CloseReason::Blocked,
            CloseReason::Ended,
            CloseReason::Idle,
            CloseReason::Replaced,
        ] {
            assert!(reason.reason().len() < 123, "{reason:?}");
        }
    }
}
