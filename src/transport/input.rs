//! The way in: socket → frame decoder → the actor's stream of events.
//!
//! The stream hands over one message at a time, and before each checks whether the actor has paused it.
//! So a pause is exact to the frame, no message piles up in the actor, and a violation is noticed only
//! after the lawful frames before it were handled. The stream answers pings and the peer's Close, and
//! its end stops the actor.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes};
use bytestring::ByteString;
use futures_core::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{
    frame_decoder::{self, Decoded, FrameDecoder, ProtocolViolation},
    socket_handle::{NO_CODE, SocketHandle},
};

/// The most that is read from a socket at once.
const READ_BYTES: usize = 64 * 1024;

/// Input that one connection may read before the others are polled, bytes.
pub(super) const BUDGET: usize = READ_BYTES;

/// Messages between two [`Event::ReadComplete`] at most, so that a flood cannot delay what the actor
/// collects. One read of a peer under load should fit: later messages go into another batch.
const BURST: u32 = 64;

thread_local! {
    // One buffer for all connections of a thread: an idle connection holds none.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// A message from the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A whole text message, its fragments joined.
    Text(ByteString),
    /// A whole binary message, its fragments joined.
    Binary(Bytes),
    /// A ping. It has been answered.
    Ping,
    /// A pong, asked for or not, and its payload.
    Pong(Bytes),
}

/// An item of the stream that the actor of a connection handles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer sent a message.
    Incoming(Incoming),
    /// All input that can be read now has been handled, or a bounded part of it: a good moment to
    /// pass on the work that it made.
    ReadComplete,
    /// Another `Limits::heartbeat_interval` has passed.
    HeartbeatDue {
        /// No frame arrived since the last one: a good moment for a ping.
        quiet: bool,
    },
    /// No frame arrived for `Limits::idle_timeout`. Comes once per silence; closing is the actor's
    /// decision.
    IdleTimeout,
}

/// The socket, and the bytes that were read from it and not yet decoded.
pub(super) struct Socket<Io> {
    pub(super) io: Io,
    decoder: FrameDecoder,
    held: Bytes,
}

/// The frame that ended, if one did.
type Found = Result<Option<Decoded>, ProtocolViolation>;

impl<Io: AsyncRead + AsyncWrite + Unpin> Socket<Io> {
    pub(super) fn new(io: Io, read_ahead: &[u8], handle: &SocketHandle) -> Self {
        Socket {
            io,
            decoder: FrameDecoder::new(handle.limits()),
            // Copied, so that the HTTP parser's buffer is not kept alive by a few bytes of it.
            held: Bytes::copy_from_slice(read_ahead),
        }
    }

    /// Payload bytes of the unfinished message that have been decoded.
    pub(super) fn received(&self) -> usize {
        self.decoder.received()
    }

    /// Reads once and decodes the first frame; the bytes after it are held. Also returns the number of
    /// bytes read; 0 is the end of the stream.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(usize, Found)>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) => {
                    let mut rest = buffer.filled();
                    let found = self.decoder.decode(&mut rest);
                    if !rest.is_empty() {
                        self.held = Bytes::copy_from_slice(rest);
                    }
                    Poll::Ready(Ok((buffer.filled().len(), found)))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            }
        })
    }

    /// Decodes the next frame of the held bytes.
    fn decode_held(&mut self) -> Found {
        let mut rest = &self.held[..];
        let found = self.decoder.decode(&mut rest);
        match rest.len() {
            0 => self.held = Bytes::new(),
            left => self.held.advance(self.held.len() - left),
        }
        found
    }

    /// Reads and drops input until the peer's Close frame or the end of the stream. At most `left` bytes.
    ///
    /// A socket that is closed with unread input answers with a reset, and a reset may reach the
    /// peer before our Close frame does. So the rest is read, within bounds.
    pub(super) fn discard(
        &mut self,
        handle: &SocketHandle,
        left: &mut usize,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let mut budget = BUDGET;
        loop {
            let found = if self.held.is_empty() {
                if *left == 0 {
                    return Poll::Ready(());
                }
                if budget == 0 {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                match self.fill(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok((count @ 1.., found))) => {
                        *left = left.saturating_sub(count);
                        budget = budget.saturating_sub(count);
                        found
                    }
                    Poll::Ready(_) => {
                        handle.0.ended.set(true);
                        return Poll::Ready(());
                    }
                }
            } else {
                self.decode_held()
            };
            if let Ok(Some(Decoded::Close(_))) = found {
                handle.0.close_seen.set(true);
                return Poll::Ready(());
            }
        }
    }
}

