//! What the friends and the newcomers have sent, and what became of it.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

use crate::stats::Latencies;

/// Who sent a message of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sender {
    /// The friend who is always there.
    Alice,
    /// The friend who is away half the time, whom the attackers have chosen.
    Bob,
    /// A device that Bob has never written to.
    Newcomer,
}

/// One message.
struct Entry {
    sender: Sender,
    text: String,
    /// When the message was due.
    due: Instant,
    /// The number of Bob's connection at that time; None: he was away.
    connection: Option<u64>,
    is_acked: bool,
    received: u32,
}

/// What happened to newcomers, by whether Bob was there.
#[derive(Debug, Default, Clone, Copy)]
pub struct Newcomers {
    /// How many came.
    pub came: u64,
    /// How many got an Ack.
    pub acked: u64,
}

/// How long one message took.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// Seconds since the run began at which the message was due.
    pub at: f64,
    /// How long.
    pub took: Duration,
    /// Who sent the message.
    pub sender: Sender,
    /// Until the Ack, not until the message arrived.
    pub is_ack: bool,
}

/// The books of one run.
pub struct Ledger {
    entries: RefCell<HashMap<String, Entry>>,
    began: Instant,
    /// From when a message was due to its arriving, where both friends were connected all the time; and to its Ack, for Alice.
    took: RefCell<Vec<Took>>,
    next: Cell<u64>,
    /// The number of Bob's connection; None: he is away.
    connection: Cell<Option<u64>>,
    connections: Cell<u64>,
    /// Nothing new is begun.
    is_stopping: Cell<bool>,
    /// Errors that the friends got, by code, refused connections among them.
    pub errors: RefCell<BTreeMap<u16, u64>>,
    /// Connections of the friends that ended by themselves.
    pub closes: RefCell<BTreeMap<String, u64>>,
    /// Alice's key rotations: sent, confirmed.
    pub keys: Cell<(u64, u64)>,
    /// Alice's authentications with Bob: begun, verified.
    pub auths: Cell<(u64, u64)>,
    /// When the open authentication began.
    pub auth_began: Cell<Option<Instant>>,
    /// Frames of attackers that reached Bob.
    pub nuisance: Cell<u64>,
    /// Newcomers while Bob was there, and while he was away.
    pub newcomers: RefCell<[Newcomers; 2]>,
    /// What newcomers got instead of an Ack.
    pub turned_away: RefCell<BTreeMap<String, u64>>,
}

