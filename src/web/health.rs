//! Whether the relay lives, is ready for connections, and is well.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use actix_web::{HttpResponse, web};
use serde::Serialize;

use super::ingress::Ingress;
use crate::actors::registry::Observe;
use crate::relay::router::Snapshot;

const CORE_TIMEOUT: Duration = Duration::from_secs(2);

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
    #[serde(flatten)]
    relay: Option<Snapshot>,
}

/// `/healthz`: a round trip through the core, and its counters.
pub async fn healthz(ingress: web::Data<Arc<Ingress>>) -> HttpResponse {
    let connections = ingress.connections.total();
    let relay = observe(&ingress).await;
    let (mut response, status) = match relay {
        Some(_) => (HttpResponse::Ok(), "ok"),
        None => (HttpResponse::ServiceUnavailable(), "failing"),
    };
    response.json(Health { status, connections, relay })
}

/// The counters of the core; `None` if the core does not answer in time.
pub(super) async fn observe(ingress: &Ingress) -> Option<Snapshot> {
    let core = ingress.core.get()?;
    let answer = tokio::time::timeout(CORE_TIMEOUT, core.registry.send(Observe)).await;
    answer.ok()?.ok()
}
