//! The writer, on a disk that can be watched, filled, stopped and broken.

use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::store::database::tests::{Dice, Loss, Sim, message};
use crate::store::{Loaded, database};

struct House {
    store: QueueWriter,
    sim: Sim,
    reports: Receiver<Outcome>,
    last_put: u64,
}

impl House {
    fn new() -> Self {
        Self::with(Duration::from_millis(2))
    }

    fn with(interval: Duration) -> Self {
        let sim = Sim::default();
        let (report, reports) = channel();
        let policy = CommitPolicy { interval, batch: 1024, dedup_window: Duration::from_secs(600) };
        let disk = Database::open(sim.clone()).expect("a new disk");
        let again = sim.clone();
        let path = std::path::Path::new("a disk");
        let reopen = move |_: &SyncFailed| {
            Database::open(again.clone()).map_err(|failed| OpenError::of(path, &failed))
        };
        let store = QueueWriter::start(
            disk,
            reopen,
            SyncFailed::default(),
            policy,
            Clock::system(),
            move |outcome| {
                let _ = report.send(outcome);
            },
        );
        Self { store: store.expect("a thread"), sim, reports, last_put: 0 }
    }

    fn put(&mut self, seq: Seq) -> PutOutcome {
        self.put_of(seq, 9)
    }

    fn put_of(&mut self, seq: Seq, bytes: usize) -> PutOutcome {
        let outcome = self.stage(seq, bytes);
        self.store.flush();
        outcome
    }

    /// Puts without a flush.
    fn stage(&mut self, seq: Seq, bytes: usize) -> PutOutcome {
        self.last_put += 1;
        let MessageRecord { seq, to, expires_at, envelope } = message(seq, bytes);
        let record = MessageRecord { seq, to, expires_at, envelope: &envelope };
        self.store.put(record, PutSeq(self.last_put))
    }

    fn remove(&mut self, seq: Seq, fingerprint: Option<Fingerprint>) {
        self.store.remove(seq, fingerprint);
        self.store.flush();
    }

    fn hears(&self) -> Outcome {
        self.reports.recv_timeout(Duration::from_secs(20)).expect("a report in time")
    }

    /// Waits until everything that was put is safe.
    fn is_safe(&self) {
        while self.hears() != Outcome::Committed(PutSeq(self.last_put)) {}
    }

    /// What a restart finds.
    fn found(&self) -> Loaded {
        let bytes = self.sim.after(Loss::All, &mut Dice(0));
        let disk = Database::open(Sim::holding(bytes)).expect("it opens");
        disk.load(10, Duration::MAX).expect("it can be read")
    }

    fn seqs(&self) -> Vec<Seq> {
        self.found().messages.iter().map(|record| record.seq).collect()
    }
}

impl Drop for House {
    /// A test that fails must not wait for a disk that is stuck.
    fn drop(&mut self) {
        self.sim.set(|disk| disk.stuck = false);
    }
}

#[test]
fn many_puts_share_few_syncs() {
    let mut house = House::with(Duration::from_millis(50));
    let before = house.sim.state().syncs;
    for seq in 1..=1000 {
        assert_eq!(house.put(seq), PutOutcome::Pending);
    }
    house.is_safe();
    let syncs = house.sim.state().syncs - before;
    assert!(syncs <= 20, "{syncs} syncs");
    assert_eq!(house.seqs().len(), 1000);
}

#[test]
fn nothing_is_reported_before_it_is_synced() {
    let mut house = House::new();
    house.sim.set(|disk| disk.stuck = true);
    house.put(1);
    house.sim.wait(|disk| disk.waiting);
    assert!(house.reports.try_recv().is_err());
    assert!(house.seqs().is_empty());
    house.sim.set(|disk| disk.stuck = false);
    house.is_safe();
    assert_eq!(house.seqs(), [1]);
}

#[test]
fn a_removal_before_the_commit_saves_the_write() {
    let mut house = House::new();
    house.sim.set(|disk| disk.stuck = true);
    house.put(1);
    house.sim.wait(|disk| disk.waiting);
    house.put(2);
    house.remove(2, None);
    house.sim.set(|disk| disk.stuck = false);
    assert_eq!(house.hears(), Outcome::Committed(PutSeq(1)));
    house.store.close();
    assert!(house.reports.try_recv().is_err(), "there was nothing to write");
    assert_eq!(house.seqs(), [1]);
}

/// An expiry and its notice: half of it would tell a sender twice, or never.
#[test]
fn what_is_said_before_a_flush_is_safe_together_or_not_at_all() {
    let mut house = House::with(Duration::ZERO);
    house.put(1);
    house.is_safe();
    house.sim.set(|disk| disk.stuck = true);
    let syncs = house.sim.state().syncs;
    house.stage(2, 9);
    house.store.remove(1, None);
    assert_eq!(house.sim.state().syncs, syncs, "nothing is written before it is whole");
    house.store.flush();
    house.sim.wait(|disk| disk.waiting);
    assert_eq!(house.seqs(), [1]);
    house.sim.set(|disk| disk.stuck = false);
    house.is_safe();
    assert_eq!(house.seqs(), [2]);
}

