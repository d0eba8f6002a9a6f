//! Decodes one text message of a client into a [`ClientFrame`] and checks its shape. (protocol: Envelope)
//!
//! The frame borrows from the text. Ids are parsed; values that the relay only forwards stay raw, and `payload` is
//! exactly the bytes that the client wrote, because its `signature` may cover them.

use super::envelope::Subject;
use super::frame::{
    Accept, Ack, Auth, AuthStep, AuthSuccess, ClientFrame, KeyRotation, Presence, Register, Secret,
    Send, StatusUpdate,
};
use super::id::{DeviceId, MessageId, Recipient};
use super::json_object;
use super::json_string::text as string;
use super::kind::Kind;
use super::refusal::{ErrorContext, Refusal};

/// White space between JSON tokens. (RFC 8259 §2)
const WHITE_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Decodes one text message.
///
/// # Errors
///
/// The [`Refusal`] with which the relay answers; its code is always 400. (protocol: Error codes)
pub fn decode(text: &str) -> Result<ClientFrame<'_>, Refusal> {
    if let Some((kind, payload)) = split_common_envelope(text)
        && let Ok(frame) = decode_payload(kind, payload)
    {
        return Ok(frame);
    }
    decode_any(text)
}

/// Decodes an envelope with its keys in any order, and finds out why a malformed frame is refused.
fn decode_any(text: &str) -> Result<ClientFrame<'_>, Refusal> {
    let [kind, payload] = json_object::fields(text, 1, &["type", "payload"], Some(1))?;
    let name = kind.and_then(string).ok_or(Refusal::NotAnObject)?;
    let server_only = ["RegisterResponse", "Receive", "Error"].into_iter().find(|it| *it == name);
    let unknown = server_only.map_or(Refusal::UnknownType, Refusal::ServerOnly);
    let kind = Kind::parse(&name).ok_or(unknown)?;
    // For these four types, no payload, null and {} mean the same.
    let may_be_absent = matches!(kind, Kind::Register | Kind::Unregister | Kind::Ping | Kind::Pong);
    let payload = match payload.filter(|raw| *raw != "null") {
        Some(payload) => payload,
        None if may_be_absent => "{}",
        None => return Err(Refusal::Missing(kind, "payload")),
    };
    if !payload.starts_with('{') {
        return Err(Refusal::Wrong(kind, "payload", "an object"));
    }
    decode_payload(kind, payload)
}

/// Splits the envelope that most clients write: `type` first, then `payload`, then nothing else. The parser then reads
/// the payload once instead of twice. `None` for every other envelope; [`decode_any`] decodes those.
///
/// The payload that is returned may be malformed. If [`decode_payload`] accepts it as one complete object, then the
/// text around it is one complete object, too.
fn split_common_envelope(text: &str) -> Option<(Kind, &str)> {
    fn after<'a>(text: &'a str, token: &str) -> Option<&'a str> {
        text.trim_start_matches(WHITE_SPACE).strip_prefix(token)
    }
    let rest = after(after(after(after(text, "{")?, "\"type\"")?, ":")?, "\"")?;
    let (name, rest) = rest.split_once('"')?;
    let rest = after(after(after(rest, ",")?, "\"payload\"")?, ":")?;
    let payload = rest.trim_end_matches(WHITE_SPACE).strip_suffix('}')?.trim_matches(WHITE_SPACE);
    payload.starts_with('{').then_some((Kind::parse(name)?, payload))
}

fn decode_payload(kind: Kind, payload: &str) -> Result<ClientFrame<'_>, Refusal> {
    Ok(match kind {
        Kind::Register => ClientFrame::Register(register(payload)?),
        Kind::Send => ClientFrame::Send(send(payload)?),
        Kind::Ack => ClientFrame::Ack(ack(payload)?),
        Kind::Unregister => Fields::read(kind, payload, []).map(|_| ClientFrame::Unregister)?,
        Kind::Ping => Fields::read(kind, payload, []).map(|_| ClientFrame::Ping)?,
        Kind::Pong => Fields::read(kind, payload, []).map(|_| ClientFrame::Pong)?,
        Kind::AuthRequest => ClientFrame::Auth(auth(kind, AuthStep::Request, payload)?),
        Kind::AuthResponse => ClientFrame::Auth(auth(kind, AuthStep::Response, payload)?),
        Kind::AuthVerify => ClientFrame::Auth(auth(kind, AuthStep::Verify, payload)?),
        Kind::AuthSuccess => ClientFrame::AuthSuccess(auth_success(payload)?),
        Kind::KeyRotationUpdate => ClientFrame::KeyRotation(key_rotation(kind, payload)?),
        Kind::KeyRotationAck => ClientFrame::KeyRotationAck(key_rotation(kind, payload)?),
        Kind::Status => ClientFrame::Status(status(payload)?),
    })
}

