//! The queue while the relay runs: who holds it, and an end to what one of them holds.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::entry::{Refused, ask};
use crate::actors::registry::operator::{DropHeld, Holders};
use crate::protocol::envelope::Origin;
use crate::protocol::id::DeviceId;
use crate::relay::router::{Cursor, Held, Holder};
use crate::web::ingress::Ingress;

/// Holders of each kind, unless the request names another number.
const COUNT: usize = 10;

#[derive(Deserialize)]
pub struct TopQuery {
    count: Option<usize>,
}

#[derive(Serialize)]
struct Row {
    holder: &'static str,
    id: String,
    messages: u64,
    bytes: u64,
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
    let mut held: Vec<_> = held.into_iter().collect();
    held.sort_unstable_by(|(one, of_one), (other, of_other)| {
        (kind(one), Reverse(of_one), one).cmp(&(kind(other), Reverse(of_other), other))
    });
    let count = query.count.unwrap_or(COUNT);
    let mut rows = Vec::new();
    for same_kind in held.chunk_by(|(one, _), (other, _)| kind(one) == kind(other)) {
        rows.extend(same_kind.iter().take(count).map(|(holder, held)| Row {
            holder: ["recipient", "sender", "origin", "access"][kind(holder)],
            id: name(holder),
            messages: held.messages,
            bytes: held.bytes,
        }));
    }
    Ok(HttpResponse::Ok().json(json!({ "holders": rows })))
}

fn kind(holder: &Holder) -> usize {
    match holder {
        Holder::Recipient(_) => 0,
        Holder::Sender(_) => 1,
        Holder::Origin(_) => 2,
        Holder::Access(_) => 3,
    }
}

fn name(holder: &Holder) -> String {
    match holder {
        Holder::Recipient(id) | Holder::Sender(id) => id.to_string(),
        Holder::Origin(Origin::NONE) => "none".to_owned(),
        Holder::Origin(origin) => format!("{:016x}", origin.0),
        Holder::Access(name) => name.to_string(),
    }
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
    fn holder(self) -> Result<Holder, Refused> {
        let device = |id: String| {
            DeviceId::parse(&id).ok_or(Refused::bad("a device id is a UUID, written in full"))
        };
        match (self.recipient, self.sender, self.origin, self.access) {
            (Some(id), None, None, None) => device(id).map(Holder::Recipient),
            (None, Some(id), None, None) => device(id).map(Holder::Sender),
            (None, None, Some(origin), None) => {
                let digits =
                    origin.len() == 16 && origin.bytes().all(|byte| byte.is_ascii_hexdigit());
                let origin = digits.then(|| u64::from_str_radix(&origin, 16).ok()).flatten();
                let origin = origin.ok_or(Refused::bad("an origin has 16 hexadecimal digits"))?;
                Ok(Holder::Origin(Origin(origin)))
            }
            (None, None, None, Some(name)) => Ok(Holder::Access(name.into())),
            _ => Err(Refused::bad("name one of recipient, sender, origin and access")),
        }
    }
}

/// `POST /admin/queue/drop`: what one holder has and what waits expires now; the senders get an Error 410.
pub async fn drop_held(
    ingress: web::Data<Arc<Ingress>>,
    request: web::Json<DropRequest>,
) -> Result<HttpResponse, Refused> {
    let holder = request.into_inner().holder()?;
    let core = ingress.core()?;
    let (mut dropped, mut cursor) = (0, Some(Cursor::default()));
    while let Some(from) = cursor {
        let (count, next) =
            ask(core.registry.send(DropHeld { from, holder: holder.clone() })).await?;
        dropped += count;
        cursor = next;
    }
    let what = match &holder {
        Holder::Recipient(id) => format!("recipient={id:?}"),
        Holder::Sender(id) => format!("sender={id:?}"),
        other => format!("{}={}", ["", "", "origin", "access"][kind(other)], name(other)),
    };
    log::info!(action = "Drop", holder:% = what, messages = dropped; "operator");
    Ok(HttpResponse::Ok().json(json!({ "dropped": dropped })))
}
