//! The durable store: the Registry's thread stages changes, a thread of its own commits them, many in one sync.
//!
//! The Registry never waits for the disk. The writer reports each commit as an [`Outcome`]; only then a sender gets its Ack.
//! A record that is removed before its commit is never written. The changes between two flushes are in one commit: an
//! expired message and the notice to its sender are both safe, or neither is.

use std::cell::Cell;
use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::boots::{BootRecord, BootTime, Boots};
use super::database::{Changes, Database};
use super::open::OpenError;
use super::pending_changes::{Change, PendingChanges};
use super::records::{CorrespondentRecord, DeviceRecord, Fingerprint, MessageRecord};
use super::snapshot::Snapshot;
use super::sync_watch::SyncFailed;
use super::{PutOutcome, PutSeq, Store};
use crate::abort_on_panic::AbortOnPanic;
use crate::clock::Clock;
use crate::protocol::envelope::{Envelope, Seq};
use crate::protocol::id::DeviceId;

/// Shortest pause between two attempts while the disk fails.
const RETRY: Duration = Duration::from_millis(250);

/// Longest pause, for a database that takes seconds to open.
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// How often the path of the database and the offset of the wall clock are checked. A check is a few system calls, made
/// between two commits.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Uncommitted changes above which senders are slowed down.
const BACKLOG_CHANGES: usize = 64 * 1024;

/// Bytes of uncommitted messages above which senders are slowed down.
const BACKLOG_BYTES: usize = 64 * 1024 * 1024;

/// How long a snapshot waits for a commit. The disk of a longer one counts as failing.
const LONGEST_COMMIT: Duration = Duration::from_secs(30);

/// Changes for which memory is kept from flush to flush.
const STAGED_CAPACITY: usize = 4096;

/// Exit status after a failed sync, or when the database's file is gone (EX_IOERR of sysexits.h).
pub const EXIT_CODE: i32 = 74;

/// The result of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All records through this put are safe.
    Committed(PutSeq),
    /// Of the records through this put, only those that were committed before are safe.
    Failed(PutSeq),
    /// The disk takes writes again: rejected and failed records can be put again.
    Recovered,
}

/// The file under the database, on the writer's thread.
pub trait DatabaseFile {
    /// Opens the same file again after a failure, and never creates one.
    ///
    /// # Errors
    ///
    /// The file cannot be opened now, or is lost: see [`OpenError::is_lost`].
    fn reopen(&self) -> Result<Database, OpenError>;

    /// Whether the path still leads to the open file. Messages that are committed to another file are lost with it.
    ///
    /// # Errors
    ///
    /// The file is lost.
    fn check(&self) -> Result<(), OpenError>;
}

#[derive(Debug, Clone, Copy)]
pub struct CommitPolicy {
    /// How long the first change of a batch waits for more changes.
    pub interval: Duration,
    /// Number of changes that are committed without waiting any longer.
    pub batch: usize,
    /// How long a fingerprint is needed.
    pub dedup_window: Duration,
}

#[derive(Debug)]
pub struct QueueWriter {
    shared: Arc<Shared>,
    /// Changes since the last flush.
    staged: Vec<Change>,
    staged_bytes: usize,
    thread: Option<JoinHandle<()>>,
}

/// What the Registry's thread and the writer's thread share.
#[derive(Debug)]
struct Shared {
    pending: Mutex<PendingChanges>,
    changed: Condvar,
    /// Number of changes for which the writer is woken.
    batch: usize,
    failing: AtomicBool,
    /// Size of `pending` at its last change, for a reader that must not wait for the lock.
    len: AtomicUsize,
    bytes: AtomicUsize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, PendingChanges> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while<'a>(
        &self,
        pending: MutexGuard<'a, PendingChanges>,
        longest: Duration,
        condition: impl FnMut(&mut PendingChanges) -> bool,
    ) -> MutexGuard<'a, PendingChanges> {
        let waited = self.changed.wait_timeout_while(pending, longest, condition);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    fn measure(&self, pending: &PendingChanges) {
        self.len.store(pending.changes.len(), Ordering::Relaxed);
        self.bytes.store(pending.bytes, Ordering::Relaxed);
    }
}