/// The context of the `Error` that answers a malformed frame, so that its sender knows which message was refused: the
/// ids of a `Send` or of a key rotation, each of them if it can be read. (protocol: Error)
pub fn error_context(text: &str, refusal: Refusal) -> ErrorContext {
    let (Refusal::Missing(kind, _) | Refusal::Wrong(kind, ..)) = refusal else {
        return ErrorContext::NOTHING;
    };
    // The refusal names a field, so the text is a valid JSON object and its depth was checked.
    let payload = json_object::fields(text, 1, &["payload"], Some(0)).ok().and_then(|[it]| it);
    let names = ["recipient_id", "message_id", "key_id"];
    let fields = payload.and_then(|payload| Fields::read(kind, payload, names).ok());
    let Some(fields) = fields else { return ErrorContext::NOTHING };
    let subject = match kind {
        Kind::Send => fields.required(1, message_id).ok().map(Subject::Message),
        Kind::KeyRotationUpdate | Kind::KeyRotationAck => {
            fields.required(2, key_id).ok().map(|key_id| Subject::KeyRotation(key_id.into()))
        }
        _ => return ErrorContext::NOTHING,
    };
    ErrorContext::about(subject.as_ref(), fields.required(0, recipient).ok())
}

fn register(payload: &str) -> Result<Register<'_>, Refusal> {
    let names = ["resumable", "receipts", "resume_token", "accept", "renew_token", "access_token"];
    let fields = Fields::read(Kind::Register, payload, names)?;
    Ok(Register {
        resume_token: fields.optional(2, |raw| string(raw).ok_or("a string"))?,
        extended: payload[1..payload.len() - 1].bytes().any(|byte| !byte.is_ascii_whitespace()),
        resumable: fields.optional(0, flag)?.unwrap_or(false),
        receipts: fields.optional(1, flag)?.unwrap_or(false),
        accept: fields.optional(3, accept)?,
        renew_token: fields.optional(4, flag)?.unwrap_or(false),
        access_token: fields.optional(5, |raw| string(raw).map(Secret).ok_or("a string"))?,
    })
}

fn send(payload: &str) -> Result<Send<'_>, Refusal> {
    let names = [
        "recipient_id",
        "sender_id",
        "message_id",
        "ttl",
        "encrypted_data",
        "signature",
        // Forwarded without a check. Listed because an unknown key costs an allocation.
        "timestamp",
        "content_type",
        "size_bytes",
    ];
    let fields = Fields::read(Kind::Send, payload, names)?;
    fields.optional(5, opaque)?;
    Ok(Send {
        recipient_id: fields.required(0, recipient)?,
        sender_id: fields.required(1, device_id)?,
        message_id: fields.required(2, message_id)?,
        ttl: fields.optional(3, seconds)?,
        encrypted_data: fields.required(4, opaque)?,
        payload,
    })
}

fn ack(payload: &str) -> Result<Ack, Refusal> {
    let fields = Fields::read(Kind::Ack, payload, ["message_id", "sender_id"])?;
    Ok(Ack {
        message_id: fields.required(0, message_id)?,
        sender_id: fields.optional(1, device_id)?,
    })
}

fn auth(kind: Kind, step: AuthStep, payload: &str) -> Result<Auth<'_>, Refusal> {
    let names = ["device_id", "recipient_id", "challenge", "public_key", "challenge_response"];
    let fields = Fields::read(kind, payload, names)?;
    let required: &[usize] = match step {
        AuthStep::Request => &[3, 2],
        AuthStep::Response => &[4, 2],
        AuthStep::Verify => &[4],
    };
    required.iter().try_for_each(|index| fields.required(*index, opaque).map(drop))?;
    Ok(Auth {
        step,
        device_id: fields.required(0, device_id)?,
        recipient_id: fields.optional(1, recipient)?,
        payload,
    })
}

fn auth_success(payload: &str) -> Result<AuthSuccess<'_>, Refusal> {
    let names = ["device_id", "recipient_id", "sender_id", "trusted"];
    let fields = Fields::read(Kind::AuthSuccess, payload, names)?;
    fields.required(3, flag)?;
    Ok(AuthSuccess {
        device_id: fields.required(0, recipient)?,
        recipient_id: fields.optional(1, recipient)?,
        sender_id: fields.optional(2, device_id)?,
        payload,
    })
}

