//! The queue while the relay runs: who holds it, and an end to what one of them holds.

use std::collections::HashMap;
use std::sync::Arc;

use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::json;

use super::entry::{NO_ANSWER, Refused, ask};
use crate::actors::registry::operator::{DropHeld, Holders};
use crate::relay::router::Cursor;
use crate::store::holder::{Held, Holder, Top};
use crate::web::ingress::Ingress;

/// Holders of each kind, unless the request names another number.
const COUNT: usize = 10;

#[derive(Deserialize)]
pub struct TopQuery {
    count: Option<usize>,
}

/// `GET /admin/queue/top?count=10`: the largest recipients, senders, origins and access tokens, in this order.
pub async fn top(
    ingress: web::Data<Arc<Ingress>>,
    query: web::Query<TopQuery>,
) -> Result<HttpResponse, Refused> {
    let core = ingress.core()?;
    let mut held = HashMap::<Holder, Held>::new();
    let mut cursor = Some(Cursor::default());
    while let Some(from) = cursor {
        let slice = ask(core.registry.send(Holders(from))).await?;
        for (holder, more) in slice.held {
            let of_holder = held.entry(holder).or_default();
            of_holder.messages += more.messages;
            of_holder.bytes = of_holder.bytes.saturating_add(more.bytes);
        }
        cursor = slice.next;
    }
    // Not on a worker's thread: a million holders take a while to sort, and the first worker carries the Registry.
    let count = query.count.unwrap_or(COUNT);
    let top = web::block(move || Top::of(held, count)).await.map_err(|_| NO_ANSWER)?;
    Ok(HttpResponse::Ok().json(top))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropRequest {
    recipient: Option<String>,
    sender: Option<String>,
    origin: Option<String>,
    access: Option<String>,
}

impl DropRequest {
    fn holder(&self) -> Result<Holder, Refused> {
        let named = [&self.recipient, &self.sender, &self.origin, &self.access];
        let [recipient, sender, origin, access] = named.map(Option::as_deref);
        Holder::parse(recipient, sender, origin, access).map_err(Refused::bad)
    }
}

/// `POST /admin/queue/drop`: what one holder has and what waits expires now; the senders get an Error 410.
pub async fn drop_held(
    ingress: web::Data<Arc<Ingress>>,
    request: web::Json<DropRequest>,
) -> Result<HttpResponse, Refused> {
    let holder = request.holder()?;
    let core = ingress.core()?;
    let (mut dropped, mut cursor) = (0, Some(Cursor::default()));
    while let Some(from) = cursor {
        let (count, next) =
            ask(core.registry.send(DropHeld { from, holder: holder.clone() })).await?;
        dropped += count;
        cursor = next;
    }
    let what = match holder {
        // Ids are shortened in the log.
        Holder::Recipient(id) => format!("recipient={id:?}"),
        Holder::Sender(id) => format!("sender={id:?}"),
        other => format!("{}={}", other.kind(), other.name()),
    };
    log::info!(action = "Drop", holder:% = what, messages = dropped; "operator");
    Ok(HttpResponse::Ok().json(json!({ "dropped": dropped })))
}
