//! Devices send to devices that have registered and left: what the queue takes.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::drain;
use crate::cli::{Common, Offline};
use crate::connection::{Device, Link, Role};
use crate::report::Report;
use crate::run::{self, Counts};
use crate::stats::Stats;
use crate::words::{Id, Letter};

/// Goodbyes at the same time.
const AT_ONCE: usize = 64;

/// Sends to all recipients in turn, no more at once than are acked.
pub struct Sender {
    stats: Rc<Stats>,
    letter: RefCell<Letter>,
    recipients: Rc<[Id]>,
    next: Cell<usize>,
}

impl Sender {
    /// Begins; `number` says which sender it is, so that not all begin with the same recipient.
    pub fn start(
        device: Device,
        number: usize,
        recipients: Rc<[Id]>,
        in_flight: u32,
        common: &Common,
        stats: &Rc<Stats>,
    ) {
        let link = device.link.clone();
        let letter = Letter::new(number, &link.id, common.payload_bytes, common.ttl);
        let sender = Rc::new(Self {
            stats: stats.clone(),
            letter: letter.into(),
            next: number.into(),
            recipients,
        });
        run::live(device, sender.clone(), stats);
        for _ in 0..in_flight {
            sender.send(&link);
        }
        link.flush();
    }

    fn send(&self, link: &Link) {
        if self.stats.is_stopped() {
            return;
        }
        let mut letter = self.letter.borrow_mut();
        letter.address(&self.recipients[self.next.get() % self.recipients.len()]);
        self.next.set(self.next.get() + 1);
        self.stats.send();
        link.put(|out| letter.send(out, self.stats.now()));
    }
}

impl Role for Sender {
    fn receive(&self, _: &Link, _: &Id, _: u64) {}

    fn ack(&self, link: &Link, _: &Id, _: u64) {
        self.send(link);
    }

    fn error(&self, link: &Link) {
        self.send(link);
    }
}

/// Runs it.
pub async fn run(common: &Common, options: &Offline) -> io::Result<Report> {
    let stats = Stats::new();
    let route = common.route().map_err(io::Error::other)?;
    let recipients = run::join(&route, 0, options.recipients, true).await?;
    let ids: Rc<[Id]> = recipients.iter().map(|device| device.link.id).collect();
    let tokens: Vec<String> =
        recipients.iter().filter_map(|device| device.registered.resume_token.clone()).collect();
    let goodbyes = stream::iter(recipients).map(Device::leave).buffer_unordered(AT_ONCE);
    goodbyes.try_collect::<()>().await?;
    if let Some(path) = &options.tokens {
        std::fs::write(path, tokens.join("\n"))?;
    }
    let senders = run::join(&route, 0, options.senders, false).await?;
    for (number, device) in senders.into_iter().enumerate() {
        Sender::start(device, number, ids.clone(), options.in_flight, common, &stats);
    }
    let mode = format!(
        "offline: {} senders, {} in flight -> {} recipients",
        options.senders, options.in_flight, options.recipients
    );
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
