//! The way out: frames that the actor wrote and the socket has not accepted.
//!
//! Small frames are written one behind the other into a buffer that all connections of a thread share,
//! so the output of one poll leaves in one write and an idle connection holds nothing. A large payload
//! is never copied. Bytes that the socket does not accept stay here, and the actor goes on being
//! polled meanwhile.

use std::{
    cell::Cell,
    collections::VecDeque,
    io::{self, IoSlice},
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use super::Watermark;

/// How many waiting slices go into one vectored write.
const SLICES: usize = 32;
/// Payloads above this are not copied, bytes.
const LARGE: usize = 8 * 1024;
/// Small frames that are collected before they are set aside for writing, bytes.
const CHUNK: usize = 64 * 1024;
/// The first bit of a frame that is a message's last (RFC 6455 §5.2); all that we send are.
const FIN: u8 = 0x80;

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Unwritten bytes, and the watermarks that wait for them.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    /// Bytes that go before `open`.
    waiting: VecDeque<Bytes>,
    /// Frames that are still being collected.
    open: Vec<u8>,
    bytes: usize,
    /// Bytes ever pushed, and ever accepted by the socket.
    pushed: u64,
    written: u64,
    /// The socket holds bytes that are not flushed yet (TLS keeps a buffer).
    unflushed: bool,
    /// The peer reads no more.
    write_closed: bool,
    /// Each watermark, behind the count of pushed bytes that it waits for.
    watermarks: VecDeque<(u64, Watermark)>,
}

impl Outbound {
    /// Appends one frame.
    pub(super) fn frame(&mut self, opcode: u8, payload: Bytes) {
        if payload.len() <= LARGE {
            self.small_frame(opcode, &[&payload]);
        } else {
            self.append(|open| header(open, opcode, payload.len()));
            self.push(payload);
        }
    }

    /// Appends one frame, its payload in parts that are small together.
    pub(super) fn small_frame(&mut self, opcode: u8, parts: &[&[u8]]) {
        self.append(|open| {
            header(open, opcode, parts.iter().map(|part| part.len()).sum());
            for part in parts {
                open.extend_from_slice(part);
            }
        });
    }

    /// Appends bytes that are frames already, or a part of one.
    pub(super) fn push(&mut self, bytes: Bytes) {
        if self.write_closed || bytes.is_empty() {
            return;
        }
        self.freeze();
        self.bytes += bytes.len();
        self.pushed += bytes.len() as u64;
        self.waiting.push_back(bytes);
    }

    fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.write_closed {
            return;
        }
        if self.open.len() >= CHUNK {
            self.freeze();
        }
        if self.open.capacity() == 0 {
            self.open = SPARE.take();
        }
        let before = self.open.len();
        write(&mut self.open);
        let more = self.open.len() - before;
        self.bytes += more;
        self.pushed += more as u64;
    }

    /// Sets the collected frames aside, in a buffer of their own size.
    fn freeze(&mut self) {
        if !self.open.is_empty() {
            self.waiting.push_back(Bytes::copy_from_slice(&self.open));
            self.open.clear();
        }
    }

    /// Gives the thread's buffer back.
    fn return_buffer(&mut self) {
        let mut open = mem::take(&mut self.open);
        if open.capacity() > 0 && open.capacity() <= 2 * CHUNK {
            open.clear();
            SPARE.set(open);
        }
    }

    /// Sets `watermark` behind everything pushed so far.
    pub(super) fn watermark(&mut self, watermark: Watermark) {
        if self.write_closed {
            return;
        }
        match self.watermarks.back_mut() {
            Some((at, last)) if *at == self.pushed => *last = watermark,
            _ => self.watermarks.push_back((self.pushed, watermark)),
        }
    }

    /// The highest watermark that was reached since the last call.
    pub(super) fn written_through(&mut self) -> Option<Watermark> {
        let mut written_through = None;
        while let Some((at, watermark)) = self.watermarks.front() {
            if *at > self.written {
                break;
            }
            written_through = Some(*watermark);
            self.watermarks.pop_front();
        }
        written_through
    }

    /// Bytes that the socket has not accepted.
    pub(super) fn backlog(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits to be written or flushed.
    pub(super) fn is_idle(&self) -> bool {
        self.bytes == 0 && !self.unflushed
    }

    /// Drops the waiting bytes and all later ones: the peer reads no more.
    pub(super) fn close_write(&mut self) {
        self.return_buffer();
        *self = Outbound { write_closed: true, ..Outbound::default() };
    }

    /// Writes as much as the socket accepts; `Ready` when nothing is left. The flag is true if the
    /// socket accepted any byte.
    pub(super) fn write<Io: AsyncWrite + Unpin>(
        &mut self,
        io: &mut Io,
        cx: &mut Context<'_>,
    ) -> (bool, Poll<io::Result<()>>) {
        let mut moved = false;
        if self.unflushed {
            // TLS holds bytes that the socket did not take. They go first, so that what it holds stays small, and progress and
            // watermarks are what the socket took.
            match self.flush(io, cx) {
                Poll::Ready(Ok(())) => moved = true,
                Poll::Ready(Err(error)) => return (false, Poll::Ready(Err(error))),
                Poll::Pending => {
                    self.freeze();
                    self.return_buffer();
                    return (false, Poll::Pending);
                }
            }
        }
        while self.bytes > 0 {
            let written = match self.write_once(io, cx) {
                Poll::Ready(Ok(0)) => Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(other) => other,
                Poll::Pending => {
                    self.freeze();
                    self.return_buffer();
                    // Accepted bytes are flushed even while the socket accepts no more.
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
        self.return_buffer();
        (moved, self.flush(io, cx))
    }

    fn write_once<Io: AsyncWrite + Unpin>(
        &self,
        io: &mut Io,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let io = Pin::new(io);
        let Some(first) = self.waiting.front() else { return io.poll_write(cx, &self.open) };
        let several = self.waiting.len() > 1 || !self.open.is_empty();
        if !several || !io.is_write_vectored() {
            return io.poll_write(cx, first);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let all = self.waiting.iter().map(|bytes| &bytes[..]).chain([&self.open[..]]);
        let mut count = 0;
        for (slice, bytes) in slices.iter_mut().zip(all) {
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        io.poll_write_vectored(cx, &slices[..count])
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
            self.written = self.pushed - self.bytes as u64;
        }
        flushed
    }

    fn advance(&mut self, mut count: usize) {
        self.unflushed = true;
        self.bytes -= count;
        while let Some(first) = self.waiting.front_mut() {
            let here = count.min(first.len());
            first.advance(here);
            count -= here;
            if !first.is_empty() {
                return;
            }
            self.waiting.pop_front();
        }
        if self.waiting.capacity() > 2 * SLICES {
            // A peer that was slow once must not keep its large buffer.
            self.waiting = VecDeque::new();
        }
        if count < self.open.len() {
            if count > 0 {
                self.waiting.push_back(Bytes::copy_from_slice(&self.open[count..]));
            } else {
                return;
            }
        }
        self.open.clear();
    }
}

/// The header of an unmasked frame (RFC 6455 §5.2).
fn header(open: &mut Vec<u8>, opcode: u8, length: usize) {
    open.push(FIN | opcode);
    match length {
        0..=125 => open.push(length as u8),
        126..=0xffff => {
            open.push(126);
            open.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            open.push(127);
            open.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::transport::frame_decoder::TEXT;

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
    fn watermarks_are_reached_when_their_bytes_are_written_and_not_before() {
        let mut output = Outbound::default();
        let mut io = Narrow { room: 4, got: Vec::new() };
        let mut cx = Context::from_waker(Waker::noop());
        output.watermark([1, 0]);
        assert_eq!(output.written_through(), Some([1, 0]), "nothing to wait for");
        output.push(Bytes::from_static(b"abc"));
        output.watermark([2, 0]);
        output.push(Bytes::from_static(b"def"));
        output.watermark([3, 0]);
        output.watermark([4, 0]);
        assert_eq!(output.written_through(), None);
        assert!(matches!(output.write(&mut io, &mut cx), (true, Poll::Pending)));
        assert_eq!((output.written_through(), output.backlog()), (Some([2, 0]), 2));
        assert!(matches!(output.write(&mut io, &mut cx), (false, Poll::Pending)));
        io.room = 9;
        assert!(matches!(output.write(&mut io, &mut cx), (true, Poll::Ready(Ok(())))));
        assert_eq!((output.written_through(), output.backlog()), (Some([4, 0]), 0));
        assert_eq!(io.got, b"abcdef");
        assert!(output.is_idle());
    }

    /// A socket that encrypts: it holds `most` bytes that the narrow socket below has not taken.
    struct Encrypting {
        io: Narrow,
        held: Vec<u8>,
        most: usize,
    }

    impl AsyncWrite for Encrypting {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let count = bytes.len().min(self.most - self.held.len());
            self.held.extend_from_slice(&bytes[..count]);
            let flushed = self.poll_flush(cx);
            if count == 0 && flushed.is_pending() { Poll::Pending } else { Poll::Ready(Ok(count)) }
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            let this = &mut *self;
            while !this.held.is_empty() {
                match Pin::new(&mut this.io).poll_write(cx, &this.held) {
                    Poll::Ready(Ok(count)) => drop(this.held.drain(..count)),
                    other => return other.map_ok(drop),
                }
            }
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn bytes_that_tls_holds_are_not_written_yet_and_their_progress_counts() {
        let mut output = Outbound::default();
        let mut io =
            Encrypting { io: Narrow { room: 2, got: Vec::new() }, held: Vec::new(), most: 4 };
        let mut cx = Context::from_waker(Waker::noop());
        output.push(Bytes::from_static(b"abc"));
        output.watermark([1, 0]);
        output.push(Bytes::from_static(b"defgh"));
        output.watermark([2, 0]);
        assert!(matches!(output.write(&mut io, &mut cx), (true, Poll::Pending)));
        assert_eq!(io.io.got, b"ab");
        assert_eq!((output.written_through(), output.backlog()), (None, 2), "two are held");
        assert!(matches!(output.write(&mut io, &mut cx), (false, Poll::Pending)));
        io.io.room = 4;
        assert!(matches!(output.write(&mut io, &mut cx), (true, Poll::Pending)));
        assert_eq!((output.written_through(), output.backlog()), (Some([1, 0]), 0));
        assert!(!output.is_idle(), "what is held keeps the connection at it");
        io.io.room = 2;
        assert!(matches!(output.write(&mut io, &mut cx), (true, Poll::Ready(Ok(())))));
        assert_eq!(output.written_through(), Some([2, 0]));
        assert_eq!(io.io.got, b"abcdefgh");
    }

    /// RFC 6455 §5.2: each length has one shortest form.
    #[test]
    fn frames_of_every_length_leave_whole_and_in_order_whatever_the_socket_takes_at_once() {
        let lengths = [0, 1, 125, 126, 127, LARGE, LARGE + 1, 0xffff, 0x10000, CHUNK + 1, 5];
        for room in [1000, usize::MAX] {
            let mut output = Outbound::default();
            let mut io = Narrow { room: 0, got: Vec::new() };
            let mut cx = Context::from_waker(Waker::noop());
            let mut expected = Vec::new();
            for length in lengths {
                let payload = vec![length as u8; length];
                header(&mut expected, TEXT, length);
                expected.extend_from_slice(&payload);
                output.frame(TEXT, payload.into());
            }
            assert_eq!(output.backlog(), expected.len());
            loop {
                io.room = room;
                if output.write(&mut io, &mut cx).1.is_ready() {
                    break;
                }
            }
            assert!(io.got == expected);
        }
    }

    #[test]
    fn frames_of_many_polls_are_one_after_the_other() {
        let mut output = Outbound::default();
        let mut io = Narrow { room: 3, got: Vec::new() };
        let mut cx = Context::from_waker(Waker::noop());
        for text in ["one", "two", "three"] {
            output.small_frame(TEXT, &[text.as_bytes()]);
            assert!(output.write(&mut io, &mut cx).1.is_pending());
        }
        io.room = 100;
        assert!(output.write(&mut io, &mut cx).1.is_ready());
        assert_eq!(io.got, b"\x81\x03one\x81\x03two\x81\x05three");
        output.close_write();
        output.small_frame(TEXT, &[b"four"]);
        assert!(output.is_idle());
    }
}
