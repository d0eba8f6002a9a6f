//! What all modes do alike: let devices in, run warm, measure, wait for the rest.

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep};

use crate::cli::Common;
use crate::connection::{Behaviour, Device, Route};
use crate::process::Process;
use crate::report::Report;
use crate::stats::Stats;

/// Handshakes at the same time.
const AT_ONCE: usize = 64;
/// For so long the rest of the answers is waited for, once no more are coming.
const PATIENCE: Duration = Duration::from_secs(5);

/// `count` devices, in order; `first` is the number of the first one.
///
/// # Errors
///
/// When one of them is not let in.
pub async fn join(
    route: &Route,
    first: usize,
    count: usize,
    resumable: bool,
) -> io::Result<Vec<Device>> {
    let payload = resumable.then_some(r#"{"resumable":true}"#);
    stream::iter(first..first + count)
        .map(|number| Device::join(route, number, payload))
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

/// Lets a device live in this role until its connection ends, which the answer waits for.
pub fn live(
    device: Device,
    role: Rc<impl Behaviour + 'static>,
    stats: &Rc<Stats>,
) -> JoinHandle<()> {
    let Device { writer, reader, .. } = device;
    let pusher = spawn_local(writer.clone().push());
    let listening = reader.run(writer, role, stats.clone());
    spawn_local(async move {
        listening.await;
        pusher.abort();
    })
}

/// The counters at one moment.
struct Sample {
    at: Instant,
    sent: u64,
    received: u64,
    acked: u64,
    relay: Option<u64>,
    own: u64,
}

impl Sample {
    fn take(stats: &Stats, relay: Option<Process>) -> io::Result<Self> {
        Ok(Self {
            at: Instant::now(),
            sent: stats.sent.get(),
            received: stats.received.get(),
            acked: stats.acked.get(),
            relay: relay.map(Process::run_time).transpose()?,
            own: Process::own().run_time()?,
        })
    }
}

/// Which messages a mode is about.
#[derive(Debug, Clone, Copy)]
pub enum Counts {
    /// Those that arrive.
    Delivered,
    /// Those that are acked.
    Acked,
}

/// Measures while the devices do what they do, then stops them and waits for the last answers.
///
/// # Errors
///
/// When the relay's process cannot be read.
pub async fn measure(stats: &Stats, common: &Common, counts: Counts) -> io::Result<Report> {
    until_stopped(stats, common.warm_up()).await;
    stats.measure(common.measured());
    let before = Sample::take(stats, common.process())?;
    until_stopped(stats, common.measured()).await;
    let after = Sample::take(stats, common.process())?;
    stats.stop();
    let is_delivered = matches!(counts, Counts::Delivered);
    settle(|| {
        let progress = stats.received.get() + stats.acked.get();
        let has_arrived = !is_delivered || stats.undelivered() == 0;
        (progress, has_arrived && stats.unanswered() == 0)
    })
    .await;
    let mut report = compare(&before, &after, counts);
    report.unanswered = stats.unanswered();
    report.undelivered = if is_delivered { stats.undelivered() } else { 0 };
    Ok(report)
}

/// Ends a run whose phases are measured: nothing new is sent, and the last answers are waited for. What is reported is the
/// whole run.
///
/// # Errors
///
/// When our own process cannot be read.
pub async fn conclude(stats: &Stats) -> io::Result<Report> {
    stats.stop();
    settle(|| {
        let progress = stats.received.get() + stats.acked.get();
        (progress, stats.undelivered() == 0 && stats.unanswered() == 0)
    })
    .await;
    let seconds = stats.now() as f64 / 1e9;
    let delivered = stats.received.get();
    Ok(Report {
        seconds,
        sent: stats.sent.get(),
        delivered,
        acked: stats.acked.get(),
        messages_per_second: delivered as f64 / seconds,
        generator_cores: Process::own().run_time()? as f64 / 1e9 / seconds,
        unanswered: stats.unanswered(),
        undelivered: stats.undelivered(),
        ..Report::default()
    })
}

/// Measures one piece of work.
///
/// # Errors
///
/// When the relay's process cannot be read.
pub async fn time(
    stats: &Stats,
    common: &Common,
    counts: Counts,
    work: impl Future<Output = io::Result<()>>,
) -> io::Result<Report> {
    let before = Sample::take(stats, common.process())?;
    work.await?;
    let after = Sample::take(stats, common.process())?;
    Ok(compare(&before, &after, counts))
}

/// Waits until it is done, or nothing changes any more; answers whether it is done.
pub async fn settle(progress: impl Fn() -> (u64, bool)) -> bool {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let (now, is_done) = progress();
        if is_done {
            return true;
        }
        if now != last {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() > PATIENCE {
            return false;
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// So long, or until too much has gone wrong.
async fn until_stopped(stats: &Stats, time: Duration) {
    let end = Instant::now() + time;
    while !stats.is_stopped() && Instant::now() < end {
        sleep((end - Instant::now()).min(Duration::from_millis(100))).await;
    }
}

fn compare(before: &Sample, after: &Sample, counts: Counts) -> Report {
    let seconds = (after.at - before.at).as_secs_f64();
    let delivered = after.received - before.received;
    let acked = after.acked - before.acked;
    let counted = match counts {
        Counts::Delivered => delivered,
        Counts::Acked => acked,
    } as f64;
    let relay = before.relay.zip(after.relay).map(|(before, after)| (after - before) as f64 / 1e9);
    Report {
        seconds,
        sent: after.sent - before.sent,
        delivered,
        acked,
        messages_per_second: counted / seconds,
        cpu_us_per_message: relay.filter(|_| counted > 0.0).map(|relay| relay * 1e6 / counted),
        relay_cores: relay.map(|relay| relay / seconds),
        generator_cores: (after.own - before.own) as f64 / 1e9 / seconds,
        ..Report::default()
    }
}
