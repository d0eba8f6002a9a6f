//! The durable store: told from the Registry's thread, written by a thread of its own, many changes in one commit.
//!
//! The Registry never waits for the disk. It learns of each commit through [`Outcome`]; until then no sender is acked.
//! What is removed before it was written is never written. What it says between two flushes is in one commit, so that
//! what belongs together, an expiry and its notice, is safe together or not at all.

use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::database::{Changes, Database};
use super::open::OpenError;
use super::records::{DeviceRecord, Fingerprint, MessageRecord};
use super::sync_watch::SyncFailed;
use super::{PutOutcome, PutSeq, Store};
use crate::clock::Clock;
use crate::protocol::envelope::{Envelope, Seq};
use crate::protocol::id::DeviceId;

/// How long a failing disk is left alone between two tries.
const RETRY: Duration = Duration::from_millis(250);

/// The same where each try takes long.
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// Changes that wait before senders had better wait, too.
const BACKLOGGED: usize = 64 * 1024;

/// Changes for which there is room from flush to flush.
const ROOM: usize = 4096;

/// Bytes that wait before senders had better wait, too.
const BACKLOGGED_BYTES: usize = 64 * 1024 * 1024;

/// The exit status of a relay whose disk lost what it had promised to keep (EX_IOERR of sysexits.h).
pub const EXIT_CODE: i32 = 74;

/// The exit status of a relay whose writer has panicked (EX_SOFTWARE of sysexits.h), as of any core actor.
const PANICKED: i32 = 70;

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything put through this turn is safe.
    Committed(PutSeq),
    /// Of what was put through this turn, nothing is kept that was not safe before.
    Failed(PutSeq),
    /// The disk takes writes again; what should be kept and is not can be put again.
    Recovered,
}

/// How the writer works.
#[derive(Debug, Clone, Copy)]
pub struct CommitPolicy {
    /// How long a batch waits for company.
    pub interval: Duration,
    /// Changes that are written without waiting any longer.
    pub batch: usize,
    /// How long a message that is gone is remembered.
    pub dedup_window: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct QueueWriter {
    shared: Arc<Shared>,
    /// Since the last flush.
    staged: Vec<Change>,
    /// Bytes of the records among them.
    staged_bytes: usize,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Change {
    Put(PutSeq, MessageRecord),
    Remove(Seq, Option<Fingerprint>),
    Device(DeviceId, Option<DeviceRecord>),
}

#[derive(Debug)]
struct Shared {
    waiting: Mutex<PendingChanges>,
    changed: Condvar,
    /// Changes that need not wait for more.
    batch: usize,
    /// As of the last change of `waiting`, for who must not wait for the lock.
    failing: AtomicBool,
    len: AtomicUsize,
    bytes: AtomicUsize,
}

#[derive(Debug, Default)]
struct PendingChanges {
    changes: Changes,
    /// Since when the first of them waits.
    since: Option<Instant>,
    bytes: usize,
    /// Of the newest record among them, or of those that were written before.
    last: PutSeq,
    ending: bool,
}

impl PendingChanges {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Put(put_seq, record) => {
                self.bytes += record.envelope.body.len();
                self.last = put_seq;
                self.changes.puts.insert(record.seq, record);
            }
            Change::Remove(seq, fingerprint) => {
                if let Some(record) = self.changes.puts.remove(&seq) {
                    self.bytes -= record.envelope.body.len();
                } else {
                    self.changes.removes.push(seq);
                }
                self.changes.prints.extend(fingerprint);
            }
            Change::Device(id, device) => {
                self.changes.devices.insert(id, device);
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, PendingChanges> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    fn measure(&self, waiting: &PendingChanges) {
        self.len.store(waiting.changes.len(), Ordering::Relaxed);
        self.bytes.store(waiting.bytes, Ordering::Relaxed);
    }
}

impl QueueWriter {
    /// Starts the writer. `report` is called on its thread, for each batch in order; so is `reopen` after a failure.
    ///
    /// # Errors
    ///
    /// When no thread can be had.
    pub fn start(
        disk: Database,
        reopen: impl FnMut(&SyncFailed) -> Result<Database, OpenError> + Send + 'static,
        sync_failed: SyncFailed,
        policy: CommitPolicy,
        clock: Clock,
        report: impl Fn(Outcome) + Send + 'static,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            changed: Condvar::new(),
            batch: policy.batch,
            failing: AtomicBool::default(),
            len: AtomicUsize::default(),
            bytes: AtomicUsize::default(),
        });
        let writer = Writer {
            shared: shared.clone(),
            disk: Some(disk),
            reopen,
            sync_failed,
            policy,
            clock,
            report,
        };
        let writer = std::thread::Builder::new()
            .name("sealpost-store".to_owned())
            .spawn(move || writer.run())?;
        Ok(Self { shared, staged: Vec::new(), staged_bytes: 0, writer: Some(writer) })
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

    fn put_device(&mut self, device: DeviceRecord) {
        self.staged.push(Change::Device(device.id, Some(device)));
    }

    fn remove_device(&mut self, id: DeviceId) {
        self.staged.push(Change::Device(id, None));
    }

    fn flush(&mut self) {
        if self.staged.is_empty() {
            return;
        }
        let mut waiting = self.shared.lock();
        let before = waiting.changes.len();
        for change in self.staged.drain(..) {
            waiting.apply(change);
        }
        self.staged.shrink_to(ROOM);
        self.staged_bytes = 0;
        let after = waiting.changes.len();
        waiting.since.get_or_insert_with(Instant::now);
        self.shared.measure(&waiting);
        drop(waiting);
        let is_full = before < self.shared.batch && after >= self.shared.batch;
        if before == 0 || is_full {
            self.shared.changed.notify_one();
        }
    }

    fn close(&mut self) {
        self.flush();
        self.shared.lock().ending = true;
        self.shared.changed.notify_one();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has said so; there is nothing left to write it with.
            let _ = writer.join();
        }
    }

    fn is_failing(&self) -> bool {
        self.shared.is_failing()
    }

    fn is_backlogged(&self) -> bool {
        // A disk that fails is_failing; whoever waited for it would wait for nothing.
        !self.shared.is_failing()
            && (self.shared.len.load(Ordering::Relaxed) + self.staged.len() > BACKLOGGED
                || self.shared.bytes.load(Ordering::Relaxed) + self.staged_bytes > BACKLOGGED_BYTES)
    }
}

impl Drop for QueueWriter {
    fn drop(&mut self) {
        self.close();
    }
}

/// Held by the writer's thread. A relay that accepts and never acks would be worse than none, so the process does not
/// outlive a panic of its writer.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            log::error!("the queue's writer panicked, the process ends");
            log::logger().flush();
            std::process::exit(PANICKED);
        }
    }
}

