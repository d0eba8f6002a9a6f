//! What a device may say: text in, a checked frame out.
//!
//! A frame borrows from the text. Ids are parsed; everything that is only carried stays raw, and `payload` is the
//! client's own bytes, since `signature` may cover them. (protocol: Envelope)

use std::borrow::Cow;

use super::frame::{
    Ack, Auth, AuthStep, AuthSuccess, ClientFrame, KeyRotation, Presence, Register, Send, Status,
};
use super::id::{DeviceId, MessageId};
use super::json_object::{self, JsonError};
use super::kind::Kind;
use super::refusal::{ErrorContext, Refusal};
/// RFC 8259 §2.
const SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Reads one text message.
///
/// # Errors
///
/// The [`Refusal`] to answer with; every one of them is malformed input (400).
pub fn decode(text: &str) -> Result<ClientFrame<'_>, Refusal> {
    if let Some((kind, payload)) = split_common_envelope(text)
        && let Ok(frame) = read(kind, payload)
    {
        return Ok(frame);
    }
    decode_any(text)
}

fn decode_any(text: &str) -> Result<ClientFrame<'_>, Refusal> {
    const ENVELOPE: [&str; 2] = ["type", "payload"];
    let [kind, payload] = json_object::fields(text, 1, &ENVELOPE, Some(1))
        .map_err(|error| refusal(error, &ENVELOPE))?;
    let name = kind.and_then(string).ok_or(Refusal::NotAnObject)?;
    let kind = Kind::parse(&name).ok_or_else(|| unknown_type(&name))?;
    // For these three, absent, null and {} are the same thing.
    let needs_none = matches!(kind, Kind::Register | Kind::Ping | Kind::Pong);
    let payload = match payload.filter(|raw| *raw != "null") {
        Some(payload) => payload,
        None if needs_none => "{}",
        None => return Err(Refusal::Missing(kind, "payload")),
    };
    if !payload.starts_with('{') {
        return Err(Refusal::Wrong(kind, "payload", "an object"));
    }
    read(kind, payload)
}

fn unknown_type(name: &str) -> Refusal {
    ["RegisterResponse", "Receive", "Error"]
        .into_iter()
        .find(|sent_by_relay| *sent_by_relay == name)
        .map_or(Refusal::UnknownType, Refusal::ServerOnly)
}

/// Takes the split_common_envelope envelope apart, `type` first and then nothing but `payload`, so that the payload need be skip_depth_check_for only
/// once. Whether it is one whole object is for [`read`] to find out: if so, then so is what is around it. Everything
/// else goes the long way, which also knows what to refuse it for.
fn split_common_envelope(text: &str) -> Option<(Kind, &str)> {
    fn after<'a>(text: &'a str, token: &str) -> Option<&'a str> {
        text.trim_start_matches(SPACE).strip_prefix(token)
    }
    let rest = after(after(after(after(text, "{")?, "\"type\"")?, ":")?, "\"")?;
    let (name, rest) = rest.split_once('"')?;
    let rest = after(after(after(rest, ",")?, "\"payload\"")?, ":")?;
    let payload = rest.trim_end_matches(SPACE).strip_suffix('}')?.trim_matches(SPACE);
    payload.starts_with('{').then_some((Kind::parse(name)?, payload))
}

fn read(kind: Kind, payload: &str) -> Result<ClientFrame<'_>, Refusal> {
    match kind {
        Kind::Register => register(payload),
        Kind::Send => send(payload),
        Kind::Ack => ack(payload),
        Kind::Ping => empty(payload).map(|()| ClientFrame::Ping),
        Kind::Pong => empty(payload).map(|()| ClientFrame::Pong),
        Kind::AuthRequest => auth(payload, kind, AuthStep::Request),
        Kind::AuthResponse => auth(payload, kind, AuthStep::Response),
        Kind::AuthVerify => auth(payload, kind, AuthStep::Verify),
        Kind::AuthSuccess => auth_success(payload),
        Kind::KeyRotationUpdate => key_rotation(payload),
        Kind::KeyRotationAck => key_rotation_ack(payload),
        Kind::Status => status(payload),
    }
}

