//! A file under the database that remembers how it failed.
//!
//! A write that finds no room heals; a failed sync does not, whatever its reason: the kernel may have dropped the pages
//! and said so once. So whoever writes must know which of the two it was.

use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{BackendError, StorageBackend};

/// Whether a sync has ever failed.
#[derive(Debug, Clone, Default)]
pub struct SyncFailed(Arc<AtomicBool>);

impl SyncFailed {
    /// Whether what was written can no longer be trusted.
    #[must_use]
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Passes everything on to the backend below, and watches.
pub struct SyncWatch<B> {
    below: B,
    sync_failed: SyncFailed,
}

impl<B> SyncWatch<B> {
    /// Watches that backend.
    pub fn new(below: B, sync_failed: SyncFailed) -> Self {
        Self { below, sync_failed }
    }
}

impl<B> fmt::Debug for SyncWatch<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncWatch").finish_non_exhaustive()
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
        // Also if it says that the disk is full: which pages the kernel let go of, it does not say.
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
