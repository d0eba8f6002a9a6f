//! A relay on free loopback ports, on a thread of its own, that ends with the test.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use sealpost::app::{App, ReloadHandle};
use sealpost::clock::Clock;
use sealpost::settings::Settings;
use sealpost::web::tls::Tls;
use tokio::sync::oneshot;

use super::{Device, Endpoints, tls as certificates};

/// A running relay.
pub struct Relay {
    endpoints: Endpoints,
    /// Stands still unless a test advances it.
    pub clock: Clock,
    /// The settings at the start.
    pub settings: Settings,
    pub reload_handle: ReloadHandle,
    /// Its certificate and handshakes, if it speaks TLS.
    pub tls: Option<Arc<Tls>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
    /// The queue, and the certificate with its key.
    pub data: tempfile::TempDir,
}

impl Relay {
    /// With the defaults, except free ports and a short sweeper interval.
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// Without rate limits and shares that matter: a test reaches only limits that it sets itself.
    pub fn generous(change: impl FnOnce(&mut Settings)) -> Self {
        let high = NonZeroU32::new(1_000_000).expect("not zero");
        Self::with(|settings| {
            settings.rate_limit.messages_per_minute = high;
            settings.rate_limit.burst = high;
            settings.rate_limit.control_per_minute = high;
            settings.rate_limit.registrations_per_minute = high;
            exempt_loopback(settings);
            change(settings);
        })
    }

    /// With other settings, and devices that have no origin: nobody is an unknown sender, and no address has a share.
    pub fn without_origins(change: impl FnOnce(&mut Settings)) -> Self {
        Self::with(|settings| {
            exempt_loopback(settings);
            change(settings);
        })
    }

    /// With other settings.
    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::default();
        settings.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        settings.server.admin_listen = SocketAddr::from(([127, 0, 0, 1], 0)).into();
        settings.sweeper.interval = Duration::from_millis(5);
        let data = tempfile::tempdir().expect("a directory for the queue");
        settings.queue.path = data.path().join("queue");
        if certificates::OVER_TLS {
            let (certificate, key) = certificates::Pair::new().write(data.path());
            (settings.tls.certificate, settings.tls.key) = (certificate, key);
        }
        change(&mut settings);
        let clock = Clock::still();
        let (stop, stopped) = oneshot::channel();
        let (started, starting) = mpsc::channel();
        let thread = std::thread::spawn({
            let (clock, settings) = (clock.clone(), settings.clone());
            move || {
                actix_rt::System::new().block_on(async move {
                    let app = App::build(settings, clock)?;
                    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
                    let admin = app.admin_address().tcp().unwrap_or(nowhere);
                    let addresses = (app.public_address(), admin);
                    started
                        .send((addresses, app.reload_handle(), app.tls()))
                        .expect("the test waits for the addresses");
                    app.run(async {
                        let _ = stopped.await;
                    })
                    .await
                })
            }
        });
        let ((public, admin), reload_handle, tls) = starting.recv().expect("the relay starts");
        certificates::note_relay(public, admin, tls.is_some());
        let (stop, thread) = (Some(stop), Some(thread));
        let endpoints = Endpoints { public, admin };
        Self { endpoints, clock, settings, reload_handle, tls, stop, thread, data }
    }

    /// Advances the clock.
    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Changes settings; they apply to every frame that is sent after this.
    pub async fn reload(&self, change: impl FnOnce(&mut Settings)) {
        let mut settings = self.settings.clone();
        change(&mut settings);
        self.reload_handle.reload(&settings);
        // A registration now is handled after the reload, by each actor.
        Device::plain(self).await.close().await;
    }

    /// Lets the relay drain. Its drop waits for the end.
    pub fn begin_stop(&mut self) {
        drop(self.stop.take());
    }

    /// Lets the relay drain and end, as a signal would.
    pub fn stop(&mut self) -> std::io::Result<()> {
        drop(self.stop.take());
        self.thread.take().map_or(Ok(()), |thread| thread.join().expect("the relay does not panic"))
    }
}

fn exempt_loopback(settings: &mut Settings) {
    settings.limits.exempt_cidrs = vec!["127.0.0.0/8".parse().expect("a network")];
}

impl Deref for Relay {
    type Target = Endpoints;

    fn deref(&self) -> &Endpoints {
        &self.endpoints
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let ended = self.stop();
        if !std::thread::panicking() {
            ended.expect("the relay ends well");
        }
    }
}
