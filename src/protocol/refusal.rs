//! Refusals and endings: one table each, variant → code, sentence, what happens to the connection.
//!
//! Sentences are fixed; nothing that a client sent is echoed in them. (protocol: Error, Close codes)

use std::borrow::Cow;

use super::id::{DeviceId, MessageId};
use super::kind::Kind;

/// Why the relay did not do what a frame asked for. Each becomes one `Error` frame; the connection stays open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 400: no JSON object with a `type`, or a payload that is not an object.
    NotAnObject,
    /// 400: a field that the type needs is absent.
    Missing(Kind, &'static str),
    /// 400: a field has another type or value than the rule says.
    Wrong(Kind, &'static str, &'static str),
    /// 400: a key stands twice in one object; named if it is one of the protocol's.
    Twice(Option<&'static str>),
    /// 400: nested deeper than is carried.
    TooDeep,
    /// 400: no such type.
    UnknownType,
    /// 400: a type that only the relay sends.
    ServerOnly(&'static str),
    /// 400: `Auth*` without recipient from a device that has talked to nobody.
    NobodyYet,
    /// 401: anything but Register, Ping and Pong before `RegisterResponse`.
    NotRegistered,
    /// 401: the resume token is unknown, expired or wrong; one wording for all.
    BadToken,
    /// 403: `sender_id` is another's.
    ForeignSender,
    /// 403: `device_id` is another's.
    ForeignDevice,
    /// 403: `AuthSuccess` without an exchange that has reached `AuthVerify`.
    NotVerified,
    /// 404: never registered here, or its session is over.
    UnknownRecipient,
    /// 404: no open exchange that waits for this message.
    NoExchange,
    /// 409: the same id was used for other content.
    OtherContent,
    /// 409: several devices could be meant.
    Ambiguous,
    /// 409: a newer connection of the same device has taken over.
    Replaced,
    /// 410: the ttl, in seconds, ran out before delivery.
    Expired(Expired, u64),
    /// 413: larger than `limits.message_bytes`.
    TooLarge(usize),
    /// 429: over a limit of so many in a minute.
    RateLimited(u32),
    /// 503: going away.
    Draining,
    /// 503: a global limit is reached.
    Full,
    /// 507: the recipient's queue, or the sender's share of it, is full.
    QueueFull,
}

/// What expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// A `Send`, by its id.
    Message(MessageId),
    /// A `KeyRotationUpdate` or `KeyRotationAck`.
    KeyRotation,
    /// One of the `Auth*` messages.
    Auth,
}

impl Refusal {
    /// The `code` of the `Error` frame.
    #[must_use]
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
            Self::NotRegistered | Self::BadToken => 401,
            Self::ForeignSender | Self::ForeignDevice | Self::NotVerified => 403,
            Self::UnknownRecipient | Self::NoExchange => 404,
            Self::OtherContent | Self::Ambiguous | Self::Replaced => 409,
            Self::Expired(..) => 410,
            Self::TooLarge(_) => 413,
            Self::RateLimited(_) => 429,
            Self::Draining | Self::Full => 503,
            Self::QueueFull => 507,
        }
    }

    /// Whether the frame itself was malformed, which costs a strike.
    #[must_use]
    pub fn is_malformed(self) -> bool {
        self.code() == 400 && self != Self::NobodyYet
    }

    /// The `message` of the `Error` frame.
    #[must_use]
    pub fn sentence(self) -> Cow<'static, str> {
        let fixed = match self {
            Self::NotAnObject => "Malformed message: not a JSON object with a type.",
            Self::Twice(None) => "Malformed message: a key appears twice.",
            Self::TooDeep => "Malformed message: nested deeper than 128.",
            Self::UnknownType => "Unknown message type.",
            Self::NobodyYet => {
                "Name the recipient: set recipient_id in the payload, this device has exchanged messages with nobody yet."
            }
            Self::NotRegistered => "Not registered: send Register first.",
            Self::BadToken => "Resume token refused: register afresh.",
            Self::ForeignSender => "The sender_id is not this connection's device.",
            Self::ForeignDevice => "The device_id is not this connection's device.",
            Self::NotVerified => "No authentication exchange with this device has been verified.",
            Self::UnknownRecipient => "Unknown recipient.",
            Self::NoExchange => "No open authentication exchange.",
            Self::OtherContent => "This message_id was used for other content.",
            Self::Ambiguous => "Ambiguous recipient: set recipient_id in the payload.",
            Self::Replaced => "Replaced by a newer connection of this device.",
            Self::Draining => "The relay is draining. Reconnect.",
            Self::Full => "The relay is full. Try again later.",
            Self::QueueFull => "The recipient's queue is full.",
            Self::Missing(kind, field) => {
                return format!("Malformed message: {} needs the field {field}.", kind.name())
                    .into();
            }
            Self::Wrong(kind, field, rule) => {
                return format!("Malformed message: {field} of {} must be {rule}.", kind.name())
                    .into();
            }
            Self::Twice(Some(field)) => {
                return format!("Malformed message: the key {field} appears twice.").into();
            }
            Self::ServerOnly(name) => return format!("Only the server sends {name}.").into(),
            Self::TooLarge(most) => {
                return format!("Message too large: {most} bytes at most.").into();
            }
            // The seed's own sentence, word for word.
            Self::RateLimited(limit) => {
                return format!("Rate limit exceeded ({limit}/{limit}). Try again in a minute.")
                    .into();
            }
            Self::Expired(what, ttl) => {
                return match what {
                    Expired::Message(id) => {
                        format!("Message {id} expired after {ttl} s undelivered.")
                    }
                    Expired::KeyRotation => {
                        format!("Key rotation expired after {ttl} s undelivered.")
                    }
                    Expired::Auth => {
                        format!("Authentication message expired after {ttl} s undelivered.")
                    }
                }
                .into();
            }
        };
        fixed.into()
    }
}

