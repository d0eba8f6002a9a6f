//! The binary on a data directory that outlives the process.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::moved_clocks::MovedClocks;
use crate::support::binary::FREE_PORTS;
use crate::support::service_manager::ServiceManager;
use crate::support::{Binary, eventually, http, skip};

/// Limits that no test reaches unless it sets them itself.
const GENEROUS: [(&str, &str); 9] = [
    ("RATE_LIMIT__MESSAGES_PER_MINUTE", "1000000"),
    ("RATE_LIMIT__BURST", "1000000"),
    ("RATE_LIMIT__CONTROL_PER_MINUTE", "1000000"),
    ("RATE_LIMIT__REGISTRATIONS_PER_MINUTE", "1000000"),
    ("LIMITS__EXEMPT_CIDRS", "127.0.0.0/8"),
    ("QUEUE__MESSAGES", "1000000"),
    ("QUEUE__BYTES", "512 MiB"),
    ("QUEUE__SENDER_SHARE", "1.0"),
    ("SWEEPER__INTERVAL", "20ms"),
];

/// How a relay is started.
#[derive(Clone)]
pub struct Setup {
    data: PathBuf,
    settings: Vec<(String, String)>,
    strace: Vec<String>,
    clocks: Option<Arc<MovedClocks>>,
    held_at: Option<&'static str>,
    /// More of the environment.
    environment: Vec<(&'static str, String)>,
}

impl Setup {
    pub fn on(data: &Path) -> Self {
        let settings = GENEROUS.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Self {
            data: data.to_owned(),
            settings,
            strace: Vec::new(),
            clocks: None,
            held_at: None,
            environment: Vec::new(),
        }
    }

    /// A setting as in the environment: `("SESSION__TTL", "1s")`.
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// With clocks that the test sets.
    pub fn with_clocks(self, clocks: &Arc<MovedClocks>) -> Self {
        Self { clocks: Some(clocks.clone()), ..self }
    }

    /// Stops for ever during its start: at "sync" while it opens the queue, at "core" before it restores the core.
    pub fn held_at(self, place: &'static str) -> Self {
        let clocks = Some(MovedClocks::new());
        Self { clocks, held_at: Some(place), ..self }
    }

    /// With a service manager that restarts a relay that has not reported for `limit`.
    pub fn with_watchdog(mut self, manager: &ServiceManager, limit: Duration) -> Self {
        let path = manager.path.to_str().expect("text").to_owned();
        self.environment.push(("NOTIFY_SOCKET", path));
        self.environment.push(("WATCHDOG_USEC", limit.as_micros().to_string()));
        self
    }

    /// Changes the results of some system calls, with strace.
    pub fn inject(mut self, what: &str) -> Self {
        self.strace.push(format!("inject={what}"));
        self
    }

    /// Whether strace may trace a process here; if not, the test counts as skipped. A missing strace is an error.
    pub fn can_inject() -> bool {
        let mut strace = Command::new("strace");
        strace.args(["-D", "-f", "-qqq", "-o", "/dev/null", "-e", "trace=fsync", "true"]);
        let traced = strace.output().expect("strace is installed");
        if !traced.status.success() {
            skip("strace may not trace a process");
        }
        traced.status.success()
    }

    fn command(&self, args: &[&str]) -> Command {
        // Figures are taken with a release build.
        let given = std::env::var("SEALPOST_BINARY");
        let binary = given.as_deref().unwrap_or(env!("CARGO_BIN_EXE_sealpost"));
        let mut command = if self.strace.is_empty() {
            Command::new(binary)
        } else {
            // As a grandchild: the relay stays our own child, with its own exit status.
            let mut strace = Command::new("strace");
            strace.args(["-D", "-f", "-qqq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"]);
            for what in &self.strace {
                strace.args(["-e", what]);
            }
            strace.arg(binary);
            strace
        };
        command.args(args).env_clear().current_dir("/");
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("SEALPOST__QUEUE__PATH", &self.data);
        // Commands about a relay that has ended must not find another one.
        command.env("SEALPOST__SERVER__ADMIN_LISTEN", "127.0.0.1:0");
        command.envs(self.clocks.iter().flat_map(|clocks| clocks.environment()));
        command.envs(self.environment.iter().cloned());
        command.envs(self.held_at.map(|place| ("HELD_AT", place)));
        command.envs(self.settings.iter().map(|(key, value)| (format!("SEALPOST__{key}"), value)));
        command
    }

    /// A relay that is ready.
    pub async fn start(&self) -> Started {
        let started = Instant::now();
        let binary = Binary::start(self.command(&FREE_PORTS)).await;
        let admin = binary.admin;
        let is_ready = async || http::get(admin, "/readyz").await.body == "ready\n";
        eventually("readiness", is_ready).await;
        Started { binary, ready: started.elapsed() }
    }

    /// A relay that may never be ready.
    pub fn spawn(&self) -> Binary {
        Binary::spawn(self.command(&FREE_PORTS))
    }

    /// A relay that refuses to start, or another command: runs to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary starts")
    }

    /// As [`Self::run`], while the test goes on.
    pub async fn run_beside(&self, args: &[&str]) -> Output {
        let mut command = self.command(args);
        let output = tokio::task::spawn_blocking(move || command.output());
        output.await.expect("a thread").expect("the binary starts")
    }

    /// Another command, which the test may kill.
    pub fn begin(&self, args: &[&str]) -> Child {
        self.command(args).stderr(Stdio::null()).spawn().expect("the binary starts")
    }

    /// A figure of `sealpost queue stats`.
    pub fn stat(&self, name: &str) -> u64 {
        let output = self.run(&["queue", "stats"]);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
    }

    /// `sealpost queue verify` must find nothing wrong.
    pub fn expect_sound(&self) {
        let output = self.run(&["queue", "verify"]);
        assert!(output.status.success(), "{output:?}");
    }
}

/// A relay, and how long its start took.
pub struct Started {
    binary: Binary,
    /// From the start of the process until it was ready.
    pub ready: Duration,
}

impl Deref for Started {
    type Target = Binary;

    fn deref(&self) -> &Binary {
        &self.binary
    }
}

impl DerefMut for Started {
    fn deref_mut(&mut self) -> &mut Binary {
        &mut self.binary
    }
}
