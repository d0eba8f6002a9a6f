//! `sealpost queue top` and `sealpost queue drop` while a relay uses the queue: the relay itself looks and drops.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::admin_client::{AdminClient, Failed};
use super::device::print;
use super::text::{number, text};
use crate::cli::Dropped;
use crate::settings::Settings;

pub(super) async fn top(settings: &Settings, count: usize, json: bool) -> Result<(), Failed> {
    let client = AdminClient::new(settings);
    let found = client.get(&format!("/admin/queue/top?count={count}")).await?;
    print(&found, json, rows);
    Ok(())
}

pub(super) async fn drop_held(settings: &Settings, dropped: Dropped) -> Result<(), Failed> {
    let Dropped { recipient, sender, origin, access } = dropped;
    let named =
        [("recipient", recipient), ("sender", sender), ("origin", origin), ("access", access)];
    let body: serde_json::Map<String, Value> = named
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), json!(value?))))
        .collect();
    let done = AdminClient::new(settings).post("/admin/queue/drop", &Value::Object(body)).await?;
    println!("dropped {}; their senders get an Error 410 now", number(&done, "dropped"));
    Ok(())
}

fn rows(found: &Value) -> String {
    let mut out =
        String::from("holder     id                                    messages        bytes\n");
    for row in found["holders"].as_array().map_or(&[][..], Vec::as_slice) {
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{:10} {:36} {:>9} {:>12}",
            text(&row["holder"]),
            text(&row["id"]),
            number(row, "messages"),
            number(row, "bytes"),
        );
    }
    out
}
