//! The way in: socket → guard → the codec of the actor's context.
//!
//! `actix_web_actors` asks its input stream until it is `Pending`, collects whatever comes, and then
//! decodes one frame. So the stream hands over exactly one frame at a time and says `Pending` after
//! it: nothing piles up above, a pause is exact to the frame, and a breach is noticed only after the
//! lawful frames before it were heard.
//!
//! The codec would copy every byte, and its buffer stays as long as the longest frame that it ever saw.
//! So payloads of messages go past it: they are unmasked here, as they arrive, each into a buffer of its
//! own size, and the codec sees an empty frame of the same kind in their place. `WebSocketWriter` puts the two
//! together. Control frames are the codec's.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_http::error::PayloadError;
use bytes::{Buf as _, Bytes};
use futures_core::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{
    frame_decoder::{self, FrameDecoder, ProtocolViolation},
    socket_handle::SocketHandle,
};

/// The most that is read from a socket at once.
const READ_BYTES: usize = 64 * 1024;

/// Input that one connection may read before the others have their turn, bytes.
pub(super) const BUDGET: usize = READ_BYTES;

thread_local! {
    // One buffer for all connections of a thread: an idle connection holds none.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// The socket with what was read from it and not yet handed on.
pub(super) struct Socket<Io> {
    pub(super) io: Io,
    decoder: FrameDecoder,
    held: Bytes,
    payload: Payload,
}

/// The payload of a data frame, as far as it has arrived.
#[derive(Default)]
struct Payload(Vec<u8>);

impl Payload {
    fn add(&mut self, masked: &[u8], key: &[u8], length: u64) {
        let (start, end) = (self.0.len(), self.0.len() + masked.len());
        if end > self.0.capacity() {
            // Doubled as usual, but never beyond what was announced: no spare bytes at the end.
            let room = (2 * self.0.capacity()).max(end).min(length as usize);
            self.0.reserve_exact(room - start);
        }
        self.0.extend_from_slice(masked);
        let mut mask = [0; 4];
        mask.copy_from_slice(key);
        mask.rotate_left(start % 4);
        frame_decoder::unmask(&mut self.0[start..], mask);
    }

    fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.0).into_boxed_slice().into()
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Socket<Io> {
    pub(super) fn new(io: Io, read_ahead: &[u8], handle: &SocketHandle) -> Self {
        Socket {
            io,
            decoder: FrameDecoder::new(handle.limits()),
            // Copied, so that the HTTP parser's buffer is not kept alive by a few bytes of it.
            held: Bytes::copy_from_slice(read_ahead),
            payload: Payload::default(),
        }
    }

    /// Reads once and has the bytes looked at; what `first` leaves of them is held. `None` is the end of
    /// the stream.
    fn fill<T>(
        &mut self,
        cx: &mut Context<'_>,
        first: impl FnOnce(&mut Self, &[u8]) -> (usize, T),
    ) -> Poll<io::Result<Option<T>>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => Poll::Ready(Ok(None)),
                Poll::Ready(Ok(())) => {
                    let (taken, found) = first(self, buffer.filled());
                    if let Some(rest @ [_, ..]) = buffer.filled().get(taken..) {
                        self.held = Bytes::copy_from_slice(rest);
                    }
                    Poll::Ready(Ok(Some(found)))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            }
        })
    }

    /// Follows bytes to the end of the current frame or to their own: how many that were, and what the
    /// codec is to see of them.
    fn follow(&mut self, bytes: &[u8], aside: &RefCell<Option<Bytes>>) -> (usize, Found) {
        let step = match self.decoder.step(bytes) {
            Ok(step) => step,
            Err(violation) => return (0, Err(violation)),
        };
        let (head, length) = self.decoder.head();
        let payload = &bytes[step.header..step.header + step.payload];
        let seen = match length {
            // Which way the frame will go is known when its header is complete.
            None => Bytes::new(),
            Some(_) if head[0] & 0x0f >= frame_decoder::CLOSE => {
                if step.header > 0 {
                    [head, payload].concat().into()
                } else {
                    payload.to_vec().into()
                }
            }
            Some(length) => {
                let key = &head[head.len() - 4..];
                self.payload.add(payload, key, length);
                if step.ended.is_some() {
                    aside.replace(Some(self.payload.take()));
                    Bytes::from_static(empty_frame(head[0]))
                } else {
                    Bytes::new()
                }
            }
        };
        (step.header + step.payload, Ok((seen, step.ended)))
    }

    /// Follows what is held.
    fn follow_held(&mut self, aside: &RefCell<Option<Bytes>>) -> Found {
        let mut held = std::mem::take(&mut self.held);
        let (taken, found) = self.follow(&held, aside);
        if taken < held.len() {
            held.advance(taken);
            self.held = held;
        }
        found
    }

    /// Reads and forgets, until the peer's Close frame or its end. At most `left` bytes.
    ///
    /// A socket that is closed with unread input answers with a reset, and a reset may reach the
    /// peer before our Close frame does. So the rest is read, within bounds.
    pub(super) fn discard(
        &mut self,
        handle: &SocketHandle,
        left: &mut usize,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let mut lawful = handle.0.violation.get().is_none();
        let mut budget = BUDGET;
        loop {
            while lawful && !self.held.is_empty() {
                match self.decoder.step(&self.held) {
                    Ok(step) => {
                        if step.ended == Some(frame_decoder::CLOSE) {
                            handle.0.close_seen.set(true);
                            return Poll::Ready(());
                        }
                        self.held.advance(step.header + step.payload);
                    }
                    Err(violation) => {
                        handle.violation(violation);
                        lawful = false;
                    }
                }
            }
            self.held = Bytes::new();
            if *left == 0 {
                return Poll::Ready(());
            }
            if budget == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.fill(cx, |_, bytes| (0, bytes.len())) {
                Poll::Ready(Ok(Some(count))) => {
                    *left = left.saturating_sub(count);
                    budget = budget.saturating_sub(count);
                }
                Poll::Ready(Ok(None) | Err(_)) => {
                    handle.0.ended.set(true);
                    return Poll::Ready(());
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// What the codec is to see, and the frame's opcode if it ends there.
type Found = Result<(Bytes, Option<u8>), ProtocolViolation>;

/// A masked data frame without a payload, by its first byte.
fn empty_frame(first: u8) -> &'static [u8] {
    match first {
        0x00 => &[0x00, 0x80, 0, 0, 0, 0],
        0x01 => &[0x01, 0x80, 0, 0, 0, 0],
        0x02 => &[0x02, 0x80, 0, 0, 0, 0],
        0x80 => &[0x80, 0x80, 0, 0, 0, 0],
        0x81 => &[0x81, 0x80, 0, 0, 0, 0],
        _ => &[0x82, 0x80, 0, 0, 0, 0],
    }
}

/// The input stream of a [`WebsocketContext`](actix_web_actors::ws::WebsocketContext).
pub(super) struct Input<Io> {
    socket: Rc<RefCell<Socket<Io>>>,
    handle: SocketHandle,
    /// A whole frame was handed over: the codec takes it as soon as we say `Pending`.
    handed: bool,
    done: bool,
}

impl<Io> Input<Io> {
    pub(super) fn new(socket: Rc<RefCell<Socket<Io>>>, handle: SocketHandle) -> Self {
        Input { socket, handle, handed: false, done: false }
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Stream for Input<Io> {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.done {
            return Poll::Ready(None);
        }
        if std::mem::take(&mut this.handed) {
            return Poll::Pending;
        }
        let shared = &this.handle.0;
        if shared.violation.get().is_some() {
            this.done = true;
            return Poll::Ready(Some(Err(PayloadError::Overflow)));
        }
        if this.handle.blocked() {
            // It is our turn to be slow: the peer's time for this message starts anew afterwards.
            shared.unfinished.set(None);
            return Poll::Pending;
        }

        let mut socket = this.socket.borrow_mut();
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
                let filled = socket.fill(cx, |socket, bytes| {
                    shared.budget.set(budget.saturating_sub(bytes.len()));
                    shared.last_read_at.set(Some(Instant::now()));
                    socket.follow(bytes, &shared.aside)
                });
                match filled {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(Some(found))) => found,
                    // A reset is an end like any other: what came before it was heard.
                    Poll::Ready(Ok(None) | Err(_)) => {
                        shared.ended.set(true);
                        this.done = true;
                        return Poll::Ready(None);
                    }
                }
            } else {
                socket.follow_held(&shared.aside)
            };
            match found {
                Ok((piece, None)) if piece.is_empty() => {}
                Ok((piece, None)) => return Poll::Ready(Some(Ok(piece))),
                Ok((piece, Some(opcode))) => {
                    this.handed = true;
                    shared.frame_seen.set(true);
                    shared.unflushed_input.set(true);
                    if opcode == frame_decoder::CLOSE {
                        shared.close_seen.set(true);
                    }
                    if !socket.decoder.unfinished() {
                        shared.unfinished.set(None);
                    }
                    return Poll::Ready(Some(Ok(piece)));
                }
                Err(violation) => {
                    shared.violation.set(Some(violation));
                    this.done = true;
                    return Poll::Ready(Some(Err(PayloadError::Overflow)));
                }
            }
        }
    }
}
