//! The durable store: told from the Registry's thread, written by a thread of its own, many changes in one commit.
//!
//! The Registry never waits for the disk. It learns of each commit through [`Outcome`]; until then no sender is acked.
//! What is removed before it was written is never written.

use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::backend::SyncFailed;
use super::disk::{Changes, Disk, Unusable};
use super::record::{Stored, StoredDevice, StoredPrint};
use super::{Kept, Known, Record, Remember, Store, Turn};
use crate::clock::{Clock, Moment};
use crate::protocol::envelope::Seq;
use crate::protocol::id::DeviceId;

/// How long a failing disk is left alone between two tries.
const RETRY: Duration = Duration::from_millis(250);

/// The same where each try takes long.
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// Changes that wait before senders had better wait, too.
const BEHIND: usize = 64 * 1024;

/// Bytes that wait before senders had better wait, too.
const BEHIND_BYTES: usize = 64 * 1024 * 1024;

/// The exit status of a relay whose disk lost what it had promised to keep (EX_IOERR of sysexits.h).
pub const EXIT_CODE: i32 = 74;

/// The exit status of a relay whose writer has panicked (EX_SOFTWARE of sysexits.h), as of any core actor.
const PANICKED: i32 = 70;

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything put through this turn is safe.
    Committed(Turn),
    /// Of what was put through this turn, nothing is kept that was not safe before.
    Failed(Turn),
    /// The disk takes writes again; what should be kept and is not can be put again.
    Recovered,
}

/// How the writer works.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How long a batch waits for company.
    pub interval: Duration,
    /// Changes that are written without waiting any longer.
    pub batch: usize,
    /// How long a message that is gone is remembered.
    pub dedup_window: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Durable {
    shared: Arc<Shared>,
    clock: Clock,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Changes that need not wait for more.
    batch: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    changes: Changes,
    bytes: usize,
    /// Of the newest record among them, or of those that were written before.
    last: Turn,
    failing: bool,
    ending: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Durable {
    /// Starts the writer. `report` is called on its thread, for each batch in order; so is `reopen` after a failure.
    ///
    /// # Errors
    ///
    /// When no thread can be had.
    pub fn start(
        disk: Disk,
        reopen: impl FnMut(&SyncFailed) -> Result<Disk, Unusable> + Send + 'static,
        sync_failed: SyncFailed,
        pace: Pace,
        clock: Clock,
        report: impl Fn(Outcome) + Send + 'static,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            changed: Condvar::new(),
            batch: pace.batch,
        });
        let writer = Writer {
            shared: shared.clone(),
            disk: Some(disk),
            reopen,
            sync_failed,
            pace,
            clock: clock.clone(),
            report,
        };
        let writer = std::thread::Builder::new()
            .name("sealpost-store".to_owned())
            .spawn(move || writer.run())?;
        Ok(Self { shared, clock, writer: Some(writer) })
    }

    /// Tells the writer of a change.
    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        let mut waiting = self.shared.lock();
        let before = waiting.changes.len();
        change(&mut waiting);
        let after = waiting.changes.len();
        drop(waiting);
        let was_empty = before == 0;
        // One change can be more than one step, so a full batch may never be exactly full.
        let is_full = before < self.shared.batch && after >= self.shared.batch;
        if was_empty || is_full {
            self.shared.changed.notify_one();
        }
    }
}

impl Store for Durable {
    fn put(&mut self, record: Record<'_>) -> Kept {
        let expires_ms = match record.deadline {
            Moment::NEVER => u64::MAX,
            deadline => self.clock.unix_ms_at(deadline),
        };
        let envelope = record.envelope.clone();
        let stored = Stored { seq: record.seq, to: record.to, expires_ms, envelope };
        let mut kept = Kept::Refused;
        self.change(|waiting| {
            if !waiting.failing {
                waiting.bytes += stored.envelope.body.len();
                waiting.changes.puts.insert(record.seq, stored);
                waiting.last = record.turn;
                kept = Kept::Pending;
            }
        });
        kept
    }

    fn remove(&mut self, seq: Seq, remember: Option<Remember>) {
        let at_ms = self.clock.unix_ms();
        self.change(|waiting| {
            if let Some(stored) = waiting.changes.puts.remove(&seq) {
                waiting.bytes -= stored.envelope.body.len();
            } else {
                waiting.changes.removes.push(seq);
            }
            if let Some(remember) = remember {
                waiting.changes.prints.push(StoredPrint { remember, at_ms });
            }
        });
    }

