//! `sealpost queue top` and `sealpost queue drop` while a relay uses the queue: the relay itself looks and drops.

use std::io;

use serde_json::{Value, json};

use super::admin_client::{AdminClient, Failed};
use super::device;
use super::text::{number, print, rows};
use crate::cli::{Dropped, Json};
use crate::settings::Settings;
use crate::store::holder::Holder;

pub(super) async fn top(settings: &Settings, count: usize, json: Json) -> Result<(), Failed> {
    let client = present(settings).await?;
    let found = client.get(&format!("/admin/queue/top?count={count}")).await?;
    print(&found, json, rows);
    Ok(())
}

pub(super) async fn drop_held(
    settings: &Settings,
    whose: &Dropped,
    json: Json,
) -> Result<(), Failed> {
    // Before anybody is asked: a malformed argument is one with and without a relay.
    let shortened = match (holder(whose), &whose.recipient, &whose.sender) {
        (Ok(_), ..) => None,
        (Err(_), Some(id), _) | (Err(_), _, Some(id)) => Some(device::path(id)?),
        (Err(sentence), ..) => return Err(Failed::Usage(sentence)),
    };
    let client = present(settings).await?;
    let full = match shortened {
        Some(path) => Some(client.get(&path).await?["id"].clone()),
        None => None,
    };
    let Dropped { recipient, sender, origin, access } = whose;
    let named =
        [("recipient", recipient), ("sender", sender), ("origin", origin), ("access", access)];
    let value = |value: &Option<String>| value.as_ref().map(|it| full.clone().unwrap_or(json!(it)));
    let body: serde_json::Map<String, Value> =
        named.into_iter().filter_map(|(key, text)| Some((key.to_owned(), value(text)?))).collect();
    let done = client.post("/admin/queue/drop", &Value::Object(body)).await?;
    print(&done, json, |done| {
        format!("dropped {}; their senders get an Error 410 now\n", number(done, "dropped"))
    });
    Ok(())
}

/// The holder, if it is named in full.
pub(super) fn holder(whose: &Dropped) -> Result<Holder, &'static str> {
    let named = [&whose.recipient, &whose.sender, &whose.origin, &whose.access];
    let [recipient, sender, origin, access] = named.map(Option::as_deref);
    Holder::parse(recipient, sender, origin, access)
}

/// A client of the relay if one answers at the address. What refuses to say how it is may be no relay, and a relay that is
/// starting cannot say who holds its queue: both count as absent. Who is denied may not look at the disk instead.
async fn present(settings: &Settings) -> Result<AdminClient<'_>, Failed> {
    let client = AdminClient::new(settings);
    match client.get("/admin/status").await {
        Ok(_) => Ok(client),
        Err(Failed::Refused(sentence)) => {
            let address = settings.server.admin_listen.clone();
            Err(Failed::Unreachable(address, io::Error::other(sentence)))
        }
        Err(failed) => Err(failed),
    }
}
