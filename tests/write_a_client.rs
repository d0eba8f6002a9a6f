//! The program of docs/write-a-client.md does what the page says, with the real relay, Python and the library that it names.

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

use support::binary::sealpost;
use support::{Binary, PATIENCE, skip};

const PAGE: &str = include_str!("../docs/write-a-client.md");

/// The version that the test installs.
const LIBRARY: &str = "websockets==17.4";

fn program() -> &'static str {
    let (_, after) =
        PAGE.split_once("<!-- program -->\n```python\n").expect("the program is there");
    after.split_once("\n```\n").expect("the program ends").0
}

#[test]
fn the_program_has_sixty_lines() {
    let lines = program().lines().count();
    assert!(lines <= 60, "{lines} lines");
}

#[tokio::test]
async fn a_chat_loses_and_doubles_nothing_when_programs_and_relay_are_killed() {
    let Some(python) = python() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("client.py"), program()).expect("room");
    let mut relay = start_relay(&directory, None).await;
    let address = relay.public.to_string();
    let start = |state| Chat::start(&python, directory.path(), &address, state);

    let (mut alice, mut bob) = (start("alice.json").await, start("bob.json").await);
    let (from_alice, to_bob) = (alice.id.clone(), bob.id.clone());
    alice.types(&format!("{to_bob} one")).await;
    bob.reads(&format!("{from_alice} one")).await;
    alice.has_processed(1).await;
    bob.types(&format!("{from_alice} and one back")).await;
    alice.reads(&format!("{to_bob} and one back")).await;
    bob.has_processed(1).await;

    // Bob is away, and the relay dies with the message on its disk.
    drop(bob);
    alice.types(&format!("{to_bob} two")).await;
    while !alice.line().await.ends_with(" queued") {}
    relay.kill();
    // What is typed while there is no relay waits in the file of the program, which dies, too.
    alice.types(&format!("{to_bob} three")).await;
    alice.has_stored("three").await;
    let processed = std::mem::take(&mut alice.processed);
    drop(alice);

    let relay = start_relay(&directory, Some(&address)).await;
    let mut alice = start("alice.json").await;
    assert_eq!(alice.id, from_alice);
    let mut bob = start("bob.json").await;
    assert_eq!(bob.id, to_bob);
    bob.reads(&format!("{from_alice} two")).await;
    bob.reads(&format!("{from_alice} three")).await;
    // A receipt may come again, so it is the ids that count.
    alice.processed = processed;
    alice.has_processed(3).await;

    // A relay that comes back finds both again; nothing of what was came twice in between.
    drop(relay);
    let _relay = start_relay(&directory, Some(&address)).await;
    alice.types(&format!("{to_bob} four")).await;
    alice.reads(&format!("I am {from_alice}")).await;
    alice.has_processed(4).await;
    bob.reads(&format!("I am {to_bob}")).await;
    bob.reads(&format!("{from_alice} four")).await;
}

#[tokio::test]
async fn a_chat_whose_device_is_forgotten_becomes_a_new_one() {
    let Some(python) = python() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("client.py"), program()).expect("room");
    let state = format!(r#"{{"token": "{}", "outbox": {{}}, "seen": []}}"#, "0".repeat(64));
    std::fs::write(directory.path().join("alice.json"), state).expect("room");
    let relay = start_relay(&directory, None).await;
    let address = relay.public.to_string();
    let mut alice = Chat::start(&python, directory.path(), &address, "alice.json").await;
    let myself = alice.id.clone();
    alice.types(&format!("{myself} a note")).await;
    alice.reads(&format!("{myself} a note")).await;
}

/// A relay whose queue is in the directory, on a free port or at this address.
async fn start_relay(directory: &TempDir, address: Option<&str>) -> Binary {
    let mut command = sealpost(directory.path());
    command.args(["--listen", address.unwrap_or("127.0.0.1:0"), "--admin-listen", "127.0.0.1:0"]);
    command.env("SEALPOST__QUEUE__PATH", "queue");
    Binary::start(command).await
}

/// The Python of a virtual environment with the library; `None` if this system has none and cannot get it.
fn python() -> Option<PathBuf> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(LIBRARY.replace("==", "-"));
    let python = place.join("bin/python");
    let is_there = || run(Command::new(&python).args(["-c", "import websockets.asyncio.client"]));
    // Two tests may come here at once.
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().expect("nobody panicked");
    let is_ready = is_there()
        || run(Command::new("python3").args(["-m", "venv"]).arg(&place))
            && run(Command::new(&python).args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                LIBRARY,
            ]))
            && is_there();
    if !is_ready {
        skip(&format!("python3 with venv and {LIBRARY} is not to be had"));
    }
    is_ready.then_some(python)
}

fn run(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|it| it.success())
}

/// A running program of the page.
struct Chat {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    state: PathBuf,
    id: String,
    /// Ids of messages that this chat has sent and whose recipient has confirmed them.
    processed: BTreeSet<String>,
}

impl Chat {
    /// Starts the program, and waits until it is registered. It is killed when it is dropped.
    async fn start(python: &Path, directory: &Path, address: &str, state: &str) -> Self {
        let mut command = tokio::process::Command::new(python);
        command.args(["client.py", &format!("ws://{address}/ws"), state]).current_dir(directory);
        // A proxy in the environment has no say on the loopback.
        command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("python starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let (state, id, processed) = (directory.join(state), String::new(), BTreeSet::new());
        let mut chat = Self { child, lines, state, id, processed };
        let line = chat.line().await;
        chat.id = line.strip_prefix("I am ").unwrap_or_else(|| panic!("{line}")).to_owned();
        chat
    }

    async fn types(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        stdin.write_all(format!("{line}\n").as_bytes()).await.expect("the program reads");
        stdin.flush().await.expect("the program reads");
    }

    /// The next line that the program prints.
    async fn line(&mut self) -> String {
        let line = timeout(PATIENCE, self.lines.next_line()).await.expect("a line in time");
        line.expect("UTF-8").expect("the program runs")
    }

    /// The next line must be this one; receipts may come between.
    async fn reads(&mut self, expected: &str) {
        loop {
            let line = self.line().await;
            if !self.takes_receipt(&line) {
                return assert_eq!(line, expected);
            }
        }
    }

    /// Waits until this number of messages was confirmed; nothing but receipts may come.
    async fn has_processed(&mut self, count: usize) {
        while self.processed.len() < count {
            let line = self.line().await;
            assert!(self.takes_receipt(&line), "{line}");
        }
        assert_eq!(self.processed.len(), count);
    }

    fn takes_receipt(&mut self, line: &str) -> bool {
        match line.split_once(' ') {
            Some((id, "processed")) => {
                self.processed.insert(id.to_owned());
                true
            }
            Some((_, "queued")) => true,
            _ => false,
        }
    }

    /// Waits until the file of the program has this text.
    async fn has_stored(&self, text: &str) {
        support::eventually("the file of the program", async || {
            std::fs::read_to_string(&self.state).is_ok_and(|state| state.contains(text))
        })
        .await;
    }
}
