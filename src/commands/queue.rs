//! `sealpost queue`: looks at the queue, or ends a part of it. `top` and `drop` ask the relay that runs, and go to the disk if
//! none answers; the others are for the queue on disk only.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::admin_client::Failed;
use super::text::{print, rows};
use super::{EX_UNAVAILABLE, EX_USAGE, live_queue};
use crate::cli::{Dropped, Json, QueueCommand};
use crate::settings::Settings;
use crate::store::compact::{Compacted, compact};
use crate::store::inspect::{self, QueueStats, Verified};
use crate::store::open::OpenError;
use crate::store::top;

pub(super) fn run(what: QueueCommand, settings: &Settings) -> ExitCode {
    let queue = &settings.queue;
    let looked = match what {
        QueueCommand::Stats(json) => inspect::stats(&queue.path, queue.dedup_window)
            .map(|stats| print(&stats, json, stats_text)),
        QueueCommand::Verify { directory, json } => {
            let verified = match directory {
                Some(directory) => inspect::verify(&directory).map_err(OpenError::of_no_setting),
                None => inspect::verify(&queue.path),
            };
            match verified {
                Ok(verified) => {
                    print(&verified, json, verified_text);
                    let is_sound = verified.is_sound();
                    return if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE };
                }
                Err(unusable) => Err(unusable),
            }
        }
        QueueCommand::Compact(json) => {
            compact(&queue.path).map(|done| print(&done, json, compacted_text))
        }
        QueueCommand::Top { count, json } => {
            return super::answer_or(live_queue::top(settings, count, json), |failed| {
                let look = || {
                    ended(top::top(&queue.path, count).map(|top| print(&json!(top), json, rows)))
                };
                on_disk(&failed, queue.durable, look)
            });
        }
        QueueCommand::Drop { whose, json } => {
            return super::answer_or(live_queue::drop_held(settings, &whose, json), |failed| {
                on_disk(&failed, queue.durable, || drop_on_disk(queue.path.as_path(), &whose, json))
            });
        }
    };
    ended(looked)
}

fn drop_on_disk(path: &Path, whose: &Dropped, json: Json) -> ExitCode {
    let holder = match live_queue::holder(whose) {
        Ok(holder) => holder,
        Err(sentence) => {
            eprintln!("{sentence}");
            return ExitCode::from(EX_USAGE);
        }
    };
    ended(top::drop_held(path, &holder).map(|done| {
        print(&done, json, |done| {
            format!("dropped {}; their senders get an Error 410 at the next start\n", done.dropped)
        });
    }))
}

/// Looks at the disk if no relay answers. The lock there keeps the command away from a relay that runs and does not answer.
fn on_disk(failed: &Failed, is_durable: bool, look: impl FnOnce() -> ExitCode) -> ExitCode {
    if matches!(failed, Failed::Unreachable(..)) && is_durable {
        let looked = look();
        if looked != ExitCode::SUCCESS {
            eprintln!("{failed}");
        }
        return looked;
    }
    eprintln!("{failed}");
    failed.code()
}

fn ended(looked: Result<(), OpenError>) -> ExitCode {
    match looked {
        Ok(()) => ExitCode::SUCCESS,
        Err(unusable) => {
            eprintln!("{unusable}");
            ExitCode::from(EX_UNAVAILABLE)
        }
    }
}

fn stats_text(stats: &QueueStats) -> String {
    let mut lines = vec![
        ("messages", stats.messages),
        ("key_rotations", stats.key_rotations),
        ("notices", stats.notices),
        ("recipients", stats.recipients),
        ("bytes", stats.bytes),
        ("expired", stats.expired),
    ];
    lines.extend(stats.next_expiry_seconds.map(|seconds| ("next_expiry_seconds", seconds)));
    lines.extend([
        ("devices", stats.devices),
        ("resumable_devices", stats.resumable_devices),
        ("remembered", stats.remembered),
        ("damaged", stats.damaged),
        ("format", stats.format),
        ("file_bytes", stats.file_bytes),
    ]);
    lines.into_iter().map(|(name, value)| format!("{name} {value}\n")).collect()
}

fn verified_text(verified: &Verified) -> String {
    let format = match verified.migrates_to {
        None => verified.format.to_string(),
        Some(newer) => format!("{}, which a start migrates to {newer}", verified.format),
    };
    format!(
        "records {}\ndevices {}\nremembered {}\ndamaged {}\npages {}\nformat {format}\n",
        verified.records,
        verified.devices,
        verified.remembered,
        verified.damaged,
        if verified.pages_sound { "sound" } else { "repaired" },
    )
}

fn compacted_text(done: &Compacted) -> String {
    let Compacted { rows, bytes_before, bytes_after } = done;
    format!("compacted {rows} rows: {bytes_before} bytes before, {bytes_after} after\n")
}
