//! `sealpost drain`: shuts a running relay down, as SIGTERM does.

use serde_json::json;

use super::admin_client::{AdminClient, Failed};
use super::text::{number, print};
use crate::cli::Json;
use crate::settings::Settings;

pub(super) async fn run(settings: &Settings, json: Json) -> Result<(), Failed> {
    let done = AdminClient::new(settings).post("/admin/drain", &json!({})).await?;
    print(&done, json, |done| format!("draining {} connections\n", number(done, "connections")));
    Ok(())
}
