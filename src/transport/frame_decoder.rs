//! The frame guard: what a peer may put on the wire, judged before it is believed.
//!
//! The codec above checks a frame's length only once the whole frame has arrived, so a header that
//! declares 2^40 bytes would be collected until memory ends. The guard follows the same bytes with
//! a few words of state and refuses at the first byte that shows a violation. It reads no clock and no
//! socket: bytes go in, the place where a frame ends comes out.

use super::{Limits, utf8::Utf8Validator};

/// The longest header: two bytes, eight of length, four of mask (RFC 6455 §5.2).
const HEADER_MAX: usize = 14;
/// The longest payload of a control frame (RFC 6455 §5.5).
const CONTROL_MAX: u8 = 125;
/// How much is unmasked at a time for the UTF-8 check; a multiple of the mask's four bytes.
const SCRATCH: usize = 512;

pub(super) const CONTINUATION: u8 = 0x0;
pub(super) const TEXT: u8 = 0x1;
pub(super) const BINARY: u8 = 0x2;
pub(super) const CLOSE: u8 = 0x8;
pub(super) const PING: u8 = 0x9;
pub(super) const PONG: u8 = 0xA;

/// Why a peer is not listened to any longer.
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
    /// A frame or message that stayed unfinished for `frame_timeout`.
    Unfinished,
}

impl ProtocolViolation {
    /// The close code that answers it (RFC 6455 §7.4.1).
    pub fn code(self) -> u16 {
        match self {
            ProtocolViolation::Protocol => 1002,
            ProtocolViolation::NotUtf8 => 1007,
            ProtocolViolation::TooManyFragments | ProtocolViolation::Unfinished => 1008,
            ProtocolViolation::TooBig => 1009,
        }
    }

    /// The sentence that goes with the code. It never repeats what the peer sent.
    pub fn reason(self) -> &'static str {
        match self {
            ProtocolViolation::Protocol => "protocol error",
            ProtocolViolation::NotUtf8 => "text is not UTF-8",
            ProtocolViolation::TooManyFragments => "too many fragments",
            ProtocolViolation::Unfinished => "message not finished in time",
            ProtocolViolation::TooBig => "message too big",
        }
    }
}

/// How far the guard went.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// So many bytes belong to the frame's header.
    pub(super) header: usize,
    /// So many after them belong to its payload.
    pub(super) payload: usize,
    /// The opcode of the frame that ends with those bytes, if one does.
    pub(super) ended: Option<u8>,
}

/// The data message that has begun and not ended.
#[derive(Debug)]
struct Open {
    text: bool,
    bytes: u64,
    frames: u32,
}

/// Follows one peer's frames across reads.
#[derive(Debug)]
pub(super) struct FrameDecoder {
    message_bytes: u64,
    fragments: u32,
    header: [u8; HEADER_MAX],
    have: usize,
    /// How long the last complete header was.
    head: usize,
    /// The current frame's payload length, once its header is complete.
    length: u64,
    /// Payload bytes of the current frame still to come; `None` while its header is incomplete.
    left: Option<u64>,
    mask: [u8; 4],
    message: Option<Open>,
    /// Whether the current frame's payload is text that only the guard can validate in time.
    judge_text: bool,
    utf8: Utf8Validator,
}

impl FrameDecoder {
    pub(super) fn new(limits: &Limits) -> Self {
        FrameDecoder {
            message_bytes: limits.message_bytes as u64,
            fragments: limits.fragments,
            header: [0; HEADER_MAX],
            have: 0,
            head: 0,
            length: 0,
            left: None,
            mask: [0; 4],
            message: None,
            judge_text: false,
            utf8: Utf8Validator::default(),
        }
    }

    /// Follows `bytes` to the end of the current frame, or to their own end.
    ///
    /// After an `Err` the guard must not be asked again: it no longer knows where frames begin.
    pub(super) fn step(&mut self, bytes: &[u8]) -> Result<Step, ProtocolViolation> {
        let mut header = 0;
        let left = match self.left {
            Some(left) => left,
            None => loop {
                let Some(&byte) = bytes.get(header) else {
                    return Ok(Step { header, payload: 0, ended: None });
                };
                header += 1;
                if let Some(length) = self.header_byte(byte)? {
                    self.begin(length, bytes.len() - header);
                    break length;
                }
            },
        };

        let payload = left.min((bytes.len() - header) as u64) as usize;
        if self.judge_text {
            self.text(&bytes[header..header + payload])?;
        }
        let left = left - payload as u64;
        self.left = Some(left);
        let ended = match left {
            0 => Some(self.end()?),
            _ => None,
        };
        Ok(Step { header, payload, ended })
    }

