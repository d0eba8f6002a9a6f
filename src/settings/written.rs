//! The settings as written: the shape of `settings.toml`, and one row for each key with its kind and
//! bounds.
//!
//! Every value stays a TOML value here, whatever it is, so that one of the wrong type does not hide
//! what is wrong with the others. [`Written::read`] turns all of them into what the code uses and
//! lists what cannot be.

use std::collections::HashSet;
use std::time::Duration;

use bytesize::{GIB, KIB, MIB, TIB};
use serde::{Deserialize, Serialize};
use toml::Value;

use super::problem::{Problem, Problems};
use super::value::{
    Address, Count, Directory, Filter, Flag, Format, Kind, Networks, Origins, Share, Size, Span,
};

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);
const MIN: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// At one message a minute, the slowest rate there is, a longer burst takes more nanoseconds to refill than the rate
/// limiter can count. Rates have no such limit, so that a load test can lift them out of the way.
const LARGEST_BURST: u32 = 300_000_000;

/// From the rows below: the file's shape, how it is made from settings in use, and how it is read.
macro_rules! written {
    ($($section:ident: $name:ident { $($key:ident: $kind:expr,)+ })+) => {
        /// All sections, as written. What is absent has its default.
        #[derive(Clone, Debug, Deserialize, Serialize)]
        #[serde(default)]
        pub(super) struct Written {
            $($section: $name,)+
        }

        $(
            #[derive(Clone, Debug, Deserialize, Serialize)]
            #[serde(default)]
            struct $name {
                $($key: Value,)+
            }

            impl Default for $name {
                fn default() -> Self {
                    Self::from(&super::$name::default())
                }
            }

            impl From<&super::$name> for $name {
                fn from(used: &super::$name) -> Self {
                    Self { $($key: ($kind).write(&used.$key),)+ }
                }
            }
        )+

        impl Default for Written {
            fn default() -> Self {
                Self::from(&super::Settings::default())
            }
        }

        impl From<&super::Settings> for Written {
            fn from(used: &super::Settings) -> Self {
                Self { $($section: $name::from(&used.$section),)+ }
            }
        }

        /// Every key there is, in the order of the file: section and name.
        pub(super) const KEYS: &[(&str, &str)] = &[$($((stringify!($section), stringify!($key)),)+)+];

        impl Written {
            /// The settings as used. What cannot be read is added to `problems`, named in the returned
            /// set, and stands at its default.
            pub(super) fn read(&self, problems: &mut Problems) -> (super::Settings, HashSet<String>) {
                let mut unreadable = HashSet::new();
                let settings = super::Settings {
                    $($section: super::$name {
                        $($key: ($kind).read(&self.$section.$key).unwrap_or_else(|reason| {
                            let key = concat!(stringify!($section), ".", stringify!($key));
                            problems.add(Problem::with_value(key, &self.$section.$key, reason));
                            unreadable.insert(key.to_owned());
                            super::$name::default().$key
                        }),)+
                    },)+
                };
                (settings, unreadable)
            }

            /// The value of a key, as the file has it.
            pub(super) fn value(&self, section: &str, key: &str) -> Option<&Value> {
                match (section, key) {
                    $($((stringify!($section), stringify!($key)) => Some(&self.$section.$key),)+)+
                    _ => None,
                }
            }
        }
    };
}

// Bounds are where a value stops making sense, not where it stops being wise: the lower ones keep
// things going at all, the upper ones catch a slip of the unit.
written! {
    server: Server {
        listen: Address,
        admin_listen: Address,
        workers: Count(1..=1024),
        drain_timeout: Span(S..=HOUR),
        trusted_proxies: Networks { may_be_everyone: false },
        allowed_origins: Origins,
        tcp_user_timeout: Span(S..=HOUR),
    }
    log: Log {
        level: Filter,
        format: Format,
    }
    limits: Limits {
        connections: Count(1..=10_000_000),
        connections_per_address: Count(1..=10_000_000),
        exempt_cidrs: Networks { may_be_everyone: true },
        devices: Count(1..=100_000_000),
        register_timeout: Span(100 * MS..=10 * MIN),
        message_bytes: Size(KIB..=16 * MIB),
        frame_bytes: Size(KIB..=64 * MIB),
        fragments: Count(1..=65_536),
        frame_timeout: Span(100 * MS..=10 * MIN),
        strikes: Count(1..=1000),
    }
    rate_limit: RateLimit {
        messages_per_minute: Count(1..=u32::MAX),
        burst: Count(1..=LARGEST_BURST),
        control_per_minute: Count(1..=u32::MAX),
        registrations_per_minute: Count(1..=u32::MAX),
        resume_failures_per_minute: Count(1..=u32::MAX),
    }
    heartbeat: Heartbeat {
        interval: Span(100 * MS..=HOUR),
        timeout: Span(200 * MS..=DAY),
    }
    queue: Queue {
        durable: Flag,
        path: Directory,
        commit_interval: Span(Duration::from_micros(100)..=S),
        commit_batch: Count(1..=1_000_000),
        default_ttl: Span(S..=365 * DAY),
        max_ttl: Span(S..=365 * DAY),
        messages: Count(1..=10_000_000),
        bytes: Size(KIB..=TIB),
        sender_share: Share,
        total_bytes: Size(KIB..=16 * TIB),
        dedup_window: Span(S..=DAY),
        key_rotation_ttl: Span(S..=365 * DAY),
    }
    delivery: Delivery {
        window: Count(1..=65_536),
        bytes: Size(KIB..=GIB),
    }
    session: Session {
        ttl: Span(S..=365 * DAY),
        plain_ttl: Span(S..=365 * DAY),
    }
    auth: Auth {
        exchange_ttl: Span(100 * MS..=HOUR),
    }
    sweeper: Sweeper {
        interval: Span(10 * MS..=MIN),
    }
}
