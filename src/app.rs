//! The relay as a whole: built bottom-up, run, drained. `main` and the tests use it alike.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::Addr;
use actix_http::body::BoxBody;
use actix_http::{HttpService, Request, Response, ServiceConfig};
use actix_rt::net::TcpStream;
use actix_server::{Server, ServerHandle};
use actix_service::{Service, ServiceFactory, fn_factory, fn_service, map_config};
use actix_web::dev::AppConfig;
use actix_web::middleware::from_fn;
use actix_web::{App as Site, web};
use socket2::{SockRef, TcpKeepalive};

use crate::abort_on_panic::EXIT_CODE;
use crate::actors::abort_on_panic;
use crate::actors::rate_limiter::{self, RateLimiter};
use crate::actors::registry::{self, CloseStore, Drain, Registry, Stored};
use crate::actors::session::CoreHandles;
use crate::actors::ttl_sweeper::TtlSweeper;
use crate::actors::write_watermarks::WriteWatermarks;
use crate::clock::{self, Clock};
use crate::relay::rate_limit::RatePlan;
use crate::relay::router::STEP_ENTRIES;
use crate::settings::Settings;
use crate::store::database::Database;
use crate::store::memory::Memory;
use crate::store::open::{Directory, QueueFile};
use crate::store::records::HashKey;
use crate::store::sync_watch::SyncFailed;
use crate::store::writer::{CommitPolicy, Outcome, QueueWriter};
use crate::store::{Loaded, Store, boots};
use crate::web::http::HEAD_TIMEOUT;
use crate::web::ingress::Ingress;
use crate::web::{health, hosts, http, ws};

/// Connections that wait for accept.
const BACKLOG: u32 = 4096;
/// Bytes that the kernel takes from us and has not sent yet. Without this bound the kernel takes megabytes for a peer that does
/// not read: these bytes would count as delivered, cost memory outside every limit, and make a slow peer look stalled,
/// because a socket takes more only after a third of them was sent.
const UNSENT: u32 = 64 * 1024;
/// A drain closes sessions in slices of at least this size…
const DRAIN_SLICE: usize = 64;
/// …or of this part of them, so that not all of them reconnect in one moment…
const DRAIN_SLICES: usize = 20;
/// …with this pause between two.
const DRAIN_PAUSE: Duration = Duration::from_millis(50);

/// A relay that is bound to its addresses.
pub struct App {
    settings: Arc<Settings>,
    ingress: Arc<Ingress>,
    server: Server,
    before_serving: BeforeServing,
    public: SocketAddr,
    admin: SocketAddr,
}

/// What runs on the first worker's thread when the core is there.
type BeforeServing = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

#[derive(Clone)]
pub struct ReloadHandle(Arc<Ingress>);

impl App {
    /// Binds the addresses and prepares everything; no connection is served before [`Self::run`]. An error names the setting.
    pub fn build(settings: Settings, clock: Clock) -> io::Result<Self> {
        let settings = Arc::new(settings);
        let queue = Queue::open(&settings, &clock)?;
        let plan = RatePlan::new(settings.rate_limit.clone(), clock.clone());
        let ingress = Arc::new(Ingress::new(settings.clone(), plan, clock.clone()));
        let listener = bind("server.listen", settings.server.listen)?;
        let admin_listener = bind("server.admin_listen", settings.server.admin_listen)?;
        let (public, admin) = (listener.local_addr()?, admin_listener.local_addr()?);
        if let Some(queue) = &queue {
            queue.file.publish([public, admin]);
        }
        let queue = Arc::new(Mutex::new(queue));
        let before_serving = BeforeServing::default();
        let server = Server::build()
            .workers(settings.server.workers)
            .backlog(BACKLOG)
            // A full worker would silently stop accepting, also on the admin listener. The public listener has its own counter.
            .max_concurrent_connections(usize::MAX)
            .disable_signals()
            .listen("relay", listener, {
                let (ingress, settings) = (ingress.clone(), settings.clone());
                let before_serving = before_serving.clone();
                move || {
                    // This runs on each worker's own thread; the core lives on the first one's.
                    ingress.core.get_or_init(|| {
                        let queue = take(&queue);
                        let core = Arc::new(start_core(&settings, &clock, &ingress, queue));
                        let before_serving = take(&before_serving);
                        before_serving.into_iter().for_each(|run| run());
                        core
                    });
                    public_service(&ingress, settings.server.tcp_user_timeout)
                }
            })?
            .listen("admin", admin_listener, {
                let ingress = ingress.clone();
                move || admin_service(&ingress)
            })?
            .run();
        Ok(Self { settings, ingress, server, before_serving, public, admin })
    }

