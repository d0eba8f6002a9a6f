//! Devices: a list, one of them in full, and what an operator does to it.

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::oneshot;

use super::entry::{NOT_FOUND, Refused, ask};
use crate::actors::registry::operator::{Act, Action, Describe, Filter, List};
use crate::actors::session::CoreHandles;
use crate::protocol::id::DeviceId;
use crate::relay::delivery::{ReportTo, SessionReport};
use crate::relay::router::{DeviceReport, ListedDevice};
use crate::web::ingress::Ingress;

/// How long a session may take to answer; one that does not has a thread that hangs.
const SESSION_TIMEOUT: Duration = Duration::from_secs(1);
/// Devices in a list, unless the request names another number.
const LIST: usize = 100;
/// The most devices in a list.
const LONGEST_LIST: usize = 10_000;

#[derive(Deserialize)]
pub struct ListQuery {
    filter: Option<String>,
    limit: Option<usize>,
}

/// `GET /admin/devices?filter=queued&limit=100`
pub async fn list(
    ingress: web::Data<Arc<Ingress>>,
    query: web::Query<ListQuery>,
) -> Result<HttpResponse, Refused> {
    let filter = match query.filter.as_deref() {
        None => Filter::All,
        Some("queued") => Filter::Queued,
        Some("connected") => Filter::Connected,
        Some("blocked") => Filter::Blocked,
        Some(_) => return Err(Refused::bad("filter is queued, connected or blocked")),
    };
    let limit = query.limit.unwrap_or(LIST).min(LONGEST_LIST);
    let (devices, more) = list_some(&*ingress.core()?, filter, "", limit).await?;
    Ok(HttpResponse::Ok().json(json!({ "devices": devices, "more": more })))
}

/// The first `limit` devices that fit, and whether there are more.
async fn list_some(
    core: &CoreHandles,
    filter: Filter,
    prefix: &str,
    limit: usize,
) -> Result<(Vec<ListedDevice>, bool), Refused> {
    let (mut devices, mut from) = (Vec::new(), 0);
    loop {
        let limit = limit - devices.len();
        let slice = List { filter, prefix: prefix.to_owned(), from, limit };
        let slice = ask(core.registry.send(slice)).await?;
        devices.extend(slice.devices);
        match slice.next {
            Some(next) if limit > 0 => from = next,
            next => return Ok((devices, next.is_some())),
        }
    }
}

/// The device of an id that may be shortened to a prefix which no other device has.
async fn find(core: &CoreHandles, id: &str) -> Result<DeviceId, Refused> {
    if let Some(id) = DeviceId::parse(id) {
        return Ok(id);
    }
    let prefix = id.to_ascii_lowercase();
    let is_prefix = prefix.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if prefix.is_empty() || !is_prefix {
        return Err(Refused::bad("a device id is a UUID, or the beginning of one"));
    }
    let (found, _) = list_some(core, Filter::All, &prefix, 2).await?;
    match found[..] {
        [ListedDevice { id, .. }] => Ok(id),
        [] => Err(NOT_FOUND),
        _ => Err(Refused::bad("several devices begin with this: write more of the id")),
    }
}

#[derive(Serialize)]
struct Described {
    #[serde(flatten)]
    device: DeviceReport,
    /// `None` for a device without a connection.
    session: Option<Session>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Session {
    Answers { address: String, silent_for: Option<u64>, unwritten_bytes: usize },
    Hangs { error: &'static str },
}

/// `GET /admin/devices/ID`
pub async fn show(
    ingress: web::Data<Arc<Ingress>>,
    id: web::Path<String>,
) -> Result<HttpResponse, Refused> {
    let core = ingress.core()?;
    let device = find(&core, &id).await?;
    let (report, reported) = oneshot::channel();
    let session = ReportTo(Box::new(move |session| {
        // The operator may have gone.
        let _ = report.send(session);
    }));
    let device = ask(core.registry.send(Describe { device, session })).await?;
    let device = device.ok_or(NOT_FOUND)?;
    let session = match device.connection {
        None => None,
        Some(_) => Some(match tokio::time::timeout(SESSION_TIMEOUT, reported).await {
            Ok(Ok(SessionReport { address, silence, unwritten_bytes })) => Session::Answers {
                address: address.to_string(),
                silent_for: silence.map(|silence| silence.as_secs()),
                unwritten_bytes,
            },
            _ => Session::Hangs { error: "the session does not answer" },
        }),
    };
    Ok(HttpResponse::Ok().json(Described { device, session }))
}

/// `POST /admin/devices/ID/kick`, and `forget`, `block`, `unblock`
pub async fn act(
    ingress: web::Data<Arc<Ingress>>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Refused> {
    let (id, action) = path.into_inner();
    let action = match action.as_str() {
        "kick" => Action::Kick,
        "forget" => Action::Forget,
        "block" => Action::Block,
        "unblock" => Action::Unblock,
        _ => return Err(Refused::bad("the action is kick, forget, block or unblock")),
    };
    let core = ingress.core()?;
    let device = find(&core, &id).await?;
    let changed = ask(core.registry.send(Act { device, action })).await?.ok_or(NOT_FOUND)?;
    Ok(HttpResponse::Ok().json(json!({ "device": device, "changed": changed })))
}
