//! `sealpost queue`: looks at what is on disk, or ends a part of it. While a relay uses the queue, `top` and `drop` ask that.

use std::process::ExitCode;

use super::{EX_UNAVAILABLE, EX_USAGE, live_queue};
use crate::cli::{Dropped, QueueCommand};
use crate::settings::Settings;
use crate::store::compact;
use crate::store::examine::{Examined, examine};
use crate::store::inspect;
use crate::store::open::OpenError;
use crate::store::top::{self, Holder};

pub(super) fn run(what: QueueCommand, settings: &Settings) -> ExitCode {
    let queue = &settings.queue;
    let is_in_use = !queue.durable || matches!(examine(&queue.path), Ok(Examined::InUse(_)));
    let looked = match what {
        QueueCommand::Stats => {
            inspect::stats(&queue.path, queue.dedup_window).map(|text| (text, true))
        }
        QueueCommand::Verify { directory } => {
            let path = directory.as_deref().unwrap_or(&queue.path);
            let verified = inspect::verify(path);
            let verified = if directory.is_some() {
                verified.map_err(OpenError::of_no_setting)
            } else {
                verified
            };
            verified.map(|(damaged, sound, text)| (text, damaged == 0 && sound))
        }
        QueueCommand::Compact => compact::compact(&queue.path).map(|text| (text, true)),
        QueueCommand::Top { count, json } if is_in_use => {
            return super::answer(live_queue::top(settings, count, json));
        }
        QueueCommand::Drop(dropped) if is_in_use => {
            return super::answer(live_queue::drop_held(settings, dropped));
        }
        QueueCommand::Top { json: true, .. }
        | QueueCommand::Drop(Dropped { access: Some(_), .. }) => {
            eprintln!(
                "no relay uses queue.path = {}: this needs one that runs",
                queue.path.display()
            );
            return ExitCode::from(EX_UNAVAILABLE);
        }
        QueueCommand::Top { count, .. } => top::top(&queue.path, count).map(|text| (text, true)),
        QueueCommand::Drop(Dropped { recipient, sender, origin, .. }) => {
            let [recipient, sender, origin] = [&recipient, &sender, &origin].map(Option::as_deref);
            match Holder::parse(recipient, sender, origin) {
                Ok(holder) => top::drop_held(&queue.path, holder).map(|text| (text, true)),
                Err(sentence) => {
                    eprintln!("{sentence}");
                    return ExitCode::from(EX_USAGE);
                }
            }
        }
    };
    match looked {
        Ok((text, well)) => {
            print!("{text}");
            if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(unusable) => {
            eprintln!("{unusable}");
            ExitCode::from(EX_UNAVAILABLE)
        }
    }
}
