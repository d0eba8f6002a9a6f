//! The state that all connections share: the settings in force, the counts of connections, and the core actors.

use std::io;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;

use super::admin::backup::Backups;
use super::admin::entry::{NOT_READY, Refused};
use super::admin::token::AdminToken;
use super::connection_counter::{ConnectionCaps, ConnectionCounter, Permit};
use super::handshake::HandshakeRejection;
use super::hosts;
use super::tls::Tls;
use crate::access::{self, Policy};
use crate::actors::session::CoreHandles;
use crate::actors::{rate_limiter, registry};
use crate::client_address::is_trusted;
use crate::clock::{Clock, Moment};
use crate::metrics::worker::{Workers, count};
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
    /// What each worker's thread counts.
    pub workers: Workers,
    /// `None`: the public listener speaks plain HTTP.
    pub tls: Option<Arc<Tls>>,
    pub plan: Arc<RatePlan>,
    /// What the admin listener asks for over TCP.
    admin_token: RwLock<Option<AdminToken>>,
    pub backups: Backups,
    /// Empty until the first worker has started the core, before any connection is served.
    pub core: OnceLock<Arc<CoreHandles>>,
    /// An operator asks for the end of the relay.
    pub shutdown: Notify,
    /// No WebSocket is accepted from now on.
    pub draining: AtomicBool,
    /// The listening socket outlives this process, and connections wait in its backlog meanwhile.
    pub socket_is_inherited: AtomicBool,
    pub(super) clock: Clock,
    pub(super) started_at: Moment,
    /// When a refused Origin, and a refused name of the admin address, is a warning again.
    origin_warning_due: WarningDue,
    host_warning_due: WarningDue,
    operator_warning_due: WarningDue,
    last_connection: AtomicU64,
}

impl Ingress {
    pub fn new(
        settings: Arc<Settings>,
        admin_token: Option<AdminToken>,
        tls: Option<Arc<Tls>>,
        plan: Arc<RatePlan>,
        clock: Clock,
    ) -> Self {
        Self {
            in_force: RwLock::new(settings.into()),
            connections: Arc::default(),
            sockets: Arc::default(),
            workers: Workers::default(),
            tls,
            plan,
            admin_token: RwLock::new(admin_token),
            backups: Backups::default(),
            core: OnceLock::new(),
            shutdown: Notify::new(),
            draining: AtomicBool::new(false),
            started_at: clock.moment(),
            socket_is_inherited: AtomicBool::new(false),
            clock,
            origin_warning_due: WarningDue::default(),
            host_warning_due: WarningDue::default(),
            operator_warning_due: WarningDue::default(),
            last_connection: AtomicU64::new(0),
        }
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
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
        self.operator_warning_due.reset();
    }

    /// The core actors, for an operator.
    pub(super) fn core(&self) -> Result<Arc<CoreHandles>, Refused> {
        self.core.get().cloned().ok_or(NOT_READY)
    }

    /// Reads the access tokens again. If something is wrong with them, the error and the log say what, and the old ones stay.
    pub fn reload_access(&self) -> io::Result<Arc<Policy>> {
        let Some(core) = self.core.get() else { return Err(io::Error::other("still starting")) };
        let access = read_access(&self.in_force().settings).map(Arc::new).inspect_err(|error| {
            log::error!("access tokens not reloaded, the old ones stay: {error}");
        })?;
        let limits = core.limiter.try_send(rate_limiter::ReloadAccess(access.clone()));
        let rules = core.registry.try_send(registry::ReloadAccess(access.clone()));
        if limits.is_err() || rules.is_err() {
            let error = "the core is too busy to hear of new access tokens; try again";
            log::error!("{error}");
            return Err(io::Error::other(error));
        }
        Ok(access)
    }

    pub fn admin_token(&self) -> Option<AdminToken> {
        *self.admin_token.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_admin_token(&self, token: Option<AdminToken>) {
        *self.admin_token.write().unwrap_or_else(PoisonError::into_inner) = token;
    }

    /// Logs a request that was refused. One whose cause may be in the settings is a warning, at most one a minute of each
    /// kind, because any page can cause them.
    pub(super) fn log_refusal(&self, refused: HandshakeRejection) {
        refused.count();
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

    /// Logs a request of an operator that was refused, as a warning at most once a minute.
    pub(super) fn log_refused_operator(&self, reason: &str) {
        let is_due = self.operator_warning_due.take(self.clock.moment());
        let level = if is_due { log::Level::Warn } else { log::Level::Debug };
        log::log!(level, "request to the admin address refused: {reason}");
    }

    /// Counts a socket that was just accepted, unless a cap is reached.
    pub fn admit(&self, peer: IpAddr) -> Option<Permit> {
        let admitted = self.sockets.permit(peer, &socket_caps(&self.in_force().settings));
        if admitted.is_err() {
            count(|metrics| metrics.handshakes.increase_of("sockets"));
        }
        admitted.ok()
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

/// Who may register by these settings. The error names the setting and all that is wrong with its file.
pub fn read_access(settings: &Settings) -> io::Result<Policy> {
    let policy = access::file::policy(&settings.access)
        .map_err(|problems| io::Error::other(problems.join("; ")))?;
    if let Policy::Tokens(table) = &policy {
        log::info!("registering needs an access token tokens={}", table.tokens().len());
    }
    Ok(policy)
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
