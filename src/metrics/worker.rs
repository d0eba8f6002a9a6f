//! The counters of one worker's thread: what its sessions receive, send, refuse and how they end.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Counter, Labelled};
use crate::protocol::kind::{Kind, Outgoing};

/// The codes of refusals. (protocol: Error codes)
const CODES: [&str; 11] =
    ["400", "401", "403", "404", "409", "410", "413", "429", "503", "507", "other"];

/// How connections end: the code of the Close frame; `gone` without one, `stalled` where the client did not read.
const CLOSED: [&str; 16] = [
    "1000", "1001", "1002", "1003", "1005", "1007", "1008", "1009", "1011", "1013", "4401", "4408",
    "4409", "gone", "stalled", "other",
];

/// Why a socket did not become a WebSocket.
const HANDSHAKES: [&str; 11] = [
    "sockets",
    "full",
    "address",
    "draining",
    "origin",
    "host",
    "timeout",
    "too_large",
    "not_found",
    "malformed",
    "other",
];

/// What was refused because of a rate.
pub const LIMITED: [&str; 5] = ["message", "control", "registration", "resume", "other"];

/// How registrations end.
pub const REGISTRATIONS: [&str; 4] = ["registered", "resumed", "refused", "other"];

/// The counters of one thread.
#[derive(Debug)]
pub struct WorkerMetrics {
    /// Well-formed frames by [`Kind`]; `refused` for those that are too large or in the name of another device.
    received: Labelled<{ Kind::ALL.len() }>,
    malformed: Counter,
    refused: Counter,
    sent: Labelled<{ Outgoing::NAMES.len() }>,
    /// `Error` frames that answer a frame.
    pub rejected: Labelled<{ CODES.len() }>,
    /// By the index in [`LIMITED`].
    pub limited: Labelled<{ LIMITED.len() }>,
    /// By the index in [`REGISTRATIONS`].
    pub registrations: Labelled<{ REGISTRATIONS.len() }>,
    /// How connections ended.
    pub closed: Labelled<{ CLOSED.len() }>,
    /// Sockets that did not become a WebSocket.
    pub handshakes: Labelled<{ HANDSHAKES.len() }>,
}

impl Default for WorkerMetrics {
    fn default() -> Self {
        Self {
            received: Labelled::new(&Kind::NAMES),
            malformed: Counter::default(),
            refused: Counter::default(),
            sent: Labelled::new(&Outgoing::NAMES),
            rejected: Labelled::new(&CODES),
            limited: Labelled::new(&LIMITED),
            registrations: Labelled::new(&REGISTRATIONS),
            closed: Labelled::new(&CLOSED),
            handshakes: Labelled::new(&HANDSHAKES),
        }
    }
}

impl WorkerMetrics {
    /// A frame came.
    pub fn received(&self, kind: Kind) {
        self.received.increase(kind as usize);
    }

    /// A frame came that is refused whatever its type.
    pub fn received_refused(&self, is_malformed: bool) {
        if is_malformed { self.malformed.increase() } else { self.refused.increase() }
    }

    /// A frame is handed to the socket.
    pub fn sent(&self, kind: Outgoing) {
        self.sent.increase(kind as usize);
    }

    /// What came, by type.
    pub fn read_received(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let others = [("malformed", self.malformed.get()), ("refused", self.refused.get())];
        self.received.read().chain(others)
    }

    /// What was handed to sockets, by type.
    pub fn read_sent(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.sent.read()
    }
}

thread_local! {
    // A thread that is no worker of a relay, in a test, counts for nobody.
    static CURRENT: RefCell<Arc<WorkerMetrics>> = RefCell::default();
}

/// Counts something on this thread.
pub fn count(count: impl FnOnce(&WorkerMetrics)) {
    CURRENT.with_borrow(|metrics| count(metrics));
}

/// The counters of all threads of a relay.
#[derive(Debug, Default)]
pub struct Workers(Mutex<Vec<Arc<WorkerMetrics>>>);

impl Workers {
    /// Gives this thread counters of this relay's.
    pub fn enter(&self) {
        let metrics = Arc::<WorkerMetrics>::default();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(metrics.clone());
        CURRENT.set(metrics);
    }

    /// The counters of each thread.
    pub fn all(&self) -> Vec<Arc<WorkerMetrics>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
