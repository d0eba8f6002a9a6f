//! The real binary, in a process of its own: its memory, its descriptors, its exit status can be seen.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http;

/// How long a figure may take to become what it should be.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running `sealpost`.
pub struct Process {
    child: Child,
    pub public: SocketAddr,
    pub admin: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Process {
    /// With settings as the environment has them: `("SERVER__WORKERS", "2")`.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealpost"));
        command
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .current_dir(&directory)
            .env_clear()
            .env("SEALPOST__SWEEPER__INTERVAL", "20ms")
            .envs(settings.iter().map(|(key, value)| (format!("SEALPOST__{key}"), value)))
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let mut lines = BufReader::new(child.stderr.take().expect("a log")).lines();
        let mut seen = String::new();
        let mut find = |before: &str, after: &str| -> SocketAddr {
            for line in lines.by_ref() {
                let line = line.expect("a log of text");
                seen.push_str(&line);
                seen.push('\n');
                if let Some((_, rest)) = line.split_once(before) {
                    let address = rest.trim_end().trim_end_matches(after);
                    return address.parse().expect("an address");
                }
            }
            panic!("the relay did not start: {seen}");
        };
        let public = find("is listening on ", "");
        let admin = find("health: http://", "/healthz");
        // A log that nobody reads would block the relay; what it says shows where a test fails.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                eprintln!("{line}");
            }
        });
        Self { child, public, admin, _directory: directory }
    }

    /// A figure of /proc/PID/status in KiB.
    fn kib(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("the process lives");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a figure");
        line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().expect("a number")
    }

    /// Resident memory, KiB.
    pub fn memory(&self) -> u64 {
        self.kib("VmRSS")
    }

    /// The most memory that was ever resident, KiB.
    pub fn peak_memory(&self) -> u64 {
        self.kib("VmHWM")
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(path).expect("the process lives").count()
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(sent.expect("kill").success());
    }

    /// Waits until the process has stopped (`T`) or runs on.
    pub async fn is_stopped(&self, stopped: bool) {
        let path = format!("/proc/{}/stat", self.child.id());
        eventually("the state of the process", async || {
            let stat = std::fs::read_to_string(&path).expect("the process lives");
            let (_, after) = stat.rsplit_once(')').expect("a state");
            after.trim_start().starts_with('T') == stopped
        })
        .await;
    }

    /// What the relay says of itself.
    pub async fn health(&self) -> Value {
        health(self.admin).await
    }

    /// Waits until a figure of /healthz is so.
    pub async fn has(&self, figure: &str, value: u64) {
        has(self.admin, figure, value).await;
    }

    /// Waits for the end.
    pub async fn exit(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the end of the process", async || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        })
        .await;
        status.expect("it has ended")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the relay behind that admin address says of itself.
pub async fn health(admin: SocketAddr) -> Value {
    let answer = http::get(admin, "/healthz").await;
    serde_json::from_str(&answer.body).expect("health is JSON")
}

/// Waits until a figure of /healthz is so.
pub async fn has(admin: SocketAddr, figure: &str, value: u64) {
    let what = format!("{figure} = {value}");
    eventually(&what, async || health(admin).await[figure] == value).await;
}

/// Looks again and again, until it is so. What is looked at tells nobody that it changed.
pub async fn eventually(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !so().await {
        assert!(start.elapsed() < PATIENCE, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl crate::support::Relay {
    /// Waits until so many connections are open.
    pub async fn expects_connections(&self, count: u64) {
        has(self.admin, "connections", count).await;
    }
}
