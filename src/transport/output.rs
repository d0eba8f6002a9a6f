//! The way out: bytes that the actor wrote and the socket has not taken.
//!
//! While the socket takes everything, nothing is copied and nothing is kept. What it would not take
//! stays here as the slices it came in, and the actor goes on being polled meanwhile.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

/// How many waiting slices go into one vectored write.
const SLICES: usize = 32;

/// Unwritten bytes, and the marks that wait for them.
#[derive(Debug, Default)]
pub(super) struct Output {
    waiting: VecDeque<Bytes>,
    bytes: usize,
    /// Bytes ever pushed, and ever taken by the socket.
    pushed: u64,
    taken: u64,
    /// The socket holds bytes that it was not yet made to pass on (TLS keeps a buffer).
    unflushed: bool,
    /// Each mark with the count of pushed bytes that it stands for.
    marks: VecDeque<(u64, u64)>,
}

impl Output {
    pub(super) fn push(&mut self, bytes: Bytes) {
        self.bytes += bytes.len();
        self.pushed += bytes.len() as u64;
        if !bytes.is_empty() {
            self.waiting.push_back(bytes);
        }
    }

    /// Everything pushed so far is up to `mark`.
    pub(super) fn mark(&mut self, mark: u64) {
        match self.marks.back_mut() {
            Some((at, last)) if *at == self.pushed => *last = mark,
            _ => self.marks.push_back((self.pushed, mark)),
        }
    }

    /// The highest mark whose bytes the socket took since this was last asked.
    pub(super) fn reached(&mut self) -> Option<u64> {
        let mut reached = None;
        while let Some((at, mark)) = self.marks.front() {
            if *at > self.taken {
                break;
            }
            reached = Some(*mark);
            self.marks.pop_front();
        }
        reached
    }

    /// Bytes that the socket has not taken.
    pub(super) fn backlog(&self) -> usize {
        self.bytes
    }

    /// Whether the socket still has something to do for us.
    pub(super) fn is_idle(&self) -> bool {
        self.bytes == 0 && !self.unflushed
    }

    /// Forgets what was not written: nobody will read it.
    pub(super) fn clear(&mut self) {
        *self = Output::default();
    }

    /// Writes as much as the socket takes; `Ready` when nothing is left. The flag tells whether the
    /// socket took anything.
    pub(super) fn write<Io: AsyncWrite + Unpin>(
        &mut self,
        io: &mut Io,
        cx: &mut Context<'_>,
    ) -> (bool, Poll<io::Result<()>>) {
        let mut moved = false;
        while self.bytes > 0 {
            let written = match self.write_once(io, cx) {
                Poll::Ready(Ok(0)) => Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(other) => other,
                Poll::Pending => {
                    // What the socket did take is passed on even while it takes no more.
                    return match self.flush(io, cx) {
                        Poll::Ready(Err(error)) => (moved, Poll::Ready(Err(error))),
                        _ => (moved, Poll::Pending),
                    };
                }
            };
            match written {
                Ok(count) => self.advance(count),
                Err(error) => return (moved, Poll::Ready(Err(error))),
            }
            moved = true;
        }
        (moved, self.flush(io, cx))
    }

    fn write_once<Io: AsyncWrite + Unpin>(
        &self,
        io: &mut Io,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let io = Pin::new(io);
        if self.waiting.len() > 1 && io.is_write_vectored() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = self.waiting.len().min(SLICES);
            for (slice, bytes) in slices.iter_mut().zip(&self.waiting) {
                *slice = IoSlice::new(bytes);
            }
            return io.poll_write_vectored(cx, &slices[..count]);
        }
        let first = self.waiting.front().map_or(&[][..], |bytes| bytes);
        io.poll_write(cx, first)
    }

    fn flush<Io: AsyncWrite + Unpin>(
        &mut self,
        io: &mut Io,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(io).poll_flush(cx);
        if let Poll::Ready(Ok(())) = flushed {
            self.unflushed = false;
            self.taken = self.pushed - self.bytes as u64;
        }
        flushed
    }

    fn advance(&mut self, mut count: usize) {
        self.unflushed = true;
        self.bytes -= count;
        while count > 0 {
            let Some(first) = self.waiting.front_mut() else {
                break;
            };
            let here = count.min(first.len());
            first.advance(here);
            count -= here;
            if first.is_empty() {
                self.waiting.pop_front();
            }
        }
        if self.bytes == 0 && self.waiting.capacity() > 2 * SLICES {
            // A peer that was slow once should not cost more than others ever after.
            self.waiting = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// A socket that takes `room` more bytes.
    struct Narrow {
        room: usize,
        got: Vec<u8>,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Poll::Pending;
            }
            self.room -= count;
            self.got.extend_from_slice(&bytes[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn marks_are_reached_when_their_bytes_are_taken_and_not_before() {
        let mut output = Output::default();
        let mut io = Narrow { room: 4, got: Vec::new() };
        let mut cx = Context::from_waker(Waker::noop());
        output.mark(1);
        assert_eq!(output.reached(), Some(1), "nothing to wait for");
        output.push(Bytes::from_static(b"abc"));
        output.mark(2);
        output.push(Bytes::from_static(b"def"));
        output.mark(3);
        output.mark(4);
        assert_eq!(output.reached(), None);
        assert!(matches!(output.write(&mut io, &mut cx), (true, Poll::Pending)));
        assert_eq!((output.reached(), output.backlog()), (Some(2), 2));
        assert!(matches!(output.write(&mut io, &mut cx), (false, Poll::Pending)));
        io.room = 9;
        assert!(matches!(output.write(&mut io, &mut cx), (true, Poll::Ready(Ok(())))));
        assert_eq!((output.reached(), output.backlog()), (Some(4), 0));
        assert_eq!(io.got, b"abcdef");
        assert!(output.is_idle());
    }
}
