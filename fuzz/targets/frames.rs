//! The bytes of one peer: the decoder of frames finds the same in them however they are cut, and keeps to its limits.
//!
//! The decoder is private to the transport. It is included here as a source file, so that it need not become public.

#![allow(dead_code, reason = "the included modules have more than is used here")]

use sealpost::transport::Limits;

#[path = "../../src/transport/frame_decoder.rs"]
mod frame_decoder;
#[path = "../../src/transport/utf8.rs"]
mod utf8;

use frame_decoder::{Decoded, FrameDecoder, ProtocolViolation};

const MESSAGE_BYTES: usize = 1000;
const FRAGMENTS: u32 = 4;

/// The first byte says how the rest is cut. Returns the number of frames, and whether there was no violation.
pub fn run(data: &[u8]) -> (usize, bool) {
    let Some((cut, bytes)) = data.split_first() else { return (0, true) };
    let whole = decode([bytes]);
    assert_eq!(decode(bytes.chunks(1)), whole, "byte by byte");
    assert_eq!(decode(bytes.chunks(usize::from(*cut).max(1))), whole, "in pieces of {cut}");
    (whole.0.len(), whole.1.is_none())
}

fn decode<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Decoded>, Option<ProtocolViolation>) {
    let limits = Limits { message_bytes: MESSAGE_BYTES, fragments: FRAGMENTS, ..Limits::default() };
    let (mut decoder, mut frames, mut fragments) = (FrameDecoder::new(&limits), Vec::new(), 0);
    for mut piece in pieces {
        while !piece.is_empty() {
            let left = piece.len();
            match decoder.decode(&mut piece) {
                Ok(Some(frame)) => {
                    match &frame {
                        Decoded::Fragment => fragments += 1,
                        Decoded::Text(text) => assert!(text.len() <= MESSAGE_BYTES),
                        Decoded::Binary(bytes) => assert!(bytes.len() <= MESSAGE_BYTES),
                        Decoded::Ping(bytes) | Decoded::Pong(bytes) | Decoded::Close(bytes) => {
                            assert!(bytes.len() <= 125);
                        }
                    }
                    if matches!(frame, Decoded::Text(_) | Decoded::Binary(_)) {
                        fragments = 0;
                    }
                    assert!(fragments <= FRAGMENTS, "too many fragments");
                    frames.push(frame);
                }
                Ok(None) => assert!(piece.is_empty(), "the decoder waits for more"),
                Err(violation) => return (frames, Some(violation)),
            }
            assert!(piece.len() < left, "the decoder makes no progress");
        }
    }
    (frames, None)
}
