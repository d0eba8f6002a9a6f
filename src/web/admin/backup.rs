//! `POST /admin/backup`: the whole queue as it is on disk, for `sealpost backup`.
//!
//! The queue is read on a thread of its own, one chunk after the other as the client takes them. There is one backup at a
//! time, and it must end in time, because the file of the queue grows while the database keeps what the backup still reads.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix_http::StatusCode;
use actix_web::{HttpResponse, web};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::entry::Refused;
use crate::clock::{Clock, Moment};
use crate::store::snapshot::Snapshot;
use crate::store::snapshot_requests::{NoSnapshot, Snapshots};
use crate::web::ingress::Ingress;

/// How long a backup may take.
pub const LONGEST: Duration = Duration::from_secs(30 * 60);

/// Chunks of about 64 KiB that wait for the client.
const CHUNKS: usize = 4;

/// How long the reader waits after each chunk, and for a client that is slower: 16 MiB a second at most, because reading and
/// writing at full speed makes live messages wait for the processor and for the disk.
const PAUSE: Duration = Duration::from_millis(4);

const NOT_DURABLE: Refused = Refused {
    status: StatusCode::CONFLICT,
    error: "There is nothing to back up: the queue is in memory only (queue.durable = false).",
};
const RUNNING: Refused = Refused {
    status: StatusCode::CONFLICT,
    error: "Another backup is running; there is one at a time.",
};
const FAILING: Refused = Refused {
    status: StatusCode::SERVICE_UNAVAILABLE,
    error: "The disk of the queue is full or fails; a backup now would not have what the relay has in memory.",
};
const CLOSING: Refused = Refused {
    status: StatusCode::SERVICE_UNAVAILABLE,
    error: "The relay is about to end; stop it and copy its directory, or try again when it is back.",
};
const NO_THREAD: Refused = Refused {
    status: StatusCode::SERVICE_UNAVAILABLE,
    error: "The machine has no thread for a backup now.",
};

/// Where snapshots come from, and whether one is being sent.
pub struct Backups {
    /// Set at the start of a durable queue.
    pub snapshots: OnceLock<Snapshots>,
    running: Arc<Semaphore>,
}

impl Default for Backups {
    fn default() -> Self {
        Self { snapshots: OnceLock::new(), running: Arc::new(Semaphore::new(1)) }
    }
}

pub async fn post(ingress: web::Data<Arc<Ingress>>) -> HttpResponse {
    match begin(&ingress).await {
        Ok(chunks) => {
            HttpResponse::Ok()
                .content_type("application/octet-stream")
                .streaming(stream::unfold(chunks, async |mut chunks| {
                    Some((chunks.recv().await?, chunks))
                }))
        }
        Err(refused) => {
            log::warn!(error = refused.error; "backup refused");
            refused.response()
        }
    }
}

async fn begin(ingress: &Ingress) -> Result<mpsc::Receiver<io::Result<Bytes>>, Refused> {
    let snapshots = ingress.backups.snapshots.get().cloned().ok_or(NOT_DURABLE)?;
    // Given back when the backup ends, however it ends.
    let permit = ingress.backups.running.clone().try_acquire_owned().map_err(|_| RUNNING)?;
    let (chunks, receiver) = mpsc::channel(CHUNKS);
    let (report, taken) = oneshot::channel();
    let clock = ingress.clock().clone();
    let thread = std::thread::Builder::new().name("sealpost-backup".to_owned());
    let spawned = thread.spawn(move || {
        let _permit = permit;
        let snapshot = snapshots.take();
        let refusal = snapshot.as_ref().err().copied();
        if let (Ok(()), Ok(snapshot)) = (report.send(refusal), snapshot) {
            run(&snapshot, &chunks, &clock);
        }
    });
    spawned.map_err(|_| NO_THREAD)?;
    match taken.await {
        Ok(None) => Ok(receiver),
        Ok(Some(NoSnapshot::Closing)) => Err(CLOSING),
        Ok(Some(NoSnapshot::Failing)) | Err(_) => Err(FAILING),
    }
}

/// Sends everything, or an error in the end: then the response is cut and the client knows.
fn run(snapshot: &Snapshot, chunks: &mpsc::Sender<io::Result<Bytes>>, clock: &Clock) {
    let began = clock.moment();
    log::info!(action = "Backup"; "operator");
    let mut bytes = 0_u64;
    let sent = snapshot.send(|chunk| {
        bytes = bytes.saturating_add(chunk.len() as u64);
        hand_over(chunks, clock, began + LONGEST, chunk.into())
    });
    let after_ms = (clock.moment() - began).as_millis();
    match sent {
        Ok(rows) => log::info!(rows, bytes, after_ms; "backup sent"),
        Err(error) => {
            log::warn!(bytes, after_ms, error:%; "backup ended early");
            // A client that is still there may have no room for it; the end of the channel says it then.
            let _ = chunks.try_send(Err(io::Error::other(error.to_string())));
        }
    }
}

fn hand_over(
    chunks: &mpsc::Sender<io::Result<Bytes>>,
    clock: &Clock,
    until: Moment,
    chunk: Bytes,
) -> io::Result<()> {
    let mut chunk = Ok(chunk);
    loop {
        std::thread::park_timeout(PAUSE);
        if clock.moment() >= until {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes it too slowly"));
        }
        match chunks.try_send(chunk) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => {
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the client is gone"));
            }
            Err(TrySendError::Full(unsent)) => chunk = unsent,
        }
    }
}
