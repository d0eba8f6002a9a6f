//! How other threads ask the writer for a snapshot between two commits.

use std::sync::Arc;
use std::time::Duration;

use super::handover::Shared;
use super::snapshot::Snapshot;

/// How long a snapshot waits for a commit. The disk of a longer one counts as failing.
const LONGEST_COMMIT: Duration = Duration::from_secs(30);

/// Asks the writer's thread for snapshots, from any thread.
#[derive(Debug, Clone)]
pub struct Snapshots(pub(super) Arc<Shared>);

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
