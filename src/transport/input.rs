//! The way in: socket → guard → the codec of the actor's context.
//!
//! `actix_web_actors` asks its input stream until it is `Pending`, collects whatever comes, and then
//! decodes one frame. So the stream hands over exactly one frame at a time and says `Pending` after
//! it: nothing piles up above, a pause is exact to the frame, every message has a buffer of its own,
//! and a breach is noticed only after the lawful frames before it were heard.
//!
//! The codec's buffer grows to the longest frame that it ever saw, as soon as a header announces it,
//! and stays that long while the connection lives. So large payloads go past it: they are collected
//! here, as they arrive, and the codec sees an empty frame of the same kind in their place. `Wire`
//! puts the two together.

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
    guard::{self, Breach, Guard},
    line::Line,
};

/// The most that is read from a socket at once.
const READ_BYTES: usize = 64 * 1024;

/// Input that one connection may read before the others have their turn, bytes.
pub(super) const BUDGET: usize = READ_BYTES;

/// Payloads above this go past the codec, bytes. What an idle connection keeps is no more than this.
const LARGE: u64 = 1024;

thread_local! {
    // One buffer for all connections of a thread: an idle connection holds none.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// The socket with what was read from it and not yet handed on.
pub(super) struct Socket<Io> {
    pub(super) io: Io,
    guard: Guard,
    held: Bytes,
    large: Large,
}

/// The payload of a large frame, as far as it has arrived.
#[derive(Default)]
struct Large(Vec<u8>);

impl Large {
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
        guard::unmask(&mut self.0[start..], mask);
    }

    fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.0).into_boxed_slice().into()
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Socket<Io> {
    pub(super) fn new(io: Io, read_ahead: &[u8], line: &Line) -> Self {
        Socket {
            io,
            guard: Guard::new(line.limits()),
            // Copied, so that the HTTP parser's buffer is not kept alive by a few bytes of it.
            held: Bytes::copy_from_slice(read_ahead),
            large: Large::default(),
        }
    }

    /// Reads once; `false` is the end of the stream.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) => {
                    self.held = Bytes::copy_from_slice(buffer.filled());
                    Poll::Ready(Ok(!self.held.is_empty()))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            }
        })
    }

    /// Follows what is held to the end of the current frame or of itself; what the codec is to see
    /// of it, and the frame's opcode if it ends there.
    fn next_piece(
        &mut self,
        aside: &RefCell<Option<Bytes>>,
    ) -> Result<(Bytes, Option<u8>), Breach> {
        let step = self.guard.step(&self.held)?;
        let taken = step.header + step.payload;
        let piece = if taken == self.held.len() {
            std::mem::take(&mut self.held)
        } else {
            self.held.split_to(taken)
        };
        let (head, length) = self.guard.head();
        let piece = match length {
            // Which way the frame will go is known when its header is complete.
            None => Bytes::new(),
            Some(length) if length <= LARGE => {
                if step.header > 0 && step.header < head.len() {
                    [head, &piece[step.header..]].concat().into()
                } else {
                    piece
                }
            }
            Some(length) => {
                let (first, key) = (head[0], &head[head.len() - 4..]);
                self.large.add(&piece[step.header..], key, length);
                if step.ended.is_none() {
                    Bytes::new()
                } else {
                    aside.replace(Some(self.large.take()));
                    Bytes::copy_from_slice(&[first, 0x80, 0, 0, 0, 0])
                }
            }
        };
        Ok((piece, step.ended))
    }

    /// Reads and forgets, until the peer's Close frame or its end. At most `left` bytes.
    ///
    /// A socket that is closed with unread input answers with a reset, and a reset may reach the
    /// peer before our Close frame does. So the rest is read, within bounds.
    pub(super) fn discard(
        &mut self,
        line: &Line,
        left: &mut usize,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let mut lawful = line.0.breach.get().is_none();
        let mut budget = BUDGET;
        loop {
            while lawful && !self.held.is_empty() {
                match self.guard.step(&self.held) {
                    Ok(step) => {
                        if step.ended == Some(guard::CLOSE) {
                            line.0.close_seen.set(true);
                            return Poll::Ready(());
                        }
                        self.held.advance(step.header + step.payload);
                    }
                    Err(breach) => {
                        line.breach(breach);
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
            match self.fill(cx) {
                Poll::Ready(Ok(true)) => {
                    *left = left.saturating_sub(self.held.len());
                    budget = budget.saturating_sub(self.held.len());
                }
                Poll::Ready(Ok(false) | Err(_)) => {
                    line.0.ended.set(true);
                    return Poll::Ready(());
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// The input stream of a [`WebsocketContext`](actix_web_actors::ws::WebsocketContext).
pub(super) struct Input<Io> {
    socket: Rc<RefCell<Socket<Io>>>,
    line: Line,
    /// A whole frame was handed over: the codec takes it as soon as we say `Pending`.
    handed: bool,
    done: bool,
}

impl<Io> Input<Io> {
    pub(super) fn new(socket: Rc<RefCell<Socket<Io>>>, line: Line) -> Self {
        Input { socket, line, handed: false, done: false }
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
        let shared = &this.line.0;
        if shared.breach.get().is_some() {
            this.done = true;
            return Poll::Ready(Some(Err(PayloadError::Overflow)));
        }
        if this.line.blocked() {
            // It is our turn to be slow: the peer's time for this message starts anew afterwards.
            shared.unfinished.set(None);
            return Poll::Pending;
        }

        let mut socket = this.socket.borrow_mut();
        loop {
            if socket.held.is_empty() {
                if socket.guard.unfinished() && shared.unfinished.get().is_none() {
                    shared.unfinished.set(Some(Instant::now()));
                }
                if shared.budget.get() == 0 {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                match socket.fill(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(true)) => {
                        let budget = shared.budget.get();
                        shared.budget.set(budget.saturating_sub(socket.held.len()));
                        shared.heard_at.set(Some(Instant::now()));
                    }
                    // A reset is an end like any other: what came before it was heard.
                    Poll::Ready(Ok(false) | Err(_)) => {
                        shared.ended.set(true);
                        this.done = true;
                        return Poll::Ready(None);
                    }
                }
            }
            match socket.next_piece(&shared.aside) {
                Ok((piece, None)) if piece.is_empty() => {}
                Ok((piece, None)) => return Poll::Ready(Some(Ok(piece))),
                Ok((piece, Some(opcode))) => {
                    this.handed = true;
                    shared.heard.set(true);
                    if opcode == guard::CLOSE {
                        shared.close_seen.set(true);
                    }
                    if !socket.guard.unfinished() {
                        shared.unfinished.set(None);
                    }
                    return Poll::Ready(Some(Ok(piece)));
                }
                Err(breach) => {
                    shared.breach.set(Some(breach));
                    this.done = true;
                    return Poll::Ready(Some(Err(PayloadError::Overflow)));
                }
            }
        }
    }
}
