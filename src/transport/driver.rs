//! The driver: one small future that keeps a connection going and brings it to its end.
//!
//! It polls the actor's context, writes what the actor said, and goes on polling the actor when
//! the socket takes no more: an actor whose peer does not read must still hear its mailbox and its
//! clock. Once the actor has stopped, only the goodbye is left: flush, wait a little for the peer's
//! Close, shut down.

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
    Ending,
    guard::Breach,
    input::{BUDGET, Socket},
    line::{Event, Line},
    pulse::Pulse,
    timer::Timer,
};

/// Polls of the actor within one poll of the driver, before the other connections have their turn.
const ROUNDS: usize = 16;
/// Input that is read and forgotten during a goodbye, bytes.
const LINGER_BYTES: usize = 1024 * 1024;
/// A deadline found this late was missed by us, stopped or overloaded, and not by the peer.
const LATE: Duration = Duration::from_secs(1);
/// Close 1011, unmasked: what a peer is told when its actor panicked.
const CLOSE_1011: [u8; 4] = [0x88, 0x02, 0x03, 0xf3];

/// What is left to do for a connection.
enum Phase {
    /// The actor lives.
    Talk,
    /// The actor is gone; its last words are being written.
    Flush,
    /// Our Close is out; the peer's has not come.
    Linger,
    /// Both are done: shut the writing side down.
    Shut,
}

/// One connection, from upgrade to end.
pub(super) struct Driver<Io, S> {
    line: Line,
    socket: Rc<RefCell<Socket<Io>>>,
    /// The actor's context; `None` once the actor has stopped.
    context: Option<S>,
    pulse: Pulse,
    timer: Timer,
    phase: Phase,
    ending: Option<Ending>,
    /// Since when the socket has taken nothing of a backlog.
    stuck: Option<Instant>,
    /// The socket refuses our bytes; until when we still read what the peer sent before it left.
    deaf: Option<Instant>,
    /// Input that may still be read and forgotten, bytes.
    left: usize,
    /// Until when the present phase of the goodbye may last.
    until: Option<Instant>,
}

impl<Io, S, E> Driver<Io, S>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: fmt::Display,
{
    pub(super) fn new(line: Line, socket: Rc<RefCell<Socket<Io>>>, context: S) -> Self {
        let pulse = Pulse::new(line.limits(), Instant::now());
        let timer = Timer::new(pulse.next());
        Driver {
            line,
            socket,
            context: Some(context),
            pulse,
            timer,
            phase: Phase::Talk,
            ending: None,
            stuck: None,
            deaf: None,
            left: LINGER_BYTES,
            until: None,
        }
    }

    /// Runs the conversation until nothing more can happen without the peer, the actor's friends or
    /// the clock. `Ready` when it is over.
    fn talk(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut rounds = 0;
        loop {
            self.write(cx);
            // Asked before the poll: what changes during it needs another.
            self.line.take_again();
            let yielded = match self.poll_context(cx) {
                Poll::Ready(Some(Ok(bytes))) => {
                    self.line.output().push(bytes);
                    true
                }
                Poll::Ready(Some(Err(error))) => {
                    // Only a fragment out of order ends here, and ours are never fragmented.
                    log::error!("session output failed error={error}");
                    self.end(Ending::Gone);
                    return Poll::Ready(());
                }
                Poll::Ready(None) => {
                    self.end(Ending::Gone);
                    return Poll::Ready(());
                }
                Poll::Pending => false,
            };
            if self.ending.is_some() {
                return Poll::Ready(());
            }
            self.write(cx);
            if self.line.backlog() > self.line.limits().backlog_max {
                self.end(Ending::Stalled);
                return Poll::Ready(());
            }
            if !yielded && self.line.0.ended.get() {
                // The input told the actor that the peer is gone. If it wants to live on, it lives
                // without a connection, and that is nothing we could drive.
                self.end(Ending::Gone);
                return Poll::Ready(());
            }
            rounds += 1;
            if yielded || self.line.take_again() {
                if rounds < ROUNDS {
                    continue;
                }
                cx.waker().wake_by_ref();
            }
            if !self.clock(cx) {
                return Poll::Pending;
            }
            if self.ending.is_some() {
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
            // Its message may quote what a peer sent, so it is not repeated here.
            log::error!("session panicked");
            self.end(Ending::Panicked);
            Poll::Pending
        })
    }

    /// Offers the backlog to the socket and tells the actor what was taken.
    fn write(&mut self, cx: &mut Context<'_>) {
        let mut output = self.line.output();
        if output.is_idle() && self.stuck.is_none() {
            // Marks that stand for no new bytes.
            let reached = output.reached();
            drop(output);
            return self.line.tell_taken(reached);
        }
        let (moved, written) = output.write(&mut self.socket.borrow_mut().io, cx);
        match written {
            Poll::Ready(Ok(())) => self.stuck = None,
            Poll::Ready(Err(_)) => {
                // The peer no longer reads, but what it said before may still wait to be read.
                output.deafen();
                self.stuck = None;
                self.deaf = Some(Instant::now() + self.line.limits().linger);
            }
            Poll::Pending if moved || self.stuck.is_none() => self.stuck = Some(Instant::now()),
            Poll::Pending => {}
        }
        let (backlog, reached) = (output.backlog(), output.reached());
        drop(output);
        self.line.set_backlog(backlog);
        self.line.tell_taken(reached);
    }

