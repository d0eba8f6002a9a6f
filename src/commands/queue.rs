//! `sealpost queue`: looks at what is on disk, or ends a part of it, while no relay runs.

use std::process::ExitCode;

use super::{EX_UNAVAILABLE, EX_USAGE};
use crate::cli::{Dropped, QueueCommand};
use crate::settings::Settings;
use crate::store::compact;
use crate::store::inspect;
use crate::store::open::OpenError;
use crate::store::top::{self, Holder};

pub(super) fn run(what: QueueCommand, settings: &Settings) -> ExitCode {
    let queue = &settings.queue;
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
        QueueCommand::Top { count } => top::top(&queue.path, count).map(|text| (text, true)),
        QueueCommand::Drop(Dropped { recipient, sender, origin }) => {
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
