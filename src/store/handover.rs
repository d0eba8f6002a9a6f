//! How changes go from the Registry's thread to the writer's thread.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::commit_time::CommitTime;
use super::pending_changes::PendingChanges;
use crate::metrics::histogram::Histogram;

/// What the Registry's thread and the writer's thread share.
#[derive(Debug)]
pub(super) struct Shared {
    pub pending: Mutex<PendingChanges>,
    pub changed: Condvar,
    /// Number of changes for which the writer is woken.
    pub batch: usize,
    pub failing: AtomicBool,
    pub commit_time: CommitTime,
    /// Size of `pending` at its last change, for a reader that must not wait for the lock.
    pub len: AtomicUsize,
    pub bytes: AtomicUsize,
    /// Taken once for each commit, and by a reader of metrics.
    pub commits: Mutex<Histogram>,
    pub disk_bytes: AtomicU64,
}

impl Shared {
    pub fn new(batch: usize, disk_bytes: u64) -> Self {
        Self {
            pending: Mutex::default(),
            changed: Condvar::new(),
            batch,
            failing: AtomicBool::default(),
            commit_time: CommitTime::default(),
            len: AtomicUsize::default(),
            bytes: AtomicUsize::default(),
            commits: Mutex::default(),
            disk_bytes: AtomicU64::new(disk_bytes),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, PendingChanges> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn wait_while<'a>(
        &self,
        pending: MutexGuard<'a, PendingChanges>,
        longest: Duration,
        condition: impl FnMut(&mut PendingChanges) -> bool,
    ) -> MutexGuard<'a, PendingChanges> {
        let waited = self.changed.wait_timeout_while(pending, longest, condition);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    pub fn measure(&self, pending: &PendingChanges) {
        self.len.store(pending.changes.len(), Ordering::Relaxed);
        self.bytes.store(pending.bytes, Ordering::Relaxed);
    }
}