/// The event stream of a connection's actor.
pub(super) struct Events<Io> {
    socket: Rc<RefCell<Socket<Io>>>,
    handle: SocketHandle,
    /// Messages until the next [`Event::ReadComplete`] at the latest.
    burst: u32,
    /// A message was handed over since the last [`Event::ReadComplete`].
    unflushed_input: bool,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Events<Io> {
    pub(super) fn new(socket: Rc<RefCell<Socket<Io>>>, handle: SocketHandle) -> Self {
        Events { socket, handle, burst: BURST, unflushed_input: false }
    }

    /// The next message; `None` once the connection is closed, by either side.
    fn poll_incoming(&self, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        let shared = &self.handle.0;
        if let Some(violation) = shared.violation.get() {
            return self.fail(violation);
        }
        if self.handle.blocked() {
            // The pause is our delay: the peer's time for this message starts anew after it.
            shared.unfinished.set(None);
            return Poll::Pending;
        }

        let mut socket = self.socket.borrow_mut();
        loop {
            let found = if socket.held.is_empty() {
                if socket.decoder.unfinished() && shared.unfinished.get().is_none() {
                    shared.unfinished.set(Some(Instant::now()));
                }
                let budget = shared.budget.get();
                if budget == 0 {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                match socket.fill(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok((count @ 1.., found))) => {
                        shared.budget.set(budget.saturating_sub(count));
                        shared.last_read_at.set(Some(Instant::now()));
                        found
                    }
                    // A reset is an end like any other: the bytes before it were handled.
                    Poll::Ready(_) => {
                        shared.ended.set(true);
                        return Poll::Ready(None);
                    }
                }
            } else {
                socket.decode_held()
            };
            let decoded = match found {
                Ok(None) => continue,
                Ok(Some(decoded)) => decoded,
                Err(violation) => return self.fail(violation),
            };
            shared.frame_seen.set(true);
            if !socket.decoder.unfinished() {
                shared.unfinished.set(None);
            }
            return Poll::Ready(match decoded {
                Decoded::Fragment => continue,
                Decoded::Text(text) => Some(Incoming::Text(text)),
                Decoded::Binary(bytes) => Some(Incoming::Binary(bytes)),
                Decoded::Ping(payload) => {
                    self.handle.send(frame_decoder::PONG, payload);
                    Some(Incoming::Ping)
                }
                Decoded::Pong(payload) => Some(Incoming::Pong(payload)),
                Decoded::Close(payload) => {
                    shared.close_seen.set(true);
                    let code = match frame_decoder::close_code(&payload) {
                        Ok(code) => code,
                        Err(violation) => return self.fail(violation),
                    };
                    shared.received_close.set(Some(code.unwrap_or(NO_CODE)));
                    self.handle.send_close(code, "");
                    None
                }
            });
        }
    }

    /// Answers a violation with its close code.
    fn fail(&self, violation: ProtocolViolation) -> Poll<Option<Incoming>> {
        self.handle.0.violation.set(Some(violation));
        self.handle.send_close(Some(violation.code()), violation.reason());
        Poll::Ready(None)
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Stream for Events<Io> {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let this = self.get_mut();
        loop {
            let mut drained = false;
            if this.burst > 0 {
                match this.poll_incoming(cx) {
                    Poll::Ready(incoming) => {
                        this.burst -= 1;
                        this.unflushed_input = true;
                        return Poll::Ready(incoming.map(Event::Incoming));
                    }
                    Poll::Pending => drained = true,
                }
            }
            if std::mem::take(&mut this.unflushed_input) {
                return Poll::Ready(Some(Event::ReadComplete));
            }
            let shared = &this.handle.0;
            if let Some(quiet) = shared.heartbeat_due.take() {
                return Poll::Ready(Some(Event::HeartbeatDue { quiet }));
            }
            if shared.idle.take() {
                return Poll::Ready(Some(Event::IdleTimeout));
            }
            this.burst = BURST;
            if drained {
                return Poll::Pending;
            }
        }
    }
}
