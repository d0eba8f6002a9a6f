//! The line: what the actor, its input stream and the driver of one connection share.
//!
//! All three live on one thread, so a handful of cells is enough. The actor sees the public half;
//! the rest is how input and driver tell each other what happened.

use std::{
    cell::{Cell, RefCell, RefMut},
    fmt,
    rc::Rc,
    sync::Arc,
    task::Waker,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Limits,
    frame_decoder::{self, ProtocolViolation},
    heartbeat::Found,
    outbound::Outbound,
};

/// Stands for a Close frame without a code (RFC 6455 §7.1.5).
pub(super) const NO_CODE: u16 = 1005;

/// Whom [`SocketHandle::on_written`] names.
type OnWritten = Box<dyn Fn(u64)>;

pub(super) struct Shared {
    pub(super) limits: Arc<Limits>,
    paused: Cell<bool>,
    backlog: Cell<usize>,
    /// What was written and not yet taken by the socket.
    output: RefCell<Outbound>,
    /// Who is told what the socket took.
    on_written: RefCell<Option<OnWritten>>,
    // Events are kept as facts, not as a queue: what the actor has not heard yet is overtaken by
    // what is true now, and nothing can pile up.
    pub(super) heartbeat_due: Cell<Option<bool>>,
    pub(super) idle: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    polling: Cell<bool>,
    repoll: Cell<bool>,
    /// Bytes that may still be read in this poll of the driver.
    pub(super) budget: Cell<usize>,
    /// A frame was completed since the driver last looked.
    pub(super) frame_seen: Cell<bool>,
    /// When the socket last gave bytes.
    pub(super) last_read_at: Cell<Option<Instant>>,
    /// Since when a frame or message is unfinished, while we are listening.
    pub(super) unfinished: Cell<Option<Instant>>,
    /// The peer will send nothing more.
    pub(super) ended: Cell<bool>,
    pub(super) violation: Cell<Option<ProtocolViolation>>,
    /// The code of our Close frame; 1005 stands for an empty one.
    pub(super) sent_close: Cell<Option<u16>>,
    /// The code of the peer's.
    pub(super) received_close: Cell<Option<u16>>,
    /// The peer's Close frame has arrived, lawful or not.
    pub(super) close_seen: Cell<bool>,
}

/// A connection as its actor holds it. Cheap to clone; belongs to one thread.
#[derive(Clone)]
pub struct SocketHandle(pub(super) Rc<Shared>);

impl SocketHandle {
    pub(super) fn new(limits: Arc<Limits>) -> Self {
        SocketHandle(Rc::new(Shared {
            limits,
            paused: Cell::default(),
            backlog: Cell::default(),
            output: RefCell::default(),
            on_written: RefCell::default(),
            heartbeat_due: Cell::default(),
            idle: Cell::default(),
            waker: RefCell::default(),
            polling: Cell::default(),
            repoll: Cell::default(),
            budget: Cell::default(),
            frame_seen: Cell::default(),
            last_read_at: Cell::default(),
            unfinished: Cell::default(),
            ended: Cell::default(),
            violation: Cell::default(),
            sent_close: Cell::default(),
            received_close: Cell::default(),
            close_seen: Cell::default(),
        }))
    }

    /// Has `tell` called whenever the socket took every byte up to a watermark, and so up to every lower one:
    /// they are the kernel's now. Not called on the actor's turn, so that nothing need be polled for it;
    /// forgotten when the actor ends.
    pub fn on_written(&self, tell: impl Fn(u64) + 'static) {
        self.0.on_written.replace(Some(Box::new(tell)));
    }

    /// Stops (`true`) or resumes (`false`) reading the socket. While paused no further frame is
    /// heard, the peer's silence is not held against it, and its deadline for an unfinished message
    /// does not run.
    pub fn pause(&self, yes: bool) {
        if self.0.paused.replace(yes) && !yes {
            self.wake();
        }
    }

