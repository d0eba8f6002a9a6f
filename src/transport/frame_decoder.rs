//! The frame decoder: bytes in, messages and control frames out (RFC 6455 §5).
//!
//! The decoder refuses at the first byte that shows a violation: a length is checked before a byte of
//! its payload is kept, and text is checked as it arrives. Payloads are unmasked straight into the
//! buffer of their message, which never has room for more than `Limits::message_bytes`. The decoder
//! reads no clock and no socket.

use bytes::Bytes;
use bytestring::ByteString;

use super::{Limits, utf8::Utf8Validator};

/// The longest header: two bytes, eight of length, four of mask (RFC 6455 §5.2).
const HEADER_MAX: usize = 14;
/// The longest payload of a control frame (RFC 6455 §5.5).
const CONTROL_MAX: u8 = 125;
/// The first bit of a frame that is the last of its message (RFC 6455 §5.2).
const FIN: u8 = 0x80;

pub(super) const CONTINUATION: u8 = 0x0;
pub(super) const TEXT: u8 = 0x1;
pub(super) const BINARY: u8 = 0x2;
pub(super) const CLOSE: u8 = 0x8;
pub(super) const PING: u8 = 0x9;
pub(super) const PONG: u8 = 0xA;

/// Why the peer's input is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolViolation {
    /// A frame, or the fragments of a message together, declare more than `message_bytes`.
    TooBig,
    /// A frame that RFC 6455 §5 forbids.
    Protocol,
    /// More frames in one message than `fragments`.
    TooManyFragments,
    /// Text that is not UTF-8 (RFC 6455 §8.1).
    NotUtf8,
    /// A message that stayed unfinished for `frame_timeout` and came at less than `frame_rate`.
    TooSlow,
}

impl ProtocolViolation {
    /// The close code that answers the violation (RFC 6455 §7.4.1).
    pub fn code(self) -> u16 {
        match self {
            ProtocolViolation::Protocol => 1002,
            ProtocolViolation::NotUtf8 => 1007,
            ProtocolViolation::TooManyFragments => 1008,
            ProtocolViolation::TooBig => 1009,
            // Try again later: a slow uplink is no fault of the client. (IANA: WebSocket close codes)
            ProtocolViolation::TooSlow => 1013,
        }
    }

    /// The sentence that goes with the code. It never repeats what the peer sent.
    pub fn reason(self) -> &'static str {
        match self {
            ProtocolViolation::Protocol => "protocol error",
            ProtocolViolation::NotUtf8 => "text is not UTF-8",
            ProtocolViolation::TooManyFragments => "too many fragments",
            ProtocolViolation::TooBig => "message too big",
            ProtocolViolation::TooSlow => "you read or write too slowly",
        }
    }
}

/// A frame that ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// A frame after which its message goes on.
    Fragment,
    /// A whole text message.
    Text(ByteString),
    /// A whole binary message.
    Binary(Bytes),
    /// A ping, with the payload that its pong repeats (RFC 6455 §5.5.3).
    Ping(Bytes),
    /// A pong, with the payload of the ping that it answers.
    Pong(Bytes),
    /// A Close frame, lawful or not, and its payload.
    Close(Bytes),
}

/// The data message that has begun and not ended.
#[derive(Debug)]
struct Open {
    text: bool,
    /// Bytes that the headers of its frames have declared.
    bytes: u64,
    frames: u32,
}

/// Decodes the frames of one peer, across reads.
#[derive(Debug)]
pub(super) struct FrameDecoder {
    message_bytes: u64,
    fragments: u32,
    header: [u8; HEADER_MAX],
    have: usize,
    /// Payload bytes of the current frame still to come; `None` while its header is incomplete.
    left: Option<u64>,
    /// The masking key, beginning with the key of the next byte.
    mask: [u8; 4],
    message: Option<Open>,
    /// Payload of the message so far, unmasked.
    data: Vec<u8>,
    /// Payload of the current control frame so far, which may lie between two fragments.
    control: Vec<u8>,
    /// Whether text is checked piece by piece, because it does not arrive in one.
    check_pieces: bool,
    utf8: Utf8Validator,
    failed: bool,
}

