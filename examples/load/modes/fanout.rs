//! One device sends to many, each in turn.

use std::io;
use std::rc::Rc;

use super::offline::Sender;
use crate::cli::{Common, Fanout};
use crate::connection::{Link, Role};
use crate::report::Report;
use crate::run::{self, Counts};
use crate::stats::Stats;
use crate::words::{self, Id};

/// Receives, and confirms where that is wanted.
pub struct Recipient {
    /// Whether what arrives is confirmed.
    pub confirms: bool,
}

impl Role for Recipient {
    fn receive(&self, link: &Link, id: &Id, _: u64) {
        if self.confirms {
            link.put(|out| words::confirm(out, id));
        }
    }

    fn ack(&self, _: &Link, _: &Id, _: u64) {}

    fn error(&self, _: &Link) {}
}

/// Runs it.
pub async fn run(common: &Common, options: &Fanout) -> io::Result<Report> {
    let stats = Stats::new();
    let route = common.route().map_err(io::Error::other)?;
    let recipients = run::join(&route, 1, options.recipients, options.resumable).await?;
    let ids: Rc<[Id]> = recipients.iter().map(|device| device.link.id).collect();
    for device in recipients {
        run::live(device, Rc::new(Recipient { confirms: options.resumable }), &stats);
    }
    for device in run::join(&route, 0, 1, false).await? {
        let (link, sender) = Sender::join(device, 0, ids.clone(), false, common, &stats);
        sender.begin(&link, options.in_flight);
    }
    let mode = format!(
        "fanout: 1 -> {} connections, {} in flight{}",
        options.recipients,
        options.in_flight,
        if options.resumable { ", resumable" } else { "" }
    );
    let report = run::measure(&stats, common, Counts::Delivered).await?;
    Ok(report.concluded(mode, &stats))
}
