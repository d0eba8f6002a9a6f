//! `POST /admin/drain`: the relay shuts down as on SIGTERM.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::web::ingress::Ingress;

pub async fn post(ingress: web::Data<Arc<Ingress>>) -> HttpResponse {
    log::info!(action = "Drain"; "operator");
    ingress.shutdown.notify_one();
    HttpResponse::Ok().json(json!({ "draining": true, "connections": ingress.connections.total() }))
}