    /// Declares that everything written so far is "up to `mark`". Marks only grow.
    /// Whoever asked by [`Self::on_written`] is told once the socket took those bytes.
    pub fn watermark(&self, watermark: u64) {
        self.output().watermark(watermark);
        if !self.0.polling.get() {
            self.wake();
        }
    }

    /// Bytes that were written by the actor and not yet taken by the socket.
    pub fn backlog(&self) -> usize {
        self.0.backlog.get()
    }

    /// The limits that this connection was given.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Whether the input must rest: by the actor's wish, or because the peer does not read.
    pub(super) fn blocked(&self) -> bool {
        self.0.paused.get() || self.0.backlog.get() > self.0.limits.outbound_high_watermark
    }

    pub(super) fn set_backlog(&self, bytes: usize) {
        let blocked = self.blocked();
        self.0.backlog.set(bytes);
        if blocked && !self.blocked() {
            self.0.repoll.set(true);
        }
    }

    pub(super) fn output(&self) -> RefMut<'_, Outbound> {
        self.0.output.borrow_mut()
    }

    pub(super) fn notify_written(&self, watermark: Option<u64>) {
        if let (Some(watermark), Some(tell)) = (watermark, &*self.0.on_written.borrow()) {
            tell(watermark);
        }
    }

    /// Whoever asked has no actor any more, though others may still hold its handle.
    pub(super) fn forget_on_written(&self) {
        self.0.on_written.take();
    }

    /// Sends one frame; nothing once the connection is closed.
    pub(super) fn send(&self, opcode: u8, payload: Bytes) {
        if self.0.sent_close.get().is_none() {
            self.output().frame(opcode, payload);
        }
    }

    /// Sends the Close frame; nothing if one was sent.
    pub(super) fn send_close(&self, code: Option<u16>, reason: &str) {
        if self.0.sent_close.get().is_some() {
            return;
        }
        self.0.sent_close.set(Some(code.unwrap_or(NO_CODE)));
        // RFC 6455 §5.5.1: a code and a reason, or neither.
        let bytes = code.map(u16::to_be_bytes);
        let bytes = bytes.as_ref().map_or(&[][..], |bytes| bytes);
        self.output().small_frame(frame_decoder::CLOSE, &[bytes, reason.as_bytes()]);
    }

    /// Passes on at the actor's next poll, for which this asks, what the clock found.
    pub(super) fn note_heartbeat(&self, found: Found) {
        if found.beat.is_some() {
            self.0.heartbeat_due.set(found.beat);
        }
        self.0.idle.set(found.silent || self.0.idle.get());
        self.0.repoll.set(true);
    }

    /// Records the first breach; the input stream passes it on to the actor.
    pub(super) fn violation(&self, violation: ProtocolViolation) {
        if self.0.violation.get().is_none() {
            self.0.violation.set(Some(violation));
            self.0.repoll.set(true);
        }
    }

    /// The driver's poll begins: from here to `rest`, wishes are heard without a wake-up.
    pub(super) fn begin_poll(&self, waker: &Waker, budget: usize) {
        self.0.polling.set(true);
        self.0.budget.set(budget);
        let mut kept = self.0.waker.borrow_mut();
        if !kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            *kept = Some(waker.clone());
        }
    }

    pub(super) fn end_poll(&self) {
        self.0.polling.set(false);
    }

    /// Whether the actor must be polled once more, because something changed since it was.
    pub(super) fn take_repoll(&self) -> bool {
        self.0.repoll.take()
    }

    fn wake(&self) {
        self.0.repoll.set(true);
        if !self.0.polling.get() {
            // Cloned, so that a waker that runs code of its own finds the cell free.
            let waker = self.0.waker.borrow().clone();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl fmt::Debug for SocketHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketHandle")
            .field("paused", &self.0.paused.get())
            .field("backlog", &self.0.backlog.get())
            .field("sent_close", &self.0.sent_close.get())
            .field("received_close", &self.0.received_close.get())
            .finish_non_exhaustive()
    }
}
