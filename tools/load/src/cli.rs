//! The command line.

use std::net::ToSocketAddrs as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::connection::Route;
use crate::dialect::Dialect;
use crate::process::Process;
use crate::stream::Tls;

/// Puts load on a Sealpost relay and says what it took: messages, latencies, CPU, memory.
#[derive(Debug, Parser)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub mode: Mode,
    /// What all modes have.
    #[command(flatten)]
    pub common: Common,
}

/// What all modes have.
#[derive(Debug, Args)]
pub struct Common {
    /// The relay's WebSocket.
    #[arg(long, global = true, default_value = "ws://127.0.0.1:8080/ws")]
    pub url: String,
    /// For a `wss` URL: certificates that are believed, in PEM.
    #[arg(long, global = true)]
    pub ca: Option<PathBuf>,
    /// What is spoken there. Others than `sealpost` are for peers, to compare with: `pairs` and `idle` only, and nothing
    /// that the peer has not.
    #[arg(long, global = true, value_enum, default_value_t = Dialect::Sealpost)]
    pub dialect: Dialect,
    /// The relay's process id, for its CPU time and memory.
    #[arg(long, global = true)]
    pub pid: Option<u32>,
    /// How long to measure.
    #[arg(long, global = true, default_value_t = 10.0)]
    pub seconds: f64,
    /// How long to run before that.
    #[arg(long, global = true, default_value_t = 2.0)]
    pub warm_up: f64,
    /// What a message carries, before base64: 256 makes frames of about 560 bytes.
    #[arg(long, global = true, default_value_t = 256)]
    pub payload_bytes: usize,
    /// The ttl of messages, seconds.
    #[arg(long, global = true, default_value_t = 3600)]
    pub ttl: u64,
    /// Come from 127.0.0.1 to 127.0.0.N in turn; 0: let the system choose.
    #[arg(long, global = true, default_value_t = 0)]
    pub sources: u8,
    /// One JSON object on standard output; the table then goes to standard error.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Mode {
    /// Devices in pairs send to each other.
    Pairs(Pairs),
    /// Devices send to devices that have registered and left.
    Offline(Offline),
    /// Devices that had left come back for what waits for them.
    Drain(Drain),
    /// Devices register and send nothing: how much memory does a connection take?
    Idle(Idle),
    /// One device sends to many.
    Fanout(Fanout),
    /// Pairs at a fixed rate, first alone, then beside a device that never reads and one that floods it.
    Hostile(Hostile),
    /// Pairs at a fixed rate while nothing waits, while messages wait for devices that are away, and while all of these
    /// expire.
    Expiry(Expiry),
    /// Two friends talk and newcomers write to one of them, while many devices do to him, and to the relay, whatever they may.
    Attack(Attack),
}

/// See [`Mode::Pairs`].
#[derive(Debug, Args)]
pub struct Pairs {
    /// Connections, two of them a pair.
    #[arg(long, default_value_t = 100)]
    pub connections: usize,
    /// Messages under way in each direction of each pair; the next goes out when one has come the other way and one of
    /// ours is acked.
    #[arg(long, default_value_t = 1)]
    pub in_flight: u32,
    /// Send this number of messages a second, all connections together, whatever comes back. Latencies count from the time
    /// at which a message was due.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Register resumable, and confirm what is received.
    #[arg(long)]
    pub resumable: bool,
}

/// See [`Mode::Offline`].
#[derive(Debug, Args)]
pub struct Offline {
    /// Connections that send.
    #[arg(long, default_value_t = 50)]
    pub senders: usize,
    /// Devices that are sent to, each sender to all in turn.
    #[arg(long, default_value_t = 1000)]
    pub recipients: usize,
    /// Messages of each sender that are not acked yet.
    #[arg(long, default_value_t = 64)]
    pub in_flight: u32,
    /// Send this number of messages a second, all senders together, whatever comes back. Latencies count from the time at
    /// which a message was due.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Write the recipients' resume tokens there, for `drain`.
    #[arg(long)]
    pub tokens: Option<PathBuf>,
    /// Let the recipients come back afterwards.
    #[arg(long)]
    pub drain: bool,
}

/// See [`Mode::Drain`].
#[derive(Debug, Args)]
pub struct Drain {
    /// What `offline` has written.
    #[arg(long)]
    pub tokens: PathBuf,
}

/// See [`Mode::Idle`].
#[derive(Debug, Args)]
pub struct Idle {
    /// Connections.
    #[arg(long, default_value_t = 5000)]
    pub connections: usize,
    /// Register resumable.
    #[arg(long)]
    pub resumable: bool,
    /// Then let each send one message with this number of bytes of `encrypted_data`, and measure again.
    #[arg(long)]
    pub large: Option<usize>,
    /// Wait this number of seconds before memory is measured.
    #[arg(long, default_value_t = 5.0)]
    pub pause: f64,
}

