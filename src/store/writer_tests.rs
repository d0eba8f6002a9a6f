//! The writer, on a simulated disk that is slow, full or broken when a test wants it.

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::protocol::envelope::Seq;
use crate::protocol::id::DeviceId;
use crate::store::database::tests::{Dice, Loss, Sim, message};
use crate::store::queue_writer::QueueWriter;
use crate::store::records::{Fingerprint, MessageRecord};
use crate::store::snapshot_requests::NoSnapshot;
use crate::store::{Loaded, database};
use crate::store::{PutOutcome, Store};

struct Fixture {
    store: QueueWriter,
    sim: Sim,
    reports: Receiver<Outcome>,
    last_put: u64,
}

impl Fixture {
    fn new() -> Self {
        Self::with(Duration::from_millis(2))
    }

    fn with(interval: Duration) -> Self {
        Self::in_boot(interval, Clock::system(), &known_boot())
    }

    fn in_boot(interval: Duration, clock: Clock, boots: &Boots) -> Self {
        let sim = Sim::default();
        let (report, reports) = channel();
        let policy = CommitPolicy { interval, batch: 1024, dedup_window: Duration::from_secs(600) };
        let disk = Database::open(sim.clone()).expect("a new disk");
        let store = QueueWriter::start(
            disk,
            SimFile { sim: sim.clone(), is_lost: false },
            SyncFailed::default(),
            policy,
            (clock, boots),
            move |outcome| {
                let _ = report.send(outcome);
            },
        );
        Self { store: store.expect("a thread"), sim, reports, last_put: 0 }
    }

    fn put(&mut self, seq: Seq) -> PutOutcome {
        self.put_bytes(seq, 9)
    }

    fn put_bytes(&mut self, seq: Seq, bytes: usize) -> PutOutcome {
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

    fn next_report(&self) -> Outcome {
        self.reports.recv_timeout(Duration::from_secs(20)).expect("a report in time")
    }

    /// Waits until every put is committed.
    fn wait_until_committed(&self) {
        while self.next_report() != Outcome::Committed(PutSeq(self.last_put)) {}
    }

    /// The content of the database after a loss of power.
    fn after_power_loss(&self) -> Loaded {
        let bytes = self.sim.after(Loss::All, &mut Dice(0));
        let disk = Database::open(Sim::holding(bytes)).expect("it opens");
        database::tests::load(&disk)
    }

    fn seqs(&self) -> Vec<Seq> {
        self.after_power_loss().messages.iter().map(|record| record.seq).collect()
    }
}

/// A boot that is on disk already.
fn known_boot() -> Boots {
    let mut boots = Boots::default();
    boots.enter(Some(1), Clock::system().now());
    Boots { is_new: false, ..boots }
}

/// The simulated disk as a file that may be lost.
struct SimFile {
    sim: Sim,
    is_lost: bool,
}

impl DatabaseFile for SimFile {
    fn reopen(&self) -> Result<Database, OpenError> {
        self.check()?;
        let opened = Database::open_existing(self.sim.clone());
        opened.map_err(|failed| OpenError::of(Path::new("a disk"), &failed))
    }

    fn bytes(&self) -> u64 {
        0
    }

