//! The queue on disk: opened before any connection is served, then given to its writer.

use std::io;

use actix::Addr;

use crate::abort_on_panic::EXIT_CODE;
use crate::actors::registry::{Registry, Stored};
use crate::clock::{self, Clock};
use crate::settings::Settings;
use crate::store::database::Database;
use crate::store::memory::Memory;
use crate::store::open::{Directory, QueueFile};
use crate::store::queue_writer::QueueWriter;
use crate::store::sync_watch::SyncFailed;
use crate::store::writer::{CommitPolicy, Outcome};
use crate::store::{Loaded, Store, boots};
use crate::web::admin::backup::Backups;

/// The queue on disk as it was found, before any connection is served.
pub(super) struct Queue {
    pub(super) file: QueueFile,
    disk: Database,
    sync_failed: SyncFailed,
    pub(super) loaded: Loaded,
}

impl Queue {
    /// `None` for a queue that ends with the process.
    pub(super) fn open(settings: &Settings, clock: &Clock) -> io::Result<Option<Self>> {
        let queue = &settings.queue;
        if !queue.durable {
            return Ok(None);
        }
        let began = clock.moment();
        let sync_failed = SyncFailed::default();
        let directory = Directory::take(&queue.path).map_err(io::Error::other)?;
        if let Some(warning) = directory.exposure() {
            log::warn!("{warning}");
        }
        let (file, disk) = directory.open(sync_failed.clone()).map_err(io::Error::other)?;
        let boot_id = clock::boot_id().map(|id| id.as_u128());
        let mut loaded =
            disk.load(clock.now(), boot_id, queue.dedup_window).map_err(io::Error::other)?;
        let disk = boots::write_boot(disk, &file, &mut loaded.boots).map_err(io::Error::other)?;
        // An empty queue is not worth a log line.
        let is_empty = loaded.messages.is_empty() && loaded.devices.is_empty();
        log::log!(if is_empty { log::Level::Debug } else { log::Level::Info }, path:% = file.path().display(), messages = loaded.messages.len(), devices = loaded.devices.len(), after_ms = (clock.moment() - began).as_millis(); "queue opened");
        let bytes: u64 = loaded.messages.iter().map(|record| record.envelope.bytes()).sum();
        if bytes > settings.queue.total_bytes as u64 {
            log::warn!(bytes, total_bytes = settings.queue.total_bytes; "the queue on disk is larger than queue.total_bytes: new messages that must wait are answered 503");
        }
        if loaded.damaged > 0 {
            log::error!(count = loaded.damaged; "damaged records were dropped from the queue");
        }
        Ok(Some(Self { file, disk, sync_failed, loaded }))
    }
}

/// A report of the store must arrive; there is one report for each commit.
#[allow(clippy::disallowed_methods)]
pub(super) fn start_store(
    settings: &Settings,
    clock: &Clock,
    queue: Option<Queue>,
    registry: Addr<Registry>,
    backups: &Backups,
) -> (Box<dyn Store>, Loaded) {
    let Some(Queue { file, disk, sync_failed, loaded }) = queue else {
        return (Box::new(Memory), Loaded::default());
    };
    let policy = CommitPolicy {
        interval: settings.queue.commit_interval,
        batch: settings.queue.commit_batch,
        dedup_window: settings.queue.dedup_window,
    };
    let report = move |outcome: Outcome| registry.do_send(Stored(outcome));
    let time = (clock.clone(), &loaded.boots);
    match QueueWriter::start(disk, file, sync_failed, policy, time, report) {
        Ok(store) => {
            // There is one start.
            let _ = backups.snapshots.set(store.snapshots());
            (Box::new(store), loaded)
        }
        Err(failed) => {
            // A relay that cannot keep the durability of its settings must not serve.
            log::error!(error:% = failed; "the queue's thread cannot be started");
            std::process::exit(EXIT_CODE);
        }
    }
}
