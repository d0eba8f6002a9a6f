//! README.md does what it says. Its conversation is held with a relay that is started as the README starts it; every
//! other block is checked as its kind can be. A block that nothing here knows fails.
//!
//! A comment above a block says what it is: `alice connects`, `alice types`, `alice reads`, `the relay prints`.
//! `alice leaves` stands without a block.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use clap::CommandFactory as _;
use futures_util::{SinkExt as _, StreamExt as _};
use sealpost::cli::Cli;
use sealpost::settings::{self, Settings};
use serde_json::Value;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// Longer than anything takes, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// What stands for something that the relay makes up.
const STAND_INS: &[&str] = &["ALICE", "BOB", "TOKEN"];
/// Where the README's relay listens.
const PUBLIC: &str = "127.0.0.1:8080";
const ADMIN: &str = "127.0.0.1:9090";

#[tokio::test]
async fn the_conversation_goes_as_written() {
    let relay = Relay::start();
    let mut known = HashMap::new();
    let mut sockets: HashMap<String, WebSocketStream<tokio::net::TcpStream>> = HashMap::new();
    let mut steps = 0;
    for piece in pieces() {
        let at = format!("README.md:{}: {}", piece.line, piece.comment);
        let Some((who, does)) = piece.comment.split_once(' ') else { continue };
        let socket = sockets.get_mut(who);
        match does {
            "connects" => {
                let tcp = tokio::net::TcpStream::connect(relay.public).await.expect(&at);
                let url = format!("ws://{}/ws", relay.public);
                let (socket, _) = tokio_tungstenite::client_async(url, tcp).await.expect(&at);
                let older = sockets.insert(who.to_owned(), socket);
                assert!(older.is_none(), "{at}: is connected already");
            }
            "types" => {
                let text = piece.text.trim_end();
                assert!(!text.contains('\n'), "{at}: a terminal sends each line as a message");
                let mut frame: Value = serde_json::from_str(text).expect(&at);
                replace(&mut frame, &|word| known.get(word).cloned());
                let text = text.to_owned();
                let text = known.iter().fold(text, |text, (word, value): (&String, &String)| {
                    text.replace(&format!("\"{word}\""), &format!("\"{value}\""))
                });
                assert_eq!(serde_json::from_str::<Value>(&text).expect(&at), frame);
                socket.expect(&at).send(Message::text(text)).await.expect(&at);
            }
            "reads" => {
                let heard = next(socket.expect(&at), &at).await;
                let mut promised: Value = serde_json::from_str(&piece.text).expect(&at);
                learn(&promised, &heard, &mut known);
                replace(&mut promised, &|word| known.get(word).cloned());
                assert_eq!(heard, promised, "{at}");
            }
            "leaves" => {
                let mut socket = sockets.remove(who).expect(&at);
                has_read_everything(&mut socket, &at).await;
                socket.close(None).await.expect(&at);
                while let Some(Ok(_)) = socket.next().await {}
            }
            _ => continue,
        }
        steps += 1;
    }
    for (who, mut socket) in sockets {
        has_read_everything(&mut socket, &format!("README.md: at the end, {who}")).await;
    }
    assert!(steps > 15, "the conversation was not found");
    assert!(STAND_INS.iter().all(|word| known.contains_key(*word)), "{known:?}");
}

#[test]
fn the_relay_prints_what_the_readme_shows() {
    let relay = Relay::start();
    let shown: Vec<Piece> =
        pieces().into_iter().filter(|piece| piece.comment == "the relay prints").collect();
    let [shown] = shown.as_slice() else { panic!("the README shows it once") };
    // Each line begins with its time.
    let without_time =
        |line: &str| line.split_once(' ').map_or(String::new(), |(_, rest)| rest.to_owned());
    let promised: Vec<String> = shown.text.lines().map(without_time).collect();
    let printed: Vec<String> = relay
        .printed
        .iter()
        .map(|line| without_time(line))
        .map(|line| line.replace(&relay.public.to_string(), PUBLIC))
        .map(|line| line.replace(&relay.admin.to_string(), ADMIN))
        .collect();
    assert_eq!(printed, promised);
}

