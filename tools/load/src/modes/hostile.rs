//! Pairs at a fixed rate, first alone, then beside a device that never reads and one that floods it.
//!
//! The flooder sends the next message as soon as one is acked or refused: what it asks of the relay is bounded by the
//! relay alone. Whether that is much depends on the relay's settings: with its rate limits lifted, it is all there is.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::admin::Admin;
use crate::background::{self, Background};
use crate::cli::{Common, Hostile};
use crate::connection::{Behaviour, Device, Route, Writer};
use crate::messages::{Id, MessageTemplate};
use crate::phase::Phase;
use crate::report::Report;
use crate::run::{self};
use crate::stats::Stats;

use super::pairs;

/// Numbers of the two, so that their messages are nobody else's.
const MUTE: usize = 1_000_000;
const FLOODER: usize = 1_000_001;

/// Sends to one device, another message for each that is acked or refused.
struct Flooder {
    stats: Rc<Stats>,
    template: RefCell<MessageTemplate>,
}

impl Flooder {
    fn send(&self, writer: &Writer) {
        if !self.stats.is_stopped() {
            self.stats.send();
            writer.put(|out| self.template.borrow_mut().send(out, self.stats.now()));
        }
    }
}

impl Behaviour for Flooder {
    fn receive(&self, _: &Writer, _: &Id, _: u64) {}

    fn ack(&self, writer: &Writer, _: &Id, _: u64) {
        self.send(writer);
    }

    fn error(&self, writer: &Writer) {
        self.send(writer);
    }
}

/// What became of the flooder's messages.
struct Flood {
    sent: u64,
    acked: u64,
    errors: BTreeMap<u16, u64>,
    /// Whether the relay put an end to it.
    was_put_out: bool,
}

/// What the flooder needs to know.
struct Plan {
    route: Route,
    payload: usize,
    ttl: u64,
    in_flight: u32,
    resumable: bool,
}

/// Floods a device that never reads, until it is enough.
async fn flood(plan: Plan, enough: oneshot::Receiver<()>) -> io::Result<Flood> {
    // It never has enough to do. Who else works in the background must not give way to all of the machine: the relay puts an end to
    // connections that do not read.
    background::set_idle_priority()?;
    let stats = Stats::expecting_errors();
    let payload = plan.resumable.then_some(r#"{"resumable":true}"#);
    let mute = Device::join(&plan.route, MUTE, payload).await?;
    let device = Device::join(&plan.route, FLOODER, None).await?;
    let writer = device.writer.clone();
    let mut template = MessageTemplate::new(FLOODER, &writer.id, plan.payload, plan.ttl);
    template.address(&mute.writer.id);
    let flooder = Rc::new(Flooder { stats: stats.clone(), template: template.into() });
    run::live(device, flooder.clone(), &stats);
    (0..plan.in_flight).for_each(|_| flooder.send(&writer));
    writer.flush();
    // A sender that is gone has the same meaning as the signal.
    let _ = enough.await;
    stats.stop();
    let (sent, acked) = (stats.sent.get(), stats.acked.get());
    let (errors, was_put_out) = (stats.errors.borrow().clone(), !stats.closes.borrow().is_empty());
    drop(mute);
    Ok(Flood { sent, acked, errors, was_put_out })
}

/// Runs it.
pub async fn run(common: &Common, options: &Hostile) -> io::Result<Report> {
    let stats = Stats::new();
    let pairs = pairs::begin(common, &options.paced.pairs(), &stats).await?;
    sleep(common.warm_up()).await;
    let alone = Phase::rest("alone", &stats, common).await?;

    let plan = Plan {
        route: common.route().map_err(io::Error::other)?,
        payload: common.payload_bytes,
        ttl: common.ttl,
        in_flight: options.flood_in_flight,
        resumable: options.resumable,
    };
    let (stop, enough) = oneshot::channel();
    let flooding = Background::begin(move || flood(plan, enough))?;
    sleep(common.warm_up()).await;
    let flooded = Phase::rest("flooded", &stats, common).await?;
    let books = match &options.admin {
        Some(url) => Some(Admin::connect(url).await?.books().await?),
        None => None,
    };
    drop(stop);
    let flood = flooding.end().await?;

    let mut report = run::conclude(&stats).await?;
    let refused: u64 = flood.errors.values().sum();
    report.more.insert("pairs, Errors", stats.errors() as f64);
    report.more.insert("flooder, sent", flood.sent as f64);
    report.more.insert("flooder, acked", flood.acked as f64);
    report.more.insert("flooder, refused", refused as f64);
    report.more.insert("flooder, put out", f64::from(u8::from(flood.was_put_out)));
    if let Some(books) = books {
        report.more.insert("queued at the end", books.queued as f64);
        report.more.insert("in flight at the end", books.in_flight as f64);
    }
    if let Some((p50, p99)) = flooded.slower_than(&alone) {
        report.more.insert("p50 flooded/alone", p50);
        report.more.insert("p99 flooded/alone", p99);
    }
    report.phases = vec![alone, flooded];
    let mut report = report.concluded(format!("hostile: {pairs}"), &stats);
    for (code, count) in flood.errors {
        *report.errors.entry(code).or_default() += count;
    }
    Ok(report)
}
