//! The state that all connections share: the settings in force, the counts of connections, and the core actors.

use std::io;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::admin::backup::Backups;
use super::admin::entry::{NOT_READY, Refused};
use super::admin::token::AdminToken;
use super::connection_counter::{ConnectionCaps, ConnectionCounter, Permit};
use super::handshake::{self, HandshakeRejection};
use super::hosts;
use super::tls::Tls;
use crate::access::{self, Policy};
use crate::actors::session::CoreHandles;
use crate::actors::{rate_limiter, registry};
use crate::client_address::is_trusted;
use crate::client_log::{ClientLog, Details, Incident};
use crate::clock::{Clock, Moment};
use crate::logging;
use crate::metrics::worker::{Workers, count};
use crate::relay::command::ConnectionId;
use crate::relay::rate_limit::RatePlan;
use crate::settings::Settings;
use crate::transport;

/// Sockets beyond `limits.connections`, so that health checks and refusals are still accepted.
const SPARE_SOCKETS: usize = 512;
/// Connections of the admin listener at the same time.
const OPERATORS: usize = 64;
/// Sockets of one address beyond `limits.connections_per_address`, for its refusals.
const SPARE_SOCKETS_PER_ADDRESS: usize = 64;

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
    operators: Arc<Semaphore>,
    /// An operator asks for the end of the relay.
    pub shutdown: Notify,
    /// No WebSocket is accepted from now on.
    pub draining: AtomicBool,
    /// The listening socket outlives this process, and connections wait in its backlog meanwhile.
    pub socket_is_inherited: AtomicBool,
    /// Where the public listener is bound.
    pub bound: OnceLock<IpAddr>,
    pub(super) clock: Clock,
    pub(super) started_at: Moment,
    pub log: Arc<ClientLog>,
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
            operators: Arc::new(Semaphore::new(OPERATORS)),
            shutdown: Notify::new(),
            draining: AtomicBool::new(false),
            log: Arc::new(ClientLog::new(clock.clone())),
            started_at: clock.moment(),
            socket_is_inherited: AtomicBool::new(false),
            bound: OnceLock::new(),
            clock,
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
        self.log.reset();
    }

    /// The core actors, for an operator.
    pub(super) fn core(&self) -> Result<Arc<CoreHandles>, Refused> {
        self.core.get().cloned().ok_or(NOT_READY)
    }

    /// Reads the access tokens again. If something is wrong with them, the error and the log say what, and the old ones stay.
    pub fn reload_access(&self) -> io::Result<Arc<Policy>> {
        let Some(core) = self.core.get() else { return Err(io::Error::other("still starting")) };
        let access = read_access(&self.in_force().settings).map(Arc::new).inspect_err(|error| {
            log::error!(error:%; "access tokens not reloaded, the old ones stay");
        })?;
        let limits = core.limiter.try_send(rate_limiter::ReloadAccess(access.clone()));
        let rules = core.registry.try_send(registry::ReloadAccess(access.clone()));
        if limits.is_err() || rules.is_err() {
            let error = "the core is too busy to take over new access tokens; try again";
            log::error!("the core is too busy to take over new access tokens");
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

    /// Counts and logs a request that was refused. `claimed` is the header by which the request was judged.
    pub(super) fn log_refusal(
        &self,
        refused: HandshakeRejection,
        address: Option<IpAddr>,
        claimed: Option<&str>,
    ) {
        refused.count();
        let details = Details { address, ..Details::default() };
        let claiming = |name| {
            let text = logging::shorten_and_escape(claimed.unwrap_or_default());
            Details { address, header: Some((name, text)), ..Details::default() }
        };
        let status = refused.status.as_u16();
        let sentence = refused.sentence.trim_end();
        match refused {
            hosts::FOREIGN_ORIGIN => self
                .log
                .report(Incident::ForeignOrigin, || claiming("origin").because(ORIGIN_ADVICE)),
            hosts::FOREIGN_HOST => {
                self.log.report(Incident::ForeignHost, || claiming("host").because(HOST_ADVICE))
            }
            handshake::TOO_MANY => self.log_full_address(address, &self.connections, "connections"),
            handshake::FULL => {
                let limit = self.in_force().settings.limits.connections;
                self.log.report(Incident::RelayFull, || {
                    details.because(format_args!("limits.connections = {limit}"))
                });
            }
            handshake::DRAINING => {}
            _ => self.log.report(Incident::BadRequest, || {
                details.because(format_args!("status {status}: {sentence}"))
            }),
        }
    }

    /// An address has too many connections. One that has nearly all of them is probably a proxy that the settings do not name.
    fn log_full_address(&self, address: Option<IpAddr>, counter: &ConnectionCounter, what: &str) {
        let Some(address) = address else { return };
        self.log.report(Incident::AddressFull, || {
            let settings = self.in_force().settings;
            let (held, total) = (counter.of_address(address), counter.total());
            let limit = settings.limits.connections_per_address;
            let is_proxy_like = held.saturating_mul(10) >= total.saturating_mul(9);
            let advice = if is_proxy_like {
                "; if it is a proxy, name it in server.trusted_proxies"
            } else {
                ""
            };
            Details::of(address).because(format_args!(
                "limits.connections_per_address = {limit}, and {held} of all {total} {what} are its{advice}"
            ))
        });
    }

    /// Counts a socket that was just accepted, unless a cap is reached.
    pub fn admit(&self, peer: IpAddr) -> Option<Permit> {
        let admitted = self.sockets.permit(peer, &socket_caps(&self.in_force().settings));
        if let Err(refused) = admitted {
            let is_of_address = refused == handshake::TOO_MANY;
            let reason = if is_of_address { "address" } else { "sockets" };
            count(|metrics| metrics.handshakes.increase_of(reason));
            if is_of_address {
                self.log_full_address(Some(peer), &self.sockets, "sockets");
            } else {
                self.log.report(Incident::RelayFull, || {
                    Details::of(peer).because("sockets that are no WebSocket yet take all places")
                });
            }
            return None;
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

    /// Whether the public listener shows the page to try the relay.
    pub(super) fn shows_demo(&self) -> bool {
        let in_force = self.in_force.read().unwrap_or_else(PoisonError::into_inner);
        self.bound.get().is_some_and(|bound| in_force.settings.server.shows_demo(*bound))
    }

    /// Counts a connection of the admin listener, unless there are too many: each is a descriptor that devices need, too.
    pub fn admit_operator(&self) -> Option<OwnedSemaphorePermit> {
        self.operators.clone().try_acquire_owned().ok()
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
        log::info!(tokens = table.tokens().len(); "registering needs an access token");
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
