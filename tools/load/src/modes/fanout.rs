//! One device sends to many, each in turn.

use std::io;
use std::rc::Rc;

use super::offline::Sender;
use crate::cli::{Common, Fanout};
use crate::connection::{Behaviour, Writer};
use crate::messages::{self, Id};
use crate::report::Report;
use crate::run::{self, Counts};
use crate::stats::Stats;

/// Receives, and confirms where that is wanted.
pub struct Recipient {
    /// Whether what arrives is confirmed.
    pub confirms: bool,
}

impl Behaviour for Recipient {
    fn receive(&self, writer: &Writer, id: &Id, _: u64) {
        if self.confirms {
            writer.put(|out| messages::confirm(out, id));
        }
    }

    fn ack(&self, _: &Writer, _: &Id, _: u64) {}

    fn error(&self, _: &Writer) {}
}

/// Runs it.
pub async fn run(common: &Common, options: &Fanout) -> io::Result<Report> {
    let stats = Stats::new();
    let route = common.route().map_err(io::Error::other)?;
    let recipients = run::join(&route, 1, options.recipients, options.resumable).await?;
    let ids: Rc<[Id]> = recipients.iter().map(|device| device.writer.id).collect();
    for device in recipients {
        run::live(device, Rc::new(Recipient { confirms: options.resumable }), &stats);
    }
    for device in run::join(&route, 0, 1, false).await? {
        let (writer, sender) = Sender::join(device, 0, ids.clone(), false, common, &stats);
        sender.begin(&writer, options.in_flight);
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
