//! The real binary in a process of its own: its log, memory, descriptors and exit status are visible.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

use super::{Endpoints, PATIENCE, eventually, tls};

/// Options for free ports.
pub const FREE_PORTS: [&str; 4] = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];

/// The binary in this directory, in an empty environment.
pub fn sealpost(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealpost"));
    command.current_dir(directory).env_clear().stdin(Stdio::null());
    command
}

/// A running `sealpost`.
pub struct Binary {
    child: Child,
    lines: UnboundedReceiver<String>,
    /// The part of the log that was read.
    pub log: String,
    endpoints: Endpoints,
    _directory: Option<TempDir>,
}

impl Binary {
    /// In a directory of its own, on free ports, with settings as in the environment: `("SERVER__WORKERS", "2")`.
    pub async fn with(settings: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut command = sealpost(directory.path());
        command.args(FREE_PORTS).env("SEALPOST__SWEEPER__INTERVAL", "20ms");
        if tls::OVER_TLS {
            let (certificate, key) = tls::Pair::new().write(directory.path());
            command.env("SEALPOST__TLS__CERTIFICATE", certificate);
            command.env("SEALPOST__TLS__KEY", key);
        }
        command.envs(settings.iter().map(|(key, value)| (format!("SEALPOST__{key}"), value)));
        let mut binary = Self::start(command).await;
        binary._directory = Some(directory);
        binary
    }

    /// Runs a command that starts a relay, and waits until its log names its addresses.
    pub async fn start(command: Command) -> Self {
        let mut binary = Self::spawn(command);
        let (public, admin) = ("is listening on ", "health: http://");
        binary.expect_log(public).await;
        if !binary.log.contains(admin) {
            binary.expect_log(admin).await;
        }
        binary.endpoints = Endpoints {
            public: address_after(&binary.log, public),
            admin: address_after(&binary.log, admin),
        };
        let is_tls = binary.log.contains(" wss://");
        tls::note_relay(binary.endpoints.public, binary.endpoints.admin, is_tls);
        binary
    }

    /// Runs a command that starts a relay; its addresses are not known.
    pub fn spawn(mut command: Command) -> Self {
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("the command starts; a few tests need strace");
        let log = BufReader::new(child.stderr.take().expect("a log"));
        let (line, lines) = unbounded_channel();
        // A log that nobody reads would block the relay.
        std::thread::spawn(move || {
            log.lines().map_while(Result::ok).try_for_each(|text| line.send(text))
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let endpoints = Endpoints { public: nowhere, admin: nowhere };
        Self { child, lines, log: String::new(), endpoints, _directory: None }
    }

    /// The next line of the log that contains `part`; the lines before are passed over.
    pub async fn expect_log(&mut self, part: &str) -> String {
        while let Some(line) = self.line().await {
            if line.contains(part) {
                return line;
            }
        }
        panic!("the log ends without: {part}\n{}", self.log);
    }

    async fn line(&mut self) -> Option<String> {
        let line = timeout(PATIENCE, self.lines.recv()).await;
        let line = line.unwrap_or_else(|_| panic!("no line in time after\n{}", self.log))?;
        self.log.push_str(&line);
        self.log.push('\n');
        Some(line)
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(sent.expect("kill").success());
    }

    /// `kill -9`, and the end of the process.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// SIGTERM; the process must exit with 0.
    pub async fn stop(&mut self) {
        self.signal("TERM");
        assert_eq!(self.exit().await, Some(0), "{}", self.log);
    }

    /// Waits for the end of the process and of the log; returns the exit code.
    pub async fn exit(&mut self) -> Option<i32> {
        while self.line().await.is_some() {}
        let mut status = None;
        eventually("the end of the process", async || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        })
        .await;
        status.and_then(|status| status.code())
    }

    /// Waits until the kernel has stopped the process (state `T`) or continued it.
    pub async fn wait_until_stopped(&self, stopped: bool) {
        let path = format!("/proc/{}/stat", self.child.id());
        eventually("the state of the process", async || {
            let stat = fs::read_to_string(&path).expect("the process lives");
            let (_, after) = stat.rsplit_once(')').expect("a state");
            after.trim_start().starts_with('T') == stopped
        })
        .await;
    }

    /// Resident memory, KiB.
    pub fn memory(&self) -> u64 {
        self.kib("VmRSS")
    }

    /// The largest resident memory so far, KiB.
    pub fn peak_memory(&self) -> u64 {
        self.kib("VmHWM")
    }

    /// A figure of /proc/PID/status in KiB.
    fn kib(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(path).expect("the process lives");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a figure");
        line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().expect("a number")
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.child.id());
        fs::read_dir(path).expect("the process lives").count()
    }
}

impl Deref for Binary {
    type Target = Endpoints;

    fn deref(&self) -> &Endpoints {
        &self.endpoints
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            while let Ok(line) = self.lines.try_recv() {
                self.log.push_str(&line);
                self.log.push('\n');
            }
            eprintln!("{}", self.log);
        }
    }
}

/// The address in the log; a client reaches an unspecified one on the loopback.
fn address_after(log: &str, marker: &str) -> SocketAddr {
    let (_, rest) = log.split_once(marker).expect("the line was found");
    let end = rest.find(|letter: char| !matches!(letter, '0'..='9' | '.' | ':'));
    let mut address: SocketAddr = rest[..end.unwrap_or(rest.len())].parse().expect("an address");
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    address
}
