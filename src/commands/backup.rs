//! `sealpost backup DIR`: a copy of the queue of a running relay, in a new file.

use std::io;
use std::path::Path;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::Method;

use super::admin_client::{AdminClient, Failed};
use super::text::print;
use crate::cli::Json;
use crate::settings::Settings;
use crate::store::copy::{NewQueue, take_empty};
use crate::store::open::OpenError;

/// The longest pause in what the relay sends.
const STALL: Duration = Duration::from_secs(60);

pub(super) async fn run(settings: &Settings, directory: &Path, json: Json) -> Result<(), Failed> {
    let unwritable = |error: OpenError| Failed::Unwritten(error.to_string());
    // Before the relay takes a snapshot: a directory that cannot be used costs it nothing.
    let directory = take_empty(directory).map_err(unwritable)?;
    let response = AdminClient::new(settings).send(Method::POST, "/admin/backup", None).await?;
    let mut body = response.into_body();
    let mut copy = NewQueue::create(&directory).map_err(unwritable)?;
    loop {
        let frame = tokio::time::timeout(STALL, body.frame()).await;
        let frame = frame.map_err(|_| cut(&io::ErrorKind::TimedOut.into()))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|failed| cut(&io::Error::other(failed)))?;
        if let Some(bytes) = frame.data_ref() {
            copy.feed(bytes).map_err(unwritable)?;
        }
    }
    let copied = copy.finish(false).map_err(unwritable)?;
    print(&copied, json, |copied| format!("{} rows in {} bytes\n", copied.rows, copied.bytes));
    Ok(())
}

fn cut(failed: &io::Error) -> Failed {
    Failed::Unwritten(format!(
        "the relay did not send the whole backup, none was written: {failed}"
    ))
}
