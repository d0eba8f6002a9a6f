//! `sealpost status`: one screen on how a running relay does.

use super::admin_client::{AdminClient, Failed};
use crate::settings::Settings;

pub(super) async fn run(settings: &Settings, json: bool) -> Result<(), Failed> {
    let status = AdminClient::new(settings).get("/admin/status").await?;
    let _ = json;
    println!("{status:#}");
    Ok(())
}
