//! The relay under a service manager: what it reports, and the sockets that it inherits.

mod support;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::binary::{FREE_PORTS, sealpost};
use support::service_manager::ServiceManager;
use support::{Binary, Device, Endpoints, eventually, message_id};

/// Whether a notification is none of those that come at any time.
fn is_a_change(notification: &&String) -> bool {
    !notification.contains("WATCHDOG=1") && !notification.contains("EXTEND_TIMEOUT_USEC")
}

#[tokio::test]
async fn the_service_manager_is_notified_of_a_start_each_reload_and_the_end_in_this_order() {
    let place = tempfile::tempdir().expect("a directory");
    let manager = ServiceManager::new();
    let mut command = sealpost(place.path());
    command.args(FREE_PORTS);
    manager.watch(&mut command);
    let mut relay = Binary::start(command).await;

    let start = manager.until("READY=1").await;
    assert!(start[0].starts_with("EXTEND_TIMEOUT_USEC=30000000\nSTATUS="), "{start:?}");
    assert_eq!(start.iter().filter(is_a_change).count(), 1, "{start:?}");
    let serving = format!("READY=1\nSTATUS=serving on {}\n", relay.public);
    assert_eq!(start.last(), Some(&serving));

    relay.signal("HUP");
    let [reloading, ready] = [manager.notification().await, manager.notification().await];
    let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("a time");
    assert!(time.trim_end().parse::<u64>().is_ok_and(|micros| micros > 0), "{reloading}");
    assert_eq!(ready, serving);

    std::fs::write(place.path().join("settings.toml"), "nonsense = true").expect("room");
    relay.signal("HUP");
    assert!(manager.notification().await.starts_with("RELOADING=1\n"));
    let ready = manager.notification().await;
    assert!(ready.starts_with("READY=1\n") && ready.contains("reload was refused"), "{ready}");

    relay.stop().await;
    assert!(manager.notification().await.starts_with("STOPPING=1\n"));
}

#[tokio::test]
async fn a_relay_that_is_well_reports_to_the_watchdog() {
    let place = tempfile::tempdir().expect("a directory");
    let manager = ServiceManager::new();
    let mut command = sealpost(place.path());
    command.args(FREE_PORTS).env("WATCHDOG_USEC", "200000");
    manager.watch(&mut command);
    let mut relay = Binary::start(command).await;
    manager.until("READY=1").await;
    let device = Device::plain(&relay).await;
    manager.until("WATCHDOG=1\nSTATUS=1 devices connected, 0 messages queued\n").await;
    device.leave(&relay).await;
    manager.until("WATCHDOG=1\nSTATUS=0 devices connected").await;
    relay.stop().await;
}

#[tokio::test]
async fn a_watchdog_of_another_process_is_left_alone() {
    let place = tempfile::tempdir().expect("a directory");
    let manager = ServiceManager::new();
    let mut command = sealpost(place.path());
    command.args(FREE_PORTS).env("WATCHDOG_USEC", "10000").env("WATCHDOG_PID", "1");
    manager.watch(&mut command);
    let mut relay = Binary::start(command).await;
    manager.until("READY=1").await;
    relay.stop().await;
    let rest = manager.until("STOPPING=1").await;
    assert_eq!(rest.len(), 1, "{rest:?}");
}

/// A command that becomes the relay, with a listening socket as its descriptor 3. The test keeps the socket.
fn activated(place: &Path, socket: &TcpListener) -> Command {
    let script = r#"exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@""#;
    let socket = socket.try_clone().expect("a descriptor");
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_sealpost")]).args(FREE_PORTS);
    command.current_dir(place).env_clear().stdin(Stdio::from(OwnedFd::from(socket)));
    for key in ["MESSAGES_PER_MINUTE", "BURST", "REGISTRATIONS_PER_MINUTE", "RESUMES_PER_MINUTE"] {
        command.env(format!("SEALPOST__RATE_LIMIT__{key}"), "1000000");
    }
    command.env("SEALPOST__LIMITS__EXEMPT_CIDRS", "127.0.0.0/8");
    command
}

#[tokio::test]
async fn an_inherited_socket_takes_the_place_of_server_listen() {
    let place = tempfile::tempdir().expect("a directory");
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");
    let mut relay = Binary::start(activated(place.path(), &socket)).await;
    assert_eq!(relay.public, address);
    let said = format!(
        "socket activation listening_on={address} not_used=server.listen address=127.0.0.1:0"
    );
    assert!(relay.log.contains(&said), "{}", relay.log);
    Device::plain(&relay).await.expect_nothing().await;
    relay.stop().await;
}