    /// The header of the frame that the last step was in: its bytes so far, and the length of the
    /// payload that they announce, if they are all here.
    pub(super) fn head(&self) -> (&[u8], Option<u64>) {
        let complete = self.left.is_some() || self.have == 0;
        let bytes = match self.have {
            0 => &self.header[..self.head],
            have => &self.header[..have],
        };
        (bytes, complete.then_some(self.length))
    }

    /// Whether the peer has begun something that it has not ended.
    pub(super) fn unfinished(&self) -> bool {
        self.have > 0 || self.message.is_some()
    }

    fn fin(&self) -> bool {
        self.header[0] & 0x80 != 0
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

    /// What the first byte says: reserved bits, opcode, and its place in a message (RFC 6455 §5.4).
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

    /// What the length says, before a byte of the payload is accepted.
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

    /// The header is complete and lawful: `present` bytes of what follows are already here.
    fn begin(&mut self, length: u64, present: usize) {
        self.left = Some(length);
        self.length = length;
        self.head = self.have;
        let (opcode, fin) = (self.opcode(), self.fin());
        self.judge_text = false;
        if opcode >= CLOSE {
            return;
        }
        let open = self.message.get_or_insert(Open { text: opcode == TEXT, bytes: 0, frames: 0 });
        open.bytes += length;
        open.frames += 1;
        // A whole text in one frame is checked by the wire; twice would be work for nothing.
        let whole = open.frames == 1 && fin && length <= present as u64;
        self.judge_text = open.text && !whole;
        if open.frames == 1 {
            self.utf8 = Utf8Validator::default();
        }
    }

    /// Unmasks a copy of the next payload bytes and judges them as text.
    fn text(&mut self, mut payload: &[u8]) -> Result<(), ProtocolViolation> {
        let mut scratch = [0; SCRATCH];
        while !payload.is_empty() {
            let (now, later) = payload.split_at(payload.len().min(SCRATCH));
            let clear = &mut scratch[..now.len()];
            clear.copy_from_slice(now);
            unmask(clear, self.mask);
            // The next byte continues where this piece stopped within the four bytes of the mask.
            self.mask.rotate_left(now.len() % 4);
            self.utf8.feed(clear).map_err(|_| ProtocolViolation::NotUtf8)?;
            payload = later;
        }
        Ok(())
    }

    /// The frame is complete: what kind it was.
    fn end(&mut self) -> Result<u8, ProtocolViolation> {
        let (opcode, fin) = (self.opcode(), self.fin());
        self.left = None;
        self.have = 0;
        if opcode < CLOSE && fin {
            self.message = None;
            if self.judge_text && !self.utf8.at_boundary() {
                return Err(ProtocolViolation::NotUtf8);
            }
        }
        Ok(opcode)
    }
}

/// Removes the mask (RFC 6455 §5.3); `mask` begins with the key of the first byte.
pub(super) fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
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
mod tests {
    use super::*;

    const FIN: u8 = 0x80;

    fn decoder() -> FrameDecoder {
        FrameDecoder::new(&Limits { message_bytes: 1000, fragments: 4, ..Limits::default() })
    }