/// What a refused frame was about, so that its sender can tell which of its messages came to nothing: the ids of a
/// `Send` and the name of a key rotation, as far as they can be read.
#[must_use]
pub fn error_context(text: &str, refusal: Refusal) -> ErrorContext {
    let (Refusal::Missing(kind, _) | Refusal::Wrong(kind, ..)) = refusal else {
        return ErrorContext::NOTHING;
    };
    let names = match kind {
        Kind::Send => ["recipient_id", "message_id"],
        Kind::KeyRotationUpdate | Kind::KeyRotationAck => ["recipient_id", "key_id"],
        _ => return ErrorContext::NOTHING,
    };
    // Only a field is wrong, so that the walk was fine once already.
    let Ok([Some(payload)]) = json_object::fields(text, 1, &["payload"], Some(0)) else {
        return ErrorContext::NOTHING;
    };
    let Ok(raw) = json_object::fields(payload, 2, &names, None) else {
        return ErrorContext::NOTHING;
    };
    let fields = Fields { kind, names, raw };
    let key_id = if kind == Kind::Send { None } else { fields.key_id(1).ok() };
    ErrorContext {
        message_id: if kind == Kind::Send { fields.message(1).ok() } else { None },
        key_id: key_id.map(Into::into),
        recipient_id: fields.device(0).ok(),
        retry_after_ms: None,
    }
}

fn register(payload: &str) -> Result<ClientFrame<'_>, Refusal> {
    let fields = Fields::read(Kind::Register, payload, ["resumable", "receipts", "resume_token"])?;
    let resume_token = match fields.optional(2) {
        None => None,
        Some(raw) => Some(string(raw).ok_or_else(|| fields.wrong(2, "a string"))?),
    };
    Ok(ClientFrame::Register(Register {
        extended: payload[1..payload.len() - 1].bytes().any(|byte| !byte.is_ascii_whitespace()),
        resumable: fields.optional_flag(0)?.unwrap_or(false),
        receipts: fields.optional_flag(1)?.unwrap_or(false),
        resume_token,
    }))
}

fn send(payload: &str) -> Result<ClientFrame<'_>, Refusal> {
    let fields = Fields::read(
        Kind::Send,
        payload,
        [
            "recipient_id",
            "sender_id",
            "message_id",
            "ttl",
            "encrypted_data",
            "signature",
            // The clients' business: carried, not judged. Named here only so that they are not unknown keys.
            "timestamp",
            "content_type",
            "size_bytes",
        ],
    )?;
    fields.optional_opaque(5)?;
    Ok(ClientFrame::Send(Send {
        recipient_id: fields.device(0)?,
        sender_id: fields.device(1)?,
        message_id: fields.message(2)?,
        ttl: match fields.optional(3) {
            None => None,
            Some(raw) => Some(
                seconds(raw)
                    .ok_or_else(|| fields.wrong(3, "a whole number of seconds, 0 or more"))?,
            ),
        },
        encrypted_data: fields.opaque(4)?,
        payload,
    }))
}

fn ack(payload: &str) -> Result<ClientFrame<'_>, Refusal> {
    let fields = Fields::read(Kind::Ack, payload, ["message_id", "sender_id"])?;
    Ok(ClientFrame::Ack(Ack {
        message_id: fields.message(0)?,
        sender_id: fields.optional_device(1)?,
    }))
}

fn empty(payload: &str) -> Result<(), Refusal> {
    json_object::fields(payload, 2, &[], None).map(|[]| ()).map_err(|error| refusal(error, &[]))
}

fn auth(payload: &str, kind: Kind, step: AuthStep) -> Result<ClientFrame<'_>, Refusal> {
    let fields = Fields::read(
        kind,
        payload,
        ["device_id", "recipient_id", "challenge", "public_key", "challenge_response"],
    )?;
    let (first, second) = match step {
        AuthStep::Request => (3, Some(2)),
        AuthStep::Response => (4, Some(2)),
        AuthStep::Verify => (4, None),
    };
    fields.opaque(first)?;
    second.map(|place| fields.opaque(place)).transpose()?;
    Ok(ClientFrame::Auth(Auth {
        step,
        device_id: fields.device(0)?,
        recipient_id: fields.optional_device(1)?,
        payload,
    }))
}

fn auth_success(payload: &str) -> Result<ClientFrame<'_>, Refusal> {
    let fields = Fields::read(
        Kind::AuthSuccess,
        payload,
        ["device_id", "recipient_id", "sender_id", "trusted"],
    )?;
    fields.flag(3)?;
    Ok(ClientFrame::AuthSuccess(AuthSuccess {
        device_id: fields.device(0)?,
        recipient_id: fields.optional_device(1)?,
        sender_id: fields.optional_device(2)?,
        payload,
    }))
}

fn key_rotation(payload: &str) -> Result<ClientFrame<'_>, Refusal> {
    let fields = Fields::read(
        Kind::KeyRotationUpdate,
        payload,
        ["sender_id", "recipient_id", "key_id", "encrypted_key_package"],
    )?;
    fields.opaque(3)?;
    rotation(&fields, payload).map(ClientFrame::KeyRotation)
}

fn key_rotation_ack(payload: &str) -> Result<ClientFrame<'_>, Refusal> {
    let fields = Fields::read(
        Kind::KeyRotationAck,
        payload,
        ["sender_id", "recipient_id", "key_id", "success"],
    )?;
    fields.flag(3)?;
    rotation(&fields, payload).map(ClientFrame::KeyRotationAck)
}

