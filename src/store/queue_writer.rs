//! The durable store: the Registry's thread stages changes, and the writer's thread commits them.
//!
//! The Registry never waits for the disk. A record that is removed before its commit is never written. The changes between
//! two flushes are in one commit: an expired message and the notice to its sender are both safe, or neither is.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::boots::Boots;
use super::database::Database;
use super::handover::Shared;
use super::pending_changes::Change;
use super::records::{CorrespondentRecord, DeviceRecord, Fingerprint, MessageRecord};
use super::snapshot_requests::Snapshots;
use super::sync_watch::SyncFailed;
use super::writer::{CommitPolicy, DatabaseFile, Outcome, Writer};
use super::{PutOutcome, PutSeq, Store, StoreStats};
use crate::clock::Clock;
use crate::protocol::envelope::{Envelope, Seq};
use crate::protocol::id::DeviceId;

/// Uncommitted changes above which senders are slowed down.
const BACKLOG_CHANGES: usize = 64 * 1024;

/// Bytes of uncommitted messages above which senders are slowed down.
const BACKLOG_BYTES: usize = 64 * 1024 * 1024;

/// Changes for which memory is kept from flush to flush.
const STAGED_CAPACITY: usize = 4096;

#[derive(Debug)]
pub struct QueueWriter {
    shared: Arc<Shared>,
    /// Changes since the last flush.
    staged: Vec<Change>,
    staged_bytes: usize,
    thread: Option<JoinHandle<()>>,
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
        let shared = Arc::new(Shared::new(policy.batch, file.bytes()));
        let writer = Writer::new(
            shared.clone(),
            database,
            file,
            sync_failed,
            policy,
            (clock, boots),
            report,
        );
        let thread = std::thread::Builder::new()
            .name("sealpost-store".to_owned())
            .spawn(move || writer.run())?;
        Ok(Self { shared, staged: Vec::new(), staged_bytes: 0, thread: Some(thread) })
    }
}

impl QueueWriter {
    pub fn snapshots(&self) -> Snapshots {
        Snapshots(self.shared.clone())
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

    fn stats(&self) -> StoreStats {
        StoreStats {
            is_failing: self.shared.is_failing(),
            disk_bytes: self.shared.disk_bytes.load(Ordering::Relaxed),
            commits: *self.shared.commits.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    fn is_backlogged(&self) -> bool {
        // Waiting for a disk that fails would not end; its puts are rejected instead.
        !self.shared.is_failing()
            && (self.shared.len.load(Ordering::Relaxed) + self.staged.len() > BACKLOG_CHANGES
                || self.shared.bytes.load(Ordering::Relaxed) + self.staged_bytes > BACKLOG_BYTES)
    }

    fn commit_for(&self) -> Duration {
        self.shared.commit_time.passed()
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
