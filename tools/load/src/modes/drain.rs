//! Devices that had left come back for what waits for them, confirm it, and leave; then they look whether anything is left.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use futures_util::{StreamExt as _, TryStreamExt as _, future, stream};

use super::fanout::Recipient;
use crate::cli::{Common, Drain};
use crate::connection::{Device, Route, close_frame};
use crate::report::Report;
use crate::run::{self, Counts};
use crate::stats::Stats;

/// Devices that come back at the same time.
const AT_ONCE: usize = 64;

/// Runs it.
pub async fn run(common: &Common, options: &Drain) -> io::Result<Report> {
    let written = std::fs::read_to_string(&options.tokens)?;
    let tokens: Vec<String> = written.lines().map(str::to_owned).collect();
    come_back(common, &tokens).await
}

/// Resumes with each token and confirms everything that comes.
pub async fn come_back(common: &Common, tokens: &[String]) -> io::Result<Report> {
    let stats = Stats::new();
    let route = common.route().map_err(io::Error::other)?;
    let queued = Cell::new(0);
    let work = async {
        let mut lives = Vec::new();
        let mut devices = Box::pin(resume(&route, tokens));
        while let Some(device) = devices.try_next().await? {
            queued.set(queued.get() + device.registered.queued);
            let writer = device.writer.clone();
            lives.push((writer, run::live(device, Rc::new(Recipient { confirms: true }), &stats)));
        }
        run::settle(|| (stats.received.get(), stats.received.get() >= queued.get())).await;
        // A confirmation may be on its way; nothing overtakes it on its own connection.
        stats.end();
        let departures = lives.into_iter().map(|(writer, life)| {
            writer.with(close_frame);
            life
        });
        future::join_all(departures).await;
        Ok(())
    };
    let report = run::time(&stats, common, Counts::Delivered, work).await?;
    let mut report = report.concluded(format!("drain: {} devices", tokens.len()), &stats);
    let left = resume(&route, tokens)
        .try_fold(0, |left, device| future::ok(left + device.registered.queued))
        .await?;
    report.more.insert("queued", queued.get() as f64);
    report.more.insert("still queued", left as f64);
    report.undelivered = queued.get().saturating_sub(report.delivered) + left;
    Ok(report)
}

fn resume(
    route: &Route,
    tokens: &[String],
) -> impl stream::TryStream<Ok = Device, Error = io::Error> {
    let devices = stream::iter(tokens.iter().enumerate()).map(async move |(number, token)| {
        let payload = format!(r#"{{"resume_token":"{token}"}}"#);
        Device::join(route, number, Some(&payload)).await
    });
    devices.buffer_unordered(AT_ONCE)
}
