//! Reads the queue on disk while no relay uses it: `sealpost queue stats` and `sealpost queue verify`.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::Loaded;
use super::database::Database;
use super::open::{Directory, OpenError, QueueFile};
use super::records::VERSION;
use super::sync_watch::SyncFailed;
use crate::clock::{self, Clock, Moment, Now};
use crate::protocol::envelope::Subject;

/// What waits, and what is known.
#[derive(Debug, Serialize)]
pub struct QueueStats {
    pub messages: u64,
    pub key_rotations: u64,
    pub notices: u64,
    /// Devices for which something waits.
    pub recipients: u64,
    /// Bytes of the bodies.
    pub bytes: u64,
    /// What has expired and was not reported yet.
    pub expired: u64,
    /// Until the next one expires; `None` if none will.
    pub next_expiry_seconds: Option<u64>,
    pub devices: u64,
    pub resumable_devices: u64,
    /// Fingerprints of delivered messages that may be repeated.
    pub remembered: u64,
    pub damaged: u64,
    pub format: u64,
    pub file_bytes: u64,
}

/// What a check has found.
#[derive(Debug, Serialize)]
pub struct Verified {
    pub records: u64,
    pub devices: u64,
    pub remembered: u64,
    pub damaged: u64,
    /// Every page is as it was written; else the database repaired some.
    pub pages_sound: bool,
    pub format: u64,
    /// The format to which a start migrates the file, if it is an older one.
    pub migrates_to: Option<u64>,
}

impl Verified {
    /// Whether nothing is damaged.
    pub fn is_sound(&self) -> bool {
        self.damaged == 0 && self.pages_sound
    }
}

/// Counts what is in the queue.
///
/// # Errors
///
/// The directory cannot be used, as at the start of a relay.
pub fn stats(path: &Path, dedup_window: Duration) -> Result<QueueStats, OpenError> {
    let now = Clock::system().now();
    let (file, database, loaded) = open(path, now, dedup_window)?;
    let messages = || loaded.messages.iter();
    let of = |wanted: fn(&Subject) -> bool| {
        messages().filter(|record| wanted(&record.envelope.subject)).count() as u64
    };
    let rotations =
        |subject: &Subject| matches!(subject, Subject::KeyRotation(_) | Subject::KeyRotationAck(_));
    let deadlines = || messages().map(|record| record.deadline(&loaded.boots, now));
    let next = deadlines().filter(|deadline| *deadline > now.mono).min().map(|next| {
        let left = if next == Moment::NEVER { Duration::MAX } else { next - now.mono };
        left.as_secs()
    });
    let resumable = loaded.devices.iter().filter(|device| device.token.is_some());
    Ok(QueueStats {
        messages: of(|subject| matches!(subject, Subject::Message(_))),
        key_rotations: of(rotations),
        notices: of(|subject| matches!(subject, Subject::Notice { .. })),
        recipients: messages().map(|record| record.to).collect::<HashSet<_>>().len() as u64,
        bytes: messages().map(|record| record.envelope.body.len() as u64).sum(),
        expired: deadlines().filter(|deadline| *deadline <= now.mono).count() as u64,
        next_expiry_seconds: next,
        devices: loaded.devices.len() as u64,
        resumable_devices: resumable.count() as u64,
        remembered: loaded.fingerprints.len() as u64,
        damaged: loaded.damaged as u64,
        format: u64::from(database.format()),
        file_bytes: file.bytes(),
    })
}

/// Reads and checks everything.
///
/// # Errors
///
/// The directory cannot be used, or the file cannot be read as a database.
pub fn verify(path: &Path) -> Result<Verified, OpenError> {
    let (_file, mut database, loaded) = open(path, Clock::system().now(), Duration::MAX)?;
    let pages_sound = database.check().map_err(|error| OpenError::of(path, error))?;
    let format = database.format();
    Ok(Verified {
        records: loaded.messages.len() as u64,
        devices: loaded.devices.len() as u64,
        remembered: loaded.fingerprints.len() as u64,
        damaged: loaded.damaged as u64,
        pages_sound,
        format: u64::from(format),
        migrates_to: (format != VERSION).then_some(u64::from(VERSION)),
    })
}

/// Reads a queue as it is, in an older format too.
pub(super) fn open(
    path: &Path,
    now: Now,
    dedup_window: Duration,
) -> Result<(QueueFile, Database, Loaded), OpenError> {
    let (file, database) = Directory::take_existing(path)?.open_unmigrated(SyncFailed::default())?;
    let boot_id = clock::boot_id().map(|id| id.as_u128());
    let loaded = database.load(now, boot_id, dedup_window);
    let loaded = loaded.map_err(|error| OpenError::of_database(&file.path(), error))?;
    Ok((file, database, loaded))
}
