//! What an operator can decide, as the rest of the relay uses it.
//!
//! Every value here has been checked: whoever holds a [`Settings`] that came from [`load`] need not
//! look at it twice. Settings are typed twice: `written` is the shape of `settings.toml` and of the
//! environment, this file is the shape the code works with, and `check` stands between them and
//! names every problem at once. This is the ground floor: beside the command line, which is a source
//! of settings, it imports nothing else of ours.
//!
//! Order, later wins: built-in defaults, `settings.toml`, environment (`SEALPOST__SECTION__KEY`),
//! command line.

mod check;
mod load;
mod problem;
mod reload;
#[cfg(test)]
mod tests;
mod value;
mod written;

pub use load::{load, load_from, print};
pub use problem::{Problem, Problems};
pub use reload::Reload;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const GIB: usize = 1024 * MIB;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// All settings, section by section, as `settings.toml` has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Addresses, threads and who may stand in front of the relay.
    pub server: Server,
    /// What is logged, and how a line looks.
    pub log: Log,
    /// What one connection, and all of them together, may take.
    pub limits: Limits,
    /// How fast things may be said.
    pub rate_limit: RateLimit,
    /// How a dead connection is noticed.
    pub heartbeat: Heartbeat,
    /// What is kept for devices that are away, and for how long.
    pub queue: Queue,
    /// How much a connection may hold that its device has not taken yet.
    pub delivery: Delivery,
    /// How long a device is remembered after its connection ended.
    pub session: Session,
    /// The mutual authentication of two devices.
    pub auth: Auth,
    /// The clock of expiry.
    pub sweeper: Sweeper,
}

/// Section `server`: addresses, threads and who may stand in front of the relay.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Where devices connect. Loopback by default, because without TLS a public address is a mistake
    /// unless a proxy stands in front. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Where operators look: metrics and health. Never reachable for devices, so it has its own address.
    pub admin_listen: SocketAddr,
    /// Threads that carry connections. One is enough for tens of thousands of quiet devices.
    pub workers: usize,
    /// How long a shutdown may take to say goodbye to everyone before it stops waiting.
    pub drain_timeout: Duration,
    /// Proxies whose word about the client's address is believed. Empty: nobody's.
    pub trusted_proxies: Vec<IpNet>,
    /// Other sites whose pages may connect: values of the `Origin` header (RFC 6455, section 10.2), in
    /// lower case. A page of the relay's own origin may always; so may clients that send no `Origin`,
    /// which is everything but browsers. Empty: no other site.
    pub allowed_origins: Vec<String>,
    /// How long sent bytes may stay unconfirmed by the peer's TCP before the connection counts as dead
    /// (`TCP_USER_TIMEOUT`, RFC 5482).
    pub tcp_user_timeout: Duration,
}

/// Section `log`: what is logged, and how a line looks.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// A filter in the language of `env_logger`: `info`, or `info,sealpost::actors=debug`. The variable
    /// `RUST_LOG` wins where it is set.
    pub level: String,
    /// Text for people, JSON for collectors.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Time, level, target, message, separated by spaces.
    #[default]
    Text,
    /// One JSON object a line, with `ts`, `level`, `target` and `message`.
    Json,
}

/// Section `limits`: what one connection, and all of them together, may take.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Connections open at the same time, over all workers. More are answered 503.
    pub connections: usize,
    /// Connections open at the same time from one address (one /64 for IPv6), so that one host cannot
    /// take all of them.
    pub connections_per_address: usize,
    /// Networks whose connections and registrations are not counted by address: a company's gateway, a load test.
    pub exempt_cidrs: Vec<IpNet>,
    /// Devices known at the same time, connected or away; each costs about half a KiB. More are answered 503.
    pub devices: usize,
    /// How long a connection may stay open without a `Register`. After it: close 4401.
    pub register_timeout: Duration,
    /// Bytes of the JSON text of one frame, all of it. More is answered 413.
    pub message_bytes: usize,
    /// Bytes of one WebSocket message before it is read as JSON. More closes with 1009, and is noticed
    /// before it is buffered. Never below `message_bytes`; what lies between both is answered 413.
    pub frame_bytes: usize,
    /// Frames one WebSocket message may be cut into, because every empty fragment costs work but no bytes.
    pub fragments: usize,
    /// How long one WebSocket message may take from its first byte to its last (slow senders).
    pub frame_timeout: Duration,
    /// Malformed frames in a row before the connection is closed with 1008. A well-formed one resets.
    pub strikes: u32,
}

