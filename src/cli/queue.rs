//! `sealpost queue`: the queue of a relay that runs, or the one on disk while none uses it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Json;

/// Looks at the queue on disk, or ends a part of it.
#[derive(Clone, Debug, Subcommand)]
pub enum QueueCommand {
    /// Count what waits, for how many, and until when
    Stats(Json),
    /// Read and check everything; the exit status is 1 if anything is damaged
    Verify {
        /// A backup, instead of queue.path
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
        #[command(flatten)]
        json: Json,
    },
    /// Copy the queue to a new and smaller file, which then takes its place
    Compact(Json),
    /// Name the recipients, senders, origins and access tokens that hold most
    Top {
        /// How many of each
        #[arg(long, value_name = "N", default_value_t = 10)]
        count: usize,
        #[command(flatten)]
        json: Json,
    },
    /// End what one recipient, sender, origin or access token holds; the senders get an Error 410, at the next start if no relay runs
    Drop {
        #[command(flatten)]
        whose: Dropped,
        #[command(flatten)]
        json: Json,
    },
}

/// Whose messages to end.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Dropped {
    // Text, because the command line knows no ids.
    /// All that waits for this device; of a relay that runs, the beginning of the id is enough
    #[arg(long, value_name = "ID")]
    pub recipient: Option<String>,
    /// All that this device sent and that waits; the id may be shortened as well
    #[arg(long, value_name = "ID")]
    pub sender: Option<String>,
    /// All that the devices of this origin sent and that waits
    #[arg(long, value_name = "ORIGIN")]
    pub origin: Option<String>,
    /// All that the devices of this access token sent and that waits
    #[arg(long, value_name = "NAME")]
    pub access: Option<String>,
}