impl Ledger {
    /// Empty books.
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            entries: RefCell::default(),
            began: Instant::now(),
            took: RefCell::default(),
            next: Cell::default(),
            connection: Cell::default(),
            connections: Cell::default(),
            is_stopping: Cell::default(),
            errors: RefCell::default(),
            closes: RefCell::default(),
            keys: Cell::default(),
            auths: Cell::default(),
            auth_began: Cell::default(),
            nuisance: Cell::default(),
            newcomers: RefCell::default(),
            turned_away: RefCell::default(),
        })
    }

    /// A new message, entered into the books: its id and the frame.
    pub fn send(&self, sender: Sender, from: &str, to: &str, due: Instant) -> (String, String) {
        let number = self.next.get();
        self.next.set(number + 1);
        let id = format!("{:08x}-0000-4000-8000-{number:012x}", sender as u32 + 1);
        let text = format!(
            r#"{{"type":"Send","payload":{{"message_id":"{id}","recipient_id":"{to}","sender_id":"{from}","encrypted_data":"{}","ttl":86400}}}}"#,
            "QUJD".repeat(85)
        );
        let entry = Entry {
            sender,
            text: text.clone(),
            due,
            connection: self.connection.get(),
            is_acked: false,
            received: 0,
        };
        self.entries.borrow_mut().insert(id.clone(), entry);
        (id, text)
    }

    /// The relay has acked a message.
    pub fn ack(&self, id: &str) {
        if let Some(entry) = self.entries.borrow_mut().get_mut(id)
            && !entry.is_acked
        {
            entry.is_acked = true;
            if entry.sender == Sender::Alice {
                self.record(entry, true);
            }
        }
    }

    /// A message has arrived; answers whose it was and whether it came for the first time. None: it is not in the books.
    pub fn receive(&self, id: &str) -> Option<(Sender, bool)> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.get_mut(id)?;
        entry.received += 1;
        let is_first = entry.received == 1;
        let is_between_friends = entry.sender != Sender::Newcomer;
        if is_first
            && is_between_friends
            && entry.connection.is_some()
            && entry.connection == self.connection.get()
        {
            self.record(entry, false);
        }
        Some((entry.sender, is_first))
    }

    fn record(&self, entry: &Entry, is_ack: bool) {
        let elapsed = entry.due.elapsed();
        self.took.borrow_mut().push(Took {
            at: (entry.due - self.began).as_secs_f64(),
            took: elapsed,
            sender: entry.sender,
            is_ack,
        });
    }

    /// Latencies of messages or of Acks that were due in these seconds of the run.
    pub fn latencies(&self, is_ack: bool, due: Range<f64>) -> Latencies {
        let longest = u64::MAX / 2;
        let latencies = Histogram::new_with_bounds(1, longest, 3);
        let mut latencies: Histogram<u64> = latencies.expect("these bounds are possible");
        for took in self.took.borrow().iter() {
            if took.is_ack == is_ack && due.contains(&took.at) {
                latencies.saturating_record(u64::try_from(took.took.as_nanos()).unwrap_or(longest));
            }
        }
        latencies.into()
    }

    /// The slowest messages and Acks, slowest first.
    pub fn slowest(&self, count: usize) -> Vec<Took> {
        let mut all = self.took.borrow().clone();
        all.sort_by_key(|one| Reverse(one.took));
        all.truncate(count);
        all
    }

    /// The frame of a message that is not acked yet.
    pub fn text(&self, id: &str) -> Option<String> {
        let entries = self.entries.borrow();
        entries.get(id).filter(|entry| !entry.is_acked).map(|entry| entry.text.clone())
    }

    /// The frames of this sender that are not acked yet, oldest first.
    pub fn unacked(&self, sender: Sender) -> Vec<String> {
        let entries = self.entries.borrow();
        let mut unacked: Vec<_> =
            entries.iter().filter(|(_, entry)| entry.sender == sender && !entry.is_acked).collect();
        unacked.sort_unstable_by_key(|(id, _)| *id);
        unacked.into_iter().map(|(_, entry)| entry.text.clone()).collect()
    }

    /// A friend got an Error, or was refused a connection.
    pub fn error(&self, code: u16) {
        *self.errors.borrow_mut().entry(code).or_default() += 1;
    }

    /// Bob has a connection.
    pub fn begin_connection(&self) {
        let number = self.connections.get() + 1;
        self.connections.set(number);
        self.connection.set(Some(number));
    }

    /// Bob has none.
    pub fn end_connection(&self) {
        self.connection.set(None);
    }

    /// Whether Bob has a connection.
    pub fn is_bob_there(&self) -> bool {
        self.connection.get().is_some()
    }

    /// How many connections Bob has had.
    pub fn connections(&self) -> u64 {
        self.connections.get()
    }

    /// From now on nothing new is begun.
    pub fn stop(&self) {
        self.is_stopping.set(true);
    }

    /// See [`Self::stop`].
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.get()
    }

    /// Of a sender's messages: sent, acked, received, received more than once.
    pub fn count(&self, sender: Sender) -> [u64; 4] {
        let entries = self.entries.borrow();
        let mut counts = [0; 4];
        for entry in entries.values().filter(|entry| entry.sender == sender) {
            let facts = [true, entry.is_acked, entry.received > 0, entry.received > 1];
            for (count, is_so) in counts.iter_mut().zip(facts) {
                *count += u64::from(is_so);
            }
        }
        counts
    }

    /// Everything that the friends have sent is acked and has arrived, and so has what the relay took from newcomers.
    pub fn is_settled(&self) -> bool {
        let is_done = |entry: &Entry| match entry.sender {
            Sender::Newcomer => !entry.is_acked || entry.received > 0,
            _ => entry.is_acked && entry.received > 0,
        };
        let is_equal = |(begun, done)| begun == done;
        self.entries.borrow().values().all(is_done)
            && is_equal(self.keys.get())
            && is_equal(self.auths.get())
    }

    /// What the relay must not do and has done; empty: nothing.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |count: u64, text: &str| {
            if count > 0 {
                faults.push(format!("{count} {text}"));
            }
        };
        for sender in [Sender::Alice, Sender::Bob] {
            let [sent, acked, received, twice] = self.count(sender);
            fault(sent - acked, &format!("messages of {sender:?} without Ack"));
            fault(sent - received, &format!("messages of {sender:?} that did not arrive"));
            fault(twice, &format!("messages of {sender:?} that arrived twice"));
        }
        let entries = self.entries.borrow();
        let lost = entries.values().filter(|entry| {
            entry.sender == Sender::Newcomer && entry.is_acked && entry.received == 0
        });
        fault(lost.count() as u64, "acked messages of newcomers that did not arrive");
        for (code, count) in &*self.errors.borrow() {
            if [503, 507].contains(code) {
                fault(*count, &format!("Errors {code} for the friends"));
            }
        }
        for (newcomers, when) in self.newcomers.borrow().iter().zip(["there", "away"]) {
            fault(
                newcomers.came - newcomers.acked,
                &format!("newcomers without Ack while Bob was {when}"),
            );
        }
        for (why, count) in &*self.turned_away.borrow() {
            fault(*count, &format!("newcomers got: {why}"));
        }
        for (how, count) in &*self.closes.borrow() {
            fault(*count, &format!("connections of friends that ended: {how}"));
        }
        let (keys, auths) = (self.keys.get(), self.auths.get());
        fault(keys.0 - keys.1, "key rotations of Alice without KeyRotationAck");
        fault(auths.0 - auths.1, "authentications of Alice that were not verified");
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acked_and_did_not_arrive_is_a_fault() {
        let ledger = Ledger::new();
        let (id, text) = ledger.send(Sender::Alice, "a", "b", Instant::now());
        assert_eq!(ledger.unacked(Sender::Alice), [text]);
        ledger.ack(&id);
        assert_eq!(ledger.faults(), ["1 messages of Alice that did not arrive"]);
        assert!(!ledger.is_settled());
        assert_eq!(ledger.receive(&id), Some((Sender::Alice, true)));
        assert!(ledger.is_settled() && ledger.faults().is_empty());
        assert_eq!(ledger.receive(&id), Some((Sender::Alice, false)));
        assert_eq!(ledger.faults(), ["1 messages of Alice that arrived twice"]);
        assert_eq!(ledger.receive("another"), None);
    }

    #[test]
    fn a_latency_counts_only_where_bob_was_there_all_the_time() {
        let ledger = Ledger::new();
        let send = || ledger.send(Sender::Alice, "a", "b", Instant::now()).0;
        let away = send();
        ledger.begin_connection();
        let (there, unlucky) = (send(), send());
        ledger.receive(&away);
        ledger.receive(&there);
        ledger.end_connection();
        ledger.begin_connection();
        ledger.receive(&unlucky);
        assert_eq!(ledger.latencies(false, 0.0..60.0).borrow().len(), 1);
        assert_eq!(ledger.latencies(false, 60.0..99.0).borrow().len(), 0);
        assert_eq!(ledger.latencies(true, 0.0..60.0).borrow().len(), 0);
    }

    #[test]
    fn only_a_refusal_for_want_of_room_is_a_fault_of_the_relay() {
        let ledger = Ledger::new();
        [429, 507, 503, 507].into_iter().for_each(|code| ledger.error(code));
        assert_eq!(
            ledger.faults(),
            ["1 Errors 503 for the friends", "2 Errors 507 for the friends"]
        );
    }
}