/// Section `rate_limit`: how fast things may be said. Allowances refill continuously.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    /// `Send` and other relayed frames of one device, each minute. More are answered 429.
    pub messages_per_minute: NonZeroU32,
    /// How many of those may come at once, after a pause.
    pub burst: NonZeroU32,
    /// Pings, pongs, stray acknowledgements and malformed frames of one connection, each minute.
    pub control_per_minute: NonZeroU32,
    /// Registrations from one address, each minute.
    pub registrations_per_minute: NonZeroU32,
    /// Failed attempts to resume from one address, each minute, so that tokens cannot be guessed.
    pub resume_failures_per_minute: NonZeroU32,
}

/// Section `heartbeat`: how a dead connection is noticed.
#[derive(Clone, Debug, PartialEq)]
pub struct Heartbeat {
    /// How often the relay pings. Below the 30 to 60 seconds after which many proxies cut an idle line.
    pub interval: Duration,
    /// How long a connection may be silent before it is closed. Longer than `interval`; three of them
    /// forgive two lost pings.
    pub timeout: Duration,
}

/// Section `queue`: what is kept for devices that are away, and for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct Queue {
    /// Whether the queue outlives the process. Without it a restart loses what was acked and not delivered.
    pub durable: bool,
    /// Where the queue is kept; one relay at a time.
    pub path: PathBuf,
    /// How long a commit waits for more to write, so that one sync serves many senders.
    pub commit_interval: Duration,
    /// Changes that are written without waiting any longer.
    pub commit_batch: usize,
    /// Lifetime of a message that names none.
    pub default_ttl: Duration,
    /// Longest lifetime a message may ask for.
    pub max_ttl: Duration,
    /// Messages kept for one recipient.
    pub messages: usize,
    /// Bytes kept for one recipient.
    pub bytes: usize,
    /// Share of one sender in a recipient's queue, above 0 and at most 1, so that one sender cannot fill
    /// it against all others.
    pub sender_share: f64,
    /// Bytes kept for all recipients together: the relay's memory or disk.
    pub total_bytes: usize,
    /// How long a repeated message is recognised as a repeat.
    pub dedup_window: Duration,
    /// Lifetime of a key rotation, which must outlive ordinary messages to be of use.
    pub key_rotation_ttl: Duration,
}

/// Section `delivery`: how much a connection may hold that its device has not taken yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// Messages handed to one connection and not yet taken. The rest waits in the queue.
    pub window: usize,
    /// Bytes handed to one connection and not yet taken. Never below `limits.message_bytes`.
    pub bytes: usize,
}

/// Section `session`: how long a device is remembered after its connection ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// How long a device that can resume is remembered.
    pub ttl: Duration,
    /// How long a device that cannot resume is remembered.
    pub plain_ttl: Duration,
}

/// Section `auth`: the mutual authentication of two devices.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    /// How long an exchange may take from its first frame to its last.
    pub exchange_ttl: Duration,
}

/// Section `sweeper`: the clock of expiry.
#[derive(Clone, Debug, PartialEq)]
pub struct Sweeper {
    /// How often expired messages are looked for; also how late an expiry may be noticed.
    pub interval: Duration,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: loopback(8080),
            admin_listen: loopback(9090),
            workers: 1,
            drain_timeout: Duration::from_secs(10),
            trusted_proxies: Vec::new(),
            allowed_origins: Vec::new(),
            tcp_user_timeout: Duration::from_secs(30),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info,actix_server=warn".to_owned(), format: LogFormat::Text }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16_000,
            connections_per_address: 256,
            exempt_cidrs: Vec::new(),
            devices: 1_000_000,
            register_timeout: Duration::from_secs(10),
            message_bytes: 64 * KIB,
            frame_bytes: 128 * KIB,
            fragments: 1024,
            frame_timeout: Duration::from_secs(10),
            strikes: 10,
        }
    }
}

impl Default for RateLimit {
    fn default() -> Self {
        Self {
            messages_per_minute: at_least_one(60),
            burst: at_least_one(60),
            control_per_minute: at_least_one(600),
            registrations_per_minute: at_least_one(60),
            resume_failures_per_minute: at_least_one(10),
        }
    }
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { interval: Duration::from_secs(25), timeout: Duration::from_secs(75) }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            durable: true,
            path: PathBuf::from("./data"),
            commit_interval: Duration::from_millis(1),
            commit_batch: 1024,
            default_ttl: DAY,
            max_ttl: 7 * DAY,
            messages: 1000,
            bytes: 16 * MIB,
            sender_share: 0.5,
            total_bytes: GIB,
            dedup_window: 10 * MINUTE,
            key_rotation_ttl: 7 * DAY,
        }
    }
}

impl Default for Delivery {
    fn default() -> Self {
        Self { window: 64, bytes: 256 * KIB }
    }
}

impl Default for Session {
    fn default() -> Self {
        Self { ttl: 7 * DAY, plain_ttl: HOUR }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self { exchange_ttl: MINUTE }
    }
}

impl Default for Sweeper {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1) }
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// A count as the rate limiter wants it; 0 becomes 1.
fn at_least_one(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN)
}