    /// One masked frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            n @ 0..=125 => out.push(0x80 | n as u8),
            n => {
                out.push(0x80 | 126);
                out.extend((n as u16).to_be_bytes());
            }
        }
        let mask = [0x12, 0x34, 0x56, 0x78];
        out.extend(mask);
        out.extend(payload.iter().enumerate().map(|(i, b)| b ^ mask[i % 4]));
        out
    }

    /// Runs all pieces through a fresh guard: the opcodes that ended, and the breach if any.
    fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Option<ProtocolViolation>) {
        let (mut decoder, mut ended) = (decoder(), Vec::new());
        for mut piece in pieces {
            while !piece.is_empty() {
                match decoder.step(piece) {
                    Ok(step) => {
                        ended.extend(step.ended);
                        piece = &piece[step.header + step.payload..];
                    }
                    Err(violation) => return (ended, Some(violation)),
                }
            }
        }
        (ended, None)
    }

    /// The verdict must not depend on how the bytes are cut: whole, byte by byte, and in two at
    /// every place.
    fn outcome(bytes: &[u8]) -> (Vec<u8>, Option<ProtocolViolation>) {
        let whole = run([bytes]);
        assert_eq!(run(bytes.chunks(1)), whole, "byte by byte");
        for at in 1..bytes.len() {
            let (a, b) = bytes.split_at(at);
            assert_eq!(run([a, b]), whole, "cut at {at}");
        }
        whole
    }

    #[test]
    fn lets_a_lawful_conversation_through() {
        let wire = [
            frame(FIN | TEXT, "grüße".as_bytes()),
            frame(FIN | BINARY, &[0xff; 300]),
            frame(TEXT, b"\xe2\x82"),
            frame(FIN | PING, b"now"),
            frame(CONTINUATION, b"\xac"),
            frame(FIN | CONTINUATION, b""),
            frame(FIN | CLOSE, &1000u16.to_be_bytes()),
        ]
        .concat();
        assert_eq!(
            outcome(&wire),
            (vec![TEXT, BINARY, TEXT, PING, CONTINUATION, CONTINUATION, CLOSE], None)
        );
    }

    #[test]
    fn refuses_what_rfc_6455_section_5_forbids() {
        let mut unmasked = frame(FIN | TEXT, b"a");
        unmasked[1] &= 0x7f;
        let long_ping = frame(FIN | PING, &[0; 126]);
        let cases: [(&str, Vec<u8>); 9] = [
            ("reserved bit", frame(FIN | 0x40 | TEXT, b"a")),
            ("opcode 3", frame(FIN | 0x3, b"a")),
            ("opcode 11", frame(FIN | 0xB, b"a")),
            ("unmasked", unmasked),
            ("long control frame", long_ping),
            ("fragmented control frame", frame(PING, b"")),
            ("continuation of nothing", frame(FIN | CONTINUATION, b"a")),
            ("new message inside another", [frame(TEXT, b"a"), frame(FIN | TEXT, b"b")].concat()),
            (
                "length with its highest bit set",
                vec![FIN | BINARY, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0],
            ),
        ];
        for (name, wire) in cases {
            assert_eq!(outcome(&wire).1, Some(ProtocolViolation::Protocol), "{name}");
        }
    }

    #[test]
    fn refuses_a_length_before_its_payload_and_even_its_mask() {
        let huge = [FIN | BINARY, 0xff, 0, 0, 1, 0, 0, 0, 0, 0];
        assert_eq!(outcome(&huge).1, Some(ProtocolViolation::TooBig));
        assert_eq!(outcome(&frame(FIN | TEXT, &[b'a'; 1000])).1, None);
        assert_eq!(
            outcome(&[FIN | TEXT, 0x80 | 126, 0x03, 0xe9]).1,
            Some(ProtocolViolation::TooBig)
        );
    }

    #[test]
    fn counts_fragments_together() {
        let half = frame(TEXT, &[b'a'; 500]);
        let fits = [half.clone(), frame(FIN | CONTINUATION, &[b'a'; 500])].concat();
        assert_eq!(outcome(&fits).1, None);
        let over = [half, frame(FIN | CONTINUATION, &[b'a'; 501])].concat();
        assert_eq!(outcome(&over).1, Some(ProtocolViolation::TooBig));

        let empty = frame(CONTINUATION, b"");
        let four = [frame(BINARY, b""), empty.repeat(3)].concat();
        assert_eq!(outcome(&four).1, None);
        let five = [four, empty].concat();
        assert_eq!(outcome(&five).1, Some(ProtocolViolation::TooManyFragments));
    }

    #[test]
    fn judges_fragmented_text_as_it_arrives() {
        // The third byte shows that this is a surrogate half, long before the message ends.
        let start = frame(TEXT, b"ok \xed\xa0");
        assert_eq!(outcome(&start).1, Some(ProtocolViolation::NotUtf8));
        let cut = [frame(TEXT, b"\xe2"), frame(FIN | CONTINUATION, b"\x82")].concat();
        assert_eq!(outcome(&cut).1, Some(ProtocolViolation::NotUtf8));
        // Binary is nobody's business.
        assert_eq!(outcome(&frame(BINARY, b"\xff\xff")).1, None);
    }

    #[test]
    fn judges_text_that_arrives_in_pieces_before_its_frame_ends() {
        let wire = frame(FIN | TEXT, b"abc\xf4\x90 and so on");
        let mut decoder = decoder();
        // Six bytes of header, then the payload up to the second byte of the impossible character.
        assert!(decoder.step(&wire[..9]).is_ok());
        assert_eq!(decoder.step(&wire[9..11]), Err(ProtocolViolation::NotUtf8));
    }

    #[test]
    fn knows_what_is_unfinished() {
        let mut decoder = decoder();
        assert!(!decoder.unfinished());
        for byte in frame(TEXT, b"abc") {
            decoder.step(&[byte]).expect("lawful");
            assert!(decoder.unfinished());
        }
        for byte in frame(FIN | PING, b"") {
            decoder.step(&[byte]).expect("lawful");
            assert!(decoder.unfinished(), "the message around the ping goes on");
        }
        decoder.step(&frame(FIN | CONTINUATION, b"")).expect("lawful");
        assert!(!decoder.unfinished());
    }
}