fn key_rotation(kind: Kind, payload: &str) -> Result<KeyRotation<'_>, Refusal> {
    let is_ack = kind == Kind::KeyRotationAck;
    let last = if is_ack { "success" } else { "encrypted_key_package" };
    let fields = Fields::read(kind, payload, ["sender_id", "recipient_id", "key_id", last])?;
    if is_ack {
        fields.required(3, flag)?;
    } else {
        fields.required(3, opaque)?;
    }
    Ok(KeyRotation {
        sender_id: fields.required(0, device_id)?,
        recipient_id: fields.required(1, recipient)?,
        key_id: fields.required(2, key_id)?,
        payload,
    })
}

fn status(payload: &str) -> Result<StatusUpdate, Refusal> {
    let fields = Fields::read(Kind::Status, payload, ["device_id", "status"])?;
    let presence = fields.required(1, presence)?;
    Ok(StatusUpdate { device_id: fields.required(0, device_id)?, presence })
}

/// The raw fields of one payload by index, and the names for a [`Refusal`].
struct Fields<'a, const N: usize> {
    kind: Kind,
    names: [&'static str; N],
    raw: [Option<&'a str>; N],
}

impl<'a, const N: usize> Fields<'a, N> {
    fn read(kind: Kind, payload: &'a str, names: [&'static str; N]) -> Result<Self, Refusal> {
        Ok(Self { kind, names, raw: json_object::fields(payload, 2, &names, None)? })
    }

    /// Parses a field that must be present. `parse` fails with the rule that the value breaks.
    fn required<T>(
        &self,
        index: usize,
        parse: impl FnOnce(&'a str) -> Result<T, &'static str>,
    ) -> Result<T, Refusal> {
        self.optional(index, parse)?.ok_or(Refusal::Missing(self.kind, self.names[index]))
    }

    /// Parses a field that may be absent; many serializers write an absent field as null.
    fn optional<T>(
        &self,
        index: usize,
        parse: impl FnOnce(&'a str) -> Result<T, &'static str>,
    ) -> Result<Option<T>, Refusal> {
        let parsed = self.raw[index].filter(|raw| *raw != "null").map(parse).transpose();
        parsed.map_err(|rule| Refusal::Wrong(self.kind, self.names[index], rule))
    }
}

const UUID: &str = "a UUID other than nil";

fn device_id(raw: &str) -> Result<DeviceId, &'static str> {
    string(raw).and_then(|text| DeviceId::parse(&text)).ok_or(UUID)
}

fn recipient(raw: &str) -> Result<Recipient, &'static str> {
    string(raw).and_then(|text| Recipient::parse(&text)).ok_or(UUID)
}

fn message_id(raw: &str) -> Result<MessageId, &'static str> {
    string(raw).and_then(|text| MessageId::parse(&text)).ok_or(UUID)
}

/// A string that the relay does not decode.
fn opaque(raw: &str) -> Result<&str, &'static str> {
    raw.starts_with('"').then_some(raw).ok_or("a string")
}

/// The longest `key_id`, bytes as the client wrote it: the relay keeps the key beside the frame.
const KEY_ID_BYTES: usize = 256;

/// Raw, because a client may use a number of any size, and an `Error` repeats the key as the client wrote it.
fn key_id(raw: &str) -> Result<&str, &'static str> {
    if !raw.starts_with(['"', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) {
        return Err("a number or a string");
    }
    if raw.len() > KEY_ID_BYTES {
        return Err("at most 256 bytes long as written");
    }
    Ok(raw)
}

fn flag(raw: &str) -> Result<bool, &'static str> {
    raw.parse().map_err(|_| "true or false")
}

/// Seconds; a whole number of more than 64 bits becomes `u64::MAX`.
fn seconds(raw: &str) -> Result<u64, &'static str> {
    let is_whole = raw.bytes().all(|byte| byte.is_ascii_digit());
    is_whole.then(|| raw.parse().unwrap_or(u64::MAX)).ok_or("a whole number of seconds, 0 or more")
}

fn accept(raw: &str) -> Result<Accept, &'static str> {
    match string(raw).as_deref() {
        Some("anyone") => Ok(Accept::Anyone),
        Some("correspondents") => Ok(Accept::Correspondents),
        _ => Err("anyone or correspondents"),
    }
}

fn presence(raw: &str) -> Result<Presence, &'static str> {
    match string(raw).as_deref() {
        Some("Online") => Ok(Presence::Online),
        Some("Away") => Ok(Presence::Away),
        Some("Offline") => Ok(Presence::Offline),
        _ => Err("Online, Away or Offline"),
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