impl QueueWriter {
    /// Starts the writer's thread, on which `report` and the methods of `file` are called.
    ///
    /// # Errors
    ///
    /// The thread cannot be created.
    pub fn start(
        database: Database,
        file: impl DatabaseFile + Send + 'static,
        sync_failed: SyncFailed,
        policy: CommitPolicy,
        (clock, boots): (Clock, &Boots),
        report: impl Fn(Outcome) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            pending: Mutex::default(),
            changed: Condvar::new(),
            batch: policy.batch,
            failing: AtomicBool::default(),
            len: AtomicUsize::default(),
            bytes: AtomicUsize::default(),
        });
        let database = Some(database);
        let writer = Writer {
            shared: shared.clone(),
            database,
            file,
            checked: Instant::now(),
            sync_failed,
            policy,
            clock,
            boot: Cell::new(boots.current()),
            boot_written: Cell::new(!boots.is_new),
            report,
        };
        let thread = std::thread::Builder::new()
            .name("sealpost-store".to_owned())
            .spawn(move || writer.run())?;
        Ok(Self { shared, staged: Vec::new(), staged_bytes: 0, thread: Some(thread) })
    }

    pub fn snapshots(&self) -> Snapshots {
        Snapshots(self.shared.clone())
    }
}

/// Asks the writer's thread for snapshots, from any thread.
#[derive(Debug, Clone)]
pub struct Snapshots(Arc<Shared>);

/// Why there is no snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSnapshot {
    /// The disk is full or fails.
    Failing,
    /// The relay ends.
    Closing,
}

impl Snapshots {
    /// What is committed between two commits; everything that was acked before is in it. Waits for a commit that is under way,
    /// so it is not for the thread of an actor.
    ///
    /// # Errors
    ///
    /// The writer has none to give.
    pub fn take(&self) -> Result<Snapshot, NoSnapshot> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        {
            let mut pending = self.0.lock();
            if pending.closing {
                return Err(NoSnapshot::Closing);
            }
            if self.0.is_failing() {
                return Err(NoSnapshot::Failing);
            }
            pending.snapshot_wanted = Some(sender);
        }
        self.0.changed.notify_one();
        let snapshot = receiver.recv_timeout(LONGEST_COMMIT);
        snapshot.map_err(|_| {
            let closing = self.0.lock().closing;
            if closing { NoSnapshot::Closing } else { NoSnapshot::Failing }
        })
    }
}

impl Store for QueueWriter {
    fn put(&mut self, record: MessageRecord<&Envelope>, put_seq: PutSeq) -> PutOutcome {
        if self.shared.is_failing() {
            return PutOutcome::Rejected;
        }
        let MessageRecord { seq, to, expires_at, envelope } = record;
        self.staged_bytes += envelope.body.len();
        let record = MessageRecord { seq, to, expires_at, envelope: envelope.clone() };
        self.staged.push(Change::Put(put_seq, record));
        PutOutcome::Pending
    }

    fn remove(&mut self, seq: Seq, fingerprint: Option<Fingerprint>) {
        self.staged.push(Change::Remove(seq, fingerprint));
    }

    fn replace(&mut self, record: MessageRecord<&Envelope>) {
        let MessageRecord { seq, to, expires_at, envelope } = record;
        let record = MessageRecord { seq, to, expires_at, envelope: envelope.clone() };
        self.staged.push(Change::Replace(record));
    }

    fn put_fingerprint(&mut self, fingerprint: Fingerprint) {
        self.staged.push(Change::Fingerprint(fingerprint));
    }

    fn put_device(&mut self, device: DeviceRecord) {
        self.staged.push(Change::Device(device.id, Some(device)));
    }

    fn remove_device(&mut self, id: DeviceId) {
        self.staged.push(Change::Device(id, None));
    }

    fn report_commit(&mut self, put_seq: PutSeq) -> PutOutcome {
        if self.shared.is_failing() {
            return PutOutcome::Rejected;
        }
        self.staged.push(Change::Report(put_seq));
        PutOutcome::Pending
    }

    fn put_correspondent(&mut self, correspondent: CorrespondentRecord) {
        self.staged.push(Change::Correspondent(correspondent));
    }

    fn flush(&mut self) {
        if self.staged.is_empty() {
            return;
        }
        let mut pending = self.shared.lock();
        let (before, was_empty) = (pending.changes.len(), pending.is_empty());
        for change in self.staged.drain(..) {
            pending.apply(change);
        }
        self.staged.shrink_to(STAGED_CAPACITY);
        self.staged_bytes = 0;
        let after = pending.changes.len();
        pending.since.get_or_insert_with(Instant::now);
        self.shared.measure(&pending);
        drop(pending);
        let is_full = before < self.shared.batch && after >= self.shared.batch;
        if was_empty || is_full {
            self.shared.changed.notify_one();
        }
    }

    fn is_failing(&self) -> bool {
        self.shared.is_failing()
    }

    fn is_backlogged(&self) -> bool {
        // Waiting for a disk that fails would not end; its puts are rejected instead.
        !self.shared.is_failing()
            && (self.shared.len.load(Ordering::Relaxed) + self.staged.len() > BACKLOG_CHANGES
                || self.shared.bytes.load(Ordering::Relaxed) + self.staged_bytes > BACKLOG_BYTES)
    }

