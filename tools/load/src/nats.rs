//! The operations of NATS that the generator uses, in WebSocket frames.
//!
//! NATS treats the frames as a byte stream: one frame may hold several operations, and an operation may continue in the
//! next frame. A device is a connection that has subscribed to the subject that is its id. The published payload is the
//! relay's own `Send`, complete, so the number of bytes is about the same; its id contains the time, as always.

use crate::frame::BINARY;
use crate::messages::{Id, MessageTemplate, Text};

/// The answer to [`Operation::Ping`].
pub const PONG: &[u8] = b"PONG\r\n";
/// No line without payload is longer, INFO included.
const LONGEST: usize = 64 * 1024;

/// The first bytes of a device; NATS answers PONG after it has processed all of them.
pub fn connect(subject: &Id) -> Vec<u8> {
    let mut out =
        br#"CONNECT {"verbose":false,"pedantic":false,"echo":false,"lang":"rust","version":"0","protocol":1}"#
            .to_vec();
    out.extend_from_slice(b"\r\nSUB ");
    out.extend_from_slice(subject);
    out.extend_from_slice(b" 1\r\nPING\r\n");
    out
}

/// A `Send` as a publication on the recipient's subject, which [`MessageTemplate::address`] writes.
pub fn template(send: Text) -> MessageTemplate {
    let mut bytes = b"PUB ".to_vec();
    let recipient = bytes.len();
    bytes.extend_from_slice(&send.bytes[send.recipient..send.recipient + 36]);
    bytes.extend_from_slice(format!(" {}\r\n", send.bytes.len()).as_bytes());
    let id = bytes.len() + send.id;
    bytes.extend_from_slice(&send.bytes);
    bytes.extend_from_slice(b"\r\n");
    MessageTemplate::framed(BINARY, Text { bytes, id, recipient })
}

/// One operation from the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Somebody published this for us.
    Message(&'a [u8]),
    /// Needs a PONG.
    Ping,
    /// Everything before our PING is processed.
    Pong,
    /// An error: the line.
    Error(&'a [u8]),
    /// INFO and OK, which need no answer.
    Other,
}

/// Cuts the stream into operations, however it was cut on its way.
#[derive(Debug, Default)]
pub struct Parser {
    /// The beginning of a operation whose end has not come yet.
    carry: Vec<u8>,
}

impl Parser {
    /// Calls `handle` with each operation that these bytes complete.
    ///
    /// # Errors
    ///
    /// When the bytes are not NATS, or the error of `handle`.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        handle: impl FnMut(Operation<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        if self.carry.is_empty() {
            let used = cut(bytes, handle)?;
            self.carry.extend_from_slice(&bytes[used..]);
        } else {
            self.carry.extend_from_slice(bytes);
            let used = cut(&self.carry, handle)?;
            self.carry.drain(..used);
        }
        Ok(())
    }
}

/// Returns the number of bytes in complete operations.
fn cut(
    bytes: &[u8],
    mut handle: impl FnMut(Operation<'_>) -> Result<(), String>,
) -> Result<usize, String> {
    let mut used = 0;
    while let Some((operation, length)) = first(&bytes[used..])? {
        handle(operation)?;
        used += length;
    }
    Ok(used)
}

/// The first operation and its length; None if it is not whole.
fn first(bytes: &[u8]) -> Result<Option<(Operation<'_>, usize)>, String> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        let is_line = bytes.len() <= LONGEST;
        return if is_line { Ok(None) } else { Err("a line without an end".to_owned()) };
    };
    let (line, start) = (&bytes[..end], end + 1);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let operation = match line {
        b"PING" => Operation::Ping,
        b"PONG" => Operation::Pong,
        b"+OK" => Operation::Other,
        _ if line.starts_with(b"INFO ") => Operation::Other,
        _ if line.starts_with(b"-ERR") => Operation::Error(line),
        _ if line.starts_with(b"MSG ") => {
            let length = length(line).ok_or_else(|| unknown(line))?;
            let Some(end) = start.checked_add(length) else { return Err(unknown(line)) };
            return match bytes.get(start..end) {
                Some(payload) if bytes.len() >= end + 2 => {
                    Ok(Some((Operation::Message(payload), end + 2)))
                }
                _ => Ok(None),
            };
        }
        _ => return Err(unknown(line)),
    };
    Ok(Some((operation, start)))
}

