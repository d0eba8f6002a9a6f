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
use crate::connection::{Link, Role};
use crate::pacer;
use crate::report::Report;
use crate::run::{self, Counts};
use crate::stats::Stats;
use crate::words::{self, Id, Letter};

struct Partner {
    stats: Rc<Stats>,
    letter: RefCell<Letter>,
    confirms: bool,
    in_flight: u32,
    /// Messages that may be sent because as many have arrived.
    permits: Cell<u32>,
    unacked: Cell<u32>,
    /// Where there are no Acks: whom to tell that a message has arrived.
    sender: RefCell<Option<(Rc<Link>, Weak<Partner>)>>,
    is_open_loop: bool,
}

impl Partner {
    /// Sends what may be sent.
    fn go_on(&self, link: &Link) {
        while !self.is_open_loop
            && self.permits.get() > 0
            && self.unacked.get() < self.in_flight
            && !self.stats.is_stopped()
        {
            self.permits.set(self.permits.get() - 1);
            self.unacked.set(self.unacked.get() + 1);
            self.send(link, self.stats.now());
        }
    }

    /// Does something about the sender, where there are no Acks.
    fn tell(&self, tell: impl FnOnce(&Self, &Link)) {
        if let Some((link, sender)) = &*self.sender.borrow()
            && let Some(sender) = sender.upgrade()
        {
            tell(&sender, link);
        }
    }

    fn send(&self, link: &Link, time: u64) {
        self.stats.send();
        link.put(|out| self.letter.borrow_mut().send(out, time));
    }
}

impl Role for Partner {
    fn receive(&self, link: &Link, id: &Id, _: u64) {
        if self.confirms {
            link.put(|out| words::confirm(out, id));
        }
        self.permits.set(self.permits.get() + 1);
        self.go_on(link);
        self.tell(|sender, link| {
            sender.unacked.set(sender.unacked.get().saturating_sub(1));
            sender.go_on(link);
        });
    }

    fn rest(&self) {
        self.tell(|_, link| link.flush());
    }

    fn ack(&self, link: &Link, _: &Id, _: u64) {
        self.unacked.set(self.unacked.get().saturating_sub(1));
        self.go_on(link);
    }

    /// What was refused may be tried once more.
    fn error(&self, link: &Link) {
        self.unacked.set(self.unacked.get().saturating_sub(1));
        self.permits.set(self.permits.get() + 1);
        self.go_on(link);
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
    let ids: Vec<Id> = devices.iter().map(|device| device.link.id).collect();
    let mut ends = Vec::new();
    for (number, device) in devices.into_iter().enumerate() {
        let link = device.link.clone();
        let mut letter = common.dialect.letter(number, &link.id, common.payload_bytes, common.ttl);
        letter.address(&ids[number ^ 1]);
        let partner = Rc::new(Partner {
            stats: stats.clone(),
            letter: letter.into(),
            confirms: options.resumable,
            in_flight: options.in_flight,
            permits: options.in_flight.into(),
            unacked: 0.into(),
            sender: RefCell::default(),
            is_open_loop: options.rate.is_some(),
        });
        run::live(device, partner.clone(), stats);
        ends.push((link, partner));
    }
    for (number, (_, partner)) in ends.iter().enumerate().filter(|_| !is_acked) {
        let (link, sender) = &ends[number ^ 1];
        *partner.sender.borrow_mut() = Some((link.clone(), Rc::downgrade(sender)));
    }
    let kind = if options.resumable { ", resumable" } else { "" };
    Ok(match options.rate {
        Some(rate) => {
            let send = move |number: usize, due| {
                let (link, partner) = &ends[number % ends.len()];
                partner.send(link, due);
                link.flush();
            };
            spawn_local(pacer::pace(stats.clone(), rate, send)?);
            format!("pairs: {count} connections, {rate} messages/s{kind}")
        }
        None => {
            for (link, partner) in &ends {
                partner.go_on(link);
                link.flush();
            }
            format!("pairs: {count} connections, {} in flight{kind}", options.in_flight)
        }
    })
}