impl FrameDecoder {
    pub(super) fn new(limits: &Limits) -> Self {
        FrameDecoder {
            message_bytes: limits.message_bytes as u64,
            fragments: limits.fragments,
            header: [0; HEADER_MAX],
            have: 0,
            left: None,
            mask: [0; 4],
            message: None,
            data: Vec::new(),
            control: Vec::new(),
            check_pieces: false,
            utf8: Utf8Validator::default(),
            failed: false,
        }
    }

    /// Takes bytes up to the end of the current frame, or all; `None` if the frame has not ended.
    ///
    /// After an `Err` the decoder no longer knows where frames begin: it takes all bytes and ignores
    /// them.
    pub(super) fn decode(
        &mut self,
        bytes: &mut &[u8],
    ) -> Result<Option<Decoded>, ProtocolViolation> {
        if self.failed {
            *bytes = &[];
            return Ok(None);
        }
        let found = self.decode_frame(bytes);
        self.failed = found.is_err();
        found
    }

    fn decode_frame(&mut self, bytes: &mut &[u8]) -> Result<Option<Decoded>, ProtocolViolation> {
        let left = match self.left {
            Some(left) => left,
            None => loop {
                let Some((&byte, rest)) = bytes.split_first() else {
                    return Ok(None);
                };
                *bytes = rest;
                if let Some(length) = self.header_byte(byte)? {
                    self.begin(length, bytes.len());
                    break length;
                }
            },
        };
        let (payload, rest) = bytes.split_at(left.min(bytes.len() as u64) as usize);
        *bytes = rest;
        self.append(payload, left)?;
        let left = left - payload.len() as u64;
        self.left = Some(left);
        if left > 0 {
            return Ok(None);
        }
        self.end().map(Some)
    }

    /// Whether a frame or a message has begun and not ended.
    pub(super) fn unfinished(&self) -> bool {
        self.have > 0 || self.message.is_some()
    }

    /// Payload bytes of the unfinished message that have come, without those of control frames. Headers do not count, so
    /// that empty fragments prolong nothing.
    pub(super) fn received(&self) -> usize {
        self.data.len()
    }

    fn fin(&self) -> bool {
        self.header[0] & FIN != 0
    }

    fn opcode(&self) -> u8 {
        self.header[0] & 0x0f
    }