/// What an `Error` is about, as far as it helps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorContext {
    /// The message it answers.
    pub message_id: Option<MessageId>,
    /// The key rotation it answers: the client's raw JSON.
    pub key_id: Option<Box<str>>,
    /// For whom that was.
    pub recipient_id: Option<DeviceId>,
    /// Milliseconds after which another try can succeed.
    pub retry_after_ms: Option<u64>,
}

impl ErrorContext {
    /// Nothing to add.
    pub const NOTHING: Self =
        Self { message_id: None, key_id: None, recipient_id: None, retry_after_ms: None };

    /// ErrorContext a message.
    #[must_use]
    pub fn message(id: MessageId, recipient: DeviceId) -> Self {
        Self { message_id: Some(id), recipient_id: Some(recipient), ..Self::NOTHING }
    }

    /// ErrorContext a key rotation.
    #[must_use]
    pub fn key(key_id: &str, recipient: DeviceId) -> Self {
        Self { key_id: Some(key_id.into()), recipient_id: Some(recipient), ..Self::NOTHING }
    }

    /// ErrorContext something for that device.
    #[must_use]
    pub fn recipient(recipient: DeviceId) -> Self {
        Self { recipient_id: Some(recipient), ..Self::NOTHING }
    }
}

/// Why the relay ends a connection. (protocol: Close codes; RFC 6455 §7.4)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// 1001: the relay goes away; reconnect with jitter.
    Draining,
    /// 1003: a binary message.
    Binary,
    /// 1008: too many malformed frames in a row.
    Strikes,
    /// 1008: far over a rate limit, for long.
    Flooding,
    /// 1011: the relay's own fault.
    Internal,
    /// 1013: the peer does not take what is sent to it.
    SlowConsumer,
    /// 4401: no Register in time.
    NotRegistered,
    /// 4408: nothing came for too long.
    Idle,
    /// 4409: a newer connection of the same device has taken over.
    Replaced,
}

impl CloseReason {
    /// The close code.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Draining => 1001,
            Self::Binary => 1003,
            Self::Strikes | Self::Flooding => 1008,
            Self::Internal => 1011,
            Self::SlowConsumer => 1013,
            Self::NotRegistered => 4401,
            Self::Idle => 4408,
            Self::Replaced => 4409,
        }
    }

    /// The close reason, under 123 bytes.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Draining => "the relay is draining",
            Self::Binary => "binary messages are not served",
            Self::Strikes => "too many malformed messages",
            Self::Flooding => "flooding",
            Self::Internal => "internal error",
            Self::SlowConsumer => "slow consumer",
            Self::NotRegistered => "no Register in time",
            Self::Idle => "idle",
            Self::Replaced => "replaced by a newer connection",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_limit_sentence_is_the_seeds() {
        assert_eq!(
            Refusal::RateLimited(60).sentence(),
            "Rate limit exceeded (60/60). Try again in a minute."
        );
    }

    #[test]
    fn a_reason_fits_into_a_close_frame() {
        for reason in [
            CloseReason::Draining,
            CloseReason::Binary,
            CloseReason::Strikes,
            CloseReason::Flooding,
            CloseReason::Internal,
            CloseReason::SlowConsumer,
            CloseReason::NotRegistered,
            CloseReason::Idle,
            CloseReason::Replaced,
        ] {
            assert!(reason.reason().len() < 123, "{reason:?}");
        }
    }
}