    fn close(&mut self) {
        self.flush();
        self.shared.lock().closing = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the writer has ended the process already.
            let _ = thread.join();
        }
    }
}

impl Drop for QueueWriter {
    fn drop(&mut self) {
        self.close();
    }
}

struct Writer<F, R> {
    shared: Arc<Shared>,
    /// `None` after a failure, until the database is opened again.
    database: Option<Database>,
    file: F,
    /// When the path of `file` was last checked.
    checked: Instant,
    sync_failed: SyncFailed,
    policy: CommitPolicy,
    clock: Clock,
    /// The current boot, with the offset of the wall clock that was noticed last.
    boot: Cell<BootRecord>,
    boot_written: Cell<bool>,
    report: R,
}

impl<F: DatabaseFile, R: Fn(Outcome)> Writer<F, R> {
    fn run(mut self) {
        // Dropped before `self`: after a panic the database must not be closed, because closing writes.
        let _guard = AbortOnPanic(format_args!("the queue's writer panicked, the process ends"));
        while let Some((changes, last_put)) = self.next_batch() {
            match self.write(&changes) {
                Ok(()) => (self.report)(Outcome::Committed(last_put)),
                Err(error) => self.on_failure(changes, &error),
            }
            self.check_file_if_due();
        }
        // An orderly end would hide that the last messages are in no file.
        let _ = end_if_lost(self.file.check());
    }

    /// Waits for a change, and then for more until the batch is full or its interval is over. `None` at the end.
    fn next_batch(&mut self) -> Option<(Changes, PutSeq)> {
        let pending = loop {
            let due = match self.boot_to_write() {
                Some(_) => Duration::ZERO,
                None => CHECK_INTERVAL.saturating_sub(self.checked.elapsed()),
            };
            let mut pending = self.shared.wait_while(self.shared.lock(), due, |pending| {
                pending.is_empty() && !pending.closing && pending.snapshot_wanted.is_none()
            });
            if let Some(wanted) = pending.snapshot_wanted.take() {
                drop(pending);
                self.give_snapshot(&wanted);
                continue;
            }
            if !pending.is_empty() || self.boot_to_write().is_some() {
                break pending;
            }
            if pending.closing {
                return None;
            }
            drop(pending);
            self.check_file_if_due();
        };
        // Changes that came during the last commit have waited already.
        let waited = pending.since.map_or(Duration::ZERO, |since| since.elapsed());
        let left = self.policy.interval.saturating_sub(waited);
        let mut pending = self.shared.wait_while(pending, left, |pending| {
            pending.changes.len() < self.policy.batch && !pending.closing
        });
        Some((self.take(&mut pending), pending.last_put))
    }

    /// Without one, the sender is dropped, which tells who waits.
    fn give_snapshot(&self, wanted: &SyncSender<Snapshot>) {
        if let Some(database) = &self.database {
            match database.snapshot() {
                Ok(snapshot) => drop(wanted.try_send(snapshot)),
                Err(error) => log::error!("no snapshot of the queue error={error}"),
            }
        }
    }

    fn take(&self, pending: &mut PendingChanges) -> Changes {
        let changes = mem::take(&mut pending.changes);
        pending.bytes = 0;
        pending.since = None;
        pending.owes_report = false;
        self.shared.measure(pending);
        let boot = self.boot_to_write();
        Changes { boot, oldest_fingerprint: self.oldest_fingerprint(), ..changes }
    }

    /// The current boot, unless it is on disk as it is. The next restart in another boot needs the offset of the wall clock.
    fn boot_to_write(&self) -> Option<BootRecord> {
        if let Some(renewed) = self.boot.get().renewed(self.clock.now()) {
            self.boot.set(renewed);
            self.boot_written.set(false);
        }
        (!self.boot_written.get()).then(|| self.boot.get())
    }

    /// No restart recognises a repeat by an older fingerprint. Those of earlier boots are needed for a whole window of this one,
    /// because the wall clock may have been set back.
    fn oldest_fingerprint(&self) -> BootTime {
        let BootRecord { number, entered, .. } = self.boot.get();
        let passed = self.clock.moment() - entered.mono;
        passed
            .checked_sub(self.policy.dedup_window)
            .map_or(BootTime::OVER, |since| BootTime { boot: number, at: entered.mono + since })
    }

