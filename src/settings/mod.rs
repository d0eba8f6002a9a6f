//! The settings: each key is declared once, at the end of this file, with its type, its bounds and its meaning.
//!
//! The `config` crate merges the sources (later wins: the compiled-in `settings.toml`, the file, the environment as
//! `SEALPOST__SECTION__KEY`, the command line), `value` reads each value, and `check` compares values with each other.
//! All problems are reported at once, so a [`Settings`] from [`load`] needs no further check.

mod admin_address;
mod check;
mod demo;
mod load;
mod memory;
mod problem;
mod reload;
#[cfg(test)]
mod tests;
mod value;

pub use admin_address::AdminAddress;
pub use check::MESSAGE_OVERHEAD;
pub use demo::Demo;
pub use load::{load, load_from, print, unread_variables};
pub use problem::{Problem, Problems};
pub use reload::{Change, Reload};
pub use value::is_log_filter;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::{GIB, KIB, MIB, TIB};
use ipnet::IpNet;
use toml::{Table, Value};

use value::{ACCESS_MODE, ADDRESS, ADMIN_ADDRESS, DEMO, DIRECTORY, FILE, FILTER};
use value::{Count, Kind as _, MemorySize, Networks, Origins, Share, Size, Span, read};
use value::{FLAG, FORMAT, HOSTS, OPTIONAL_FILE};

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);
const MIN: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// At one message a minute, the slowest rate, a larger burst takes more nanoseconds to refill than the rate limiter can
/// count. Rates have no such bound, so that a load test can set them out of the way.
const LARGEST_BURST: u32 = 300_000_000;

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Time, level, target, message, separated by spaces.
    Text,
    /// One JSON object a line, with `ts`, `level`, `target` and `message`.
    Json,
}

/// Who may register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessMode {
    /// Everybody; an access token that a client gives is ignored.
    Open,
    /// Who has an access token, or resumes.
    Tokens,
}

