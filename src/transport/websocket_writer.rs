//! The way out as an actor uses it: messages, pings and the Close frame.
//!
//! A message that an actor gives to its `WebsocketContext` instead leaves only after the poll, and so
//! behind everything that the writer has written in the same poll.

use std::cell::RefCell;

use actix::{Actor, ActorContext};
use actix_web_actors::ws::WebsocketContext;
use bytes::Bytes;
use bytestring::ByteString;

use super::{frame_decoder, socket_handle::SocketHandle};

/// The longest payload of a control frame, bytes (RFC 6455 §5.5).
const CONTROL_MAX: usize = 125;
/// The longest reason beside a close code, bytes.
const REASON_MAX: usize = CONTROL_MAX - 2;

/// Writes to the peer. After the first Close, by either side, nothing is written.
#[derive(Debug)]
pub struct WebSocketWriter {
    handle: SocketHandle,
}

impl WebSocketWriter {
    /// The writer of the connection that `handle` belongs to.
    pub fn new(handle: SocketHandle) -> Self {
        WebSocketWriter { handle }
    }

    /// Sends a text message; nothing once the connection is closed.
    pub fn text(&self, text: impl Into<ByteString>) {
        self.handle.send(frame_decoder::TEXT, text.into().into_bytes());
    }

    /// Sends a short text message that `write` puts into an empty string; nothing once the connection is closed.
    pub fn compose(&self, write: impl FnOnce(&mut String)) {
        thread_local! {
            static SCRATCH: RefCell<String> = const { RefCell::new(String::new()) };
        }
        if self.is_open() {
            SCRATCH.with_borrow_mut(|text| {
                text.clear();
                write(text);
                self.handle.output().small_frame(frame_decoder::TEXT, &[text.as_bytes()]);
            });
        }
    }

    /// Sends a binary message; nothing once the connection is closed.
    pub fn binary(&self, bytes: impl Into<Bytes>) {
        self.handle.send(frame_decoder::BINARY, bytes.into());
    }

    /// Sends a ping, whose pong repeats the payload of at most 125 bytes (RFC 6455 §5.5); nothing once the connection is
    /// closed.
    pub fn ping(&self, payload: &[u8]) {
        debug_assert!(payload.len() <= CONTROL_MAX, "ping too long");
        if self.is_open() {
            self.handle.output().small_frame(frame_decoder::PING, &[payload]);
        }
    }

    /// Closes with a code and a short reason, and stops the actor. Only the first close counts.
    ///
    /// The reason has at most 123 bytes (RFC 6455 §5.5); a longer one is cut at a character.
    pub fn close<A>(&self, code: u16, reason: &str, ctx: &mut WebsocketContext<A>)
    where
        A: Actor<Context = WebsocketContext<A>>,
    {
        debug_assert!(reason.len() <= REASON_MAX, "close reason too long");
        let mut end = reason.len().min(REASON_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        self.handle.send_close(Some(code), &reason[..end]);
        ctx.stop();
    }

    /// Whether neither side has closed yet.
    pub fn is_open(&self) -> bool {
        self.handle.0.sent_close.get().is_none()
    }

    /// The handle of the connection.
    pub fn handle(&self) -> &SocketHandle {
        &self.handle
    }
}
