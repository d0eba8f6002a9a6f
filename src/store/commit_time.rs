//! How long the commit under way has taken: a disk that hangs ends none, and says nothing.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub(super) struct CommitTime(Mutex<Option<Instant>>);

impl CommitTime {
    /// Runs a commit. Opening a large file again is none: that takes its time.
    pub(super) fn measure<T>(&self, commit: impl FnOnce() -> T) -> T {
        self.set(Some(Instant::now()));
        let committed = commit();
        self.set(None);
        committed
    }

    /// Zero between two commits.
    pub(super) fn passed(&self) -> Duration {
        let began = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        began.map_or(Duration::ZERO, |began| began.elapsed())
    }

    fn set(&self, began: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = began;
    }
}
