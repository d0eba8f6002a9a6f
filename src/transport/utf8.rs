//! UTF-8, checked as the bytes arrive.
//!
//! RFC 6455 §8.1 lets an endpoint fail the connection as soon as text stops being UTF-8. Waiting
//! for the end of a long message would let a peer make us keep bytes that are already worthless.

use std::str;

/// Checks text that arrives in pieces; holds the bytes of a character that is not complete.
#[derive(Debug, Default)]
pub(super) struct Utf8Validator {
    carry: [u8; 4],
    carried: usize,
}

/// The bytes cannot be the beginning of any UTF-8 text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotUtf8;

impl Utf8Validator {
    /// Checks the next bytes of the text.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), NotUtf8> {
        while self.carried > 0 {
            let Some((first, rest)) = bytes.split_first() else {
                return Ok(());
            };
            self.carry[self.carried] = *first;
            self.carried += 1;
            bytes = rest;
            match str::from_utf8(&self.carry[..self.carried]) {
                Ok(_) => self.carried = 0,
                Err(error) if error.error_len().is_some() => return Err(NotUtf8),
                // A character has at most four bytes, and four bytes are never "unfinished".
                Err(_) => {}
            }
        }
        match str::from_utf8(bytes) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_some() => Err(NotUtf8),
            Err(error) => {
                let tail = &bytes[error.valid_up_to()..];
                self.carry[..tail.len()].copy_from_slice(tail);
                self.carried = tail.len();
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether `bytes` are accepted in pieces of `size`.
    fn in_pieces(bytes: &[u8], size: usize) -> bool {
        let mut utf8 = Utf8Validator::default();
        bytes.chunks(size).all(|piece| utf8.feed(piece).is_ok()) && utf8.carried == 0
    }

    #[test]
    fn agrees_with_the_standard_library_however_the_bytes_are_cut() {
        let texts: [&[u8]; 13] = [
            b"",
            b"plain",
            "κόσμε".as_bytes(),
            "a\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}z".as_bytes(),
            b"\xed\xa0\x80",
            b"\xf4\x90\x80\x80",
            b"\xc0\xaf",
            b"\xf8\x88\x80\x80\x80",
            b"\x80",
            b"ok\xff",
            b"half \xe2\x82",
            b"\xf0\x9f\x92",
            b"\xe2\x28\xa1",
        ];
        for text in texts {
            for size in 1..=text.len().max(1) {
                assert_eq!(
                    in_pieces(text, size),
                    str::from_utf8(text).is_ok(),
                    "{text:x?} in pieces of {size}"
                );
            }
        }
    }

    #[test]
    fn refuses_at_the_first_byte_that_cannot_be() {
        let mut utf8 = Utf8Validator::default();
        assert_eq!(utf8.feed(b"\xf4"), Ok(()));
        assert_eq!(utf8.feed(b"\x90"), Err(NotUtf8));
    }
}
