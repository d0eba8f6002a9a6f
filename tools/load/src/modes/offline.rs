//! Devices send to devices that have registered and left: what the queue takes.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::task::spawn_local;

use super::drain;
use crate::cli::{Common, Offline};
use crate::connection::{Behaviour, Device, Writer};
use crate::messages::{Id, MessageTemplate};
use crate::pacer;
use crate::report::Report;
use crate::run::{self, Counts};
use crate::stats::Stats;

/// Goodbyes at the same time.
const AT_ONCE: usize = 64;

/// Sends to all recipients in turn, no more at once than are acked, or as many as are due.
pub struct Sender {
    stats: Rc<Stats>,
    template: RefCell<MessageTemplate>,
    recipients: Rc<[Id]>,
    next: Cell<usize>,
    is_open_loop: bool,
}

impl Sender {
    /// Joins in; `number` says which sender it is, so that not all begin with the same recipient.
    pub fn join(
        device: Device,
        number: usize,
        recipients: Rc<[Id]>,
        is_open_loop: bool,
        common: &Common,
        stats: &Rc<Stats>,
    ) -> (Rc<Writer>, Rc<Self>) {
        let writer = device.writer.clone();
        let template = MessageTemplate::new(number, &writer.id, common.payload_bytes, common.ttl);
        let sender = Rc::new(Self {
            stats: stats.clone(),
            template: template.into(),
            next: number.into(),
            recipients,
            is_open_loop,
        });
        run::live(device, sender.clone(), stats);
        (writer, sender)
    }

    /// Sends as many as may be without Ack.
    pub fn begin(&self, writer: &Writer, in_flight: u32) {
        (0..in_flight).for_each(|_| self.send_next(writer));
        writer.flush();
    }

    /// Sends another for one that came to its end.
    fn send_next(&self, writer: &Writer) {
        if !self.is_open_loop && !self.stats.is_stopped() {
            self.send(writer, self.stats.now());
        }
    }

    fn send(&self, writer: &Writer, time: u64) {
        let mut template = self.template.borrow_mut();
        template.address(&self.recipients[self.next.get() % self.recipients.len()]);
        self.next.set(self.next.get() + 1);
        self.stats.send();
        writer.put(|out| template.send(out, time));
    }
}

impl Behaviour for Sender {
    fn receive(&self, _: &Writer, _: &Id, _: u64) {}

    fn ack(&self, writer: &Writer, _: &Id, _: u64) {
        self.send_next(writer);
    }

    fn error(&self, writer: &Writer) {
        self.send_next(writer);
    }
}

/// Runs it.
pub async fn run(common: &Common, options: &Offline) -> io::Result<Report> {
    let stats = Stats::new();
    let route = common.route().map_err(io::Error::other)?;
    let recipients = run::join(&route, 0, options.recipients, true).await?;
    let ids: Rc<[Id]> = recipients.iter().map(|device| device.writer.id).collect();
    let tokens: Vec<String> =
        recipients.iter().filter_map(|device| device.registered.resume_token.clone()).collect();
    let departures = stream::iter(recipients).map(Device::leave).buffer_unordered(AT_ONCE);
    departures.try_collect::<()>().await?;
    if let Some(path) = &options.tokens {
        std::fs::write(path, tokens.join("\n"))?;
    }
    let senders = run::join(&route, 0, options.senders, false).await?;
    let is_open_loop = options.rate.is_some();
    let join =
        |(number, device)| Sender::join(device, number, ids.clone(), is_open_loop, common, &stats);
    let ends: Vec<_> = senders.into_iter().enumerate().map(join).collect();
    let how = match options.rate {
        Some(rate) => {
            let send = move |number: usize, due| {
                let (writer, sender) = &ends[number % ends.len()];
                sender.send(writer, due);
                writer.flush();
            };
            spawn_local(pacer::pace(stats.clone(), rate, send)?);
            format!("{rate} messages/s")
        }
        None => {
            for (writer, sender) in &ends {
                sender.begin(writer, options.in_flight);
            }
            format!("{} in flight", options.in_flight)
        }
    };
    let mode =
        format!("offline: {} senders, {how} -> {} recipients", options.senders, options.recipients);
    let report = run::measure(&stats, common, Counts::Acked).await?;
    let mut report = report.concluded(mode, &stats);
    let acked = stats.acked.get();
    report.more.insert("acked in all", acked as f64);
    if options.drain && report.is_sound() {
        let drained = drain::come_back(common, &tokens).await?;
        report.undelivered = acked.saturating_sub(drained.delivered).max(drained.undelivered);
        report.more.insert("drained", drained.delivered as f64);
        report.more.insert("drained, messages/s", drained.messages_per_second);
        if let Some(cpu) = drained.cpu_us_per_message {
            report.more.insert("drained, us/message", cpu);
        }
    }
    Ok(report)
}
