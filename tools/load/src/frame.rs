//! WebSocket frames (RFC 6455, section 5), no more than a load generator needs.
//!
//! What goes out is masked with the zero key, which the RFC permits and which leaves the payload as it is. What comes
//! in is cut into frames where it lies; only a frame that two reads share is copied.

use std::fmt;

/// The final frame of a text message.
pub const TEXT: u8 = 0x81;
/// The final frame of a binary message.
pub const BINARY: u8 = 0x82;
/// The closing frame.
pub const CLOSE: u8 = 0x88;
/// A ping, which wants a pong.
pub const PING: u8 = 0x89;
/// Its answer.
pub const PONG: u8 = 0x8a;

/// Whether a frame that begins so has a part of what the application says, rather than something about the connection.
pub fn is_data(first: u8) -> bool {
    first & 0xf < 8
}

/// Appends a client's frame with the zero key.
pub fn write(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    const MASKED: u8 = 0x80;
    out.push(first);
    match payload.len() {
        short @ 0..=125 => out.push(MASKED | short as u8),
        medium @ 126..=0xffff => {
            out.push(MASKED | 126);
            out.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            out.push(MASKED | 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

/// One frame of the server.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// FIN, the reserved bits and the opcode.
    pub first: u8,
    /// What it carries.
    pub payload: &'a [u8],
}

/// The server masked a frame, which it must not.
#[derive(Debug, PartialEq, Eq)]
pub struct Masked;

impl fmt::Display for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server masks its frames")
    }
}

impl std::error::Error for Masked {}

/// Where the frame that begins a run of bytes has its payload, and where it ends.
struct Shape {
    payload: usize,
    end: usize,
}

impl Shape {
    /// None: the head is not all there yet.
    fn of(bytes: &[u8]) -> Result<Option<Self>, Masked> {
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        if second & 0x80 != 0 {
            return Err(Masked);
        }
        let (payload, length) = match second {
            126 => match bytes.get(2..4) {
                Some(long) => (4, long.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))),
                None => return Ok(None),
            },
            127 => match bytes.get(2..10) {
                Some(long) => (10, long.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))),
                None => return Ok(None),
            },
            short => (2, usize::from(short)),
        };
        Ok(Some(Self { payload, end: payload.saturating_add(length) }))
    }

    fn cut(self, bytes: &[u8]) -> Frame<'_> {
        Frame { first: bytes[0], payload: &bytes[self.payload..self.end] }
    }
}

/// Cuts what the server sends into frames, however it was cut on its way.
#[derive(Debug, Default)]
pub struct Parser {
    /// The beginning of a frame whose end has not come yet…
    carry: Vec<u8>,
    /// …unless it has, and has been handed out.
    is_spent: bool,
}

impl Parser {
    /// The next whole frame; `input` moves past what is used. None: everything is used, more must be read.
    ///
    /// # Errors
    ///
    /// When the server masks.
    pub fn next<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Frame<'a>>, Masked> {
        if self.is_spent {
            self.is_spent = false;
            self.carry.clear();
        }
        if self.carry.is_empty() {
            return match Shape::of(input)? {
                Some(shape) if shape.end <= input.len() => {
                    let (frame, rest) = input.split_at(shape.end);
                    *input = rest;
                    Ok(Some(shape.cut(frame)))
                }
                _ => {
                    self.take(input, input.len());
                    Ok(None)
                }
            };
        }
        loop {
            match Shape::of(&self.carry)? {
                Some(shape) if shape.end <= self.carry.len() => {
                    self.is_spent = true;
                    return Ok(Some(shape.cut(&self.carry)));
                }
                _ if input.is_empty() => return Ok(None),
                Some(shape) => self.take(input, shape.end - self.carry.len()),
                // The head, byte by byte: at most ten.
                None => self.take(input, 1),
            }
        }
    }

    /// Appends at most `most` bytes to the carry.
    fn take(&mut self, input: &mut &[u8], most: usize) {
        let (taken, rest) = input.split_at(most.min(input.len()));
        self.carry.extend_from_slice(taken);
        *input = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server's frame: as a client's, without mask.
    fn server(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        write(&mut frame, first, payload);
        frame[1] &= 0x7f;
        let key = frame.len() - payload.len() - 4;
        frame.drain(key..key + 4);
        frame
    }

    fn read(parser: &mut Parser, mut input: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut frames = Vec::new();
        while let Some(frame) = parser.next(&mut input).unwrap() {
            frames.push((frame.first, frame.payload.to_vec()));
        }
        assert!(input.is_empty());
        frames
    }

    /// One of each length encoding, empty ones between them.
    fn stream() -> (Vec<u8>, Vec<(u8, Vec<u8>)>) {
        let frames: Vec<_> = [0, 1, 125, 126, 0, 560, 65_535, 65_536, 2]
            .into_iter()
            .map(|length| (TEXT, vec![b'x'; length]))
            .chain([(PING, vec![]), (CLOSE, vec![3, 232])])
            .collect();
        let bytes = frames.iter().flat_map(|(first, payload)| server(*first, payload)).collect();
        (bytes, frames)
    }

    #[test]
    fn frames_that_come_together_are_told_apart() {
        let (bytes, frames) = stream();
        assert_eq!(read(&mut Parser::default(), &bytes), frames);
    }

    #[test]
    fn frames_may_be_cut_anywhere() {
        let (bytes, frames) = stream();
        for size in [1, 2, 3, 7, 129, 563, 4096, 65_536] {
            let mut parser = Parser::default();
            let read: Vec<_> =
                bytes.chunks(size).flat_map(|chunk| read(&mut parser, chunk)).collect();
            assert_eq!(read, frames, "in pieces of {size}");
        }
    }

    #[test]
    fn nothing_is_copied_that_came_whole() {
        let bytes = server(TEXT, b"whole");
        let mut parser = Parser::default();
        assert_eq!(read(&mut parser, &bytes).len(), 1);
        assert_eq!(parser.carry.capacity(), 0);
    }

    #[test]
    fn a_masked_frame_is_refused() {
        let mut bytes = Vec::new();
        write(&mut bytes, TEXT, b"masked");
        assert_eq!(Parser::default().next(&mut &bytes[..]), Err(Masked));
    }

    #[test]
    fn a_length_beyond_all_reason_waits_for_its_bytes() {
        let bytes = [TEXT, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(read(&mut Parser::default(), &bytes), []);
    }

    #[test]
    fn what_goes_out_carries_the_zero_key_and_the_payload_as_it_is() {
        let mut out = Vec::new();
        write(&mut out, TEXT, b"hi");
        assert_eq!(out, [0x81, 0x82, 0, 0, 0, 0, b'h', b'i']);
        let mut out = Vec::new();
        write(&mut out, TEXT, &[b'x'; 300]);
        assert_eq!(out[..8], [0x81, 0xfe, 1, 44, 0, 0, 0, 0]);
        assert_eq!(out.len(), 308);
    }
}
