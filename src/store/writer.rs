//! The writer: a thread of its own that commits what [`super::queue_writer`] hands over, many changes in one sync.
//!
//! The writer reports each commit as an [`Outcome`]; only then a sender gets its Ack.

use std::cell::Cell;
use std::io;
use std::mem;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::PutSeq;
use super::boots::{BootRecord, BootTime, Boots};
use super::database::{Changes, Database};
use super::handover::Shared;
use super::open::OpenError;
use super::pending_changes::PendingChanges;
use super::snapshot::Snapshot;
use super::sync_watch::SyncFailed;
use crate::abort_on_panic::AbortOnPanic;
use crate::clock::Clock;

/// Shortest pause between two attempts while the disk fails.
const RETRY: Duration = Duration::from_millis(250);

/// Longest pause, for a database that takes seconds to open.
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// How often the path of the database and the offset of the wall clock are checked. A check is a few system calls, made
/// between two commits.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

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

    /// The size of the file; 0 if it is not known.
    fn bytes(&self) -> u64;

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

pub(super) struct Writer<F, R> {
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
    pub fn new(
        shared: Arc<Shared>,
        database: Database,
        file: F,
        sync_failed: SyncFailed,
        policy: CommitPolicy,
        (clock, boots): (Clock, &Boots),
        report: R,
    ) -> Self {
        Self {
            shared,
            database: Some(database),
            file,
            checked: Instant::now(),
            sync_failed,
            policy,
            clock,
            boot: Cell::new(boots.current()),
            boot_written: Cell::new(!boots.is_new),
            report,
        }
    }

    /// Commits until the store is closed.
    pub fn run(mut self) {
        // Dropped before `self`: after a panic the database must not be closed, because closing writes.
        let _guard = AbortOnPanic("queue_writer");
        while let Some((changes, last_put)) = self.next_batch() {
            let began = Instant::now();
            match self.write(&changes) {
                Ok(()) => {
                    self.observe(began.elapsed());
                    (self.report)(Outcome::Committed(last_put));
                }
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
                Err(error) => log::error!(error:%; "no snapshot of the queue"),
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
        let committed = self.shared.commit_time.measure(|| database.commit(changes));
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
        log::error!(error:%; "the queue cannot be written, new messages are refused");
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
                log::error!(error:%; "the queue could not be written to the end");
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

    fn observe(&self, commit: Duration) {
        self.shared.commits.lock().unwrap_or_else(PoisonError::into_inner).observe(commit);
    }

    fn check_file_if_due(&mut self) {
        if self.checked.elapsed() >= CHECK_INTERVAL {
            let _ = end_if_lost(self.file.check());
            self.shared.disk_bytes.store(self.file.bytes(), Ordering::Relaxed);
            self.checked = Instant::now();
        }
    }

    /// After a failed sync the kernel's view of the file cannot be trusted; a restart reads what is on disk.
    fn end_if_sync_failed(&self, error: &redb::Error) {
        if self.sync_failed.get() {
            log::error!(error:%; "the disk failed to sync the queue, the process ends");
            end()
        }
    }
}

/// A file that is lost does not come back. To serve on would be to acknowledge messages that no restart finds.
fn end_if_lost<T>(result: Result<T, OpenError>) -> Result<T, OpenError> {
    match result {
        Err(error) if error.is_lost() => {
            log::error!(error:%; "the queue's file is lost, the process ends");
            end()
        }
        result => result,
    }
}

fn end() -> ! {
    log::logger().flush();
    std::process::exit(EXIT_CODE)
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