/// Makes the structs, and the ways from and to TOML values, from one declaration of each key: `key: type = kind`.
macro_rules! settings {
    ($(
        $(#[$section_doc:meta])+
        $section:ident: $name:ident {
            $($(#[$doc:meta])+ $key:ident: $used:ty = $kind:expr,)+
        }
    )+) => {
        /// All settings, section by section, in the order of `settings.toml`.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Settings {
            $($(#[$section_doc])+ pub $section: $name,)+
        }

        $(
            $(#[$section_doc])+
            #[derive(Clone, Debug, PartialEq)]
            pub struct $name {
                $($(#[$doc])+ pub $key: $used,)+
            }

            impl Default for $name {
                fn default() -> Self {
                    Settings::default().$section
                }
            }
        )+

        /// Every key, in the order of the file: section and name.
        const KEYS: &[(&str, &str)] = &[$($((stringify!($section), stringify!($key)),)+)+];

        impl Settings {
            /// Reads every key of `table`. A value that cannot be read is added to `problems` and replaced by that of
            /// `defaults`; `None` if there are no defaults.
            fn read(table: &Table, defaults: Option<&Self>, problems: &mut Problems) -> Option<Self> {
                Some(Self {
                    $($section: $name {
                        $($key: read(
                            &$kind,
                            (stringify!($section), stringify!($key)),
                            table,
                            defaults.map(|settings| &settings.$section.$key),
                            problems,
                        )?,)+
                    },)+
                })
            }

            /// The values in the form of `settings.toml`, in the order of [`KEYS`].
            fn values(&self) -> Vec<Value> {
                vec![$($(($kind).write(&self.$section.$key),)+)+]
            }
        }
    };
}

// Bounds are where a value stops making sense, not where it stops being wise: the lower ones keep the relay working at
// all, the upper ones find a wrong unit.
settings! {
    /// Section `server`: addresses, threads and who may stand in front of the relay.
    server: Server {
        /// Where devices connect. Loopback by default, because TLS needs a certificate. With port 0 the system chooses one.
        listen: SocketAddr = ADDRESS,
        /// Where operators look and act. Devices never need it, so it has its own address.
        admin_listen: AdminAddress = ADMIN_ADDRESS,
        /// The file with the token that the admin listener asks for over TCP. Without a file it serves only this machine.
        admin_token_file: PathBuf = OPTIONAL_FILE,
        /// Threads that carry connections. One is enough for tens of thousands of quiet devices.
        workers: usize = Count(1..=1024),
        /// How long a shutdown waits for all sessions to close.
        drain_timeout: Duration = Span(S..=HOUR),
        /// Proxies whose `X-Forwarded-For`, or PROXY header, is believed. Empty: none.
        trusted_proxies: Vec<IpNet> = Networks { may_be_everyone: false },
        /// Whether each connection of a trusted proxy must begin with a PROXY protocol header, version 2, that names the
        /// client's address. It comes before TLS.
        proxy_protocol: bool = FLAG,
        /// Other sites whose pages may connect: values of the `Origin` header (RFC 6455, section 10.2), as
        /// [`crate::web_origin::WebOrigin`] writes them. The relay's own pages may always connect, and so may clients
        /// that send no `Origin`. Empty: no other site.
        allowed_origins: Vec<String> = Origins,
        /// The names by which the relay is addressed, without ports: an `Origin` is the relay's own only if it has one
        /// of them, and the admin listener is served by them. Empty: any name, but on a connection from this machine
        /// that is not a trusted proxy's only IP addresses and `localhost`, because of DNS rebinding.
        hosts: Vec<String> = HOSTS,
        /// Whether the public listener shows a page with two devices, to try the relay.
        demo: Demo = DEMO,
        /// How long the peer's TCP may leave sent bytes unconfirmed before it counts as dead (RFC 5482).
        tcp_user_timeout: Duration = Span(S..=HOUR),
    }
    /// Section `tls`: the certificate of the public listener.
    tls: Tls {
        /// The chain in PEM, the relay's own certificate first. Empty: plain HTTP.
        certificate: PathBuf = OPTIONAL_FILE,
        /// Its key in PEM: PKCS#8, PKCS#1 or SEC1, not encrypted. The file must not be open to others.
        key: PathBuf = OPTIONAL_FILE,
    }
    /// Section `access`: who may register.
    access: Access {
        /// Everybody, or who has a token of the file.
        mode: AccessMode = ACCESS_MODE,
        /// The tokens; `sealpost token` changes the file. It is read at start and at each reload, in mode `"tokens"` only.
        tokens_file: PathBuf = FILE,
    }
    /// Section `log`: what is logged, and how a line looks.
    log: Log {
        /// A filter in the language of `env_logger`: `info,sealpost::actors=debug`. `RUST_LOG` wins where it is set.
        level: String = FILTER,
        /// Text for people, JSON for collectors.
        format: LogFormat = FORMAT,
    }
    /// Section `limits`: what one connection, and all of them together, may take.
    limits: Limits {
        /// Connections open at the same time, over all workers. More are answered 503.
        connections: usize = Count(1..=10_000_000),
        /// Connections open at the same time from one address (one /64 for IPv6): no host can take all of them.
        connections_per_address: usize = Count(1..=10_000_000),
        /// Networks whose connections and registrations are not counted by address: a company's gateway, a load test.
        exempt_cidrs: Vec<IpNet> = Networks { may_be_everyone: true },
        /// Devices known at the same time, connected or away; each costs about half a KiB. More are answered 503.
        devices: usize = Count(1..=100_000_000),
        /// How origins (one IPv4 address, one IPv6 /48) share the table of devices, the relay's queue and the places for
        /// unknown senders: an origin may add while what it holds is at most this share of what is free.
        origin_share: f64 = Share,
        /// How long a connection may stay open without a `Register`. After it: close 4401.
        register_timeout: Duration = Span(100 * MS..=10 * MIN),
        /// Bytes of the JSON text of one frame, all of it. More is answered 413.
        message_bytes: usize = Size(KIB..=16 * MIB),
        /// Bytes of one WebSocket message before it is read as JSON. A larger one closes with 1009 before it
        /// is buffered. Never below `message_bytes`; a size between the two is answered 413.
        frame_bytes: usize = Size(KIB..=64 * MIB),
        /// Frames one WebSocket message may be cut into, because every empty fragment costs work but no bytes.
        fragments: usize = Count(1..=65_536),
        /// How long one WebSocket message may take from its first byte to its last, however slowly it comes.
        frame_timeout: Duration = Span(100 * MS..=10 * MIN),
        /// Bytes a second. A message that is not complete after `frame_timeout` goes on while it has come at this rate on
        /// average; else the connection is closed with 1013. So a message takes at most `frame_bytes` / `frame_rate`.
        frame_rate: usize = Size(1..=GIB),
        /// Malformed frames in a row before the connection is closed with 1008. A well-formed one resets.
        strikes: u32 = Count(1..=1000),
    }
    /// Section `rate_limit`: how many frames and registrations are allowed each minute. Allowances refill continuously.
    rate_limit: RateLimit {
        /// `Send` and other relayed frames of one device, each minute. More are answered 429.
        messages_per_minute: NonZeroU32 = Count(1..=u32::MAX),
        /// How many of those frames may come at once, after a pause.
        burst: NonZeroU32 = Count(1..=LARGEST_BURST),
        /// Pings, pongs, unmatched Acks and malformed frames of one connection, each minute.
        control_per_minute: NonZeroU32 = Count(1..=u32::MAX),
        /// Registrations from one address, each minute.
        registrations_per_minute: NonZeroU32 = Count(1..=u32::MAX),
        /// Resumes of one device, each minute, a sixth of them at once: each costs a write to disk. More are answered 429.
        resumes_per_minute: NonZeroU32 = Count(1..=u32::MAX),
        /// Resume tokens and access tokens that were refused to one address, each minute, so that none can be guessed.
        resume_failures_per_minute: NonZeroU32 = Count(1..=u32::MAX),
    }
    /// Section `heartbeat`: how a dead connection is noticed.
    heartbeat: Heartbeat {
        /// How often the relay pings. Below the 30 to 60 seconds after which many proxies close an idle connection.
        interval: Duration = Span(100 * MS..=HOUR),
        /// How long a connection may be idle before it is closed. Longer than `interval`; three of them
        /// forgive two lost pings.
        timeout: Duration = Span(200 * MS..=DAY),
    }
    /// Section `queue`: the messages that wait for devices, and for how long.
    queue: Queue {
        /// Whether the queue outlives the process. Without it a restart loses messages that were acked and not delivered.
        durable: bool = FLAG,
        /// Where the queue is kept; one relay at a time.
        path: PathBuf = DIRECTORY,
        /// How long a commit waits for more changes, so that one sync serves many senders.
        commit_interval: Duration = Span(Duration::from_micros(100)..=S),
        /// Number of changes that are written without waiting any longer.
        commit_batch: usize = Count(1..=1_000_000),
        /// Lifetime of a message without a `ttl`.
        default_ttl: Duration = Span(S..=365 * DAY),
        /// Longest lifetime a message may ask for.
        max_ttl: Duration = Span(S..=365 * DAY),
        /// Messages kept for one recipient.
        messages: usize = Count(1..=10_000_000),
        /// Bytes kept for one recipient.
        bytes: usize = Size(KIB..=TIB),
        /// Share of one sender in a recipient's queue, so that one sender cannot fill it against all others.
        sender_share: f64 = Share,
        /// Share of all unknown senders together in a recipient's queue, so that the rest is left to its correspondents.
        unknown_share: f64 = Share,
        /// Bytes kept for all recipients together, see [`crate::protocol::envelope::Envelope::bytes`]. `"auto"` is a quarter of
        /// the memory that the process may use, at most 1 GiB.
        total_bytes: usize = MemorySize(KIB..=16 * TIB),
        /// How long a repeated message is recognised as a repeat.
        dedup_window: Duration = Span(S..=DAY),
        /// Lifetime of a key rotation, which must outlive ordinary messages to be of use.
        key_rotation_ttl: Duration = Span(S..=365 * DAY),
    }
    /// Section `delivery`: how much may be in flight to one connection.
    delivery: Delivery {
        /// Messages in flight to one connection. The rest waits in the queue.
        window: usize = Count(1..=4096),
        /// Bytes in flight to one connection. Never below `limits.message_bytes`.
        bytes: usize = Size(KIB..=GIB),
        /// How long a connected device may confirm nothing while messages wait before the relay says so.
        stuck_after: Duration = Span(S..=DAY),
    }
    /// Section `session`: how long a device is remembered after its connection ended.
    session: Session {
        /// How long a device that can resume is remembered.
        ttl: Duration = Span(S..=365 * DAY),
        /// How long a device that cannot resume is remembered.
        plain_ttl: Duration = Span(S..=365 * DAY),
    }
    /// Section `auth`: the mutual authentication of two devices.
    auth: Auth {
        /// How long an exchange may take from its first frame to its last.
        exchange_ttl: Duration = Span(100 * MS..=HOUR),
    }
    /// Section `sweeper`: the search for expired messages.
    sweeper: Sweeper {
        /// How often the search runs; also the longest delay of an expiry.
        interval: Duration = Span(10 * MS..=MIN),
    }
}

impl Tls {
    /// The files of the certificate and its key; `None`: plain HTTP.
    pub fn files(&self) -> Option<(&Path, &Path)> {
        (!self.certificate.as_os_str().is_empty()).then_some((&self.certificate, &self.key))
    }
}
