//! The relay as a whole: built bottom-up, run, drained. `main` and the tests use it alike.

mod activation;
mod core;
mod drain;
mod listeners;
mod queue;
mod services;
mod watchdog;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_rt::net::{TcpStream, UnixStream};
use actix_server::Server;

use self::core::start_core;
use self::drain::drain;
use self::listeners::{AdminListener, SocketFile};
use self::queue::Queue;
use self::services::{admin_service, public_service};
use crate::actors::{rate_limiter, registry};
use crate::clock::Clock;
use crate::relay::rate_limit::RatePlan;
use crate::settings::{AdminAddress, Settings};
use crate::web::admin::token::AdminToken;
use crate::web::ingress::{Ingress, read_access};
use crate::web::tls::Tls;

pub use self::activation::InheritedSockets;
pub use self::listeners::{bind, bind_admin};
pub use self::watchdog::{Health, HealthCheck};

/// Connections that wait for accept.
const BACKLOG: u32 = 4096;

/// A relay that is bound to its addresses.
pub struct App {
    settings: Arc<Settings>,
    ingress: Arc<Ingress>,
    server: Server,
    before_serving: BeforeServing,
    public: SocketAddr,
    admin: AdminAddress,
    _admin_file: Option<SocketFile>,
}

/// What runs on the first worker's thread when the core is there.
type BeforeServing = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

#[derive(Clone)]
pub struct ReloadHandle(Arc<Ingress>);

impl App {
    /// Binds the addresses and prepares everything; no connection is served before [`Self::run`]. An error names the setting.
    pub fn build(settings: Settings, clock: Clock) -> io::Result<Self> {
        Self::build_on(InheritedSockets::default(), settings, clock)
    }

    /// As [`Self::build`], on sockets that are bound already, where there are such.
    pub fn build_on(
        mut inherited: InheritedSockets,
        settings: Settings,
        clock: Clock,
    ) -> io::Result<Self> {
        let settings = Arc::new(settings);
        let access = Arc::new(read_access(&settings)?);
        let admin_token = AdminToken::read(&settings.server.admin_token_file)?;
        let tls = Tls::start(&settings.tls, &clock)?;
        let queue = Queue::open(&settings, &clock)?;
        let plan = RatePlan::new(settings.rate_limit.clone(), clock.clone());
        let ingress =
            Arc::new(Ingress::new(settings.clone(), admin_token, tls, plan, clock.clone()));
        ingress.socket_is_inherited.store(inherited.public.is_some(), Relaxed);
        let listener = inherited.public_or(settings.server.listen)?;
        let admin_listener = inherited.admin_or(&settings.server.admin_listen)?;
        let (public, admin) = (listener.local_addr()?, admin_listener.address()?);
        ingress.bound.get_or_init(|| public.ip());
        if let Some(queue) = &queue {
            queue.file.publish(&[Some(public), admin.tcp()]);
        }
        let queue = Arc::new(Mutex::new(queue));
        let before_serving = BeforeServing::default();
        let mut server = Server::build()
            .workers(settings.server.workers)
            .backlog(BACKLOG)
            // A full worker would silently stop accepting, also on the admin listener. The public listener has its own counter.
            .max_concurrent_connections(usize::MAX)
            .disable_signals()
            .listen("relay", listener, {
                let (ingress, settings) = (ingress.clone(), settings.clone());
                let before_serving = before_serving.clone();
                move || {
                    ingress.workers.enter();
                    // This runs on each worker's own thread; the core lives on the first one's.
                    ingress.core.get_or_init(|| {
                        let queue = take(&queue);
                        let core = Arc::new(start_core(
                            &settings,
                            &clock,
                            &ingress,
                            queue,
                            access.clone(),
                        ));
                        let before_serving = take(&before_serving);
                        before_serving.into_iter().for_each(|run| run());
                        core
                    });
                    public_service(&ingress, settings.server.tcp_user_timeout)
                }
            })?;
        let mut admin_file = None;
        let ingress_of_admin = ingress.clone();
        server = match admin_listener {
            AdminListener::Tcp(listener) => server.listen("admin", listener, move || {
                // A socket whose client has gone has no address, and must not pass for a Unix socket.
                admin_service(&ingress_of_admin, |socket: &TcpStream| socket.peer_addr().map(Some))
            })?,
            AdminListener::Unix(listener, file) => {
                admin_file = Some(file);
                server.listen_uds("admin", listener, move || {
                    admin_service(&ingress_of_admin, |_: &UnixStream| Ok(None))
                })?
            }
        };
        let server = server.run();
        let _admin_file = admin_file;
        Ok(Self { settings, ingress, server, before_serving, public, admin, _admin_file })
    }

    /// Where the WebSocket is served; the port is the real one if the setting is port 0.
    pub fn public_address(&self) -> SocketAddr {
        self.public
    }

    pub fn admin_address(&self) -> &AdminAddress {
        &self.admin
    }

    /// The certificate and the handshakes of the public listener; `None`: it speaks plain HTTP.
    pub fn tls(&self) -> Option<Arc<Tls>> {
        self.ingress.tls.clone()
    }

    pub fn reload_handle(&self) -> ReloadHandle {
        ReloadHandle(self.ingress.clone())
    }

    pub fn health_check(&self) -> HealthCheck {
        HealthCheck(self.ingress.clone())
    }

    /// Runs `hook` once, when the queue is restored and before the first connection is accepted.
    pub fn before_serving(&self, hook: impl FnOnce() + Send + 'static) {
        *self.before_serving.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(hook));
    }

    /// Serves until `shutdown`, then closes all sessions and ends.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let handle = self.server.handle();
        let mut server = actix_rt::spawn(self.server);
        tokio::select! {
            ended = &mut server => return ended.map_err(io::Error::other)?,
            () = shutdown => {}
            () = self.ingress.shutdown.notified() => {}
            () = self.ingress.watch_certificate() => {}
            () = summarize_incidents(&self.ingress) => {}
        }
        drain(&self.ingress, &handle, self.settings.server.drain_timeout).await;
        server.await.map_err(io::Error::other)?
    }
}

impl ReloadHandle {
    /// Replaces the settings that a running relay can take over.
    pub fn reload(&self, settings: &Settings) {
        let settings = Arc::new(settings.clone());
        self.0.reload(settings.clone());
        match AdminToken::read(&settings.server.admin_token_file) {
            Ok(token) => self.0.set_admin_token(token),
            Err(failed) => {
                log::error!(error:% = failed; "admin token not reloaded, the old one stays")
            }
        }
        let Some(core) = self.0.core.get() else {
            return log::warn!(
                "the relay is still starting; send the signal again when it listens"
            );
        };
        let limits = core.limiter.try_send(rate_limiter::Reload(settings.clone()));
        let rules = core.registry.try_send(registry::Reload(settings));
        if limits.is_err() || rules.is_err() {
            log::error!("the core is too busy to take over new settings");
        }
        // What is wrong is in the log.
        let _ = self.0.reload_access();
    }
}

/// Each minute writes what the log of clients has left out; never returns.
async fn summarize_incidents(ingress: &Ingress) {
    loop {
        tokio::time::sleep(Duration::from_secs(60)).await;
        ingress.log.summarize();
    }
}

fn take<T>(cell: &Mutex<Option<T>>) -> Option<T> {
    cell.lock().unwrap_or_else(PoisonError::into_inner).take()
}

#[cfg(test)]
mod tests;
