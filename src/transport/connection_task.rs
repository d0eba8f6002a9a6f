//! The connection task: the future that runs a connection to its end.
//!
//! The task polls the actor's context, writes the output, and goes on polling the actor when the
//! socket accepts no more bytes: an actor whose peer does not read must still handle its mailbox and
//! its timers. Once the actor has stopped, the closing handshake is left: flush, wait a little for the
//! peer's Close, shut down.

use std::{
    cell::RefCell,
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_core::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{
    CloseOutcome,
    frame_decoder::ProtocolViolation,
    heartbeat::{Heartbeat, Input},
    input::{BUDGET, Socket},
    socket_handle::SocketHandle,
    timer::Timer,
};

/// Polls of the actor within one poll of the task, before other connections are polled.
const ROUNDS: usize = 16;
/// Input that is read and dropped during the closing handshake, bytes.
const LINGER_BYTES: usize = 1024 * 1024;
/// A deadline found this late was missed by this process, stopped or overloaded, and not by the peer.
const LATE: Duration = Duration::from_secs(1);
/// The close code after the actor panicked (RFC 6455 §7.4.1: an unexpected condition).
const PANICKED: u16 = 1011;

/// The work that is left for a connection.
enum Phase {
    /// The actor lives.
    Open,
    /// The actor has stopped; its last output is being written.
    Flush,
    /// Our Close is written; the peer's has not arrived.
    Linger,
    /// Both are done: shut the writing side down.
    Shut,
}

/// One connection, from upgrade to end.
pub(super) struct ConnectionTask<Io, S> {
    handle: SocketHandle,
    socket: Rc<RefCell<Socket<Io>>>,
    /// The actor's context; `None` once the actor has stopped.
    context: Option<S>,
    heartbeat: Heartbeat,
    timer: Timer,
    phase: Phase,
    close_outcome: Option<CloseOutcome>,
    /// Since when the socket has accepted no byte of the waiting output.
    write_blocked_since: Option<Instant>,
    /// The socket refuses output; until this time, input that the peer sent before is still read.
    write_closed: Option<Instant>,
    /// Input that may still be read and dropped, bytes.
    left: usize,
    /// When the present phase of the closing handshake ends at the latest.
    until: Option<Instant>,
}

impl<Io, S, E> ConnectionTask<Io, S>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: fmt::Display,
{
    pub(super) fn new(handle: SocketHandle, socket: Rc<RefCell<Socket<Io>>>, context: S) -> Self {
        let heartbeat = Heartbeat::new(handle.limits(), Instant::now());
        let timer = Timer::new(heartbeat.next());
        ConnectionTask {
            handle,
            socket,
            context: Some(context),
            heartbeat,
            timer,
            phase: Phase::Open,
            close_outcome: None,
            write_blocked_since: None,
            write_closed: None,
            left: LINGER_BYTES,
            until: None,
        }
    }

    /// Runs the connection until nothing more can happen without the peer, the actor's mailbox or the
    /// clock. `Ready` when the actor has stopped.
    fn run(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut rounds = 0;
        loop {
            self.write(cx);
            // Cleared before the poll: a change during the poll needs another one.
            self.handle.take_repoll();
            let yielded = match self.poll_context(cx) {
                Poll::Ready(Some(Ok(bytes))) => {
                    self.handle.output().push(bytes);
                    true
                }
                Poll::Ready(Some(Err(error))) => {
                    // Only a fragment out of order ends here, and actors send no fragments.
                    log::error!(error:%; "session output failed");
                    self.end(CloseOutcome::Gone);
                    return Poll::Ready(());
                }
                Poll::Ready(None) => {
                    self.end(CloseOutcome::Gone);
                    return Poll::Ready(());
                }
                Poll::Pending => false,
            };
            if self.close_outcome.is_some() {
                return Poll::Ready(());
            }
            self.write(cx);
            if self.handle.backlog() > self.handle.limits().outbound_max {
                self.end(CloseOutcome::Stalled);
                return Poll::Ready(());
            }
            if !yielded && self.handle.0.ended.get() {
                // The end of the stream stops the actor. An actor that refuses to stop has no
                // connection left.
                self.end(CloseOutcome::Gone);
                return Poll::Ready(());
            }
            rounds += 1;
            if yielded || self.handle.take_repoll() {
                if rounds < ROUNDS {
                    continue;
                }
                cx.waker().wake_by_ref();
            }
            if !self.check_deadlines(cx) {
                return Poll::Pending;
            }
            if self.close_outcome.is_some() {
                return Poll::Ready(());
            }
        }
    }

    fn poll_context(&mut self, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let Some(context) = &mut self.context else {
            return Poll::Ready(None);
        };
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(context).poll_next(cx)));
        polled.unwrap_or_else(|_| {
            // The panic's message may quote input of the peer, so it is not logged.
            log::error!("session panicked");
            self.end(CloseOutcome::Panicked);
            Poll::Pending
        })
    }

    /// Writes the waiting output and reports the watermarks that were reached.
    fn write(&mut self, cx: &mut Context<'_>) {
        let mut output = self.handle.output();
        if output.is_idle() && self.write_blocked_since.is_none() {
            // Watermarks that wait for no bytes.
            let written_through = output.written_through();
            drop(output);
            return self.handle.notify_written(written_through);
        }
        let (moved, written) = output.write(&mut self.socket.borrow_mut().io, cx);
        match written {
            Poll::Ready(Ok(())) => self.write_blocked_since = None,
            Poll::Ready(Err(_)) => {
                // The peer no longer reads, but its earlier input may still wait to be read.
                output.close_write();
                self.write_blocked_since = None;
                self.write_closed = Some(Instant::now() + self.handle.limits().linger);
            }
            Poll::Pending if moved || self.write_blocked_since.is_none() => {
                self.write_blocked_since = Some(Instant::now())
            }
            Poll::Pending => {}
        }
        let (backlog, written_through) = (output.backlog(), output.written_through());
        drop(output);
        self.handle.set_backlog(backlog);
        self.handle.notify_written(written_through);
    }

    /// Acts on the deadlines that have passed; whether the timer fired.
    fn check_deadlines(&mut self, cx: &mut Context<'_>) -> bool {
        let limits = *self.handle.limits();
        let unfinished = self.handle.0.unfinished.get();
        let frame =
            unfinished.map(|since| since + limits.time_for(self.socket.borrow().received()));
        let stall = self.write_blocked_since.map(|since| since + limits.write_timeout);
        let due = [frame, stall, self.write_closed]
            .into_iter()
            .flatten()
            .fold(self.heartbeat.next(), Instant::min);
        let Poll::Ready(now) = self.timer.poll(due, cx) else {
            return false;
        };

        let on_time = |due: Instant| now < due + LATE;
        if frame.is_some_and(|frame| frame <= now) {
            if frame.is_some_and(on_time) {
                self.handle.violation(ProtocolViolation::TooSlow);
            }
            self.handle.0.unfinished.set(Some(now));
        }
        if stall.is_some_and(|stall| stall <= now) {
            if stall.is_some_and(on_time) {
                self.end(CloseOutcome::Stalled);
            }
            self.write_blocked_since = Some(now);
        }
        if self.write_closed.is_some_and(|write_closed| write_closed <= now) {
            self.end(CloseOutcome::Gone);
        }
        if self.heartbeat.next() <= now {
            let shared = &self.handle.0;
            let frame_seen = shared.frame_seen.take();
            // Bytes of a long message prove a living peer too: the peer cannot put a pong between them, and the
            // deadline of the message bounds them.
            let proves = frame_seen || shared.unfinished.get().is_some();
            let read_at = shared.last_read_at.get().filter(|_| proves);
            let input = Input { frame_seen, read_at };
            let found = self.heartbeat.check(now, input, self.handle.blocked());
            self.handle.note_heartbeat(found);
        }
        true
    }

    /// Stops the actor, if it has not stopped, and begins the closing handshake.
    fn end(&mut self, outcome: CloseOutcome) {
        if self.close_outcome.is_some() {
            return;
        }
        self.close_outcome = Some(outcome);
        let whole = drop_quietly(&mut self.context);
        self.handle.forget_on_written();
        if !whole {
            self.close_outcome = Some(CloseOutcome::Panicked);
        }
        if self.close_outcome == Some(CloseOutcome::Panicked) {
            self.handle.send_close(Some(PANICKED), "");
        }
        self.write_blocked_since = None;
        self.until = Some(Instant::now() + self.handle.limits().write_timeout);
        self.phase = Phase::Flush;
    }

    /// The closing handshake: each phase is bounded in time, and the peer can only shorten it.
    fn close(&mut self, cx: &mut Context<'_>) -> Poll<CloseOutcome> {
        loop {
            let over = match self.until {
                Some(until) => self.timer.poll(until, cx).is_ready(),
                None => false,
            };
            let ended = self.handle.0.ended.get();
            match self.phase {
                Phase::Open => return Poll::Pending,
                _ if self.close_outcome == Some(CloseOutcome::Stalled) => {
                    return Poll::Ready(CloseOutcome::Stalled);
                }
                Phase::Flush => {
                    if over {
                        return Poll::Ready(match self.close_outcome {
                            Some(CloseOutcome::Panicked) => CloseOutcome::Panicked,
                            _ => CloseOutcome::Stalled,
                        });
                    }
                    let (_, written) =
                        self.handle.output().write(&mut self.socket.borrow_mut().io, cx);
                    match written {
                        Poll::Pending => {
                            // The peer may still be writing and read only afterwards.
                            if !ended && !self.handle.0.close_seen.get() && self.left > 0 {
                                let mut socket = self.socket.borrow_mut();
                                let _ = socket.discard(&self.handle, &mut self.left, cx);
                            }
                            return Poll::Pending;
                        }
                        Poll::Ready(Ok(())) => {
                            let shared = &self.handle.0;
                            let waits = shared.sent_close.get().is_some()
                                && !shared.close_seen.get()
                                && !ended
                                && self.write_closed.is_none();
                            self.until = Some(Instant::now() + self.handle.limits().linger);
                            self.phase = match waits {
                                true => Phase::Linger,
                                false => Phase::Shut,
                            };
                        }
                        Poll::Ready(Err(_)) => self.phase = Phase::Shut,
                    }
                }
                Phase::Linger => {
                    let mut socket = self.socket.borrow_mut();
                    if !over && socket.discard(&self.handle, &mut self.left, cx).is_pending() {
                        return Poll::Pending;
                    }
                    self.phase = Phase::Shut;
                }
                Phase::Shut => {
                    let mut socket = self.socket.borrow_mut();
                    if !over && Pin::new(&mut socket.io).poll_shutdown(cx).is_pending() {
                        return Poll::Pending;
                    }
                    return Poll::Ready(self.outcome());
                }
            }
        }
    }

    fn outcome(&self) -> CloseOutcome {
        match self.close_outcome {
            Some(CloseOutcome::Panicked) => CloseOutcome::Panicked,
            _ => match (self.handle.0.sent_close.get(), self.handle.0.received_close.get()) {
                (Some(code), _) | (None, Some(code)) => CloseOutcome::Closed(code),
                (None, None) => CloseOutcome::Gone,
            },
        }
    }
}

/// Drops an actor's context; `false` if it panicked. Dropping a living context stops its actor,
/// which runs the actor's own code.
fn drop_quietly<S>(context: &mut Option<S>) -> bool {
    let Some(context) = context.take() else {
        return true;
    };
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(context)));
    if dropped.is_err() {
        log::error!("session panicked while stopping");
    }
    dropped.is_ok()
}

impl<Io, S, E> Future for ConnectionTask<Io, S>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: fmt::Display,
{
    type Output = CloseOutcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CloseOutcome> {
        let this = self.get_mut();
        this.handle.begin_poll(cx.waker(), BUDGET);
        let running = matches!(this.phase, Phase::Open) && this.run(cx).is_pending();
        let polled = if running { Poll::Pending } else { this.close(cx) };
        this.handle.end_poll();
        polled
    }
}

impl<Io, S> Drop for ConnectionTask<Io, S> {
    fn drop(&mut self) {
        // The runtime may drop a connection that still talks, even while unwinding: the actor is
        // stopped like any other, and a second panic must not take the process along.
        drop_quietly(&mut self.context);
        self.handle.forget_on_written();
    }
}