/// Becomes the relay with sockets of these kinds as its descriptors 3, 4, …
const ACTIVATOR: &str = r#"
import os, socket, sys
kinds, names, arguments = sys.argv[1].split(","), sys.argv[2], sys.argv[3:]
sockets = []
for kind in kinds:
    if kind == "unix":
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.bind("socket")
    else:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
        made.bind(("127.0.0.1", 0))
    if kind in ("tcp", "unix"):
        made.listen()
    sockets.append(os.dup2(made.fileno(), 50 + len(sockets)))
for number, descriptor in enumerate(sockets):
    os.dup2(descriptor, 3 + number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(kinds)), LISTEN_FDNAMES=names)
os.execv(arguments[0], arguments)
"#;

/// The relay with sockets of these kinds and names.
fn with_sockets(place: &Path, kinds: &str, names: &str) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", ACTIVATOR, kinds, names, env!("CARGO_BIN_EXE_sealpost")]).args(FREE_PORTS);
    command
        .current_dir(place)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

#[tokio::test]
async fn two_sockets_are_told_apart_by_their_names() {
    let place = tempfile::tempdir().expect("a directory");
    let mut relay = Binary::start(with_sockets(place.path(), "tcp,tcp", "admin:public")).await;
    for (key, address) in [("server.listen", relay.public), ("server.admin_listen", relay.admin)] {
        let said =
            format!("socket activation listening_on={address} not_used={key} address=127.0.0.1:0");
        assert!(relay.log.contains(&said), "{}", relay.log);
    }
    Device::plain(&relay).await.expect_nothing().await;
    relay.stop().await;
}

#[tokio::test]
async fn a_socket_that_cannot_be_used_is_refused_with_a_sentence() {
    for (kinds, names, sentence) in [
        ("udp", "public", "socket 0 (\"public\") is no TCP socket"),
        ("unix", "public", "socket 0 (\"public\") is no TCP socket"),
        ("unbound", "public", "socket 0 (\"public\") does not listen"),
        ("tcp,tcp", "public:public", "socket 1 (\"public\") comes twice"),
        ("tcp,tcp", "public:sealpost.socket", "socket 1 (\"sealpost.socket\") must be named"),
    ] {
        let place = tempfile::tempdir().expect("a directory");
        let mut relay = Binary::spawn(with_sockets(place.path(), kinds, names));
        let line = relay.expect_log("socket activation: ").await;
        assert!(line.contains(sentence), "{line}");
        assert_eq!(relay.exit().await, Some(69));
    }
}

#[tokio::test]
async fn sockets_that_are_meant_for_another_process_are_left_alone() {
    let place = tempfile::tempdir().expect("a directory");
    let mut command = sealpost(place.path());
    command.args(FREE_PORTS).env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    let mut relay = Binary::start(command).await;
    assert!(!relay.log.contains("socket activation"), "{}", relay.log);
    relay.stop().await;
}

/// How many devices send, and how many receive, in the restart.
const PAIRS: u64 = 10;

/// What the clients of the restart have seen.
#[derive(Default)]
struct Seen {
    acked: AtomicU64,
    /// Connections on which a device came back.
    resumed: AtomicU64,
    /// When the last of them was back, milliseconds after the start of the test.
    back: AtomicU64,
    finished: AtomicBool,
}

/// A device that comes back whenever its connection ends. A connection that is refused fails the test.
struct Client {
    /// `None` while it is not connected.
    device: Option<Device>,
    id: String,
    resume: Value,
    relay: Endpoints,
}

impl Client {
    async fn new(relay: &Endpoints) -> Self {
        let device = Device::resumable(relay).await;
        let (id, resume) = (device.id.clone(), device.resume_frame());
        Self { device: Some(device), id, resume, relay: *relay }
    }

    /// A frame that is lost with its connection is sent again, or follows from what is received again.
    async fn send(&mut self, frame: Value) {
        if let Some(device) = &mut self.device {
            let _ = device.try_send(frame).await;
        }
    }

    /// The next frame; resumes until there is one.
    async fn next(&mut self, seen: &Seen, began: Instant) -> Option<Value> {
        if let Some(device) = &mut self.device
            && let Ok(frame) = device.try_receive().await
        {
            return Some(frame);
        }
        // The relay waits for the end of a connection that it closes.
        self.device = None;
        loop {
            let mut device = Device::connect(&self.relay).await;
            // A session that was opened while the relay drains is closed again.
            if device.try_send(self.resume.clone()).await.is_ok()
                && let Ok(frame) = device.try_receive().await
            {
                assert_eq!(frame["payload"]["resumed"], true, "in {frame}");
                self.device = Some(device);
                let passed = began.elapsed().as_millis();
                seen.back.fetch_max(u64::try_from(passed).unwrap_or(u64::MAX), Relaxed);
                seen.resumed.fetch_add(1, Relaxed);
                return None;
            }
        }
    }