    /// Takes one byte of the header; the payload's length once the header is complete.
    fn header_byte(&mut self, byte: u8) -> Result<Option<u64>, ProtocolViolation> {
        self.header[self.have] = byte;
        self.have += 1;
        if self.have == 1 {
            self.check_kind()?;
            return Ok(None);
        }
        let short = self.header[1] & 0x7f;
        if self.have == 2 {
            let masked = self.header[1] & 0x80 != 0;
            if !masked || (self.opcode() >= CLOSE && short > CONTROL_MAX) {
                return Err(ProtocolViolation::Protocol);
            }
        }
        let wide = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let lengths = 2 + wide;
        if self.have < lengths {
            return Ok(None);
        }
        let length = match wide {
            0 => u64::from(short),
            _ => self.header[2..lengths].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        if self.have == lengths {
            self.check_length(length)?;
        }
        if self.have < lengths + 4 {
            return Ok(None);
        }
        self.mask.copy_from_slice(&self.header[lengths..lengths + 4]);
        Ok(Some(length))
    }

    /// Checks the first byte: reserved bits, opcode, and the place in a message (RFC 6455 §5.4).
    fn check_kind(&self) -> Result<(), ProtocolViolation> {
        if self.header[0] & 0x70 != 0 {
            return Err(ProtocolViolation::Protocol);
        }
        match (self.opcode(), &self.message) {
            (CONTINUATION, Some(open)) if open.frames >= self.fragments => {
                Err(ProtocolViolation::TooManyFragments)
            }
            (CONTINUATION, Some(_)) | (TEXT | BINARY, None) => Ok(()),
            (CLOSE..=PONG, _) if self.fin() => Ok(()),
            _ => Err(ProtocolViolation::Protocol),
        }
    }

    /// Checks the length before a byte of the payload is accepted.
    fn check_length(&self, length: u64) -> Result<(), ProtocolViolation> {
        // RFC 6455 §5.2: the most significant bit of a 64-bit length must be 0.
        if length > i64::MAX as u64 {
            return Err(ProtocolViolation::Protocol);
        }
        if self.opcode() >= CLOSE {
            return Ok(());
        }
        let before = self.message.as_ref().map_or(0, |open| open.bytes);
        if before.saturating_add(length) > self.message_bytes {
            return Err(ProtocolViolation::TooBig);
        }
        Ok(())
    }

    /// The header is complete and lawful: `present` of the bytes after it are already here.
    fn begin(&mut self, length: u64, present: usize) {
        self.left = Some(length);
        let (opcode, fin) = (self.opcode(), self.fin());
        if opcode >= CLOSE {
            return;
        }
        let open = self.message.get_or_insert(Open { text: opcode == TEXT, bytes: 0, frames: 0 });
        open.bytes += length;
        open.frames += 1;
        // Text that is here as a whole is checked once, at its end.
        let whole = open.frames == 1 && fin && length <= present as u64;
        self.check_pieces = open.text && !whole;
        if open.frames == 1 {
            self.utf8 = Utf8Validator::default();
        }
    }

    /// Unmasks the next bytes of the frame's payload, of which `left` are to come, and checks text.
    fn append(&mut self, masked: &[u8], left: u64) -> Result<(), ProtocolViolation> {
        let control = self.opcode() >= CLOSE;
        let fin = self.fin();
        let buffer = if control { &mut self.control } else { &mut self.data };
        let (start, end) = (buffer.len(), buffer.len() + masked.len());
        if end > buffer.capacity() {
            // Doubled, but not beyond the bytes that can still come: the last frame leaves no spare room.
            let most = if fin { start + left as usize } else { self.message_bytes as usize };
            let room = (2 * buffer.capacity()).max(end).min(most);
            buffer.reserve_exact(room - start);
        }
        buffer.extend_from_slice(masked);
        unmask(&mut buffer[start..], self.mask);
        // The next byte continues where this piece stopped within the four bytes of the mask.
        self.mask.rotate_left(masked.len() % 4);
        if self.check_pieces && !control {
            self.utf8.feed(&self.data[start..]).map_err(|_| ProtocolViolation::NotUtf8)?;
        }
        Ok(())
    }

    /// The frame is complete.
    fn end(&mut self) -> Result<Decoded, ProtocolViolation> {
        self.left = None;
        self.have = 0;
        match self.opcode() {
            CLOSE => Ok(Decoded::Close(take(&mut self.control))),
            PING => Ok(Decoded::Ping(take(&mut self.control))),
            PONG => Ok(Decoded::Pong(take(&mut self.control))),
            _ if !self.fin() => Ok(Decoded::Fragment),
            _ => {
                let text = self.message.take().is_some_and(|message| message.text);
                let payload = take(&mut self.data);
                if !text {
                    return Ok(Decoded::Binary(payload));
                }
                let text = ByteString::try_from(payload);
                text.map(Decoded::Text).map_err(|_| ProtocolViolation::NotUtf8)
            }
        }
    }
}

/// The code in a Close frame's payload; `None` if the payload is empty (RFC 6455 §5.5.1, §7.4).
pub(super) fn close_code(payload: &[u8]) -> Result<Option<u16>, ProtocolViolation> {
    if payload.is_empty() {
        return Ok(None);
    }
    let (code, reason) = payload.split_first_chunk().ok_or(ProtocolViolation::Protocol)?;
    let code = u16::from_be_bytes(*code);
    match code {
        1000..=1003 | 1007..=1014 | 3000..=4999 if str::from_utf8(reason).is_ok() => Ok(Some(code)),
        _ => Err(ProtocolViolation::Protocol),
    }
}

/// The buffer's bytes without its spare capacity, which a message that is kept would keep as well.
fn take(buffer: &mut Vec<u8>) -> Bytes {
    std::mem::take(buffer).into_boxed_slice().into()
}

/// Removes the mask (RFC 6455 §5.3); `mask` begins with the key of the first byte.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let key = u32::from_ne_bytes(mask);
    let mut words = bytes.chunks_exact_mut(4);
    for word in &mut words {
        let clear = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]) ^ key;
        word.copy_from_slice(&clear.to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(mask) {
        *byte ^= key;
    }
}

#[cfg(test)]
#[path = "frame_decoder_tests.rs"]
mod tests;