    fn know(&mut self, device: Known) {
        let ends_ms = device.ends.map(|ends| self.clock.unix_ms_at(ends));
        let stored = StoredDevice { token: device.token, ends_ms };
        self.change(|waiting| {
            waiting.changes.devices.insert(device.id, Some(stored));
        });
    }

    fn forget(&mut self, id: DeviceId) {
        self.change(|waiting| {
            waiting.changes.devices.insert(id, None);
        });
    }

    fn close(&mut self) {
        self.shared.lock().ending = true;
        self.shared.changed.notify_one();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has said so; there is nothing left to write it with.
            let _ = writer.join();
        }
    }

    fn refuses(&self) -> bool {
        self.shared.lock().failing
    }

    fn is_behind(&self) -> bool {
        let waiting = self.shared.lock();
        // A disk that fails refuses; whoever waited for it would wait for nothing.
        !waiting.failing && (waiting.changes.len() > BEHIND || waiting.bytes > BEHIND_BYTES)
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        self.close();
    }
}

/// Held by the writer's thread. A relay that accepts and never acks would be worse than none, so the process does not
/// outlive a panic of its writer.
struct Fuse;

impl Drop for Fuse {
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
    disk: Option<Disk>,
    reopen: O,
    sync_failed: SyncFailed,
    pace: Pace,
    clock: Clock,
    report: R,
}

impl<O: FnMut(&SyncFailed) -> Result<Disk, Unusable>, R: Fn(Outcome)> Writer<O, R> {
    fn run(mut self) {
        // Burns before the database is closed: what is not sound must not write any more.
        let _fuse = Fuse;
        while let Some((changes, last)) = self.gather() {
            match self.write(&changes) {
                Ok(()) => (self.report)(Outcome::Committed(last)),
                Err(failed) => self.failed(changes, &failed),
            }
        }
    }

    /// Waits for changes, and then a little longer for more.
    fn gather(&self) -> Option<(Changes, Turn)> {
        let mut waiting = self.shared.lock();
        while waiting.changes.is_empty() {
            if waiting.ending {
                return None;
            }
            waiting = self.wait(waiting, None);
        }
        let until = Instant::now() + self.pace.interval;
        while waiting.changes.len() < self.pace.batch && !waiting.ending {
            let Some(left) = until.checked_duration_since(Instant::now()) else { break };
            waiting = self.wait(waiting, Some(left));
        }
        Some((self.take(&mut waiting), waiting.last))
    }

    fn take(&self, waiting: &mut Waiting) -> Changes {
        waiting.bytes = 0;
        let window = u64::try_from(self.pace.dedup_window.as_millis()).unwrap_or(u64::MAX);
        let now = self.clock.unix_ms();
        let memory_ms = now.saturating_sub(window)..=now.saturating_add(window);
        Changes { memory_ms, ..mem::take(&mut waiting.changes) }
    }

    fn wait<'a>(
        &self,
        waiting: MutexGuard<'a, Waiting>,
        at_most: Option<Duration>,
    ) -> MutexGuard<'a, Waiting> {
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
            waiting.failing = true;
            restore(&mut waiting, changes);
            waiting.last
        };
        (self.report)(Outcome::Failed(last));
        if self.heal() {
            self.shared.lock().failing = false;
            log::info!("the queue can be written again");
            (self.report)(Outcome::Recovered);
        }
    }

    /// Tries again until the disk takes a write; `false` if the relay ends before it does.
    fn heal(&mut self) -> bool {
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
                    restore(&mut waiting, changes);
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
        let probed = self.disk.as_mut().map_or(Ok(()), Disk::probe);
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

/// Changes that failed wait again, under whatever came since; the records among them are lost.
fn restore(waiting: &mut Waiting, failed: Changes) {
    waiting.changes.puts.clear();
    waiting.bytes = 0;
    // What is refused must not come back, should the disk have taken it all the same.
    waiting.changes.removes.extend(failed.puts.into_keys());
    waiting.changes.removes.extend(failed.removes);
    waiting.changes.prints.extend(failed.prints);
    for (id, device) in failed.devices {
        waiting.changes.devices.entry(id).or_insert(device);
    }
}

#[cfg(test)]
#[path = "durable_tests.rs"]
mod tests;