    /// Sends one message after the other, each until it is acked.
    async fn send_all(mut self, to: String, seen: Arc<Seen>, began: Instant) -> u64 {
        let mut number = 0;
        while !seen.finished.load(Relaxed) {
            number += 1;
            let frame = json!({"type": "Send", "payload": {
                "recipient_id": to, "sender_id": self.id,
                "message_id": message_id(number), "encrypted_data": "sealed",
            }});
            self.send(frame.clone()).await;
            loop {
                match self.next(&seen, began).await {
                    Some(answer) => {
                        assert_eq!(answer["type"], "Ack", "in {answer}");
                        assert_eq!(answer["payload"]["message_id"], message_id(number));
                        seen.acked.fetch_add(1, Relaxed);
                        break;
                    }
                    None => self.send(frame.clone()).await,
                }
            }
        }
        number
    }

    /// Receives and acks until the message `last`, if that is known.
    async fn receive_all(
        mut self,
        seen: Arc<Seen>,
        mut last: tokio::sync::watch::Receiver<Option<u64>>,
        began: Instant,
    ) {
        let mut received = 0;
        loop {
            if last.borrow_and_update().is_some_and(|last| received >= last) {
                return;
            }
            let frame = tokio::select! {
                frame = self.next(&seen, began) => frame,
                _ = last.changed() => continue,
            };
            let Some(frame) = frame else { continue };
            assert_eq!(frame["type"], "Receive", "in {frame}");
            let id = frame["payload"]["message_id"].as_str().expect("an id").to_owned();
            // In order; one that was not confirmed before the restart may come twice.
            let number = u64::from_str_radix(&id[..8], 16).expect("a number");
            assert!(number <= received + 1, "{number} after {received}: one is lost");
            received = received.max(number);
            self.send(support::confirmation(&frame["payload"])).await;
        }
    }
}

/// Ten pairs talk, and new connections come all the time, while the relay is restarted twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_on_an_inherited_socket_refuses_nobody_and_loses_no_acked_message() {
    let place = tempfile::tempdir().expect("a directory");
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut relay = Binary::start(activated(place.path(), &socket)).await;
    // The address for operators changes with each start and is not needed.
    let endpoints = || Endpoints { public: relay.public, admin: SocketAddr::from(([0; 4], 0)) };
    let (seen, began) = (Arc::new(Seen::default()), Instant::now());
    let mut pairs = Vec::new();
    for _ in 0..PAIRS {
        let (sender, recipient) =
            (Client::new(&endpoints()).await, Client::new(&endpoints()).await);
        let to = recipient.id.clone();
        let (tell, last) = tokio::sync::watch::channel(None);
        let receiving = tokio::spawn(recipient.receive_all(seen.clone(), last, began));
        let sending = tokio::spawn(sender.send_all(to, seen.clone(), began));
        pairs.push((sending, receiving, tell));
    }
    let newcomers = tokio::spawn({
        let (relay, seen) = (endpoints(), seen.clone());
        async move {
            let mut connections = 0;
            while !seen.finished.load(Relaxed) {
                // Fails the test if the connection or the upgrade is refused.
                drop(Device::connect(&relay).await);
                connections += 1;
            }
            connections
        }
    });

    for restart in 1..=2 {
        let before = seen.acked.load(Relaxed);
        eventually("traffic", async || seen.acked.load(Relaxed) > before + 200).await;
        let stopped = began.elapsed();
        relay.stop().await;
        let ended = began.elapsed();
        relay = Binary::start(activated(place.path(), &socket)).await;
        let all_back = async || seen.resumed.load(Relaxed) >= restart * 2 * PAIRS;
        eventually("everybody back", all_back).await;
        let back = Duration::from_millis(seen.back.load(Relaxed));
        println!(
            "restart {restart}: ended after {:?}, all clients back after {:?}",
            ended - stopped,
            back - stopped
        );
    }
    let before = seen.acked.load(Relaxed);
    eventually("traffic", async || seen.acked.load(Relaxed) > before + 200).await;
    seen.finished.store(true, Relaxed);
    for (sending, receiving, tell) in pairs {
        let last = sending.await.expect("the sender loses nothing");
        tell.send_replace(Some(last));
        receiving.await.expect("the recipient loses nothing");
    }
    let connections = newcomers.await.expect("no connection is refused");
    println!("{} messages acked, {connections} new connections", seen.acked.load(Relaxed));
    assert!(connections > 0);
    relay.stop().await;
}
