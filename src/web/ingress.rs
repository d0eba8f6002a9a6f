//! The state that all connections share: the settings in force, the counts of connections, and the core actors.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use super::connection_counter::{ConnectionCaps, ConnectionCounter, Permit};
use super::handshake::HandshakeRejection;
use super::hosts;
use super::tls::Tls;
use crate::actors::session::CoreHandles;
use crate::client_address::is_trusted;
use crate::clock::{Clock, Moment};
use crate::relay::command::ConnectionId;
use crate::relay::rate_limit::RatePlan;
use crate::settings::Settings;
use crate::transport;

/// Sockets beyond `limits.connections`, so that health checks and refusals are still accepted.
const SPARE_SOCKETS: usize = 512;
/// Sockets of one address beyond `limits.connections_per_address`, for its refusals.
const SPARE_SOCKETS_PER_ADDRESS: usize = 64;

/// The least time between two warnings of one kind.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

const ORIGIN_ADVICE: &str = "its Origin is neither in server.allowed_origins nor the relay's own; the relay's own \
     names are those in server.hosts, or those that a proxy in server.trusted_proxies forwards";
const HOST_ADVICE: &str =
    "the admin address is served as an IP address, as localhost, and by the names in server.hosts";

/// The settings that apply to connections that are opened now.
#[derive(Clone)]
pub struct InForce {
    pub settings: Arc<Settings>,
    /// Shared by all connections, because a copy for each would cost memory.
    pub transport: Arc<transport::Limits>,
}

/// The state of the module; all workers share it.
pub struct Ingress {
    in_force: RwLock<InForce>,
    pub connections: Arc<ConnectionCounter>,
    /// Sockets of the public listener, WebSockets or not.
    pub sockets: Arc<ConnectionCounter>,
    /// `None`: the public listener speaks plain HTTP.
    pub tls: Option<Arc<Tls>>,
    pub plan: Arc<RatePlan>,
    /// Empty until the first worker has started the core, before any connection is served.
    pub core: OnceLock<Arc<CoreHandles>>,
    /// No WebSocket is accepted from now on.
    pub draining: AtomicBool,
    clock: Clock,
    /// When a refused Origin, and a refused name of the admin address, is a warning again.
    origin_warning_due: WarningDue,
    host_warning_due: WarningDue,
    last_connection: AtomicU64,
}

impl Ingress {
    pub fn new(
        settings: Arc<Settings>,
        tls: Option<Arc<Tls>>,
        plan: Arc<RatePlan>,
        clock: Clock,
    ) -> Self {
        Self {
            in_force: RwLock::new(settings.into()),
            connections: Arc::default(),
            sockets: Arc::default(),
            tls,
            plan,
            core: OnceLock::new(),
            draining: AtomicBool::new(false),
            clock,
            origin_warning_due: WarningDue::default(),
            host_warning_due: WarningDue::default(),
            last_connection: AtomicU64::new(0),
        }
    }

    pub fn in_force(&self) -> InForce {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn reload(&self, settings: Arc<Settings>) {
        if let Some(tls) = &self.tls {
            tls.reload(&settings.tls, &self.clock);
        }
        *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = settings.into();
        self.origin_warning_due.reset();
        self.host_warning_due.reset();
    }

    /// Logs a request that was refused. One whose cause may be in the settings is a warning, at most one a minute of each
    /// kind, because any page can cause them.
    pub(super) fn log_refusal(&self, refused: HandshakeRejection) {
        let status = refused.status.as_u16();
        let (advice, due) = match refused {
            hosts::FOREIGN_ORIGIN => (ORIGIN_ADVICE, &self.origin_warning_due),
            hosts::FOREIGN_HOST => (HOST_ADVICE, &self.host_warning_due),
            _ => return log::debug!("request refused status={status}"),
        };
        let is_due = due.take(self.clock.moment());
        let level = if is_due { log::Level::Warn } else { log::Level::Debug };
        log::log!(level, "request refused status={status}: {advice}");
    }

    /// Counts a socket that was just accepted, unless a cap is reached.
    pub fn admit(&self, peer: IpAddr) -> Option<Permit> {
        self.sockets.permit(peer, &socket_caps(&self.in_force().settings)).ok()
    }

    /// Whether a connection from `peer` must begin with a PROXY header. Nobody else's header is believed: it is no request
    /// and no TLS handshake, so it is refused as such.
    pub fn expects_proxy_header(&self, peer: IpAddr) -> bool {
        let in_force = self.in_force.read().unwrap_or_else(PoisonError::into_inner);
        let server = &in_force.settings.server;
        server.proxy_protocol && is_trusted(peer, &server.trusted_proxies)
    }

    /// Warns while the certificate is about to end; never returns.
    pub async fn watch_certificate(&self) {
        match &self.tls {
            Some(tls) => tls.warn_daily(&self.clock, |warning| log::warn!("{warning}")).await,
            None => std::future::pending().await,
        }
    }

    pub fn next_connection(&self) -> ConnectionId {
        ConnectionId(self.last_connection.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

pub(super) fn connection_caps(settings: &Settings) -> ConnectionCaps<'_> {
    let limits = &settings.limits;
    ConnectionCaps {
        connections: limits.connections,
        per_address: limits.connections_per_address,
        exempt: [&limits.exempt_cidrs, &[]],
    }
}

pub(super) fn socket_caps(settings: &Settings) -> ConnectionCaps<'_> {
    let limits = &settings.limits;
    ConnectionCaps {
        connections: limits.connections.saturating_add(SPARE_SOCKETS),
        per_address: limits.connections_per_address.saturating_add(SPARE_SOCKETS_PER_ADDRESS),
        // The address of a proxy stands for all its clients.
        exempt: [&limits.exempt_cidrs, &settings.server.trusted_proxies],
    }
}

/// The [`Moment`] from which on a warning of one kind is logged again.
#[derive(Default)]
struct WarningDue(AtomicU64);

impl WarningDue {
    /// Whether a warning is due; the next one is due a [`WARNING_INTERVAL`] later.
    fn take(&self, now: Moment) -> bool {
        let due = self.0.load(Ordering::Relaxed);
        let next = (now + WARNING_INTERVAL).0;
        // Of several workers only one takes it.
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        due <= now.0 && self.0.compare_exchange(due, next, success, failure).is_ok()
    }

    fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl From<Arc<Settings>> for InForce {
    fn from(settings: Arc<Settings>) -> Self {
        let limits = &settings.limits;
        let transport = transport::Limits {
            message_bytes: limits.frame_bytes,
            fragments: u32::try_from(limits.fragments).unwrap_or(u32::MAX),
            frame_timeout: limits.frame_timeout,
            frame_rate: u32::try_from(limits.frame_rate)
                .ok()
                .and_then(NonZeroU32::new)
                .unwrap_or(NonZeroU32::MAX),
            heartbeat_interval: settings.heartbeat.interval,
            idle_timeout: settings.heartbeat.timeout,
            write_timeout: settings.server.tcp_user_timeout,
            ..transport::Limits::default()
        };
        Self { settings, transport: Arc::new(transport) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_comes_at_most_once_a_minute_and_at_once_after_a_reload() {
        let due = WarningDue::default();
        let start = Moment(7);
        assert!(due.take(start));
        assert!(!due.take(start + WARNING_INTERVAL / 2));
        assert!(due.take(start + WARNING_INTERVAL));
        assert!(!due.take(start + WARNING_INTERVAL));
        due.reset();
        assert!(due.take(start + WARNING_INTERVAL));
    }
}
