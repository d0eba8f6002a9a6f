//! The socket handle: state that the actor, its event stream and the connection task share.
//!
//! All three live on one thread, so cells are enough. The actor uses the public methods; the event
//! stream and the task use the others to coordinate.

use std::{
    cell::{Cell, RefCell, RefMut},
    fmt,
    rc::Rc,
    sync::Arc,
    task::Waker,
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Limits, Watermark,
    frame_decoder::{self, ProtocolViolation},
    heartbeat::Found,
    outbound::Outbound,
};

/// Stands for a Close frame without a code (RFC 6455 §7.1.5).
pub(super) const NO_CODE: u16 = 1005;

/// The callback of [`SocketHandle::on_written`].
type OnWritten = Box<dyn Fn(Watermark)>;

pub(super) struct Shared {
    pub(super) limits: Arc<Limits>,
    paused: Cell<bool>,
    backlog: Cell<usize>,
    /// Output that the socket has not accepted.
    output: RefCell<Outbound>,
    on_written: RefCell<Option<OnWritten>>,
    // Not a queue: a later heartbeat replaces one that the actor has not handled, so nothing piles up.
    pub(super) heartbeat_due: Cell<Option<bool>>,
    pub(super) idle: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    polling: Cell<bool>,
    repoll: Cell<bool>,
    /// Bytes that may still be read in this poll of the task.
    pub(super) budget: Cell<usize>,
    /// A frame was completed since the last heartbeat check.
    pub(super) frame_seen: Cell<bool>,
    /// When the socket last yielded bytes.
    pub(super) last_read_at: Cell<Option<Instant>>,
    /// Since when a frame or message is unfinished, while the input is read.
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

    /// Calls `notify` with a watermark once the socket has accepted every byte up to it, and so up to
    /// every lower one. `notify` runs outside the actor's context, so that the actor need not be polled;
    /// it is dropped when the actor stops.
    pub fn on_written(&self, notify: impl Fn(Watermark) + 'static) {
        self.0.on_written.replace(Some(Box::new(notify)));
    }

    /// Stops (`true`) or resumes (`false`) reading the socket. While paused, no further
    /// message is handed over, and neither the idle timeout nor the deadline for an unfinished message
    /// runs.
    pub fn pause(&self, yes: bool) {
        if self.0.paused.replace(yes) && !yes {
            self.wake();
        }
    }

    /// Marks the end of everything written so far. The numbers of watermarks only grow. The callback of
    /// [`Self::on_written`] receives the watermark once the socket has accepted those bytes.
    pub fn watermark(&self, watermark: Watermark) {
        self.output().watermark(watermark);
        if !self.0.polling.get() {
            self.wake();
        }
    }

    /// Bytes that the actor has written and the socket has not accepted.
    pub fn backlog(&self) -> usize {
        self.0.backlog.get()
    }

    /// How long the peer has sent nothing; `None` if it never sent anything after its handshake.
    pub fn silence(&self) -> Option<Duration> {
        self.0.last_read_at.get().map(|at| at.elapsed())
    }

    /// The code of our Close frame, or of the peer's; `None` while there is neither.
    pub fn close_code(&self) -> Option<u16> {
        self.0.sent_close.get().or(self.0.received_close.get())
    }

    /// How the peer has broken the protocol: the code and the reason of our Close frame.
    pub fn broken(&self) -> Option<(u16, &'static str)> {
        self.0.violation.get().map(|violation| (violation.code(), violation.reason()))
    }

    /// The limits that this connection was given.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Whether input is not read: the actor paused it, or the peer does not read.
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

    pub(super) fn notify_written(&self, watermark: Option<Watermark>) {
        if let (Some(watermark), Some(notify)) = (watermark, &*self.0.on_written.borrow()) {
            notify(watermark);
        }
    }

    /// Drops the callback of [`Self::on_written`]: clones of the handle may outlive the actor.
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

    /// Hands the result of a heartbeat check to the actor, and asks for a poll.
    pub(super) fn note_heartbeat(&self, found: Found) {
        if found.beat.is_some() {
            self.0.heartbeat_due.set(found.beat);
        }
        self.0.idle.set(found.silent || self.0.idle.get());
        self.0.repoll.set(true);
    }

    /// Records the first violation; the event stream closes the connection at its next poll.
    pub(super) fn violation(&self, violation: ProtocolViolation) {
        if self.0.violation.get().is_none() {
            self.0.violation.set(Some(violation));
            self.0.repoll.set(true);
        }
    }

    /// The task's poll begins: until [`Self::end_poll`], `repoll` is enough and no wake-up is needed.
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
