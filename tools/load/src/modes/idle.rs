//! Devices register and send nothing: how much memory does a connection take?
//!
//! A relay keeps the memory of earlier runs, so this needs a fresh one.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::sleep;

use super::fanout::Recipient;
use crate::cli::{Common, Idle};
use crate::messages::{Id, MessageTemplate};
use crate::process::Process;
use crate::report::Report;
use crate::run::{self, Counts};
use crate::stats::Stats;

/// Large messages under way at the same time.
const AT_ONCE: u64 = 16;

/// Runs it.
pub async fn run(common: &Common, options: &Idle) -> io::Result<Report> {
    let stats = Stats::new();
    let relay = common.process().ok_or_else(|| io::Error::other("idle needs --pid"))?;
    let pause = Duration::from_secs_f64(options.pause.max(0.0));
    let count = options.connections;
    let before = relay.resident()?;
    let mut report = Report::default();

    let route = common.route().map_err(io::Error::other)?;
    let devices = run::join(&route, 0, count, options.resumable).await?;
    let mut links = Vec::new();
    for device in devices {
        links.push(device.writer.clone());
        run::live(device, Rc::new(Recipient { confirms: options.resumable }), &stats);
    }
    sleep(pause).await;
    let registered = relay.resident()?;
    report.more.insert("VmRSS before, KiB", kib(before));
    report.more.insert("VmRSS registered, KiB", kib(registered));
    report.more.insert("KiB/connection", grown(before, registered, count));

    if let Some(bytes) = options.large {
        let ids: Vec<Id> = links.iter().map(|writer| writer.id).collect();
        let data = vec![b'A'; bytes];
        let work = async {
            for (number, writer) in links.iter().enumerate() {
                let mut template =
                    MessageTemplate::with_data(number, &writer.id, &data, common.ttl);
                template.address(&ids[(number + 1) % count]);
                stats.send();
                writer.with(|out| template.send(out, stats.now()));
                let goes_on = run::settle(|| {
                    let (sent, received) = (stats.sent.get(), stats.received.get());
                    (received, sent < received + stats.errors() + AT_ONCE)
                });
                if !goes_on.await {
                    break;
                }
            }
            run::settle(|| {
                (stats.received.get(), stats.unanswered() == 0 && stats.undelivered() == 0)
            })
            .await;
            Ok(())
        };
        let large = run::time(&stats, common, Counts::Delivered, work).await?;
        let peak = relay.resident()?;
        sleep(pause).await;
        let rested = relay.resident()?;
        report = Report { more: report.more, ..large };
        report.unanswered = stats.unanswered();
        report.undelivered = stats.undelivered();
        report.more.insert("VmRSS after large, KiB", kib(peak));
        report.more.insert("VmRSS after rest, KiB", kib(rested));
        report.more.insert("KiB/connection, rested", grown(before, rested, count));
    }
    let large = options.large.map_or_else(String::new, |bytes| format!(", then {bytes} B each"));
    let cpu = idle_cpu(relay, pause).await?;
    report.more.insert("idle relay, cores/1000", cpu * 1000.0);
    Ok(report.concluded(format!("idle: {count} connections{large}"), &stats))
}

/// The share of a core that the relay takes while nobody says anything.
async fn idle_cpu(relay: Process, pause: Duration) -> io::Result<f64> {
    let before = relay.run_time()?;
    sleep(pause).await;
    Ok((relay.run_time()? - before) as f64 / pause.as_nanos().max(1) as f64)
}

fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}

fn grown(before: u64, after: u64, connections: usize) -> f64 {
    (kib(after) - kib(before)) / connections.max(1) as f64
}
