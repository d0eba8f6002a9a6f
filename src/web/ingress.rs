//! What every door needs to know: the terms on which connections are opened now, who is counted, where the core is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use actix_rt::net::TcpStream;
use ipnet::IpNet;

use super::connection_counter::{ConnectionCounter, Most, Permit};
use crate::actors::session::CoreHandles;
use crate::relay::command::ConnectionId;
use crate::relay::rate_limit::RatePlan;
use crate::settings::Settings;
use crate::transport;

/// Sockets beyond `limits.connections`, so that health checks and refusals still find a place.
const SPARE_SOCKETS: usize = 512;
/// Sockets of one address beyond `limits.connections_per_address`, for its refusals.
const SPARE_SOCKETS_PER_ADDRESS: usize = 64;

/// The terms for connections that are opened now.
#[derive(Debug, Clone)]
pub struct Opening {
    /// Of the session.
    pub settings: Arc<Settings>,
    /// Of its socket.
    pub transport: Arc<transport::Limits>,
    /// Of the door.
    pub most: Most,
    /// Of the way to the door.
    pub most_sockets: Most,
    /// Sites whose pages may connect.
    pub origins: Vec<String>,
    /// Whose word on addresses counts.
    pub proxies: Vec<IpNet>,
}

/// See the module. One for all workers.
pub struct Ingress {
    opening: RwLock<Arc<Opening>>,
    /// The connections that are open.
    pub caps: Arc<ConnectionCounter>,
    /// The sockets that are open at the public door, whatever becomes of them.
    pub sockets: Arc<ConnectionCounter>,
    /// What every device is allowed.
    pub plan: Arc<RatePlan>,
    core: OnceLock<Arc<CoreHandles>>,
    draining: AtomicBool,
    opened: AtomicU64,
}

impl Ingress {
    /// Closed until the core is there.
    #[must_use]
    pub fn new(settings: &Arc<Settings>, plan: Arc<RatePlan>) -> Self {
        Self {
            opening: RwLock::new(Arc::new(Opening::from(settings))),
            caps: Arc::default(),
            sockets: Arc::default(),
            plan,
            core: OnceLock::new(),
            draining: AtomicBool::new(false),
            opened: AtomicU64::new(0),
        }
    }

    /// The terms in force.
    pub fn opening(&self) -> Arc<Opening> {
        self.opening.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Other terms, for the connections to come.
    pub fn reload(&self, settings: &Arc<Settings>) {
        let opening = Arc::new(Opening::from(settings));
        *self.opening.write().unwrap_or_else(PoisonError::into_inner) = opening;
    }

    /// The core, once it runs; the first worker starts it.
    pub fn core(&self) -> Option<&Arc<CoreHandles>> {
        self.core.get()
    }

    /// Starts the core if it does not run yet.
    pub fn core_or(&self, start: impl FnOnce() -> CoreHandles) -> &Arc<CoreHandles> {
        self.core.get_or_init(|| Arc::new(start()))
    }

    /// Nobody is let in from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the relay is going away.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Counts a socket that was just accepted, if there is place for it.
    pub fn admit(&self, socket: &TcpStream) -> Option<Permit> {
        let peer = socket.peer_addr().ok()?;
        self.sockets.permit(peer.ip(), &self.opening().most_sockets).ok()
    }

    /// The id of a new connection, counted from 1.
    pub fn next_connection(&self) -> ConnectionId {
        ConnectionId(self.opened.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

impl From<&Arc<Settings>> for Opening {
    fn from(settings: &Arc<Settings>) -> Self {
        let limits = &settings.limits;
        Self {
            settings: settings.clone(),
            transport: Arc::new(transport::Limits {
                message_bytes: limits.frame_bytes,
                fragments: u32::try_from(limits.fragments).unwrap_or(u32::MAX),
                frame_timeout: limits.frame_timeout,
                heartbeat_interval: settings.heartbeat.interval,
                idle_timeout: settings.heartbeat.timeout,
                write_timeout: settings.server.tcp_user_timeout,
                ..transport::Limits::default()
            }),
            most: Most {
                connections: limits.connections,
                per_address: limits.connections_per_address,
                exempt: limits.exempt_cidrs.clone(),
            },
            most_sockets: Most {
                connections: limits.connections.saturating_add(SPARE_SOCKETS),
                per_address: limits
                    .connections_per_address
                    .saturating_add(SPARE_SOCKETS_PER_ADDRESS),
                // A proxy's address stands for all its clients.
                exempt: [&limits.exempt_cidrs[..], &settings.server.trusted_proxies].concat(),
            },
            origins: settings.server.allowed_origins.clone(),
            proxies: settings.server.trusted_proxies.clone(),
        }
    }
}