    fn write(&mut self, changes: &Changes) -> Result<(), redb::Error> {
        let database = match &mut self.database {
            // Every put was taken back before its commit.
            Some(_) if changes.is_empty() => return Ok(()),
            Some(database) => database,
            closed => {
                let opened = end_if_lost(self.file.reopen());
                let error = |error: OpenError| io::Error::other(error.to_string());
                closed.insert(opened.map_err(error)?)
            }
        };
        let committed = database.commit(changes);
        if committed.is_err() {
            self.database = None;
        } else if self.sync_failed.get() {
            // The database may ignore a failed sync; this store does not.
            return Err(io::Error::other("a sync failed").into());
        } else if changes.boot.is_some() {
            self.boot_written.set(true);
        }
        committed
    }

    /// The records of a batch that cannot be written are lost; all other changes are tried again until they succeed.
    fn on_failure(&mut self, changes: Changes, error: &redb::Error) {
        self.end_if_sync_failed(error);
        log::error!("the queue cannot be written, new messages are refused error={error}");
        let last_put = {
            let mut pending = self.shared.lock();
            self.shared.failing.store(true, Ordering::Release);
            self.restage(&mut pending, changes);
            pending.last_put
        };
        (self.report)(Outcome::Failed(last_put));
        if self.retry_until_writable() {
            self.shared.failing.store(false, Ordering::Release);
            log::info!("the queue can be written again");
            (self.report)(Outcome::Recovered);
        }
    }

    /// Puts failed changes back under the newer pending ones, without their records and without the pending records.
    fn restage(&self, pending: &mut PendingChanges, failed: Changes) {
        let newer = &mut pending.changes;
        newer.puts.clear();
        for (seq, record) in failed.replaced {
            newer.replaced.entry(seq).or_insert(record);
        }
        // A failed commit may be on disk all the same, and a rejected record must not come back.
        newer.removes.extend(failed.puts.into_keys());
        newer.removes.extend(failed.removes);
        newer.fingerprints.extend(failed.fingerprints);
        for (id, device) in failed.devices {
            newer.devices.entry(id).or_insert(device);
        }
        for (key, correspondent) in failed.correspondents {
            newer.correspondents.entry(key).or_insert(correspondent);
        }
        pending.bytes = 0;
        self.shared.measure(pending);
    }

    /// `false` if the relay ends before the disk takes a write.
    fn retry_until_writable(&mut self) -> bool {
        let mut pause = RETRY;
        loop {
            let changes = {
                // New changes do not end the pause.
                let pending = self.shared.lock();
                let mut pending =
                    self.shared.wait_while(pending, pause, |pending| !pending.closing);
                pending.snapshot_wanted = None;
                if !pending.changes.puts.is_empty() || pending.owes_report {
                    // These records were staged before the Registry knew of the failure.
                    pending.changes.puts.clear();
                    (self.report)(Outcome::Failed(pending.last_put));
                }
                self.take(&mut pending)
            };
            let began = Instant::now();
            let written = self.write(&changes).and_then(|()| self.probe());
            // Opening a large database reads all of it: a full disk must not keep a core at work.
            pause = RETRY.max(4 * began.elapsed()).min(LONGEST_RETRY);
            let Err(error) = written else { return true };
            self.end_if_sync_failed(&error);
            let mut pending = self.shared.lock();
            self.restage(&mut pending, changes);
            if pending.closing {
                log::error!("the queue could not be written to the end error={error}");
                pending.changes = Changes::default();
                self.boot_written.set(true);
                return false;
            }
        }
    }

    /// Whether there is space for new messages too, not only for the changes that are pending.
    fn probe(&mut self) -> Result<(), redb::Error> {
        let probed = self.database.as_mut().map_or(Ok(()), Database::probe);
        if probed.is_err() {
            self.database = None;
        }
        probed
    }

    fn check_file_if_due(&mut self) {
        if self.checked.elapsed() >= CHECK_INTERVAL {
            let _ = end_if_lost(self.file.check());
            self.checked = Instant::now();
        }
    }

    /// After a failed sync the kernel's view of the file cannot be trusted; a restart reads what is on disk.
    fn end_if_sync_failed(&self, error: &redb::Error) {
        if self.sync_failed.get() {
            end(format_args!("the disk failed to sync the queue, the process ends error={error}"));
        }
    }
}

/// A file that is lost does not come back. To serve on would be to acknowledge messages that no restart finds.
fn end_if_lost<T>(result: Result<T, OpenError>) -> Result<T, OpenError> {
    match result {
        Err(error) if error.is_lost() => {
            end(format_args!("the queue's file is lost, the process ends error={error}"))
        }
        result => result,
    }
}

fn end(why: std::fmt::Arguments<'_>) -> ! {
    log::error!("{why}");
    log::logger().flush();
    std::process::exit(EXIT_CODE)
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
