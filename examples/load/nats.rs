//! The few words of NATS that the generator speaks, in WebSocket frames.
//!
//! NATS takes the frames for a stream: one may hold several words, and a word may go on in the next. A device is whoever
//! has subscribed to the subject that is its id. What is published is the relay's own `Send`, whole, so about as many
//! bytes travel; its id says when it was sent, as ever.

use crate::frame::BINARY;
use crate::words::{Id, Letter, Text};

/// The answer to [`Word::Ping`].
pub const ANSWER: &[u8] = b"PONG\r\n";
/// No line without payload is longer, INFO included.
const LONGEST: usize = 64 * 1024;

/// What a device says first; PONG comes back when NATS has understood all of it.
pub fn hello(subject: &Id) -> Vec<u8> {
    let mut out =
        br#"CONNECT {"verbose":false,"pedantic":false,"echo":false,"lang":"rust","version":"0","protocol":1}"#
            .to_vec();
    out.extend_from_slice(b"\r\nSUB ");
    out.extend_from_slice(subject);
    out.extend_from_slice(b" 1\r\nPING\r\n");
    out
}

/// A `Send` as a publication on the recipient's subject, which [`Letter::address`] writes.
pub fn letter(send: Text) -> Letter {
    let mut bytes = b"PUB ".to_vec();
    let recipient = bytes.len();
    bytes.extend_from_slice(&send.bytes[send.recipient..send.recipient + 36]);
    bytes.extend_from_slice(format!(" {}\r\n", send.bytes.len()).as_bytes());
    let id = bytes.len() + send.id;
    bytes.extend_from_slice(&send.bytes);
    bytes.extend_from_slice(b"\r\n");
    Letter::framed(BINARY, Text { bytes, id, recipient })
}

/// What NATS says.
#[derive(Debug, PartialEq, Eq)]
pub enum Word<'a> {
    /// Somebody published this for us.
    Message(&'a [u8]),
    /// It wants to know whether we are there.
    Ping,
    /// All that was said before our PING is done.
    Pong,
    /// It refuses something: the line.
    Error(&'a [u8]),
    /// INFO and OK, which need no answer.
    Other,
}

/// Cuts the stream into words, however it was cut on its way.
#[derive(Debug, Default)]
pub struct Parser {
    /// The beginning of a word whose end has not come yet.
    carry: Vec<u8>,
}

impl Parser {
    /// Says each word that is whole with these bytes.
    ///
    /// # Errors
    ///
    /// When it is not NATS that speaks, or with what `say` says.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        say: impl FnMut(Word<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        if self.carry.is_empty() {
            let used = cut(bytes, say)?;
            self.carry.extend_from_slice(&bytes[used..]);
        } else {
            self.carry.extend_from_slice(bytes);
            let used = cut(&self.carry, say)?;
            self.carry.drain(..used);
        }
        Ok(())
    }
}

/// Answers how many bytes were whole words.
fn cut(bytes: &[u8], mut say: impl FnMut(Word<'_>) -> Result<(), String>) -> Result<usize, String> {
    let mut used = 0;
    while let Some((word, length)) = first(&bytes[used..])? {
        say(word)?;
        used += length;
    }
    Ok(used)
}

/// The first word and its length; None if it is not whole.
fn first(bytes: &[u8]) -> Result<Option<(Word<'_>, usize)>, String> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        let is_line = bytes.len() <= LONGEST;
        return if is_line { Ok(None) } else { Err("a line without an end".to_owned()) };
    };
    let (line, start) = (&bytes[..end], end + 1);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let word = match line {
        b"PING" => Word::Ping,
        b"PONG" => Word::Pong,
        b"+OK" => Word::Other,
        _ if line.starts_with(b"INFO ") => Word::Other,
        _ if line.starts_with(b"-ERR") => Word::Error(line),
        _ if line.starts_with(b"MSG ") => {
            let length = length(line).ok_or_else(|| unknown(line))?;
            let Some(end) = start.checked_add(length) else { return Err(unknown(line)) };
            return match bytes.get(start..end) {
                Some(payload) if bytes.len() >= end + 2 => {
                    Ok(Some((Word::Message(payload), end + 2)))
                }
                _ => Ok(None),
            };
        }
        _ => return Err(unknown(line)),
    };
    Ok(Some((word, start)))
}