struct Writer<O, R> {
    shared: Arc<Shared>,
    /// Closed after a failure, until it can be opened again.
    disk: Option<Database>,
    reopen: O,
    sync_failed: SyncFailed,
    policy: CommitPolicy,
    clock: Clock,
    report: R,
}

impl<O: FnMut(&SyncFailed) -> Result<Database, OpenError>, R: Fn(Outcome)> Writer<O, R> {
    fn run(mut self) {
        // Burns before the database is closed: what is not sound must not write any more.
        let _guard = AbortOnPanic;
        while let Some((changes, last)) = self.gather() {
            match self.write(&changes) {
                Ok(()) => (self.report)(Outcome::Committed(last)),
                Err(failed) => self.failed(changes, &failed),
            }
        }
    }

    /// Waits for changes, and then a little longer for more.
    fn gather(&self) -> Option<(Changes, PutSeq)> {
        let mut waiting = self.shared.lock();
        while waiting.changes.is_empty() {
            if waiting.ending {
                return None;
            }
            waiting = self.wait(waiting, None);
        }
        // What came during the last commit has waited for company long enough.
        let until = waiting.since.unwrap_or_else(Instant::now) + self.policy.interval;
        while waiting.changes.len() < self.policy.batch && !waiting.ending {
            let Some(left) = until.checked_duration_since(Instant::now()) else { break };
            waiting = self.wait(waiting, Some(left));
        }
        Some((self.take(&mut waiting), waiting.last))
    }

    fn take(&self, waiting: &mut PendingChanges) -> Changes {
        waiting.bytes = 0;
        waiting.since = None;
        self.shared.len.store(0, Ordering::Relaxed);
        self.shared.bytes.store(0, Ordering::Relaxed);
        let window = u64::try_from(self.policy.dedup_window.as_millis()).unwrap_or(u64::MAX);
        let now = self.clock.now().wall_ms;
        let memory_ms = now.saturating_sub(window)..=now.saturating_add(window);
        Changes { memory_ms, ..mem::take(&mut waiting.changes) }
    }