/// Settings that are shown work, and all that is shown is needed.
#[test]
fn settings_that_are_shown_are_valid() {
    let mut seen = 0;
    for piece in pieces().iter().filter(|piece| piece.kind == "toml") {
        seen += 1;
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("settings.toml");
        fs::write(&file, &piece.text).expect("a file");
        let cli = Cli { config: Some(file.clone()), ..Cli::default() };
        let loaded = settings::load_from(&cli, Path::new("unused"), Vec::new());
        assert!(loaded.is_ok(), "README.md:{}: {loaded:?}", piece.line);
        let lines: Vec<&str> = piece.text.lines().filter(|line| line.contains(" = ")).collect();
        for line in lines.iter().filter(|line| !line.starts_with("message_bytes")) {
            fs::write(&file, piece.text.replace(line, "")).expect("a file");
            let loaded = settings::load_from(&cli, Path::new("unused"), Vec::new());
            assert!(loaded.is_err(), "README.md:{}: {line} is not needed", piece.line);
        }
    }
    assert!(seen > 0, "no settings are shown");
}

#[test]
fn every_command_is_one_that_works() {
    let relay = Relay::start();
    let mut main_commands = Vec::new();
    for piece in pieces().iter().filter(|piece| piece.kind == "sh") {
        for line in piece.text.replace("\\\n", " ").lines().filter(|line| !line.is_empty()) {
            let at = format!("README.md:{}: {line}", piece.line);
            let words: Vec<&str> = line.split_whitespace().collect();
            let split = words.iter().take_while(|word| is_assignment(word)).count();
            let (environment, command) = words.split_at(split);
            match command {
                ["cargo", "run", "--release"] => {
                    // `default-run` in Cargo.toml is the binary that the other tests here start.
                    let variables = environment.iter().filter_map(|word| word.split_once('='));
                    let variables = variables.map(|(k, v)| (OsString::from(k), OsString::from(v)));
                    let loaded =
                        settings::load_from(&Cli::default(), Path::new("unused"), variables);
                    assert!(loaded.is_ok(), "{at}: {loaded:?}");
                    if environment.is_empty() {
                        main_commands.push(line.to_owned());
                    }
                }
                ["cargo", "run", "--release", "--", option] => {
                    let ran = sealpost().arg(option).output().expect(&at);
                    assert!(ran.status.success() && !ran.stdout.is_empty(), "{at}: {ran:?}");
                }
                ["scripts/check"] => {
                    assert!(is_executable("scripts/check"), "{at}");
                    let ci = text_of(".ci/run");
                    assert_eq!(ci.lines().last(), Some("exec scripts/check"), "CI runs {line}");
                    main_commands.push(line.to_owned());
                }
                ["scripts/k6/run", name] => {
                    assert!(is_executable("scripts/k6/run"), "{at}");
                    let script = text_of(&format!("scripts/k6/{name}.js"));
                    let script = script + &text_of("scripts/k6/lib.js");
                    for variable in environment {
                        let name = variable.split('=').next().unwrap_or_default();
                        let reads = script.contains(&format!("__ENV.{name}"))
                            || script.contains(&format!("number('{name}'"));
                        assert!(reads, "{at}: the script does not read {name}");
                    }
                }
                ["npx", "--yes", "wscat", "--connect", url] => {
                    assert_eq!(*url, format!("ws://{PUBLIC}/ws"), "{at}");
                    assert!(piece.comment.ends_with(" connects"), "{at}: who connects?");
                }
                ["curl", url] => {
                    let path = url.strip_prefix(&format!("http://{ADMIN}")).expect(&at);
                    let answer = get(relay.admin, path);
                    assert!(answer.starts_with("HTTP/1.1 200"), "{at}: {answer}");
                }
                _ => panic!("{at}: a command that this test does not know"),
            }
        }
    }
    assert_eq!(main_commands, ["cargo run --release", "scripts/check"], "the two main commands");
}

