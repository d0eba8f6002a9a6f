//! `sealpost token`: the access tokens, without which nobody registers when `access.mode` is "tokens".

use clap::{Args, Subcommand};

use super::Json;

/// Changes or lists the tokens in the file of `access.tokens_file`.
#[derive(Clone, Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token: print its secret, once, and add its line to the file
    New(NewToken),
    /// List the tokens: name, when they expire, bounds
    List(Json),
    /// Remove a token from the file: it registers no more devices; those that are registered stay
    Revoke {
        /// The token's name
        name: String,
        /// Put its devices out, too: a running relay takes the change over and ends them
        #[arg(long)]
        devices: bool,
        #[command(flatten)]
        json: Json,
    },
}

/// A token to make.
#[derive(Clone, Debug, Args)]
pub struct NewToken {
    /// Its name: letters, digits, points, hyphens and underscores, 64 at most
    pub name: String,
    // Text, so that what is wrong is said in the words of the file.
    /// When it expires: after a time ("30d") or at one ("2027-01-01T00:00:00Z"); never if not given
    #[arg(long, value_name = "TIME")]
    pub expires: Option<String>,
    /// How many devices it may have alive at the same time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub devices: Option<u32>,
    /// How many messages a minute each of its devices may send, instead of rate_limit.messages_per_minute
    #[arg(long, value_name = "N")]
    pub messages_per_minute: Option<std::num::NonZeroU32>,
    /// How many bytes of what its devices sent may wait, as in "10 MiB"
    #[arg(long, value_name = "SIZE")]
    pub queued_bytes: Option<String>,
    #[command(flatten)]
    pub json: Json,
}
