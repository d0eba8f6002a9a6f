//! A relay on free loopback ports, on a thread of its own, that ends with the test.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use sealpost::app::{App, ReloadHandle};
use sealpost::clock::Clock;
use sealpost::settings::Settings;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::Device;
use super::device::PATIENCE;

/// A running relay.
pub struct Relay {
    pub public: SocketAddr,
    pub admin: SocketAddr,
    /// Stands still but for tests that put it forward.
    pub clock: Clock,
    /// What it was started with.
    pub settings: Settings,
    pub remote: ReloadHandle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
    _data: tempfile::TempDir,
}

impl Relay {
    /// With the defaults, but for free ports and a sweeper that looks often.
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// With room for devices that say much: only limits that a test sets itself are met.
    pub fn generous(change: impl FnOnce(&mut Settings)) -> Self {
        let much = NonZeroU32::new(1_000_000).expect("not zero");
        Self::with(|settings| {
            settings.rate_limit.messages_per_minute = much;
            settings.rate_limit.burst = much;
            settings.rate_limit.control_per_minute = much;
            settings.rate_limit.registrations_per_minute = much;
            change(settings);
        })
    }

    /// With other settings.
    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::default();
        settings.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        settings.server.admin_listen = SocketAddr::from(([127, 0, 0, 1], 0));
        settings.sweeper.interval = Duration::from_millis(5);
        let data = tempfile::tempdir().expect("a place for the queue");
        settings.queue.path = data.path().to_owned();
        change(&mut settings);
        let clock = Clock::still();
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn({
            let (clock, settings) = (clock.clone(), settings.clone());
            move || {
                actix_rt::System::new().block_on(async move {
                    let app = App::build(settings, clock)?;
                    let addresses =
                        (app.public_address(), app.admin_address(), app.reload_handle());
                    tell.send(addresses).expect("the test waits for the addresses");
                    app.run(async {
                        let _ = stopped.await;
                    })
                    .await
                })
            }
        });
        let (public, admin, remote) = told.recv().expect("the relay starts");
        let (stop, thread) = (Some(stop), Some(thread));
        Self { public, admin, clock, settings, remote, stop, thread, _data: data }
    }

    /// Puts the clock forward.
    pub fn passes(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Other settings, in force for everything that is said to the relay from now on.
    pub async fn reloads(&self, change: impl FnOnce(&mut Settings)) {
        let mut settings = self.settings.clone();
        change(&mut settings);
        self.remote.reload(&settings);
        // Who is admitted now was heard after the reload by whoever takes it over.
        Device::plain(self).await.leaves().await;
    }

    /// Waits until what the relay says of itself is so.
    pub async fn comes_to(&self, is_so: impl Fn(&Value) -> bool) {
        let asking = async { while !is_so(&self.health().await) {} };
        tokio::time::timeout(PATIENCE, asking).await.expect("it comes to be so");
    }

    /// Lets the relay drain; whoever has it waits for the end when it is dropped.
    pub fn begins_to_stop(&mut self) {
        drop(self.stop.take());
    }

    /// Lets the relay drain and end, as a signal would.
    pub fn stop(&mut self) -> std::io::Result<()> {
        drop(self.stop.take());
        self.thread.take().map_or(Ok(()), |thread| thread.join().expect("the relay does not panic"))
    }

    /// What the relay says of itself.
    pub async fn health(&self) -> Value {
        let body = self.get("/healthz").await;
        serde_json::from_str(&body).expect("health is JSON")
    }

    /// The head of the answer to a handshake, and the socket behind it.
    pub async fn handshake(&self) -> (String, TcpStream) {
        let mut socket = TcpStream::connect(self.public).await.expect("the relay listens");
        let request = "GET /ws HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\n\
                       Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        socket.write_all(request.as_bytes()).await.expect("the relay reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.expect("a whole head"));
        }
        (String::from_utf8(head).expect("text"), socket)
    }

    /// The body of an admin page.
    pub async fn get(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(self.admin).await.expect("admin listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("admin reads");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("admin answers");
        answer.split_once("\r\n\r\n").expect("a head and a body").1.to_owned()
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
