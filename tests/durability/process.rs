//! The real binary on a data directory that outlives it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longer than anything takes, on however busy a machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Limits that no test meets unless it sets them itself.
const GENEROUS: [(&str, &str); 8] = [
    ("RATE_LIMIT__MESSAGES_PER_MINUTE", "1000000"),
    ("RATE_LIMIT__BURST", "1000000"),
    ("RATE_LIMIT__CONTROL_PER_MINUTE", "1000000"),
    ("RATE_LIMIT__REGISTRATIONS_PER_MINUTE", "1000000"),
    ("QUEUE__MESSAGES", "1000000"),
    ("QUEUE__BYTES", "512 MiB"),
    ("QUEUE__SENDER_SHARE", "1.0"),
    ("SWEEPER__INTERVAL", "20ms"),
];

/// How a relay is started.
#[derive(Clone)]
pub struct Setup {
    pub data: PathBuf,
    settings: Vec<(String, String)>,
    strace: Vec<String>,
}

impl Setup {
    pub fn on(data: &Path) -> Self {
        let settings = GENEROUS.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Self { data: data.to_owned(), settings, strace: Vec::new() }
    }

    /// A setting as the environment has it: `("SESSION__TTL", "1s")`.
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Has the kernel answer some system calls differently.
    pub fn inject(mut self, what: &str) -> Self {
        self.strace.push(format!("inject={what}"));
        self
    }

    fn command(&self, args: &[&str]) -> Command {
        // Figures are taken of a release build.
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
        command.envs(self.settings.iter().map(|(key, value)| (format!("SEALPOST__{key}"), value)));
        command
    }

    /// A relay that serves.
    pub fn start(&self) -> Process {
        let mut command =
            self.command(&["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        let started = Instant::now();
        let child = command.stderr(Stdio::piped()).spawn();
        let mut child = child.expect("the binary starts; for some tests strace must be installed");
        let log = child.stderr.take().expect("a log");
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                eprintln!("{line}");
                let _ = tell.send(line);
            }
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let (public, admin, ready) = (nowhere, nowhere, Duration::ZERO);
        let mut process = Process { child, lines, public, admin, ready };
        process.public = process.address("is listening on ", "");
        process.admin = process.address("health: http://", "/healthz");
        eventually("readiness", || get(process.admin, "/readyz").is_some_and(|it| it == "ready\n"));
        process.ready = started.elapsed();
        process
    }

    /// A relay, or another command, that ends by itself.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary starts")
    }

    /// A figure of `sealpost queue stats`.
    pub fn stat(&self, name: &str) -> u64 {
        let output = self.run(&["queue", "stats"]);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
    }

    /// `sealpost queue verify` finds nothing wrong.
    pub fn is_sound(&self) {
        let output = self.run(&["queue", "verify"]);
        assert!(output.status.success(), "{output:?}");
    }
}

/// A running relay.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    pub public: SocketAddr,
    pub admin: SocketAddr,
    /// From the start of the process until it was ready.
    pub ready: Duration,
}

impl Process {
    /// Waits for a line of the log.
    pub fn says(&self, part: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("it never said: {part}"));
            if line.contains(part) {
                return line;
            }
        }
    }

    fn address(&self, before: &str, after: &str) -> SocketAddr {
        let line = self.says(before);
        let (_, rest) = line.split_once(before).expect("just found");
        rest.trim_end().trim_end_matches(after).parse().expect("an address")
    }

    /// `kill -9`.
    pub fn is_killed(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// SIGTERM; it ends well.
    pub fn stops(&mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
        assert_eq!(self.ends(), Some(0));
    }

    /// Waits for the end; its status.
    pub fn ends(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("the end of the process", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    /// What the relay says of itself; its books are right whenever one looks.
    pub fn health(&self) -> Value {
        let body = get(self.admin, "/healthz").expect("it answers");
        let health: Value = serde_json::from_str(&body).expect("health is JSON");
        let of = |name: &str| health[name].as_u64().unwrap_or_else(|| panic!("{name} in {health}"));
        let ended = of("delivered") + of("expired");
        assert_eq!(of("accepted"), ended + of("queued") + of("in_flight"), "{health}");
        health
    }

    /// A figure of /healthz.
    pub fn figure(&self, name: &str) -> u64 {
        self.health()[name].as_u64().expect("a number")
    }

    /// Waits until a figure of /healthz is so.
    pub fn has(&self, name: &str, value: u64) {
        eventually(&format!("{name} = {value}"), || self.figure(name) == value);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(admin: SocketAddr, path: &str) -> Option<String> {
    let mut socket = TcpStream::connect(admin).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

/// Looks again and again, until it is so. What is looked at tells nobody that it changed.
pub fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "{what}: not in time");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
