//! A file under the database that records whether a sync failed.
//!
//! A write to a full disk can be tried again; a failed sync cannot, whatever its reason: the kernel may have dropped the
//! dirty pages, and it reports that only once. The database's error does not distinguish the two.

use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{BackendError, StorageBackend};

/// Whether a sync has ever failed, shared by the file and the writer.
#[derive(Debug, Clone, Default)]
pub struct SyncFailed(Arc<AtomicBool>);

impl SyncFailed {
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Passes every call on to the backend below.
#[derive(Debug)]
pub struct SyncWatch<B> {
    below: B,
    sync_failed: SyncFailed,
}

impl<B> SyncWatch<B> {
    pub fn new(below: B, sync_failed: SyncFailed) -> Self {
        Self { below, sync_failed }
    }
}

impl<B: StorageBackend> StorageBackend for SyncWatch<B> {
    fn len(&self) -> io::Result<u64> {
        self.below.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.below.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.below.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let synced = self.below.sync_data();
        // Even on ENOSPC: after a failed sync the kernel may have dropped dirty pages without reporting which.
        if synced.is_err() {
            self.sync_failed.0.store(true, Ordering::Relaxed);
        }
        synced
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.below.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.below.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.below.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.below.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.below.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.below.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.below.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.below.query_lock_range(start, end)
    }
}
