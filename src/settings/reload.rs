//! Which changed settings a running relay applies, and which need a restart.

use super::problem::{Problems, printable};
use super::{KEYS, Log, Queue, Server, Settings, check};

/// A setting that has another value than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// As in `limits.strikes`.
    pub key: String,
    /// The value that was in force.
    pub before: String,
    /// The value in the file.
    pub after: String,
}

/// The result of a reload.
#[derive(Clone, Debug, PartialEq)]
pub struct Reload {
    /// The settings to go on with.
    pub settings: Settings,
    /// The changes that apply now.
    pub changed: Vec<Change>,
    /// The changes that need a restart; `settings` still has the running value.
    pub needs_restart: Vec<Change>,
}

impl Settings {
    /// Takes from `fresh` what can change while connections are open: `limits`, `rate_limit`, the quotas and times of
    /// `queue`, `access`, `server.admin_token_file`, `server.allowed_origins`, `server.hosts`, `server.demo`,
    /// `server.trusted_proxies`, `server.proxy_protocol`, the files of `tls` and `log.level`. Everything else is bound to sockets, threads and timers that already
    /// run, and keeps its value. TLS is neither turned on nor off: a mistake would let devices speak in the clear.
    ///
    /// If a new value would contradict a kept one (`limits.message_bytes` above the running `delivery.bytes`), no value is
    /// applied and all changes wait for the restart.
    pub fn reload(&self, fresh: Self) -> Reload {
        let keeps_tls = self.tls.files().is_some() == fresh.tls.files().is_some();
        let mut settings = Self {
            server: Server {
                trusted_proxies: fresh.server.trusted_proxies.clone(),
                proxy_protocol: fresh.server.proxy_protocol,
                allowed_origins: fresh.server.allowed_origins.clone(),
                admin_token_file: fresh.server.admin_token_file.clone(),
                hosts: fresh.server.hosts.clone(),
                demo: fresh.server.demo,
                ..self.server.clone()
            },
            access: fresh.access.clone(),
            tls: if keeps_tls { fresh.tls.clone() } else { self.tls.clone() },
            log: Log { level: fresh.log.level.clone(), ..self.log.clone() },
            limits: fresh.limits.clone(),
            rate_limit: fresh.rate_limit.clone(),
            queue: Queue {
                durable: self.queue.durable,
                path: self.queue.path.clone(),
                commit_interval: self.queue.commit_interval,
                commit_batch: self.queue.commit_batch,
                ..fresh.queue.clone()
            },
            ..self.clone()
        };
        if !check::contradictions(&settings, &Problems::default()).is_empty() {
            settings = self.clone();
        }
        Reload {
            changed: differences(self, &settings),
            needs_restart: differences(&settings, &fresh),
            settings,
        }
    }
}

/// The keys whose values differ, in the order of the file.
fn differences(before: &Settings, after: &Settings) -> Vec<Change> {
    let values = before.values().into_iter().zip(after.values());
    KEYS.iter()
        .zip(values)
        .filter(|(_, (before, after))| before != after)
        .map(|((section, key), (before, after))| {
            let [before, after] = [before, after].map(|value| printable(&value.to_string()));
            Change { key: format!("{section}.{key}"), before, after }
        })
        .collect()
}