    /// Whether a moment has come that the actor, or the end, must hear of.
    fn clock(&mut self, cx: &mut Context<'_>) -> bool {
        let limits = *self.line.limits();
        let frame = self.line.0.unfinished.get().map(|since| since + limits.frame_timeout);
        let stall = self.stuck.map(|since| since + limits.stall);
        let due =
            [frame, stall, self.deaf].into_iter().flatten().fold(self.pulse.next(), Instant::min);
        let Poll::Ready(now) = self.timer.poll(due, cx) else {
            return false;
        };

        let on_time = |due: Instant| now < due + LATE;
        if frame.is_some_and(|frame| frame <= now) {
            if frame.is_some_and(on_time) {
                self.line.breach(Breach::Unfinished);
            }
            self.line.0.unfinished.set(Some(now));
        }
        if stall.is_some_and(|stall| stall <= now) {
            if stall.is_some_and(on_time) {
                self.end(Ending::Stalled);
            }
            self.stuck = Some(now);
        }
        if self.deaf.is_some_and(|deaf| deaf <= now) {
            self.end(Ending::Gone);
        }
        if self.pulse.next() <= now {
            let shared = &self.line.0;
            let heard = shared.heard.take().then(|| shared.heard_at.get().unwrap_or(now));
            let found = self.pulse.check(now, heard, self.line.blocked());
            if let Some(quiet) = found.beat {
                self.line.tell(Event::Beat { quiet });
            }
            if found.silent {
                self.line.tell(Event::Silent);
            }
        }
        true
    }

    /// The conversation is over: the actor stops now, if it has not, and the goodbye begins.
    fn end(&mut self, ending: Ending) {
        if self.ending.is_some() {
            return;
        }
        self.ending = Some(ending);
        let whole = drop_quietly(&mut self.context);
        self.line.forget_on_taken();
        if !whole {
            self.ending = Some(Ending::Panicked);
        }
        if self.ending == Some(Ending::Panicked) && self.line.0.ours.get().is_none() {
            self.line.0.ours.set(Some(1011));
            self.line.output().push(Bytes::from_static(&CLOSE_1011));
        }
        self.stuck = None;
        self.until = Some(Instant::now() + self.line.limits().stall);
        self.phase = Phase::Flush;
    }

    /// The goodbye: each step is bounded in time, and the peer can only shorten it.
    fn leave(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        loop {
            let over = match self.until {
                Some(until) => self.timer.poll(until, cx).is_ready(),
                None => false,
            };
            let ended = self.line.0.ended.get();
            match self.phase {
                Phase::Talk => return Poll::Pending,
                _ if self.ending == Some(Ending::Stalled) => return Poll::Ready(Ending::Stalled),
                Phase::Flush => {
                    if over {
                        return Poll::Ready(match self.ending {
                            Some(Ending::Panicked) => Ending::Panicked,
                            _ => Ending::Stalled,
                        });
                    }
                    let (_, written) =
                        self.line.output().write(&mut self.socket.borrow_mut().io, cx);
                    match written {
                        Poll::Pending => {
                            // The peer may be busy writing and read only afterwards.
                            if !ended && !self.line.0.close_seen.get() && self.left > 0 {
                                let mut socket = self.socket.borrow_mut();
                                let _ = socket.discard(&self.line, &mut self.left, cx);
                            }
                            return Poll::Pending;
                        }
                        Poll::Ready(Ok(())) => {
                            let shared = &self.line.0;
                            let waits = shared.ours.get().is_some()
                                && !shared.close_seen.get()
                                && !ended
                                && self.deaf.is_none();
                            self.until = Some(Instant::now() + self.line.limits().linger);
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
                    if !over && socket.discard(&self.line, &mut self.left, cx).is_pending() {
                        return Poll::Pending;
                    }
                    self.phase = Phase::Shut;
                }
                Phase::Shut => {
                    let mut socket = self.socket.borrow_mut();
                    if !over && Pin::new(&mut socket.io).poll_shutdown(cx).is_pending() {
                        return Poll::Pending;
                    }
                    return Poll::Ready(self.verdict());
                }
            }
        }
    }

    fn verdict(&self) -> Ending {
        match self.ending {
            Some(Ending::Panicked) => Ending::Panicked,
            _ => match (self.line.0.ours.get(), self.line.0.theirs.get()) {
                (Some(code), _) | (None, Some(code)) => Ending::Closed(code),
                (None, None) => Ending::Gone,
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

impl<Io, S, E> Future for Driver<Io, S>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: fmt::Display,
{
    type Output = Ending;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ending> {
        let this = self.get_mut();
        this.line.attend(cx.waker(), BUDGET);
        let talking = matches!(this.phase, Phase::Talk) && this.talk(cx).is_pending();
        let polled = if talking { Poll::Pending } else { this.leave(cx) };
        this.line.rest();
        polled
    }
}

impl<Io, S> Drop for Driver<Io, S> {
    fn drop(&mut self) {
        // The runtime may drop a connection that still talks, even while unwinding: the actor is
        // stopped like any other, and a second panic must not take the process along.
        drop_quietly(&mut self.context);
        self.line.forget_on_taken();
    }
}
