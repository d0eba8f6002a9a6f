//! What an actor uses to speak and to understand its peer.
//!
//! Upstream hands over fragments, leaves pings and closes unanswered, and lets an actor write after
//! its Close. Here fragments become messages, RFC 6455 §5.5 is obeyed, every breach ends the actor
//! with the right code, and what is said after the end goes nowhere.

use std::cell::RefCell;

use actix::{Actor, ActorContext};
use actix_http::ws::{CloseCode, CloseReason, Item, Message, ProtocolError};
use actix_web_actors::ws::WebsocketContext;
use bytes::Bytes;
use bytestring::ByteString;

use super::{
    frame_decoder::{self, ProtocolViolation},
    socket_handle::SocketHandle,
};

/// The longest reason beside a close code, bytes (RFC 6455 §5.5: 125 with the code).
const REASON_MAX: usize = 123;
/// Stands for a Close frame without a code (RFC 6455 §7.1.5).
const NO_CODE: u16 = 1005;

/// What the peer said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A whole text message, its fragments joined.
    Text(ByteString),
    /// A whole binary message, its fragments joined.
    Binary(Bytes),
    /// A ping. It has been answered.
    Ping,
    /// A pong, asked for or not.
    Pong,
}

/// The message whose fragments are being joined.
#[derive(Debug)]
struct Parts {
    text: bool,
    bytes: Vec<u8>,
}

/// One actor's end of the WebSocket.
#[derive(Debug)]
pub struct WebSocketWriter {
    handle: SocketHandle,
    parts: Option<Parts>,
    open: bool,
}

impl WebSocketWriter {
    /// The wire of the connection that `line` belongs to.
    pub fn new(handle: SocketHandle) -> Self {
        WebSocketWriter { handle, parts: None, open: true }
    }

    /// Interprets one item of the actor's message stream. Pings and closes are answered, fragments
    /// joined; a breach is answered with its close code and stops the actor, and so does the peer's
    /// Close. Every item must come through here.
    ///
    /// `None` when there is nothing for the actor to do.
    pub fn receive<A>(
        &mut self,
        item: Result<Message, ProtocolError>,
        ctx: &mut WebsocketContext<A>,
    ) -> Option<Incoming>
    where
        A: Actor<Context = WebsocketContext<A>>,
    {
        if !self.open {
            return None;
        }
        match item {
            Ok(Message::Text(_)) => match ByteString::try_from(self.payload()) {
                Ok(text) => Some(Incoming::Text(text)),
                Err(_) => self.fail(ProtocolViolation::NotUtf8, ctx),
            },
            Ok(Message::Binary(_)) => Some(Incoming::Binary(self.payload())),
            Ok(Message::Continuation(item)) => match self.join(item) {
                Ok(heard) => heard,
                Err(violation) => self.fail(violation, ctx),
            },
            Ok(Message::Ping(payload)) => {
                self.send(frame_decoder::PONG, payload);
                Some(Incoming::Ping)
            }
            Ok(Message::Pong(_)) => Some(Incoming::Pong),
            Ok(Message::Close(reason)) => {
                let code = reason.map(|reason| reason.code);
                let number = code.map_or(NO_CODE, u16::from);
                self.handle.0.received_close.set(Some(number));
                self.end(code.map(CloseReason::from), ctx);
                None
            }
            Ok(Message::Nop) => None,
            Err(error) => {
                let violation = self.handle.0.violation.get().unwrap_or(match error {
                    ProtocolError::Overflow => ProtocolViolation::TooBig,
                    _ => ProtocolViolation::Protocol,
                });
                self.fail(violation, ctx)
            }
        }
    }

    /// Sends a text message; nothing once the wire is closed.
    pub fn text(&self, text: impl Into<ByteString>) {
        self.send(frame_decoder::TEXT, text.into().into_bytes());
    }

    /// Sends a short text message that `write` puts into an empty string; nothing once the wire is closed.
    pub fn compose(&self, write: impl FnOnce(&mut String)) {
        thread_local! {
            static SCRATCH: RefCell<String> = const { RefCell::new(String::new()) };
        }
        if self.open {
            SCRATCH.with_borrow_mut(|text| {
                text.clear();
                write(text);
                self.handle.output().small_frame(frame_decoder::TEXT, &[text.as_bytes()]);
            });
        }
    }

