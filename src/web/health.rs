//! Whether the relay lives, is ready for connections, and is well.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use actix_web::{HttpResponse, web};
use serde::Serialize;

use super::ingress::Ingress;
use crate::actors::registry::{Observe, ObserveStore, StoreHealth};
use crate::relay::router::Snapshot;

const CORE_TIMEOUT: Duration = Duration::from_secs(2);
/// A commit that takes longer does not end. A slow disk may take a few seconds.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

pub async fn livez() -> HttpResponse {
    HttpResponse::Ok().body("alive\n")
}

/// `/readyz`: whether the relay takes new connections.
pub async fn readyz(ingress: web::Data<Arc<Ingress>>) -> HttpResponse {
    let refused = if ingress.core.get().is_none() {
        "starting\n"
    } else if ingress.draining.load(Relaxed) {
        "draining\n"
    } else if ingress.connections.total() >= ingress.in_force().settings.limits.connections {
        "at capacity\n"
    } else {
        return HttpResponse::Ok().body("ready\n");
    };
    HttpResponse::ServiceUnavailable().body(refused)
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    connections: usize,
    /// `ok`, `failing` while the disk refuses what it is given, `stuck` while a commit does not end.
    store: Option<&'static str>,
    #[serde(flatten)]
    relay: Option<Snapshot>,
}

/// What a round trip through the Registry to the store has brought back.
pub struct Checked {
    pub relay: Snapshot,
    pub store: StoreHealth,
}

/// A round trip. `None` before the core is there, and if it does not come back within `longest`.
pub async fn check(ingress: &Ingress, longest: Duration) -> Option<Checked> {
    let core = ingress.core.get()?;
    let round_trip = async {
        let store = core.registry.send(ObserveStore).await.ok()?;
        let relay = core.registry.send(Observe).await.ok()?;
        Some(Checked { relay, store })
    };
    tokio::time::timeout(longest, round_trip).await.ok()?
}

/// `/healthz`: a round trip through the core, and its counters.
pub async fn healthz(ingress: web::Data<Arc<Ingress>>) -> HttpResponse {
    let connections = ingress.connections.total();
    let checked = check(&ingress, CORE_TIMEOUT).await;
    let store = checked.as_ref().map(|Checked { store, .. }| match store {
        StoreHealth { commit_for, .. } if *commit_for > COMMIT_TIMEOUT => "stuck",
        StoreHealth { is_failing: true, .. } => "failing",
        _ => "ok",
    });
    let (mut response, status) = match store {
        None | Some("stuck") => (HttpResponse::ServiceUnavailable(), "failing"),
        Some(_) => (HttpResponse::Ok(), "ok"),
    };
    let relay = checked.map(|checked| checked.relay);
    response.json(Health { status, connections, store, relay })
}