/// See [`Mode::Fanout`].
#[derive(Debug, Args)]
pub struct Fanout {
    /// Connections that receive.
    #[arg(long, default_value_t = 100)]
    pub recipients: usize,
    /// Messages that are not acked yet.
    #[arg(long, default_value_t = 64)]
    pub in_flight: u32,
    /// Recipients register resumable, and confirm what they receive.
    #[arg(long)]
    pub resumable: bool,
}

/// See [`Mode::Hostile`]. `--seconds` is the length of each phase.
#[derive(Debug, Args)]
pub struct Hostile {
    /// The pairs that are measured.
    #[command(flatten)]
    pub paced: Paced,
    /// Messages of the flooder that are neither acked nor refused.
    #[arg(long, default_value_t = 64)]
    pub flood_in_flight: u32,
    /// The device that never reads registers resumable: what waits for it is kept on disk.
    #[arg(long)]
    pub resumable: bool,
    /// The relay's admin address, `http://host:port`: how much waits at the end.
    #[arg(long)]
    pub admin: Option<String>,
}

/// See [`Mode::Expiry`]. `--seconds` is the length of each phase but the last.
#[derive(Debug, Args)]
pub struct Expiry {
    /// The pairs that are measured.
    #[command(flatten)]
    pub paced: Paced,
    /// Messages that wait and expire.
    #[arg(long, default_value_t = 1_000_000)]
    pub messages: u64,
    /// What each of them carries, before base64.
    #[arg(long, default_value_t = 32)]
    pub queued_bytes: usize,
    /// Devices that are away, for which they wait.
    #[arg(long, default_value_t = 1000)]
    pub recipients: usize,
    /// Devices that sent them, and are told what became of them.
    #[arg(long, default_value_t = 50)]
    pub senders: usize,
    /// All expire this number of seconds after the first was sent, within a second; sending them and one phase must fit in.
    #[arg(long, default_value_t = 60)]
    pub expire_after: u64,
    /// They do not expire (`--ttl` is theirs too): only what their waiting costs others.
    #[arg(long)]
    pub stay: bool,
    /// The relay's admin address, `http://host:port`: it says when they have expired.
    #[arg(long, required_unless_present = "stay")]
    pub admin: Option<String>,
}

/// See [`Mode::Attack`]. The relay has its default limits.
#[derive(Debug, Args)]
pub struct Attack {
    /// Devices that attack, as many of them at a time as the relay lets in.
    #[arg(long, default_value_t = 500)]
    pub devices: usize,
    /// Addresses from which they come in turn: 127.0.0.2 and those that follow.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=90))]
    pub addresses: u8,
    /// They register and do nothing: what to compare with.
    #[arg(long)]
    pub silent: bool,
}

/// Pairs of devices that send at a fixed rate, whatever comes back.
#[derive(Debug, Args)]
pub struct Paced {
    /// Connections, two of them a pair.
    #[arg(long, default_value_t = 100)]
    pub connections: usize,
    /// Messages a second, all pairs together.
    #[arg(long, default_value_t = 2000.0)]
    pub rate: f64,
}

impl Paced {
    /// The same as the mode that does nothing else.
    pub fn pairs(&self) -> Pairs {
        let Self { connections, rate } = *self;
        Pairs { connections, in_flight: 1, rate: Some(rate), resumable: false }
    }
}

impl Common {
    /// How to get to the relay.
    ///
    /// # Errors
    ///
    /// When the URL is neither `ws://host:port/path` nor `wss://host:port/path` with `--ca`, or the host is unknown.
    pub fn route(&self) -> Result<Route, String> {
        let (scheme, rest) = self.url.split_once("://").unwrap_or_default();
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let (port, tls) = match (scheme, &self.ca) {
            ("ws", _) => (80, None),
            ("wss", Some(ca)) => (443, Some(Tls::new(ca, name)?)),
            _ => return Err("the url must begin with ws://, or wss:// with --ca".to_owned()),
        };
        let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:{port}") };
        let mut addresses =
            with_port.to_socket_addrs().map_err(|failed| format!("{with_port}: {failed}"))?;
        let address = addresses.next().ok_or_else(|| format!("{with_port}: no address"))?;
        let path = if path.is_empty() { "/" } else { path };
        let (host, path) = (host.to_owned(), path.to_owned());
        Ok(Route { address, host, path, tls, sources: self.sources, dialect: self.dialect })
    }

    /// The relay's process, if it is known.
    pub fn process(&self) -> Option<Process> {
        self.pid.map(Process)
    }

    /// How long to measure.
    pub fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.max(0.001))
    }

    /// How long to run before that.
    pub fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up.max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_url_says_address_host_and_path() {
        let route = |url: &str| {
            Cli::try_parse_from(["load", "pairs", "--url", url]).unwrap().common.route()
        };
        let full = route("ws://127.0.0.1:81/a/b").unwrap();
        assert_eq!((full.address.port(), &*full.host, &*full.path), (81, "127.0.0.1:81", "/a/b"));
        assert_eq!(route("ws://127.0.0.1").unwrap().path, "/");
        assert!(route("wss://127.0.0.1/ws").is_err());
    }
}
