//! The messages of the protocol that the generator sends and reads, encoded and decoded with the least CPU time.
//!
//! A message is a finished frame in which only the message id changes. The id contains the time at which the message was
//! sent, so both ends compute the latency from the id alone: 8 hexadecimal digits are a counter, 12 the number of the
//! sender, 12 the nanoseconds since the generator started. Answers are recognised by their first bytes; the message id is
//! the first field of the payload, so it is always at the same offset.

use serde::Deserialize;

use crate::frame::{self, TEXT};

/// A device or message id: 8-4-4-4-12.
pub type Id = [u8; 36];

const NIL: &Id = b"00000000-0000-0000-0000-000000000000";
const SEND: &[u8] = br#"{"type":"Send","payload":{"message_id":""#;
const RECEIVE: &[u8] = br#"{"type":"Receive","payload":{"message_id":""#;
const ACK: &[u8] = br#"{"type":"Ack","payload":{"message_id":""#;
const ERROR: &[u8] = br#"{"type":"Error""#;
const PING: &[u8] = br#"{"type":"Ping""#;

/// `Pong`
pub const PONG: &[u8] = br#"{"type":"Pong"}"#;

/// A frame from the relay to a registered device.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A message from another device.
    Receive(&'a Id),
    /// The relay has accepted a message of ours.
    Ack(&'a Id),
    /// An error: the JSON.
    Error(&'a [u8]),
    /// An application-level ping, which needs a `Pong`.
    Ping,
    /// Nothing that this generator knows.
    Other(&'a [u8]),
}

impl<'a> Incoming<'a> {
    /// Reads the text of a frame.
    pub fn read(text: &'a [u8]) -> Self {
        let id = |head: &[u8]| text.strip_prefix(head)?.first_chunk();
        if let Some(id) = id(RECEIVE) {
            Self::Receive(id)
        } else if let Some(id) = id(ACK) {
            Self::Ack(id)
        } else if text.starts_with(ERROR) {
            Self::Error(text)
        } else if text.starts_with(PING) {
            Self::Ping
        } else {
            Self::Other(text)
        }
    }
}

/// The `code` of an `Error`; 0 if it has none.
pub fn code(error: &[u8]) -> u16 {
    #[derive(Deserialize)]
    struct Error {
        payload: Payload,
    }
    #[derive(Deserialize)]
    struct Payload {
        code: u16,
    }
    serde_json::from_slice::<Error>(error).map_or(0, |error| error.payload.code)
}

/// The fields of `RegisterResponse` that the generator uses.
#[derive(Debug, Deserialize)]
pub struct Registered {
    /// Our device id.
    pub device_id: String,
    /// The token with which to resume.
    pub resume_token: Option<String>,
    /// Number of queued messages.
    #[serde(default)]
    pub queued: u64,
}

impl Registered {
    /// Reads the text of a frame; None if it is something else.
    pub fn read(text: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Response {
            r#type: String,
            payload: Registered,
        }
        let response: Response = serde_json::from_slice(text).ok()?;
        (response.r#type == "RegisterResponse").then_some(response.payload)
    }
}

/// When the message with this id was sent: nanoseconds since the generator began.
pub fn sent_at(id: &Id) -> u64 {
    id[24..].iter().fold(0, |time, digit| time << 4 | u64::from(value(*digit)))
}

fn value(digit: u8) -> u8 {
    // '0'..='9' are 0x30.., 'a'..='f' are 0x61..: both have their value in the lower nibble, letters less 9.
    (digit & 0xf) + 9 * (digit >> 6)
}

fn write_hex(out: &mut [u8], mut number: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 0xf) as usize];
        number >>= 4;
    }
}

/// The message id in the text of a `Send`; NATS delivers the text unchanged.
pub fn send_id(text: &[u8]) -> Option<&Id> {
    text.strip_prefix(SEND)?.first_chunk()
}

/// A message without its frame, and where in it the message id and the recipient stand.
pub struct Text {
    /// The text.
    pub bytes: Vec<u8>,
    /// Where the message id begins.
    pub id: usize,
    /// Where the recipient's id begins.
    pub recipient: usize,
}

impl Text {
    /// A `Send` of one sender, for nobody yet. `sender` tells the ids of different senders apart; `ttl` is in seconds.
    pub fn new(sender: usize, from: &Id, data: &[u8], ttl: u64) -> Self {
        let mut bytes = SEND.to_vec();
        let id = bytes.len();
        bytes.extend_from_slice(&numbered_id(sender));
        bytes.extend_from_slice(br#"","recipient_id":""#);
        let recipient = bytes.len();
        bytes.extend_from_slice(NIL);
        bytes.extend_from_slice(br#"","sender_id":""#);
        bytes.extend_from_slice(from);
        bytes.extend_from_slice(br#"","encrypted_data":""#);
        bytes.extend_from_slice(data);
        bytes.extend_from_slice(br#"","ttl":"#);
        bytes.extend_from_slice(ttl.to_string().as_bytes());
        bytes.extend_from_slice(b"}}");
        Self { bytes, id, recipient }
    }
}

/// An id in which only the 12 digits for the sender's number are not 0.
pub fn numbered_id(who: usize) -> Id {
    let mut id = *NIL;
    write_hex(&mut id[9..13], who as u64 >> 32);
    write_hex(&mut id[14..18], who as u64 >> 16 & 0xffff);
    write_hex(&mut id[19..23], who as u64 & 0xffff);
    id
}

/// Text of the length that base64 makes of `payload` bytes.
pub fn data(payload: usize) -> Vec<u8> {
    const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    BASE64.iter().cycle().take(payload.div_ceil(3) * 4).copied().collect()
}

/// A complete frame with a `Send`, in which only message id and recipient change.
#[derive(Debug)]
pub struct MessageTemplate {
    frame: Vec<u8>,
    id: usize,
    recipient: usize,
    count: u64,
}

impl MessageTemplate {
    /// A message of one sender, for nobody yet. `sender` tells the ids of different senders apart; `payload` is in bytes
    /// before base64, `ttl` in seconds.
    pub fn new(sender: usize, from: &Id, payload: usize, ttl: u64) -> Self {
        Self::with_data(sender, from, &data(payload), ttl)
    }

    /// The same with `encrypted_data` as given.
    pub fn with_data(sender: usize, from: &Id, data: &[u8], ttl: u64) -> Self {
        Self::framed(TEXT, Text::new(sender, from, data, ttl))
    }

    /// In a frame with this first byte.
    pub fn framed(first: u8, Text { bytes, id, recipient }: Text) -> Self {
        let mut frame = Vec::new();
        frame::write(&mut frame, first, &bytes);
        let head = frame.len() - bytes.len();
        Self { frame, id: head + id, recipient: head + recipient, count: 0 }
    }

    /// Sets the recipient of all following messages.
    pub fn address(&mut self, recipient: &Id) {
        self.frame[self.recipient..self.recipient + 36].copy_from_slice(recipient);
    }

    /// Appends the next message, with this time in its id.
    pub fn send(&mut self, out: &mut Vec<u8>, time: u64) {
        self.count += 1;
        let start = out.len();
        out.extend_from_slice(&self.frame);
        let id = &mut out[start + self.id..start + self.id + 36];
        write_hex(&mut id[..8], self.count);
        write_hex(&mut id[24..], time);
    }
}

/// Appends the confirmation of a message.
pub fn confirm(out: &mut Vec<u8>, id: &Id) {
    const LENGTH: usize = ACK.len() + 36 + 3;
    let mut text = [0; LENGTH];
    text[..ACK.len()].copy_from_slice(ACK);
    text[ACK.len()..ACK.len() + 36].copy_from_slice(id);
    text[ACK.len() + 36..].copy_from_slice(br#""}}"#);
    frame::write(out, TEXT, &text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const ALICE: &Id = b"d8f8a9b0-f6e1-4a2b-8d7c-1e9f0a1b2c3d";
    const BOB: &Id = b"a1b2c3d4-e5f6-7890-1234-567890abcdef";

    /// The frame's text, behind the head and the key.
    fn text(frame: &[u8]) -> &[u8] {
        &frame[if frame[1] == 0xfe { 8 } else { 6 }..]
    }

    #[test]
    fn a_template_is_the_protocols_send_and_says_when_it_was_sent() {
        let mut template = MessageTemplate::new(0x12_3456, ALICE, 256, 300);
        template.address(BOB);
        let mut out = Vec::new();
        template.send(&mut out, 1);
        out.clear();
        template.send(&mut out, 0xabc_def0_1234);
        let send: Value = serde_json::from_slice(text(&out)).unwrap();
        assert_eq!(send["type"], "Send");
        let payload = &send["payload"];
        assert_eq!(payload["message_id"], "00000002-0000-0012-3456-0abcdef01234");
        assert_eq!(payload["recipient_id"].as_str().unwrap().as_bytes(), BOB);
        assert_eq!(payload["sender_id"].as_str().unwrap().as_bytes(), ALICE);
        assert_eq!(payload["encrypted_data"].as_str().unwrap().len(), 344);
        assert_eq!(payload["ttl"], 300);
    }

    #[test]
    fn what_the_relay_makes_of_a_template_is_recognised() {
        let mut template = MessageTemplate::new(7, ALICE, 3, 1);
        template.address(BOB);
        let mut out = Vec::new();
        template.send(&mut out, 0x9876_5432_10af);
        let text = String::from_utf8(text(&out).to_vec()).unwrap();
        let receive = text.replace(r#"{"type":"Send""#, r#"{"type":"Receive""#);
        let Incoming::Receive(id) = Incoming::read(receive.as_bytes()) else { panic!("{receive}") };
        assert_eq!(sent_at(id), 0x9876_5432_10af);
    }

    #[test]
    fn a_confirmation_is_read_as_what_it_is() {
        let mut out = Vec::new();
        confirm(&mut out, BOB);
        assert_eq!(Incoming::read(text(&out)), Incoming::Ack(BOB));
        assert!(serde_json::from_slice::<Value>(text(&out)).is_ok());
    }

    #[test]
    fn errors_are_told_by_code() {
        let error = br#"{"type":"Error","payload":{"message":"Unknown recipient.","code":404}}"#;
        assert_eq!(Incoming::read(error), Incoming::Error(error));
        assert_eq!(code(error), 404);
        assert_eq!(Incoming::read(br#"{"type":"Ping"}"#), Incoming::Ping);
        assert!(matches!(Incoming::read(br#"{"type":"Receive"}"#), Incoming::Other(_)));
    }

    #[test]
    fn registering_gives_an_id_and_perhaps_a_token() {
        let plain = br#"{"type":"RegisterResponse","payload":{"device_id":"x"}}"#;
        let plain = Registered::read(plain).unwrap();
        assert_eq!((plain.device_id.as_str(), plain.resume_token, plain.queued), ("x", None, 0));
        let back =
            br#"{"type":"RegisterResponse","payload":{"device_id":"x","resume_token":"t","queued":3}}"#;
        let back = Registered::read(back).unwrap();
        assert_eq!((back.resume_token.as_deref(), back.queued), (Some("t"), 3));
        assert!(Registered::read(br#"{"type":"Pong"}"#).is_none());
    }
}
