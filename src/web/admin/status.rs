//! `GET /admin/status`: the relay at a glance.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use serde::Serialize;

use crate::relay::router::Snapshot;
use crate::web::health;
use crate::web::ingress::Ingress;

#[derive(Serialize)]
struct Status {
    version: &'static str,
    connections: usize,
    #[serde(flatten)]
    relay: Option<Snapshot>,
}

pub async fn get(ingress: web::Data<Arc<Ingress>>) -> HttpResponse {
    HttpResponse::Ok().json(Status {
        version: env!("CARGO_PKG_VERSION"),
        connections: ingress.connections.total(),
        relay: health::observe(&ingress).await,
    })
}
