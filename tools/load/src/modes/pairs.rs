//! Devices in pairs send to each other.
//!
//! Closed loop: what has arrived is the permission to send one back, as long as no more than `in_flight` of ours are
//! without Ack. So a pair has `2 * in_flight` messages under way, whatever the relay does. Where there are no Acks, the
//! sender is told by its partner, here in this process, so that the loop is the same.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::{Rc, Weak};

use tokio::task::spawn_local;

use crate::cli::{Common, Pairs};
use crate::connection::{Behaviour, Writer};
use crate::messages::{self, Id, MessageTemplate};
use crate::pacer;
use crate::report::Report;
use crate::run::{self, Counts};
use crate::stats::Stats;

struct Partner {
    stats: Rc<Stats>,
    template: RefCell<MessageTemplate>,
    confirms: bool,
    in_flight: u32,
    /// Messages that may be sent because as many have arrived.
    permits: Cell<u32>,
    unacked: Cell<u32>,
    /// Where there are no Acks: the sender, whose window an arrival opens.
    sender: RefCell<Option<(Rc<Writer>, Weak<Partner>)>>,
    is_open_loop: bool,
}

impl Partner {
    /// Sends what may be sent.
    fn send_next(&self, writer: &Writer) {
        while !self.is_open_loop
            && self.permits.get() > 0
            && self.unacked.get() < self.in_flight
            && !self.stats.is_stopped()
        {
            self.permits.set(self.permits.get() - 1);
            self.unacked.set(self.unacked.get() + 1);
            self.send(writer, self.stats.now());
        }
    }

    /// Does something about the sender, where there are no Acks.
    fn with_sender(&self, action: impl FnOnce(&Self, &Writer)) {
        if let Some((writer, sender)) = &*self.sender.borrow()
            && let Some(sender) = sender.upgrade()
        {
            action(&sender, writer);
        }
    }

    fn send(&self, writer: &Writer, time: u64) {
        self.stats.send();
        writer.put(|out| self.template.borrow_mut().send(out, time));
    }
}

impl Behaviour for Partner {
    fn receive(&self, writer: &Writer, id: &Id, _: u64) {
        if self.confirms {
            writer.put(|out| messages::confirm(out, id));
        }
        self.permits.set(self.permits.get() + 1);
        self.send_next(writer);
        self.with_sender(|sender, writer| {
            sender.unacked.set(sender.unacked.get().saturating_sub(1));
            sender.send_next(writer);
        });
    }

    fn rest(&self) {
        self.with_sender(|_, writer| writer.flush());
    }

    fn ack(&self, writer: &Writer, _: &Id, _: u64) {
        self.unacked.set(self.unacked.get().saturating_sub(1));
        self.send_next(writer);
    }

    /// What was refused may be tried once more.
    fn error(&self, writer: &Writer) {
        self.unacked.set(self.unacked.get().saturating_sub(1));
        self.permits.set(self.permits.get() + 1);
        self.send_next(writer);
    }
}

/// Runs it.
pub async fn run(common: &Common, options: &Pairs) -> io::Result<Report> {
    let stats = Stats::with_acks(common.dialect.has_acks());
    let mode = begin(common, options, &stats).await?;
    let report = run::measure(&stats, common, Counts::Delivered).await?;
    Ok(report.concluded(mode, &stats))
}

/// Has pairs send to each other until the run is stopped; answers what is being done.
///
/// # Errors
///
/// When a device is not let in.
pub async fn begin(common: &Common, options: &Pairs, stats: &Rc<Stats>) -> io::Result<String> {
    let is_acked = common.dialect.has_acks();
    let count = options.connections.next_multiple_of(2);
    let route = common.route().map_err(io::Error::other)?;
    let devices = run::join(&route, 0, count, options.resumable).await?;
    let ids: Vec<Id> = devices.iter().map(|device| device.writer.id).collect();
    let mut ends = Vec::new();
    for (number, device) in devices.into_iter().enumerate() {
        let writer = device.writer.clone();
        let mut template =
            common.dialect.template(number, &writer.id, common.payload_bytes, common.ttl);
        template.address(&ids[number ^ 1]);
        let partner = Rc::new(Partner {
            stats: stats.clone(),
            template: template.into(),
            confirms: options.resumable,
            in_flight: options.in_flight,
            permits: options.in_flight.into(),
            unacked: 0.into(),
            sender: RefCell::default(),
            is_open_loop: options.rate.is_some(),
        });
        run::live(device, partner.clone(), stats);
        ends.push((writer, partner));
    }
    for (number, (_, partner)) in ends.iter().enumerate().filter(|_| !is_acked) {
        let (writer, sender) = &ends[number ^ 1];
        *partner.sender.borrow_mut() = Some((writer.clone(), Rc::downgrade(sender)));
    }
    let kind = if options.resumable { ", resumable" } else { "" };
    Ok(match options.rate {
        Some(rate) => {
            let send = move |number: usize, due| {
                let (writer, partner) = &ends[number % ends.len()];
                partner.send(writer, due);
                writer.flush();
            };
            spawn_local(pacer::pace(stats.clone(), rate, send)?);
            format!("pairs: {count} connections, {rate} messages/s{kind}")
        }
        None => {
            for (writer, partner) in &ends {
                partner.send_next(writer);
                writer.flush();
            }
            format!("pairs: {count} connections, {} in flight{kind}", options.in_flight)
        }
    })
}