    /// Where the WebSocket is served; the port is the real one if the setting is port 0.
    pub fn public_address(&self) -> SocketAddr {
        self.public
    }

    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    pub fn reload_handle(&self) -> ReloadHandle {
        ReloadHandle(self.ingress.clone())
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
        let Some(core) = self.0.core.get() else { return };
        let limits = core.limiter.try_send(rate_limiter::Reload(settings.clone()));
        let rules = core.registry.try_send(registry::Reload(settings));
        if limits.is_err() || rules.is_err() {
            log::error!("the core is too busy to hear of new settings; send the signal again");
        }
    }
}

fn take<T>(cell: &Mutex<Option<T>>) -> Option<T> {
    cell.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Binds an address. An error names the setting, and the flag with which another address can be tried.
pub fn bind(key: &str, address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).map_err(|failed| {
        let flag = match key.rsplit_once('.') {
            Some((_, key)) if failed.kind() == io::ErrorKind::AddrInUse => {
                format!("; choose another one with --{}", key.replace('_', "-"))
            }
            _ => String::new(),
        };
        io::Error::new(failed.kind(), format!("{key} = {address}: {failed}{flag}"))
    })
}

/// The queue on disk as it was found, before any connection is served.
struct Queue {
    file: QueueFile,
    disk: Database,
    sync_failed: SyncFailed,
    loaded: Loaded,
}

impl Queue {
    /// `None` for a queue that ends with the process.
    fn open(settings: &Settings, clock: &Clock) -> io::Result<Option<Self>> {
        let queue = &settings.queue;
        if !queue.durable {
            return Ok(None);
        }
        let began = clock.moment();
        let sync_failed = SyncFailed::default();
        let directory = Directory::take(&queue.path).map_err(io::Error::other)?;
        if let Some(warning) = directory.exposure() {
            log::warn!("{warning}");
        }
        let (file, disk) = directory.open(sync_failed.clone()).map_err(io::Error::other)?;
        let boot_id = clock::boot_id().map(|id| id.as_u128());
        let mut loaded =
            disk.load(clock.now(), boot_id, queue.dedup_window).map_err(io::Error::other)?;
        let disk = boots::write_boot(disk, &file, &mut loaded.boots).map_err(io::Error::other)?;
        // An empty queue is not worth a log line.
        let is_empty = loaded.messages.is_empty() && loaded.devices.is_empty();
        log::log!(
            if is_empty { log::Level::Debug } else { log::Level::Info },
            "queue opened path={} messages={} devices={} after_ms={}",
            file.path().display(),
            loaded.messages.len(),
            loaded.devices.len(),
            (clock.moment() - began).as_millis()
        );
        let bytes: u64 = loaded.messages.iter().map(|record| record.envelope.bytes()).sum();
        if bytes > settings.queue.total_bytes as u64 {
            log::warn!(
                "the queue on disk is larger than queue.total_bytes: new messages that must wait are answered 503 bytes={bytes} total_bytes={}",
                settings.queue.total_bytes
            );
        }
        if loaded.damaged > 0 {
            log::error!("damaged records were dropped from the queue count={}", loaded.damaged);
        }
        Ok(Some(Self { file, disk, sync_failed, loaded }))
    }
}

fn start_core(
    settings: &Arc<Settings>,
    clock: &Clock,
    ingress: &Ingress,
    queue: Option<Queue>,
) -> CoreHandles {
    let watermarks = WriteWatermarks::default();
    let hash_key = match &queue {
        Some(queue) => queue.loaded.hash_key,
        None => getrandom::u64().map(HashKey).unwrap_or_default(),
    };
    let registry = abort_on_panic::create("registry", |address| {
        let (store, loaded) = start_store(settings, clock, queue, address.clone());
        let mut registry =
            Registry::new(clock.clone(), settings.clone(), store, watermarks.clone());
        registry.restore(Loaded { hash_key, ..loaded }, &ingress.plan);
        registry
    });
    let limiter = RateLimiter::new(
        clock.clone(),
        ingress.plan.clone(),
        settings.clone(),
        hash_key,
        registry.clone(),
    );
    let limiter = abort_on_panic::start("rate_limiter", limiter);
    let (find, forget) = (registry.clone().recipient(), registry.clone().recipient());
    let sweeper = TtlSweeper::new(settings.sweeper.interval, find, forget);
    abort_on_panic::start("ttl_sweeper", sweeper);
    CoreHandles { registry, limiter, watermarks }
}

/// A report of the store must arrive; there is one report for each commit.
#[allow(clippy::disallowed_methods)]
fn start_store(
    settings: &Settings,
    clock: &Clock,
    queue: Option<Queue>,
    registry: Addr<Registry>,
) -> (Box<dyn Store>, Loaded) {
    let Some(Queue { file, disk, sync_failed, loaded }) = queue else {
        return (Box::new(Memory), Loaded::default());
    };
    let policy = CommitPolicy {
        interval: settings.queue.commit_interval,
        batch: settings.queue.commit_batch,
        dedup_window: settings.queue.dedup_window,
    };
    let report = move |outcome: Outcome| registry.do_send(Stored(outcome));
    let time = (clock.clone(), &loaded.boots);
    match QueueWriter::start(disk, file, sync_failed, policy, time, report) {
        Ok(store) => (Box::new(store), loaded),
        Err(failed) => {
            // A relay that cannot keep the durability of its settings must not serve.
            log::error!("the queue's thread cannot be started error={failed}");
            std::process::exit(EXIT_CODE);
        }
    }
}