fn rotation<'a>(fields: &Fields<'a, 4>, payload: &'a str) -> Result<KeyRotation<'a>, Refusal> {
    Ok(KeyRotation {
        sender_id: fields.device(0)?,
        recipient_id: fields.device(1)?,
        key_id: fields.key_id(2)?,
        payload,
    })
}

fn status(payload: &str) -> Result<ClientFrame<'_>, Refusal> {
    let fields = Fields::read(Kind::Status, payload, ["device_id", "status"])?;
    let presence = match string(fields.needed(1)?).as_deref() {
        Some("Online") => Presence::Online,
        Some("Away") => Presence::Away,
        Some("Offline") => Presence::Offline,
        _ => return Err(fields.wrong(1, "Online, Away or Offline")),
    };
    Ok(ClientFrame::Status(Status { device_id: fields.device(0)?, presence }))
}

/// The fields of one payload, by place, with what is needed to say what is wrong with one.
struct Fields<'a, const N: usize> {
    kind: Kind,
    names: [&'static str; N],
    raw: [Option<&'a str>; N],
}

impl<'a, const N: usize> Fields<'a, N> {
    fn read(kind: Kind, payload: &'a str, names: [&'static str; N]) -> Result<Self, Refusal> {
        let raw = json_object::fields(payload, 2, &names, None)
            .map_err(|error| refusal(error, &names))?;
        Ok(Self { kind, names, raw })
    }

    fn wrong(&self, place: usize, rule: &'static str) -> Refusal {
        Refusal::Wrong(self.kind, self.names[place], rule)
    }

    fn needed(&self, place: usize) -> Result<&'a str, Refusal> {
        self.optional(place).ok_or(Refusal::Missing(self.kind, self.names[place]))
    }

    /// Null is how many serializers spell an absent field.
    fn optional(&self, place: usize) -> Option<&'a str> {
        self.raw[place].filter(|raw| *raw != "null")
    }

    fn id<T>(&self, place: usize, raw: &str, parse: fn(&str) -> Option<T>) -> Result<T, Refusal> {
        string(raw)
            .and_then(|text| parse(&text))
            .ok_or_else(|| self.wrong(place, "a UUID other than nil"))
    }

    fn device(&self, place: usize) -> Result<DeviceId, Refusal> {
        self.id(place, self.needed(place)?, DeviceId::parse)
    }

    fn message(&self, place: usize) -> Result<MessageId, Refusal> {
        self.id(place, self.needed(place)?, MessageId::parse)
    }

    fn optional_device(&self, place: usize) -> Result<Option<DeviceId>, Refusal> {
        self.optional(place).map(|raw| self.id(place, raw, DeviceId::parse)).transpose()
    }

    /// A string that the relay never looks into.
    fn opaque(&self, place: usize) -> Result<&'a str, Refusal> {
        let raw = self.needed(place)?;
        if raw.starts_with('"') { Ok(raw) } else { Err(self.wrong(place, "a string")) }
    }

    fn optional_opaque(&self, place: usize) -> Result<(), Refusal> {
        match self.optional(place) {
            Some(raw) if !raw.starts_with('"') => Err(self.wrong(place, "a string")),
            _ => Ok(()),
        }
    }

    /// Any number or string, raw.
    fn key_id(&self, place: usize) -> Result<&'a str, Refusal> {
        let raw = self.needed(place)?;
        if matches!(raw.as_bytes(), [b'"' | b'-' | b'0'..=b'9', ..]) {
            Ok(raw)
        } else {
            Err(self.wrong(place, "a number or a string"))
        }
    }

    fn flag(&self, place: usize) -> Result<bool, Refusal> {
        self.needed(place)?.parse().map_err(|_| self.wrong(place, "true or false"))
    }

    fn optional_flag(&self, place: usize) -> Result<Option<bool>, Refusal> {
        self.optional(place).map(|_| self.flag(place)).transpose()
    }
}

/// The text of a raw JSON string, borrowed unless it holds escapes.
fn string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(raw).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// Whole seconds; a number beyond 64 bits is still whole, and saturates.
fn seconds(raw: &str) -> Option<u64> {
    raw.bytes().all(|byte| byte.is_ascii_digit()).then(|| raw.parse().unwrap_or(u64::MAX))
}

fn refusal(error: JsonError, names: &[&'static str]) -> Refusal {
    match error {
        JsonError::NotAnObject => Refusal::NotAnObject,
        JsonError::Twice(place) => Refusal::Twice(place.map(|place| names[place])),
        JsonError::TooDeep => Refusal::TooDeep,
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
