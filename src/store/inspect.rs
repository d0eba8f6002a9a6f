//! Reads the queue on disk while no relay uses it: `sealpost queue stats` and `sealpost queue verify`.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::Loaded;
use super::database::Database;
use super::open::{Directory, OpenError, QueueFile};
use super::records::VERSION;
use super::sync_watch::SyncFailed;
use crate::clock::{self, Clock, Moment, Now};
use crate::protocol::envelope::Subject;

/// One line for each figure: `messages 5`.
///
/// # Errors
///
/// The directory cannot be used, as at the start of a relay.
pub fn stats(path: &Path, dedup_window: Duration) -> Result<String, OpenError> {
    let now = Clock::system().now();
    let (file, database, loaded) = open(path, now, dedup_window)?;
    let mut text = String::new();
    let mut line = |name: &str, value: u64| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name} {value}");
    };
    let messages = || loaded.messages.iter();
    let of = |wanted: fn(&Subject) -> bool| {
        messages().filter(|record| wanted(&record.envelope.subject)).count() as u64
    };
    line("messages", of(|subject| matches!(subject, Subject::Message(_))));
    let rotations =
        |subject: &Subject| matches!(subject, Subject::KeyRotation(_) | Subject::KeyRotationAck(_));
    line("key_rotations", of(rotations));
    line("notices", of(|subject| matches!(subject, Subject::Notice { .. })));
    line("recipients", messages().map(|record| record.to).collect::<HashSet<_>>().len() as u64);
    line("bytes", messages().map(|record| record.envelope.body.len() as u64).sum());
    let deadlines = || messages().map(|record| record.deadline(&loaded.boots, now));
    line("expired", deadlines().filter(|deadline| *deadline <= now.mono).count() as u64);
    if let Some(next) = deadlines().filter(|deadline| *deadline > now.mono).min() {
        let left = if next == Moment::NEVER { Duration::MAX } else { next - now.mono };
        line("next_expiry_seconds", left.as_secs());
    }
    line("devices", loaded.devices.len() as u64);
    let resumable = loaded.devices.iter().filter(|device| device.token.is_some());
    line("resumable_devices", resumable.count() as u64);
    line("remembered", loaded.fingerprints.len() as u64);
    line("damaged", loaded.damaged as u64);
    line("format", u64::from(database.format()));
    line("file_bytes", file.bytes());
    Ok(text)
}

/// Reads and checks everything. Returns the number of damaged records, whether every page was sound, and a text.
///
/// # Errors
///
/// The directory cannot be used, or the file cannot be read as a database.
pub fn verify(path: &Path) -> Result<(usize, bool, String), OpenError> {
    let (_file, mut database, loaded) = open(path, Clock::system().now(), Duration::MAX)?;
    let sound = database.check().map_err(|error| OpenError::of(path, error))?;
    let text = format!(
        "records {}\ndevices {}\nremembered {}\ndamaged {}\npages {}\nformat {}\n",
        loaded.messages.len(),
        loaded.devices.len(),
        loaded.fingerprints.len(),
        loaded.damaged,
        if sound { "sound" } else { "repaired" },
        match database.format() {
            VERSION => VERSION.to_string(),
            older => format!("{older}, which a start migrates to {VERSION}"),
        },
    );
    Ok((loaded.damaged, sound, text))
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
