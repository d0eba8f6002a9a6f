//! `sealpost device`: the devices of a running relay.

use clap::{Args, Subcommand};

use super::Json;

/// Looks at devices, or does something to one. An ID may be shortened to a beginning that no other device has.
#[derive(Clone, Debug, Subcommand)]
pub enum DeviceCommand {
    /// List devices
    List {
        /// Only those for which something waits
        #[arg(long, group = "filter")]
        queued: bool,
        /// Only those that are connected
        #[arg(long, group = "filter")]
        connected: bool,
        /// Only those that are blocked
        #[arg(long, group = "filter")]
        blocked: bool,
        /// At most N of them
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        json: Json,
    },
    /// Say why a device does not get its messages, and all else that the relay knows of it
    Show(One),
    /// Close the device's connection; it may come back at once
    Kick(One),
    /// End the device, as its own Unregister would: what waits for it expires
    Forget(One),
    /// Close the relay to the device, across restarts; what waits for it waits on
    Block(One),
    /// End a block
    Unblock(One),
}

/// One device.
#[derive(Clone, Debug, Args)]
pub struct One {
    /// Its id, or the beginning of it
    pub id: String,
    #[command(flatten)]
    pub json: Json,
}
