//! The end of a relay: sessions are closed in slices, then the queue, then the server.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use actix_server::ServerHandle;

use crate::actors::registry::{CloseStore, Drain};
use crate::relay::router::STEP_ENTRIES;
use crate::web::ingress::Ingress;

/// A drain closes sessions in slices of at least this size…
const DRAIN_SLICE: usize = 64;
/// …or of this part of them, so that not all of them reconnect in one moment…
const DRAIN_SLICES: usize = 20;
/// …with this pause between two.
const DRAIN_PAUSE: Duration = Duration::from_millis(50);
/// How long a drain waits for handshakes that began before it, if connections that come later wait for the next process.
const HANDSHAKES: Duration = Duration::from_millis(500);

/// Closes all sessions, slice by slice, and stops the server when they have ended or the time is over.
pub(super) async fn drain(ingress: &Ingress, server: &ServerHandle, timeout: Duration) {
    let is_inherited = ingress.socket_is_inherited.load(Relaxed);
    if is_inherited {
        // The next process accepts what comes from now on.
        server.pause().await;
    }
    ingress.draining.store(true, Relaxed);
    let sessions = ingress.connections.total();
    log::info!(sessions; "draining");
    let slice = (sessions / DRAIN_SLICES).clamp(DRAIN_SLICE, STEP_ENTRIES);
    let goodbyes = async {
        if let Some(core) = ingress.core.get() {
            while core.registry.send(Drain { slice }).await.is_ok_and(|left| left > 0) {
                tokio::time::sleep(DRAIN_PAUSE).await;
            }
        }
        ingress.connections.all_closed().await;
        if is_inherited {
            // What was accepted just before is no session yet. A socket on which nothing is asked may not hold up a restart.
            tokio::time::sleep(DRAIN_PAUSE).await;
            let _ = tokio::time::timeout(HANDSHAKES, ingress.sockets.all_closed()).await;
            ingress.connections.all_closed().await;
        }
    };
    if tokio::time::timeout(timeout, goodbyes).await.is_err() {
        log::warn!(sessions = ingress.connections.total(); "drained in part, the time is over");
    }
    if let Some(core) = ingress.core.get()
        && core.registry.send(CloseStore).await.is_err()
    {
        log::error!("the queue could not be closed; what was acked is safe all the same");
    }
    server.stop(false).await;
}