/// The last field of MSG, the length of what follows.
fn length(line: &[u8]) -> Option<usize> {
    let last = line.rsplit(|byte| *byte == b' ').next()?;
    std::str::from_utf8(last).ok()?.parse().ok()
}

fn unknown(line: &[u8]) -> String {
    format!("heard {}", String::from_utf8_lossy(line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words;

    const ALICE: &Id = b"d8f8a9b0-f6e1-4a2b-8d7c-1e9f0a1b2c3d";
    const BOB: &Id = b"a1b2c3d4-e5f6-7890-1234-567890abcdef";

    /// What NATS says, and what there is to hear.
    const STREAM: &[u8] = b"INFO {\"port\":4222}\r\nPONG\r\nMSG bob 1 5\r\nhello\r\nPING\r\n\
        MSG bob 1 answers.to 9\r\n\r\nMSG \r\n!\r\nMSG bob 1 0\r\n\r\n+OK\r\n";
    const WORDS: [&str; 7] = ["Other", "Pong", "hello", "Ping", "\r\nMSG \r\n!", "", "Other"];

    fn told(word: Word<'_>) -> String {
        match word {
            Word::Message(payload) => String::from_utf8(payload.to_vec()).unwrap(),
            word => format!("{word:?}"),
        }
    }

    #[test]
    fn words_may_be_cut_anywhere() {
        for size in 1..=STREAM.len() {
            let mut parser = Parser::default();
            let mut words = Vec::new();
            for piece in STREAM.chunks(size) {
                let say = |word: Word<'_>| {
                    words.push(told(word));
                    Ok(())
                };
                parser.feed(piece, say).unwrap();
            }
            assert_eq!(words, WORDS, "in pieces of {size}");
            assert!(parser.carry.is_empty());
        }
    }

    #[test]
    fn what_is_no_word_of_nats_is_an_error() {
        let feed = |bytes: &[u8]| Parser::default().feed(bytes, |_| Ok(()));
        for bytes in [b"HELLO\r\n".as_slice(), b"MSG bob 1 x\r\n", b"MSG bob 1 -1\r\n", b"\r\n"] {
            assert!(feed(bytes).is_err(), "{bytes:?}");
        }
        assert!(feed(format!("MSG bob 1 {}\r\n", usize::MAX).as_bytes()).is_err());
        assert!(feed(&[b'x'; LONGEST + 1]).is_err());
    }

    #[test]
    fn a_refusal_is_told_in_its_words() {
        let heard = Parser::default().feed(b"-ERR 'Authorization Violation'\r\n", |word| {
            assert_eq!(word, Word::Error(b"-ERR 'Authorization Violation'"));
            Err("as say says".to_owned())
        });
        assert_eq!(heard, Err("as say says".to_owned()));
    }

    #[test]
    fn a_letter_publishes_the_whole_send_and_is_recognised_by_its_recipient() {
        let send = Text::new(7, ALICE, &words::data(256), 300);
        let size = send.bytes.len();
        let mut letter = letter(send);
        letter.address(BOB);
        let mut out = Vec::new();
        letter.send(&mut out, 0xabc_def0_1234);
        let (head, said) = out.split_at(8);
        assert_eq!(head[..2], [BINARY, 0xfe]);
        let (line, rest) = said.split_at(said.iter().position(|byte| *byte == b'\n').unwrap() + 1);
        let expected = format!("PUB {} {size}\r\n", str::from_utf8(BOB).unwrap());
        assert_eq!(str::from_utf8(line).unwrap(), expected);
        let payload = rest.strip_suffix(b"\r\n").unwrap();
        assert_eq!(payload.len(), size);
        assert_eq!(words::sent_at(words::sent(payload).unwrap()), 0xabc_def0_1234);
    }

    #[test]
    fn a_device_subscribes_to_its_id_and_asks_whether_that_is_done() {
        let hello = String::from_utf8(hello(BOB)).unwrap();
        let lines: Vec<&str> = hello.split_terminator("\r\n").collect();
        let [connect, subscribe, ping] = lines[..] else { panic!("{hello}") };
        let options = connect.strip_prefix("CONNECT ").unwrap();
        let options: serde_json::Value = serde_json::from_str(options).unwrap();
        assert_eq!(options["verbose"], false);
        assert_eq!(subscribe, format!("SUB {} 1", str::from_utf8(BOB).unwrap()));
        assert_eq!(ping, "PING");
    }
}
