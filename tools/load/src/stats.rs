//! What is counted while a run lasts. One thread does everything, so cells are enough.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::messages::{self, Id};

/// The longest latency that is told apart from longer ones: ten minutes, in nanoseconds.
const LONGEST: u64 = 600_000_000_000;
/// A run that meets this number of Errors ends.
const ENOUGH: u64 = 10_000;

/// Latencies, in nanoseconds.
pub type Latencies = RefCell<Histogram<u64>>;

/// Shared by all connections of a run.
pub struct Stats {
    origin: Instant,
    /// Messages sent from then on, and before that, are measured: nanoseconds since the origin.
    window: Cell<(u64, u64)>,
    /// Nothing new is to be sent.
    stopped: Cell<bool>,
    /// Connections are to be left in peace: from here on their ends are no surprise.
    is_over: Cell<bool>,
    /// The relay acks what it has; otherwise arriving is the only answer.
    acks: bool,
    /// The run has met the largest number of Errors and ends.
    enough: u64,
    /// Messages sent.
    pub sent: Cell<u64>,
    /// Messages that arrived.
    pub received: Cell<u64>,
    /// Messages that the relay acked.
    pub acked: Cell<u64>,
    /// From sending to arriving.
    pub to_receive: Latencies,
    /// From sending to the relay's Ack.
    pub to_ack: Latencies,
    /// Errors by code.
    pub errors: RefCell<BTreeMap<u16, u64>>,
    /// Connections that ended though they should not have, by how.
    pub closes: RefCell<BTreeMap<String, u64>>,
}

impl Stats {
    /// Nothing yet, and nothing is measured yet.
    pub fn new() -> Rc<Self> {
        Self::with_acks(true)
    }

    /// The same for a relay that acks, or does not.
    pub fn with_acks(acks: bool) -> Rc<Self> {
        Self::of(acks, ENOUGH)
    }

    /// The same for devices to whom Errors are part of the plan: no number of them stops the run.
    pub fn expecting_errors() -> Rc<Self> {
        Self::of(true, u64::MAX)
    }

    fn of(acks: bool, enough: u64) -> Rc<Self> {
        let latencies = || {
            let histogram = Histogram::new_with_bounds(1, LONGEST, 3);
            RefCell::new(histogram.expect("these bounds are possible"))
        };
        Rc::new(Self {
            origin: Instant::now(),
            window: Cell::new((u64::MAX, u64::MAX)),
            stopped: Cell::default(),
            is_over: Cell::default(),
            acks,
            enough,
            sent: Cell::default(),
            received: Cell::default(),
            acked: Cell::default(),
            to_receive: latencies(),
            to_ack: latencies(),
            errors: RefCell::default(),
            closes: RefCell::default(),
        })
    }

    /// Nanoseconds since the origin.
    pub fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// From now on, for that long, what is sent is measured.
    pub fn measure(&self, time: Duration) {
        let now = self.now();
        self.window.set((now, now + time.as_nanos() as u64));
    }

    /// From now on, until [`Self::close_window`], what is sent is measured; what was measured before is forgotten.
    pub fn open_window(&self) {
        self.to_receive.borrow_mut().reset();
        self.to_ack.borrow_mut().reset();
        self.window.set((self.now(), u64::MAX));
    }

    /// What is sent from now on is not measured. What was sent before is, whenever it arrives.
    pub fn close_window(&self) {
        self.window.set((self.window.get().0, self.now()));
    }

    /// From now on nothing new is sent.
    pub fn stop(&self) {
        self.stopped.set(true);
    }

    /// See [`Self::stop`].
    pub fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    /// From now on connections may end.
    pub fn end(&self) {
        self.stopped.set(true);
        self.is_over.set(true);
    }

    /// A message arrived.
    pub fn receive(&self, id: &Id, now: u64) {
        self.received.set(self.received.get() + 1);
        self.record(&self.to_receive, messages::sent_at(id), now);
    }

    /// The relay acked a message.
    pub fn ack(&self, id: &Id, now: u64) {
        self.acked.set(self.acked.get() + 1);
        self.record(&self.to_ack, messages::sent_at(id), now);
    }

    /// By when a message was sent, not by when it arrived: the slowest would be left out otherwise.
    fn record(&self, latencies: &Latencies, sent: u64, now: u64) {
        let (from, until) = self.window.get();
        if (from..until).contains(&sent) {
            latencies.borrow_mut().saturating_record(now.saturating_sub(sent));
        }
    }

    /// One more message is on its way.
    pub fn send(&self) {
        self.sent.set(self.sent.get() + 1);
    }

    /// The relay refused something.
    pub fn error(&self, code: u16) {
        *self.errors.borrow_mut().entry(code).or_default() += 1;
        if self.enough < u64::MAX && self.errors() >= self.enough {
            self.stop();
        }
    }

    /// Errors of all codes.
    pub fn errors(&self) -> u64 {
        self.errors.borrow().values().sum()
    }

    /// A connection ended.
    pub fn close(&self, how: String) {
        if !self.is_over.get() {
            *self.closes.borrow_mut().entry(how).or_default() += 1;
        }
    }

    /// Messages that got neither Ack nor Error yet.
    pub fn unanswered(&self) -> u64 {
        if !self.acks {
            return 0;
        }
        self.sent.get().saturating_sub(self.acked.get() + self.errors())
    }

    /// Messages that were acked, or sent where there are no acks, and have not arrived yet.
    pub fn undelivered(&self) -> u64 {
        let taken = if self.acks { &self.acked } else { &self.sent };
        taken.get().saturating_sub(self.received.get())
    }
}