    fn wait<'a>(
        &self,
        waiting: MutexGuard<'a, PendingChanges>,
        at_most: Option<Duration>,
    ) -> MutexGuard<'a, PendingChanges> {
        match at_most {
            Some(left) => {
                let woken = self.shared.changed.wait_timeout(waiting, left);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.shared.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner),
        }
    }

    fn write(&mut self, changes: &Changes) -> Result<(), redb::Error> {
        let disk =
            match &mut self.disk {
                // Everything that came was taken back before it was written.
                Some(_) if changes.is_empty() => return Ok(()),
                Some(disk) => disk,
                closed => {
                    let opened = (self.reopen)(&self.sync_failed);
                    closed.insert(opened.map_err(|failed| {
                        redb::Error::Io(std::io::Error::other(failed.to_string()))
                    })?)
                }
            };
        let written = disk.commit(changes);
        if written.is_err() {
            self.disk = None;
        } else if self.sync_failed.get() {
            // Whoever passed over it, we do not.
            return Err(redb::Error::Io(std::io::Error::other("a sync failed")));
        }
        written
    }

    /// A batch that cannot be written: its records are refused, everything else is tried again until it succeeds.
    fn failed(&mut self, changes: Changes, failed: &redb::Error) {
        self.end_if_sync_failed(failed);
        log::error!("the queue cannot be written, new messages are refused error={failed}");
        let last = {
            let mut waiting = self.shared.lock();
            self.shared.failing.store(true, Ordering::Release);
            self.restore(&mut waiting, changes);
            waiting.last
        };
        (self.report)(Outcome::Failed(last));
        if self.retry_until_writable() {
            self.shared.failing.store(false, Ordering::Release);
            log::info!("the queue can be written again");
            (self.report)(Outcome::Recovered);
        }
    }

    /// Changes that failed wait again, under whatever came since; the records among them are lost.
    fn restore(&self, waiting: &mut PendingChanges, failed: Changes) {
        waiting.changes.puts.clear();
        waiting.bytes = 0;
        // What is refused must not come back, should the disk have taken it all the same.
        waiting.changes.removes.extend(failed.puts.into_keys());
        waiting.changes.removes.extend(failed.removes);
        waiting.changes.prints.extend(failed.prints);
        for (id, device) in failed.devices {
            waiting.changes.devices.entry(id).or_insert(device);
        }
        self.shared.measure(waiting);
    }

    /// Tries again until the disk takes a write; `false` if the relay ends before it does.
    fn retry_until_writable(&mut self) -> bool {
        let mut pause = RETRY;
        loop {
            let changes = {
                let mut waiting = self.shared.lock();
                // New changes are no reason to try earlier.
                let until = Instant::now() + pause;
                while !waiting.ending
                    && let Some(left) = until.checked_duration_since(Instant::now())
                {
                    waiting = self.wait(waiting, Some(left));
                }
                if !waiting.changes.puts.is_empty() {
                    // They were on their way when the disk failed.
                    waiting.changes.puts.clear();
                    (self.report)(Outcome::Failed(waiting.last));
                }
                self.take(&mut waiting)
            };
            let began = Instant::now();
            let written = self.write(&changes).and_then(|()| self.probe());
            // Opening a large database anew reads all of it; a full disk must not cost a core for as long as it is full.
            pause = RETRY.max(4 * began.elapsed()).min(LONGEST_RETRY);
            match written {
                Ok(()) => return true,
                Err(failed) => {
                    self.end_if_sync_failed(&failed);
                    let mut waiting = self.shared.lock();
                    self.restore(&mut waiting, changes);
                    if waiting.ending {
                        log::error!("the queue could not be written to the end error={failed}");
                        waiting.changes = Changes::default();
                        return false;
                    }
                }
            }
        }
    }

    /// Whether there is room for more than what had to be written anyway.
    fn probe(&mut self) -> Result<(), redb::Error> {
        let probed = self.disk.as_mut().map_or(Ok(()), Database::probe);
        if probed.is_err() {
            self.disk = None;
        }
        probed
    }

    /// What the kernel says it has written can no longer be believed; a restart reads what is really there.
    fn end_if_sync_failed(&self, failed: &redb::Error) {
        if self.sync_failed.get() {
            log::error!("the disk failed to sync the queue, the process ends error={failed}");
            log::logger().flush();
            std::process::exit(EXIT_CODE);
        }
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
