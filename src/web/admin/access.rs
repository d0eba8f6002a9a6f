//! `POST /admin/access/NAME/end-devices`: the devices of a revoked access token are put out.

use std::sync::Arc;

use actix_http::StatusCode;
use actix_web::{HttpResponse, web};
use serde_json::json;

use super::entry::{Refused, ask};
use crate::access::{Policy, is_name};
use crate::actors::rate_limiter;
use crate::actors::registry::EndDevicesOf;
use crate::web::ingress::Ingress;

const STILL_GOOD: Refused = Refused {
    status: StatusCode::CONFLICT,
    error: "The token is in access.tokens_file: revoke it first.",
};

/// Reads the access tokens again, and ends all devices that registered by the one with this name. 409 if it is still good: they
/// would only register again. The answer says how many there were.
pub async fn end_devices(
    ingress: web::Data<Arc<Ingress>>,
    name: web::Path<String>,
) -> Result<HttpResponse, Refused> {
    let name: Arc<str> = name.into_inner().into();
    if !is_name(&name) {
        return Err(Refused::bad("this is no name of an access token"));
    }
    let core = ingress.core()?;
    let is_good = match ingress.reload_access() {
        Ok(policy) => match &*policy {
            Policy::Open => false,
            Policy::Tokens(table) => table.tokens().iter().any(|token| token.name == name),
        },
        Err(error) => {
            let error = json!({ "error": error.to_string() });
            return Ok(HttpResponse::Conflict().json(error));
        }
    };
    if is_good {
        return Err(STILL_GOOD);
    }
    // The limiter answers when it has the new tokens: whatever it admitted by the old ones is in the Registry's mailbox, before
    // the next message.
    ask(core.limiter.send(rate_limiter::Observe)).await?;
    let devices = ask(core.registry.send(EndDevicesOf(name.clone()))).await?;
    log::info!(action = "EndDevices", access:% = name, devices; "operator");
    Ok(HttpResponse::Ok().json(json!({ "name": &*name, "devices": devices })))
}