    /// Sends a binary message; nothing once the wire is closed.
    pub fn binary(&self, bytes: impl Into<Bytes>) {
        self.send(frame_decoder::BINARY, bytes.into());
    }

    /// Sends an empty ping; nothing once the wire is closed.
    pub fn ping(&self) {
        self.send(frame_decoder::PING, Bytes::new());
    }

    fn send(&self, opcode: u8, payload: Bytes) {
        if self.open {
            self.handle.output().frame(opcode, payload);
        }
    }

    /// Closes with a code and a short reason, and stops the actor. Only the first close counts.
    ///
    /// The reason has at most 123 bytes (RFC 6455 §5.5); a longer one is cut at a character.
    pub fn close<A>(&mut self, code: u16, reason: &str, ctx: &mut WebsocketContext<A>)
    where
        A: Actor<Context = WebsocketContext<A>>,
    {
        debug_assert!(reason.len() <= REASON_MAX, "close reason too long");
        let mut end = reason.len().min(REASON_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let description = (end > 0).then(|| reason[..end].to_owned());
        let code = CloseCode::from(code);
        self.end(Some(CloseReason { code, description }), ctx);
    }

    /// Whether neither side has closed yet.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// The line that this wire belongs to.
    pub fn handle(&self) -> &SocketHandle {
        &self.handle
    }

    /// A data frame's payload comes beside the codec, which saw an empty frame in its place.
    fn payload(&self) -> Bytes {
        self.handle.0.aside.take().unwrap_or_default()
    }

    fn join(&mut self, item: Item) -> Result<Option<Incoming>, ProtocolViolation> {
        let (bytes, last) = match item {
            Item::FirstText(_) | Item::FirstBinary(_) if self.parts.is_some() => {
                return Err(ProtocolViolation::Protocol);
            }
            Item::FirstText(_) => {
                self.parts = Some(Parts { text: true, bytes: self.payload().into() });
                return Ok(None);
            }
            Item::FirstBinary(_) => {
                self.parts = Some(Parts { text: false, bytes: self.payload().into() });
                return Ok(None);
            }
            Item::Continue(_) => (self.payload(), false),
            Item::Last(_) => (self.payload(), true),
        };
        // The guard has bounded the sum of the fragments before the first byte of each arrived.
        let parts = self.parts.as_mut().ok_or(ProtocolViolation::Protocol)?;
        parts.bytes.extend_from_slice(&bytes);
        if !last {
            return Ok(None);
        }
        let Some(Parts { text, bytes }) = self.parts.take() else {
            return Ok(None);
        };
        // From a boxed slice, so that a message that is kept does not keep spare capacity.
        let bytes = Bytes::from(bytes.into_boxed_slice());
        if !text {
            return Ok(Some(Incoming::Binary(bytes)));
        }
        match ByteString::try_from(bytes) {
            Ok(text) => Ok(Some(Incoming::Text(text))),
            Err(_) => Err(ProtocolViolation::NotUtf8),
        }
    }

    fn fail<A>(
        &mut self,
        violation: ProtocolViolation,
        ctx: &mut WebsocketContext<A>,
    ) -> Option<Incoming>
    where
        A: Actor<Context = WebsocketContext<A>>,
    {
        self.close(violation.code(), violation.reason(), ctx);
        None
    }

    fn end<A>(&mut self, reason: Option<CloseReason>, ctx: &mut WebsocketContext<A>)
    where
        A: Actor<Context = WebsocketContext<A>>,
    {
        if !std::mem::take(&mut self.open) {
            return;
        }
        self.parts = None;
        let code = reason.as_ref().map_or(NO_CODE, |reason| reason.code.into());
        self.handle.0.sent_close.set(Some(code));
        // RFC 6455 §5.5.1: a code and a reason, or neither.
        let bytes = code.to_be_bytes();
        let said = reason.as_ref().and_then(|reason| reason.description.as_deref());
        let code = reason.as_ref().map_or(&[][..], |_| &bytes);
        self.handle
            .output()
            .small_frame(frame_decoder::CLOSE, &[code, said.unwrap_or_default().as_bytes()]);
        ctx.stop();
    }
}
