//! A look at the queue on disk while no relay is using it: `sealpost queue stats` and `sealpost queue verify`.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::Loaded;
use super::database::Database;
use super::open::{Directory, OpenError};
use super::sync_watch::SyncFailed;
use crate::clock::{Clock, Moment, Now};
use crate::protocol::envelope::Subject;

/// Prints what waits, a line each: `messages 5`.
///
/// # Errors
///
/// When the directory cannot be used, as at the start of a relay.
pub fn stats(path: &Path, dedup_window: Duration) -> Result<String, OpenError> {
    let directory = Directory::take_existing(path)?;
    let now = Clock::system().now();
    let (_, loaded) = open(&directory, now, dedup_window)?;
    let mut text = String::new();
    let mut line = |name: &str, value: u64| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name} {value}");
    };
    let of = |wanted: fn(&Subject) -> bool| {
        loaded.messages.iter().filter(|record| wanted(&record.envelope.subject)).count() as u64
    };
    line("messages", of(|subject| matches!(subject, Subject::Message(_))));
    let rotations =
        |subject: &Subject| matches!(subject, Subject::KeyRotation(_) | Subject::KeyRotationAck(_));
    line("key_rotations", of(rotations));
    line("notices", of(|subject| *subject == Subject::Notice));
    let recipients: HashSet<_> = loaded.messages.iter().map(|record| record.to).collect();
    line("recipients", recipients.len() as u64);
    line("bytes", loaded.messages.iter().map(|record| record.envelope.body.len() as u64).sum());
    let deadlines = || loaded.messages.iter().map(|record| record.deadline(now));
    line("expired", deadlines().filter(|deadline| *deadline <= now.mono).count() as u64);
    if let Some(next) = deadlines().filter(|deadline| *deadline > now.mono).min() {
        let left = if next == Moment::NEVER { Duration::MAX } else { next - now.mono };
        line("next_expiry_seconds", left.as_secs());
    }
    line("devices", loaded.devices.len() as u64);
    let resumable = loaded.devices.iter().filter(|device| device.token.is_some()).count();
    line("resumable_devices", resumable as u64);
    line("remembered", loaded.fingerprints.len() as u64);
    line("damaged", loaded.damaged as u64);
    let file = std::fs::metadata(directory.file()).map_or(0, |file| file.len());
    line("file_bytes", file);
    Ok(text)
}

/// Reads and checks everything; the number of damaged records, and whether every page was sound.
///
/// # Errors
///
/// When the directory cannot be used, or the file cannot be read as a database at all.
pub fn verify(path: &Path) -> Result<(usize, bool, String), OpenError> {
    let directory = Directory::take_existing(path)?;
    let (mut disk, loaded) = open(&directory, Clock::system().now(), Duration::MAX)?;
    let sound = disk.check().map_err(|failed| OpenError::of(path, &failed))?;
    let text = format!(
        "records {}\ndevices {}\nremembered {}\ndamaged {}\npages {}\n",
        loaded.messages.len(),
        loaded.devices.len(),
        loaded.fingerprints.len(),
        loaded.damaged,
        if sound { "sound" } else { "repaired" },
    );
    Ok((loaded.damaged, sound, text))
}

fn open(
    directory: &Directory,
    now: Now,
    dedup_window: Duration,
) -> Result<(Database, Loaded), OpenError> {
    let disk = directory.open(&SyncFailed::default())?;
    let loaded = disk
        .load(now.wall_ms, dedup_window)
        .map_err(|failed| OpenError::of(&directory.file(), &failed))?;
    Ok((disk, loaded))
}