    fn check(&self) -> Result<(), OpenError> {
        match self.is_lost {
            true => Err(OpenError::lost(Path::new("a disk"), "it was removed")),
            false => Ok(()),
        }
    }
}

impl Drop for Fixture {
    /// A test that fails must not wait for a blocked sync.
    fn drop(&mut self) {
        self.sim.set(|disk| disk.sync_blocked = false);
    }
}

/// Without a message: the next restart in another boot needs both.
#[test]
fn a_new_boot_and_a_step_of_the_wall_clock_are_written_at_once() {
    let (clock, mut boots) = (Clock::still(), Boots::default());
    boots.enter(Some(7), clock.now());
    let mut fixture = Fixture::in_boot(Duration::ZERO, clock.clone(), &boots);
    let on_disk = |fixture: &Fixture| fixture.after_power_loss().boots.records[0];
    fixture.wait_until_committed();
    assert_eq!(on_disk(&fixture), boots.current());
    clock.set_wall_clock_ahead(3_600_000);
    fixture.wait_until_committed();
    let stepped = boots.current().wall_offset_ms + 3_600_000;
    assert_eq!(on_disk(&fixture).wall_offset_ms, stepped);
    // With the next commit, too, and also after one that failed.
    fixture.sim.set(|disk| disk.full = true);
    clock.set_wall_clock_ahead(7_200_000);
    fixture.put(1);
    assert!(matches!(fixture.next_report(), Outcome::Failed(_)));
    fixture.sim.set(|disk| disk.full = false);
    while fixture.next_report() != Outcome::Recovered {}
    assert_eq!(on_disk(&fixture).wall_offset_ms, stepped + 3_600_000);
}

#[test]
fn many_puts_share_few_syncs() {
    let mut fixture = Fixture::with(Duration::from_millis(50));
    let before = fixture.sim.state().syncs;
    for seq in 1..=1000 {
        assert_eq!(fixture.put(seq), PutOutcome::Pending);
    }
    fixture.wait_until_committed();
    let syncs = fixture.sim.state().syncs - before;
    assert!(syncs <= 20, "{syncs} syncs");
    assert_eq!(fixture.seqs().len(), 1000);
}

#[test]
fn nothing_is_reported_before_it_is_synced() {
    let mut fixture = Fixture::new();
    fixture.sim.set(|disk| disk.sync_blocked = true);
    fixture.put(1);
    fixture.sim.wait(|disk| disk.sync_waiting);
    assert!(fixture.reports.try_recv().is_err());
    assert!(fixture.seqs().is_empty());
    fixture.sim.set(|disk| disk.sync_blocked = false);
    fixture.wait_until_committed();
    assert_eq!(fixture.seqs(), [1]);
}

#[test]
fn a_removal_before_the_commit_saves_the_write() {
    let mut fixture = Fixture::new();
    fixture.sim.set(|disk| disk.sync_blocked = true);
    fixture.put(1);
    fixture.sim.wait(|disk| disk.sync_waiting);
    fixture.put(2);
    fixture.remove(2, None);
    fixture.sim.set(|disk| disk.sync_blocked = false);
    assert_eq!(fixture.next_report(), Outcome::Committed(PutSeq(1)));
    fixture.store.close();
    assert!(fixture.reports.try_recv().is_err(), "there was nothing to write");
    assert_eq!(fixture.seqs(), [1]);
}

/// An expired message and its notice: half of the two would notify the sender twice, or never.
#[test]
fn changes_before_a_flush_are_committed_together_or_not_at_all() {
    let mut fixture = Fixture::with(Duration::ZERO);
    fixture.put(1);
    fixture.wait_until_committed();
    fixture.sim.set(|disk| disk.sync_blocked = true);
    let syncs = fixture.sim.state().syncs;
    fixture.stage(2, 9);
    fixture.store.remove(1, None);
    assert_eq!(fixture.sim.state().syncs, syncs, "nothing is written before it is whole");
    fixture.store.flush();
    fixture.sim.wait(|disk| disk.sync_waiting);
    assert_eq!(fixture.seqs(), [1]);
    fixture.sim.set(|disk| disk.sync_blocked = false);
    fixture.wait_until_committed();
    assert_eq!(fixture.seqs(), [2]);
}

/// The Registry learns of a failure only with its next flush.
#[test]
fn a_record_that_was_staged_while_the_disk_failed_is_reported_as_failed() {
    let mut fixture = Fixture::new();
    fixture.sim.set(|disk| disk.full = true);
    fixture.put(1);
    assert_eq!(fixture.stage(2, 9), PutOutcome::Pending);
    assert_eq!(fixture.next_report(), Outcome::Failed(PutSeq(1)));
    fixture.store.flush();
    assert_eq!(fixture.next_report(), Outcome::Failed(PutSeq(2)));
    fixture.sim.set(|disk| disk.full = false);
    assert_eq!(fixture.next_report(), Outcome::Recovered);
    fixture.store.close();
    assert!(fixture.seqs().is_empty());
}

#[test]
fn a_full_batch_does_not_wait_for_its_interval_whatever_its_flushes() {
    let mut fixture = Fixture::with(Duration::from_secs(3600));
    let sender = DeviceId::from_u128(1);
    let fingerprint = Fingerprint { sender, key: 1, content: 1, recorded_at: BootTime::default() };
    fixture.put(1);
    // One change, then two in each flush: the number of changes is never exactly the size of the batch.
    for seq in 10..600 {
        fixture.remove(seq, Some(fingerprint));
    }
    fixture.wait_until_committed();
}

#[test]
fn a_full_disk_rejects_puts_and_recovers_by_itself() {
    let mut fixture = Fixture::new();
    fixture.put(1);
    fixture.wait_until_committed();
    fixture.sim.set(|disk| disk.full = true);
    assert_eq!(fixture.put(2), PutOutcome::Pending);
    assert_eq!(fixture.next_report(), Outcome::Failed(PutSeq(2)));
    assert!(fixture.store.is_failing() && !fixture.store.is_backlogged());
    assert_eq!(fixture.put(3), PutOutcome::Rejected);
    fixture.remove(1, None);
    fixture.sim.set(|disk| disk.full = false);
    assert_eq!(fixture.next_report(), Outcome::Recovered);
    assert!(!fixture.store.is_failing());
    assert_eq!(fixture.put(4), PutOutcome::Pending);
    fixture.wait_until_committed();
    assert_eq!(fixture.seqs(), [4], "what was refused stays away, what was removed is gone");
}

#[test]
fn close_writes_everything_that_is_pending() {
    let mut fixture = Fixture::with(Duration::from_secs(3600));
    for seq in 1..=500 {
        fixture.put(seq);
    }
    fixture.store.close();
    assert_eq!(fixture.seqs().len(), 500);
}

#[test]
fn close_ends_although_the_disk_is_full() {
    let mut fixture = Fixture::new();
    fixture.sim.set(|disk| disk.full = true);
    fixture.put(1);
    assert_eq!(fixture.next_report(), Outcome::Failed(PutSeq(1)));
    fixture.store.close();
    assert!(fixture.seqs().is_empty());
}

#[test]
fn a_slow_disk_is_backlogged_and_catches_up() {
    let mut fixture = Fixture::new();
    fixture.sim.set(|disk| disk.sync_blocked = true);
    fixture.put(1);
    fixture.sim.wait(|disk| disk.sync_waiting);
    let mut seq = 1;
    while !fixture.store.is_backlogged() {
        seq += 1;
        fixture.put_bytes(seq, 1024 * 1024);
        assert!(seq < 200, "it is never backlogged");
    }
    // A record that is removed before its commit is not written.
    for seq in 2..=seq {
        fixture.remove(seq, None);
    }
    assert!(!fixture.store.is_backlogged());
    fixture.sim.set(|disk| disk.sync_blocked = false);
    assert_eq!(fixture.next_report(), Outcome::Committed(PutSeq(1)));
}

#[test]
fn a_sequence_number_is_never_used_twice_across_a_restart() {
    let mut fixture = Fixture::new();
    fixture.put(41);
    fixture.wait_until_committed();
    fixture.remove(41, None);
    fixture.store.close();
    assert_eq!(fixture.after_power_loss().next_seq, 42);
}

/// Runs one of the tests below, which ends its process, in a process of its own. Returns the exit status.
fn exit_status_of(name: &str) -> Option<i32> {
    let me = std::env::current_exe().expect("a test binary");
    let name = format!("store::writer::tests::{name}");
    let args = ["--exact", "--ignored", "--nocapture", &name];
    std::process::Command::new(me).args(args).output().expect("it runs").status.code()
}

/// The writer's thread must end the process, not the test's thread.
fn park_forever() -> ! {
    loop {
        std::thread::park();
    }
}

#[test]
fn a_writer_that_panics_takes_the_process_with_it() {
    assert_eq!(exit_status_of("child_whose_writer_panics"), Some(70));
}

#[test]
#[ignore = "ends its process: run by another test"]
fn child_whose_writer_panics() {
    let mut fixture = Fixture::new();
    fixture.sim.set(|disk| disk.write_panics = true);
    fixture.put(1);
    park_forever();
}

#[test]
fn a_failed_sync_ends_the_process_and_nothing_is_reported() {
    assert_eq!(exit_status_of("child_whose_disk_does_not_sync"), Some(74));
}

#[test]
#[ignore = "ends its process: run by another test"]
fn child_whose_disk_does_not_sync() {
    let sim = Sim::default();
    let sync_failed = SyncFailed::default();
    let watched = crate::store::sync_watch::SyncWatch::new(sim.clone(), sync_failed.clone());
    let disk = database::Database::open(watched).expect("a new disk");
    sim.set(|disk| disk.sync_fails = true);
    let policy = CommitPolicy { interval: Duration::ZERO, batch: 1, dedup_window: Duration::ZERO };
    let report = |_: Outcome| std::process::exit(2);
    let file = SimFile { sim, is_lost: false };
    let time = (Clock::system(), &known_boot());
    let store = QueueWriter::start(disk, file, sync_failed, policy, time, report);
    let mut store = store.expect("a thread");
    store.remove_device(DeviceId::from_u128(1));
    store.flush();
    park_forever();
}

/// Idle, too: nobody may learn of the loss with the first message that is acked into nothing.
#[test]
fn a_lost_file_ends_the_process_without_a_commit() {
    assert_eq!(exit_status_of("child_whose_file_is_lost"), Some(74));
}

#[test]
#[ignore = "ends its process: run by another test"]
fn child_whose_file_is_lost() {
    let _store = lost();
    park_forever();
}

#[test]
fn an_orderly_end_with_a_lost_file_is_none() {
    assert_eq!(exit_status_of("child_that_closes_a_lost_file"), Some(74));
}

#[test]
#[ignore = "ends its process: run by another test"]
fn child_that_closes_a_lost_file() {
    lost().close();
    std::process::exit(0);
}

fn lost() -> QueueWriter {
    let sim = Sim::default();
    let disk = Database::open(sim.clone()).expect("a new disk");
    let file = SimFile { sim, is_lost: true };
    let policy = CommitPolicy { interval: Duration::ZERO, batch: 1, dedup_window: Duration::ZERO };
    let (failed, clock) = (SyncFailed::default(), Clock::system());
    QueueWriter::start(disk, file, failed, policy, (clock, &known_boot()), |_| {})
        .expect("a thread")
}

#[test]
fn a_snapshot_has_what_was_committed_and_commits_go_on_beside_it() {
    let mut fixture = Fixture::new();
    let snapshots = fixture.store.snapshots();
    let before = snapshots.take().expect("a snapshot").send(|_| Ok(())).expect("rows");
    for seq in 1..=50 {
        fixture.put(seq);
    }
    fixture.wait_until_committed();
    let snapshot = snapshots.take().expect("a snapshot");
    for seq in 1..=50 {
        fixture.remove(seq, None);
        fixture.put_bytes(seq + 50, 5_000);
    }
    fixture.wait_until_committed();
    // One row more: the next sequence number.
    assert_eq!(snapshot.send(|_| Ok(())).expect("rows"), before + 51);
}

/// The database is opened again after a failure, and knows nothing of the readers of before.
#[test]
fn a_snapshot_ends_at_a_failure_and_none_is_given_until_the_disk_takes_writes() {
    let mut fixture = Fixture::new();
    let snapshots = fixture.store.snapshots();
    fixture.put(1);
    fixture.wait_until_committed();
    let snapshot = snapshots.take().expect("a snapshot");
    fixture.sim.set(|state| state.full = true);
    fixture.put(2);
    assert_eq!(fixture.next_report(), Outcome::Failed(PutSeq(2)));
    assert_eq!(snapshots.take().expect_err("none"), NoSnapshot::Failing);
    fixture.sim.set(|state| state.full = false);
    while fixture.next_report() != Outcome::Recovered {}
    snapshot.send(|_| Ok(())).expect_err("it has ended");
    let again = snapshots.take().expect("a snapshot").send(|_| Ok(()));
    assert!(again.expect("rows") > 0);
    fixture.store.close();
    assert_eq!(snapshots.take().expect_err("none"), NoSnapshot::Closing);
}

#[test]
fn a_snapshot_that_is_wanted_during_a_commit_comes_after_it() {
    let mut fixture = Fixture::new();
    let snapshots = fixture.store.snapshots();
    let before = snapshots.take().expect("a snapshot").send(|_| Ok(())).expect("rows");
    fixture.sim.set(|state| state.sync_blocked = true);
    fixture.put(1);
    fixture.sim.wait(|state| state.sync_waiting);
    let wanted = std::thread::spawn(move || snapshots.take());
    fixture.sim.set(|state| state.sync_blocked = false);
    fixture.wait_until_committed();
    let snapshot = wanted.join().expect("no panic").expect("a snapshot");
    assert_eq!(snapshot.send(|_| Ok(())).expect("rows"), before + 2);
}
