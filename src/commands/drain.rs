//! `sealpost drain`: shuts a running relay down, as SIGTERM does.

use serde_json::json;

use super::admin_client::{AdminClient, Failed};
use super::device::print;
use super::text::number;
use crate::settings::Settings;

pub(super) async fn run(settings: &Settings, json: bool) -> Result<(), Failed> {
    let done = AdminClient::new(settings).post("/admin/drain", &json!({})).await?;
    print(&done, json, |done| format!("draining {} connections\n", number(done, "connections")));
    Ok(())
}