/// The last field of MSG, the length of what follows.
fn length(line: &[u8]) -> Option<usize> {
    let last = line.rsplit(|byte| *byte == b' ').next()?;
    std::str::from_utf8(last).ok()?.parse().ok()
}

fn unknown(line: &[u8]) -> String {
    format!("received {}", String::from_utf8_lossy(line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages;

    const ALICE: &Id = b"d8f8a9b0-f6e1-4a2b-8d7c-1e9f0a1b2c3d";
    const BOB: &Id = b"a1b2c3d4-e5f6-7890-1234-567890abcdef";

    /// A stream from NATS, and the operations in it.
    const STREAM: &[u8] = b"INFO {\"port\":4222}\r\nPONG\r\nMSG bob 1 5\r\nhello\r\nPING\r\n\
        MSG bob 1 answers.to 9\r\n\r\nMSG \r\n!\r\nMSG bob 1 0\r\n\r\n+OK\r\n";
    const OPERATIONS: [&str; 7] = ["Other", "Pong", "hello", "Ping", "\r\nMSG \r\n!", "", "Other"];

    fn describe(operation: Operation<'_>) -> String {
        match operation {
            Operation::Message(payload) => String::from_utf8(payload.to_vec()).unwrap(),
            operation => format!("{operation:?}"),
        }
    }

    #[test]
    fn operations_may_be_cut_anywhere() {
        for size in 1..=STREAM.len() {
            let mut parser = Parser::default();
            let mut operations = Vec::new();
            for piece in STREAM.chunks(size) {
                let handle = |operation: Operation<'_>| {
                    operations.push(describe(operation));
                    Ok(())
                };
                parser.feed(piece, handle).unwrap();
            }
            assert_eq!(operations, OPERATIONS, "in pieces of {size}");
            assert!(parser.carry.is_empty());
        }
    }

    #[test]
    fn what_is_not_nats_is_an_error() {
        let feed = |bytes: &[u8]| Parser::default().feed(bytes, |_| Ok(()));
        for bytes in [b"HELLO\r\n".as_slice(), b"MSG bob 1 x\r\n", b"MSG bob 1 -1\r\n", b"\r\n"] {
            assert!(feed(bytes).is_err(), "{bytes:?}");
        }
        assert!(feed(format!("MSG bob 1 {}\r\n", usize::MAX).as_bytes()).is_err());
        assert!(feed(&[b'x'; LONGEST + 1]).is_err());
    }

    #[test]
    fn a_refusal_carries_its_line() {
        let result = Parser::default().feed(b"-ERR 'Authorization Violation'\r\n", |operation| {
            assert_eq!(operation, Operation::Error(b"-ERR 'Authorization Violation'"));
            Err("as the handler says".to_owned())
        });
        assert_eq!(result, Err("as the handler says".to_owned()));
    }

    #[test]
    fn a_template_publishes_the_whole_send_and_is_recognised_by_its_recipient() {
        let send = Text::new(7, ALICE, &messages::data(256), 300);
        let size = send.bytes.len();
        let mut template = template(send);
        template.address(BOB);
        let mut out = Vec::new();
        template.send(&mut out, 0xabc_def0_1234);
        let (head, said) = out.split_at(8);
        assert_eq!(head[..2], [BINARY, 0xfe]);
        let (line, rest) = said.split_at(said.iter().position(|byte| *byte == b'\n').unwrap() + 1);
        let expected = format!("PUB {} {size}\r\n", str::from_utf8(BOB).unwrap());
        assert_eq!(str::from_utf8(line).unwrap(), expected);
        let payload = rest.strip_suffix(b"\r\n").unwrap();
        assert_eq!(payload.len(), size);
        assert_eq!(messages::sent_at(messages::send_id(payload).unwrap()), 0xabc_def0_1234);
    }

    #[test]
    fn a_device_subscribes_to_its_id_and_asks_whether_that_is_done() {
        let connect = String::from_utf8(connect(BOB)).unwrap();
        let lines: Vec<&str> = connect.split_terminator("\r\n").collect();
        let [connect, subscribe, ping] = lines[..] else { panic!("{connect}") };
        let options = connect.strip_prefix("CONNECT ").unwrap();
        let options: serde_json::Value = serde_json::from_str(options).unwrap();
        assert_eq!(options["verbose"], false);
        assert_eq!(subscribe, format!("SUB {} 1", str::from_utf8(BOB).unwrap()));
        assert_eq!(ping, "PING");
    }
}