fn public_service(
    ingress: &Arc<Ingress>,
    user_timeout: Duration,
) -> impl ServiceFactory<TcpStream, Config = ()> + use<> {
    let site = Site::new()
        .app_data(web::Data::new(ingress.clone()))
        .service(web::resource("/livez").get(health::livez))
        .service(web::resource("/readyz").get(health::readyz))
        .route(ws::PATH, web::route().to(ws::not_upgrading))
        .wrap(from_fn(hosts::well_formed));
    let site = map_config(site, |()| AppConfig::default());
    let (ingress, config) = (ingress.clone(), ServiceConfig::default());
    fn_factory(move || {
        let (ingress, config, site) = (ingress.clone(), config.clone(), site.new_service(()));
        async move {
            let site = Rc::new(site.await?);
            Ok::<_, ()>(fn_service(move |socket| {
                accept(ingress.clone(), user_timeout, config.clone(), site.clone(), socket)
            }))
        }
    })
}

/// Serves a socket that was just accepted until it is a WebSocket or closed. Sockets that never become a session are counted
/// here, and one over the limit gets no answer.
async fn accept<Site>(
    ingress: Arc<Ingress>,
    user_timeout: Duration,
    config: ServiceConfig,
    site: Rc<Site>,
    socket: TcpStream,
) -> Result<(), Infallible>
where
    Site: Service<Request, Error = actix_web::Error>,
    Site::Response: Into<Response<BoxBody>>,
{
    if let Ok(peer) = socket.peer_addr()
        && let Some(_permit) = ingress.admit(peer.ip())
    {
        tune(&socket, user_timeout);
        let upgrade = |request, framed| ws::upgrade(ingress.clone(), peer.ip(), request, framed);
        http::serve(socket, peer, config, &*site, upgrade).await;
    }
    Ok(())
}

fn admin_service(ingress: &Arc<Ingress>) -> impl ServiceFactory<TcpStream, Config = ()> + use<> {
    let site = Site::new()
        .app_data(web::Data::new(ingress.clone()))
        .service(web::resource("/livez").get(health::livez))
        .service(web::resource("/readyz").get(health::readyz))
        .service(web::resource("/healthz").get(health::healthz))
        .wrap(from_fn(hosts::own_only));
    HttpService::build()
        .client_request_timeout(HEAD_TIMEOUT)
        .client_disconnect_timeout(Duration::from_secs(1))
        .finish(map_config(site, |()| AppConfig::default()))
        .tcp()
}

/// Small frames leave at once, and the kernel ends a connection whose peer takes nothing for `user_timeout`.
fn tune(socket: &TcpStream, user_timeout: Duration) {
    let socket = SockRef::from(socket);
    let keepalive = TcpKeepalive::new().with_time(user_timeout).with_interval(user_timeout / 3);
    let tuned = socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_tcp_notsent_lowat(UNSENT))
        .and_then(|()| socket.set_tcp_user_timeout(Some(user_timeout)))
        .and_then(|()| socket.set_tcp_keepalive(&keepalive));
    if let Err(failed) = tuned {
        log::debug!("socket options failed error={failed}");
    }
}

/// Closes all sessions, slice by slice, and stops the server when they have ended or the time is over.
async fn drain(ingress: &Ingress, server: &ServerHandle, timeout: Duration) {
    ingress.draining.store(true, Relaxed);
    let sessions = ingress.connections.total();
    log::info!("draining sessions={sessions}");
    let slice = (sessions / DRAIN_SLICES).clamp(DRAIN_SLICE, STEP_ENTRIES);
    let goodbyes = async {
        if let Some(core) = ingress.core.get() {
            while core.registry.send(Drain { slice }).await.is_ok_and(|left| left > 0) {
                tokio::time::sleep(DRAIN_PAUSE).await;
            }
        }
        ingress.connections.all_closed().await;
    };
    if tokio::time::timeout(timeout, goodbyes).await.is_err() {
        log::warn!("drained in part, the time is over sessions={}", ingress.connections.total());
    }
    if let Some(core) = ingress.core.get()
        && core.registry.send(CloseStore).await.is_err()
    {
        log::error!("the queue could not be closed; what was acked is safe all the same");
    }
    server.stop(false).await;
}

#[cfg(test)]
#[path = "app_tests.rs"]
mod tests;