#[test]
fn every_block_is_of_a_kind_that_is_checked() {
    for piece in pieces() {
        let Piece { line, comment, kind, text } = &piece;
        let says = comment.split_once(' ').map_or("", |(_, does)| does);
        let checked = match kind.as_str() {
            // The two tests above, and the conversation.
            "sh" => comment.is_empty() || says == "connects",
            "toml" => comment.is_empty(),
            "json" => matches!(says, "types" | "reads"),
            "text" => comment == "the relay prints",
            "nginx" => {
                let heartbeat = Settings::default().heartbeat.interval;
                let patience = text.split("proxy_read_timeout ").nth(1).unwrap_or_default();
                let patience = patience.split(';').next().unwrap_or_default();
                let patience = humantime::parse_duration(patience).expect("a duration");
                text.contains(&format!("proxy_pass http://{PUBLIC};"))
                    && text.contains("location /ws {")
                    && text.contains("X-Forwarded-For $proxy_add_x_forwarded_for;")
                    && text.matches('{').count() == text.matches('}').count()
                    && patience > 2 * heartbeat
            }
            "" => says == "leaves",
            _ => false,
        };
        assert!(checked, "README.md:{line}: nothing checks this `{kind}` block ({comment})");
    }
}

#[test]
fn what_the_readme_names_exists() {
    let readme = text_of("README.md");
    let defaults: toml::Table = settings::print(&Settings::default()).parse().expect("TOML");
    let command = Cli::command();
    for quoted in outside_blocks(&readme).split('`').skip(1).step_by(2) {
        if let Some((section, key)) = quoted.split([' ', '=']).next().unwrap_or("").split_once('.')
            && let Some(section) = defaults.get(section).and_then(toml::Value::as_table)
        {
            assert!(section.contains_key(key), "no setting {quoted}");
        }
        if let Some(assignment) =
            quoted.strip_prefix("SEALPOST__").filter(|rest| rest.contains('='))
        {
            let (name, value) = assignment.split_once('=').expect("just found");
            let variable = (format!("SEALPOST__{name}").into(), value.into());
            let loaded = settings::load_from(&Cli::default(), Path::new("unused"), [variable]);
            assert!(loaded.is_ok(), "{quoted}: {loaded:?}");
        }
        if let Some(option) = quoted.strip_prefix("--") {
            let known = command.get_arguments().any(|known| known.get_long() == Some(option));
            assert!(known, "no option {quoted}");
        }
    }
    for link in readme.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let file = link.split('#').next().unwrap_or_default();
        assert!(link.starts_with("https://") || root().join(file).exists(), "no {link}");
    }
    let default = Settings::default();
    assert_eq!(default.server.listen.to_string(), PUBLIC);
    assert_eq!(default.server.admin_listen.to_string(), ADMIN);
    assert!(
        readme.contains(&format!("Rust](https://rustup.rs) {}", env!("CARGO_PKG_RUST_VERSION")))
    );
}

/// Something of the README that is to be checked: a fenced block with the comment above it, or a comment alone.
struct Piece {
    line: usize,
    comment: String,
    kind: String,
    text: String,
}

fn pieces() -> Vec<Piece> {
    let readme = text_of("README.md");
    let mut found = Vec::new();
    let mut comment: Option<(usize, String)> = None;
    let mut open: Option<Piece> = None;
    for (number, line) in (1..).zip(readme.lines()) {
        if let Some(piece) = &mut open {
            if line == "```" {
                found.extend(open.take());
            } else {
                piece.text.push_str(line);
                piece.text.push('\n');
            }
        } else if let Some(kind) = line.strip_prefix("```") {
            let comment = comment.take().map_or(String::new(), |(_, comment)| comment);
            open = Some(Piece { line: number, comment, kind: kind.into(), text: String::new() });
        } else {
            assert!(!line.contains("```"), "README.md:{number}: begin blocks on their own line");
            if let Some((line, comment)) = comment.take() {
                let (kind, text) = (String::new(), String::new());
                found.push(Piece { line, comment, kind, text });
            }
            let said = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
            comment = said.map(|said| (number, said.to_owned()));
        }
    }
    assert!(open.is_none(), "README.md: a block without an end");
    found
}

