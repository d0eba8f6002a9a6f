//! `GET /admin/status`: the relay at a glance.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use actix_web::{HttpResponse, web};
use serde::Serialize;

use super::entry::{Refused, ask};
use crate::actors::registry::Measure;
use crate::logging::{self, Logged};
use crate::relay::router::Snapshot;
use crate::web::ingress::Ingress;

/// Times are seconds.
#[derive(Serialize)]
struct Status {
    version: &'static str,
    uptime: u64,
    draining: bool,
    connections: usize,
    max_connections: usize,
    max_devices: usize,
    #[serde(flatten)]
    relay: Snapshot,
    max_queued_bytes: usize,
    /// The age of the oldest message that waits.
    oldest_waiting: Option<u64>,
    store_failing: bool,
    disk_bytes: u64,
    /// The newest warnings and errors.
    last_errors: Vec<Logged>,
}

pub async fn get(ingress: web::Data<Arc<Ingress>>) -> Result<HttpResponse, Refused> {
    let core = ingress.core()?;
    let measured = ask(core.registry.send(Measure { resets: false })).await?.router;
    let settings = ingress.in_force().settings;
    Ok(HttpResponse::Ok().json(Status {
        version: env!("CARGO_PKG_VERSION"),
        uptime: (ingress.clock.moment() - ingress.started_at).as_secs(),
        draining: ingress.draining.load(Relaxed),
        connections: ingress.connections.total(),
        max_connections: settings.limits.connections,
        max_devices: settings.limits.devices,
        relay: measured.snapshot,
        max_queued_bytes: settings.queue.total_bytes,
        oldest_waiting: measured.oldest_waiting.map(|age| age.as_secs()),
        store_failing: measured.store.is_failing,
        disk_bytes: measured.store.disk_bytes,
        last_errors: logging::recent(),
    }))
}