/// The Registry learns of a failure only with its next flush.
#[test]
fn what_was_on_its_way_when_the_disk_failed_is_refused_or_kept() {
    let mut house = House::new();
    house.sim.set(|disk| disk.full = true);
    house.put(1);
    assert_eq!(house.stage(2, 9), PutOutcome::Pending);
    assert_eq!(house.hears(), Outcome::Failed(PutSeq(1)));
    house.store.flush();
    assert_eq!(house.hears(), Outcome::Failed(PutSeq(2)));
    house.sim.set(|disk| disk.full = false);
    assert_eq!(house.hears(), Outcome::Recovered);
    house.store.close();
    assert!(house.seqs().is_empty());
}

#[test]
fn a_full_batch_does_not_wait_for_its_interval_however_it_came_together() {
    let mut house = House::with(Duration::from_secs(3600));
    let sender = DeviceId::from_u128(1);
    let fingerprint = Fingerprint { sender, key: 1, content: 1, recorded_at: 0 };
    house.put(1);
    // One step, then two at a time: the size of the batch is never hit exactly.
    for seq in 10..600 {
        house.remove(seq, Some(fingerprint));
    }
    house.is_safe();
}

#[test]
fn a_disk_that_is_full_refuses_and_recovers_by_itself() {
    let mut house = House::new();
    house.put(1);
    house.is_safe();
    house.sim.set(|disk| disk.full = true);
    assert_eq!(house.put(2), PutOutcome::Pending);
    assert_eq!(house.hears(), Outcome::Failed(PutSeq(2)));
    assert!(house.store.is_failing() && !house.store.is_backlogged());
    assert_eq!(house.put(3), PutOutcome::Rejected);
    house.remove(1, None);
    house.sim.set(|disk| disk.full = false);
    assert_eq!(house.hears(), Outcome::Recovered);
    assert!(!house.store.is_failing());
    assert_eq!(house.put(4), PutOutcome::Pending);
    house.is_safe();
    assert_eq!(house.seqs(), [4], "what was refused stays away, what was removed is gone");
}

#[test]
fn close_writes_everything_that_waits() {
    let mut house = House::with(Duration::from_secs(3600));
    for seq in 1..=500 {
        house.put(seq);
    }
    house.store.close();
    assert_eq!(house.seqs().len(), 500);
}

#[test]
fn close_ends_although_the_disk_is_full() {
    let mut house = House::new();
    house.sim.set(|disk| disk.full = true);
    house.put(1);
    assert_eq!(house.hears(), Outcome::Failed(PutSeq(1)));
    house.store.close();
    assert!(house.seqs().is_empty());
}

#[test]
fn a_slow_disk_falls_behind_and_catches_up() {
    let mut house = House::new();
    house.sim.set(|disk| disk.stuck = true);
    house.put(1);
    house.sim.wait(|disk| disk.waiting);
    let mut seq = 1;
    while !house.store.is_backlogged() {
        seq += 1;
        house.put_of(seq, 1024 * 1024);
        assert!(seq < 200, "it must say so before memory is gone");
    }
    // What is taken back before it was written need not be written.
    for seq in 2..=seq {
        house.remove(seq, None);
    }
    assert!(!house.store.is_backlogged());
    house.sim.set(|disk| disk.stuck = false);
    assert_eq!(house.hears(), Outcome::Committed(PutSeq(1)));
}

#[test]
fn a_sequence_is_never_given_twice_over_a_restart() {
    let mut house = House::new();
    house.put(41);
    house.is_safe();
    house.remove(41, None);
    house.store.close();
    assert_eq!(house.found().next_seq, 42);
}

/// Runs one of the tests below in a process of its own, which it ends. Answers its exit status.
fn end_of(name: &str) -> Option<i32> {
    let me = std::env::current_exe().expect("a test binary");
    let name = format!("store::writer::tests::{name}");
    let args = ["--exact", "--ignored", "--nocapture", &name];
    std::process::Command::new(me).args(args).output().expect("it runs").status.code()
}

/// The writer's thread ends the process; this one must not do so before.
fn stays() -> ! {
    loop {
        std::thread::park();
    }
}

#[test]
fn a_writer_that_panics_takes_the_process_with_it() {
    assert_eq!(end_of("child_whose_writer_panics"), Some(70));
}

#[test]
#[ignore = "ends its process: run by another test"]
fn child_whose_writer_panics() {
    let mut house = House::new();
    house.sim.set(|disk| disk.mad = true);
    house.put(1);
    stays();
}

#[test]
fn a_failed_sync_ends_the_process_and_nothing_is_reported() {
    assert_eq!(end_of("child_whose_disk_does_not_sync"), Some(74));
}

#[test]
#[ignore = "ends its process: run by another test"]
fn child_whose_disk_does_not_sync() {
    let sim = Sim::default();
    let sync_failed = SyncFailed::default();
    let watched = crate::store::sync_watch::SyncWatch::new(sim.clone(), sync_failed.clone());
    let disk = database::Database::open(watched).expect("a new disk");
    sim.set(|disk| disk.lies = true);
    let policy = CommitPolicy { interval: Duration::ZERO, batch: 1, dedup_window: Duration::ZERO };
    let reopen = |_: &SyncFailed| -> Result<Database, OpenError> { std::process::exit(1) };
    let report = |_: Outcome| std::process::exit(2);
    let store = QueueWriter::start(disk, reopen, sync_failed, policy, Clock::system(), report);
    let mut store = store.expect("a thread");
    store.remove_device(DeviceId::from_u128(1));
    store.flush();
    stays();
}