fn outside_blocks(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// The relay as `cargo run --release` starts it, but for free ports; ends with the test.
struct Relay {
    child: Child,
    printed: Vec<String>,
    public: SocketAddr,
    admin: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Relay {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = sealpost()
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .current_dir(folder.path())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the relay starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it has one")).lines();
        let printed: Vec<String> =
            lines.by_ref().take(3).map(|line| line.expect("it is text")).collect();
        // What it says later is not waited for, but must find a reader.
        std::thread::spawn(move || lines.count());
        let after = |words: &str| {
            let found = printed.iter().find_map(|line| line.split(words).nth(1));
            let found = found.unwrap_or_else(|| panic!("no `{words}` in {printed:?}"));
            found.split('/').next().expect("an address").parse().expect("an address")
        };
        let (public, admin) = (after("listening on "), after("health: http://"));
        Self { child, printed, public, admin, _folder: folder }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary, in an environment that does not set it up otherwise.
fn sealpost() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealpost"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SEALPOST__") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    // Its queue must neither lie in the sources nor meet that of another test.
    static QUEUES: AtomicUsize = AtomicUsize::new(0);
    let queue = format!("readme-{}-{}", std::process::id(), QUEUES.fetch_add(1, Relaxed));
    command.env("SEALPOST__QUEUE__PATH", Path::new(env!("CARGO_TARGET_TMPDIR")).join(queue));
    command
}

async fn next(socket: &mut WebSocketStream<tokio::net::TcpStream>, at: &str) -> Value {
    loop {
        let next = tokio::time::timeout(PATIENCE, socket.next()).await.expect(at);
        match next.expect(at).expect(at) {
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Text(text) => return serde_json::from_str(&text).expect(at),
            other => panic!("{at}: {other:?}"),
        }
    }
}

/// The next frame is the answer to a Ping: frames of one connection keep their order.
async fn has_read_everything(socket: &mut WebSocketStream<tokio::net::TcpStream>, at: &str) {
    socket.send(Message::text(r#"{"type":"Ping"}"#)).await.expect(at);
    assert_eq!(next(socket, at).await, serde_json::json!({"type": "Pong"}), "{at}: has not read");
}

/// Takes from what was heard what a stand-in stands for.
fn learn(promised: &Value, heard: &Value, known: &mut HashMap<String, String>) {
    match (promised, heard) {
        (Value::String(word), Value::String(value)) if STAND_INS.contains(&word.as_str()) => {
            known.entry(word.clone()).or_insert_with(|| value.clone());
        }
        (Value::Object(promised), Value::Object(heard)) => {
            for (key, promised) in promised {
                learn(promised, heard.get(key).unwrap_or(&Value::Null), known);
            }
        }
        _ => {}
    }
}

/// Puts in for the stand-ins what they stand for; one that is not known yet fails.
fn replace(value: &mut Value, known: &dyn Fn(&str) -> Option<String>) {
    match value {
        Value::String(word) if STAND_INS.contains(&word.as_str()) => {
            *word = known(word).unwrap_or_else(|| panic!("nobody has heard yet what {word} is"));
        }
        Value::Object(fields) => fields.values_mut().for_each(|value| replace(value, known)),
        _ => {}
    }
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).expect("it listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    write!(socket, "GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    answer
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    })
}

fn is_executable(path: &str) -> bool {
    fs::metadata(root().join(path)).is_ok_and(|file| file.permissions().mode() & 0o111 != 0)
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text_of(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|failed| panic!("{path}: {failed}"))
}
