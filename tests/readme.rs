//! README.md and the pages it leads a newcomer to are true. Their conversation is held with a relay that is started as they start
//! it; every other block is checked as its kind allows. A block of unknown kind fails.
//!
//! A comment above a block names its kind: `alice connects`, `alice types`, `alice reads`, `the relay prints`.
//! `alice leaves` stands without a block.

mod support;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use sealpost::cli::Cli;
use sealpost::settings::{self, Settings};
use serde_json::Value;

use support::binary::sealpost;
use support::operator::Operator;
use support::{Binary, Device, http};

/// The pages that are checked here.
const PAGES: &[&str] = &["README.md", "docs/start.md", "docs/settings.md", "docs/testing.md"];
/// Placeholders for values that the relay chooses.
const PLACEHOLDERS: &[&str] = &["ALICE", "BOB", "TOKEN"];
/// Where the README's relay listens.
const PUBLIC: &str = "127.0.0.1:8080";
const ADMIN: &str = "127.0.0.1:9090";
/// Where the README's relay keeps its queue.
const QUEUE: &str = "/home/you/sealpost/data";

#[tokio::test]
async fn the_conversation_goes_as_written() {
    let relay = Binary::with(&[]).await;
    let mut known = HashMap::new();
    let mut devices: HashMap<String, Device> = HashMap::new();
    let mut steps = 0;
    for piece in pieces() {
        let at = format!("{}: {}", piece.at(), piece.comment);
        // Shown when the step fails.
        eprintln!("{at}");
        let Some((who, does)) = piece.comment.split_once(' ') else { continue };
        let device = devices.get_mut(who);
        match does {
            "connects" => {
                let older = devices.insert(who.to_owned(), Device::connect(&relay).await);
                assert!(older.is_none(), "{at}: is connected already");
            }
            "types" => {
                let text = piece.text.trim_end();
                assert!(!text.contains('\n'), "{at}: a terminal sends each line as a message");
                let mut frame: Value = serde_json::from_str(text).expect(&at);
                replace(&mut frame, &|placeholder| known.get(placeholder).cloned());
                let text = text.to_owned();
                let text =
                    known.iter().fold(text, |text, (placeholder, value): (&String, &String)| {
                        text.replace(&format!("\"{placeholder}\""), &format!("\"{value}\""))
                    });
                assert_eq!(serde_json::from_str::<Value>(&text).expect(&at), frame);
                device.expect(&at).send_text(&text).await;
            }
            "reads" => {
                let received = device.expect(&at).receive_any().await;
                let mut promised: Value = serde_json::from_str(&piece.text).expect(&at);
                learn(&promised, &received, &mut known);
                replace(&mut promised, &|placeholder| known.get(placeholder).cloned());
                assert_eq!(received, promised, "{at}");
            }
            "leaves" => {
                let mut device = devices.remove(who).expect(&at);
                device.expect_nothing().await;
                device.close().await;
            }
            _ => continue,
        }
        steps += 1;
    }
    for mut device in devices.into_values() {
        device.expect_nothing().await;
    }
    assert!(steps > 15, "the conversation was not found");
    assert!(PLACEHOLDERS.iter().all(|placeholder| known.contains_key(*placeholder)), "{known:?}");
}

#[tokio::test]
async fn the_relay_prints_what_the_readme_shows() {
    let relay = Binary::with(&[]).await;
    let shown: Vec<Piece> =
        pieces().into_iter().filter(|piece| piece.comment == "the relay prints").collect();
    let [shown] = shown.as_slice() else { panic!("it is shown once") };
    // Each line begins with its time.
    let without_time =
        |line: &str| line.split_once(' ').map_or(String::new(), |(_, rest)| rest.to_owned());
    let promised: Vec<String> = shown.text.lines().map(without_time).collect();
    let printed: Vec<String> = relay
        .log
        .lines()
        .map(without_time)
        .map(|line| line.replace(&relay.public.to_string(), PUBLIC))
        .map(|line| line.replace(&relay.admin.to_string(), ADMIN))
        .map(|line| match line.split_once("queue: ") {
            Some((before, path)) if path.starts_with('/') && path.ends_with("/data") => {
                format!("{before}queue: {QUEUE}")
            }
            _ => line,
        })
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
        assert!(loaded.is_ok(), "{}: {loaded:?}", piece.at());
        let lines: Vec<&str> = piece.text.lines().filter(|line| line.contains(" = ")).collect();
        for line in lines.iter().filter(|line| !line.starts_with("message_bytes")) {
            fs::write(&file, piece.text.replace(line, "")).expect("a file");
            let loaded = settings::load_from(&cli, Path::new("unused"), Vec::new());
            assert!(loaded.is_err(), "{}: {line} is not needed", piece.at());
        }
    }
    assert!(seen > 0, "no settings are shown");
}

#[tokio::test]
async fn every_command_works() {
    let relay = Binary::with(&[]).await;
    let mut main_commands = Vec::new();
    let tokens = tempfile::tempdir().expect("a folder");
    for piece in pieces().iter().filter(|piece| piece.kind == "sh") {
        for line in piece.text.replace("\\\n", " ").lines().filter(|line| !line.is_empty()) {
            let at = format!("{}: {line}", piece.at());
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
                ["cargo", "run", "--release", "--", what @ ("status" | "device"), rest @ ..] => {
                    let args = [&[*what][..], rest].concat();
                    let printed = Operator::of(relay.admin).prints(&args).await;
                    assert!(!printed.is_empty(), "{at}");
                }
                ["cargo", "run", "--release", "--", option] => {
                    let folder = tempfile::tempdir().expect("a folder");
                    // The README's ports may be in use where this test runs.
                    let free = ("SEALPOST__SERVER__LISTEN", "SEALPOST__SERVER__ADMIN_LISTEN");
                    let mut command = sealpost(folder.path());
                    command.env(free.0, "127.0.0.1:0").env(free.1, "127.0.0.1:0");
                    let ran = command.arg(option).output().expect(&at);
                    assert!(ran.status.success() && !ran.stdout.is_empty(), "{at}: {ran:?}");
                }
                ["cargo", "run", "--release", "--", "token", rest @ ..] => {
                    let ran = sealpost(tokens.path()).arg("token").args(rest).output();
                    let ran = ran.expect(&at);
                    assert!(ran.status.success(), "{at}: {ran:?}");
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
                    let answer = http::get(relay.admin, path).await;
                    assert_eq!(answer.status, 200, "{at}: {answer:?}");
                }
                _ => panic!("{at}: a command that this test does not know"),
            }
        }
    }
    for command in ["cargo run --release", "scripts/check"] {
        assert!(text_of("README.md").contains(&format!("```sh\n{command}\n```")), "{command}");
        assert!(main_commands.iter().any(|found| found == command), "{command}");
    }
}

#[test]
fn every_block_is_of_a_kind_that_is_checked() {
    for piece in pieces() {
        let Piece { comment, kind, text, .. } = &piece;
        let action = comment.split_once(' ').map_or("", |(_, does)| does);
        let checked = match kind.as_str() {
            // The two tests above, and the conversation.
            "sh" => comment.is_empty() || action == "connects",
            "toml" => comment.is_empty(),
            "json" => matches!(action, "types" | "reads"),
            "text" => comment == "the relay prints",
            "" => action == "leaves",
            // scripts/check runs the file.
            "js" | "python" => {
                comment.strip_prefix("as in ").is_some_and(|file| text_of(file) == *text)
            }
            _ => false,
        };
        assert!(checked, "{}: nothing checks this `{kind}` block ({comment})", piece.at());
    }
}

#[test]
fn every_name_exists() {
    for page in PAGES {
        names_exist(page);
    }
    let default = Settings::default();
    assert_eq!(default.server.listen.to_string(), PUBLIC);
    assert_eq!(default.server.admin_listen.to_string(), ADMIN);
    assert!(
        text_of("README.md")
            .contains(&format!("Rust](https://rustup.rs) {}", env!("CARGO_PKG_RUST_VERSION")))
    );
}

fn names_exist(page: &str) {
    let text = text_of(page);
    let defaults: toml::Table = settings::print(&Settings::default()).parse().expect("TOML");
    let command = Cli::command();
    for quoted in outside_blocks(&text).split('`').skip(1).step_by(2) {
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
    for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let file = link.split('#').next().unwrap_or_default();
        let folder = root().join(page).with_file_name("");
        let exists = file.is_empty() || folder.join(file).exists();
        assert!(link.starts_with("https://") || exists, "{page}: no {link}");
    }
}

/// Something that is to be checked: a fenced block with the comment above it, or a comment alone.
struct Piece {
    page: &'static str,
    line: usize,
    comment: String,
    kind: String,
    text: String,
}

impl Piece {
    fn at(&self) -> String {
        format!("{}:{}", self.page, self.line)
    }
}

fn pieces() -> Vec<Piece> {
    PAGES.iter().flat_map(|page| pieces_of(page)).collect()
}

fn pieces_of(page: &'static str) -> Vec<Piece> {
    let content = text_of(page);
    let mut found = Vec::new();
    let mut comment: Option<(usize, String)> = None;
    let mut open: Option<Piece> = None;
    for (number, line) in (1..).zip(content.lines()) {
        if let Some(piece) = &mut open {
            if line == "```" {
                found.extend(open.take());
            } else {
                piece.text.push_str(line);
                piece.text.push('\n');
            }
        } else if let Some(kind) = line.strip_prefix("```") {
            let comment = comment.take().map_or(String::new(), |(_, comment)| comment);
            open =
                Some(Piece { page, line: number, comment, kind: kind.into(), text: String::new() });
        } else {
            assert!(!line.contains("```"), "{page}:{number}: begin blocks on their own line");
            if let Some((line, comment)) = comment.take() {
                let (kind, text) = (String::new(), String::new());
                found.push(Piece { page, line, comment, kind, text });
            }
            let text = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
            comment = text.map(|text| (number, text.to_owned()));
        }
    }
    assert!(open.is_none(), "{page}: a block without an end");
    found
}

fn outside_blocks(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// Takes the values of placeholders from a received frame.
fn learn(promised: &Value, received: &Value, known: &mut HashMap<String, String>) {
    match (promised, received) {
        (Value::String(placeholder), Value::String(value))
            if PLACEHOLDERS.contains(&placeholder.as_str()) =>
        {
            known.entry(placeholder.clone()).or_insert_with(|| value.clone());
        }
        (Value::Object(promised), Value::Object(received)) => {
            for (key, promised) in promised {
                learn(promised, received.get(key).unwrap_or(&Value::Null), known);
            }
        }
        _ => {}
    }
}

/// Replaces placeholders by their values; one without a known value fails.
fn replace(value: &mut Value, known: &dyn Fn(&str) -> Option<String>) {
    match value {
        Value::String(placeholder) if PLACEHOLDERS.contains(&placeholder.as_str()) => {
            *placeholder =
                known(placeholder).unwrap_or_else(|| panic!("{placeholder} has no value yet"));
        }
        Value::Object(fields) => fields.values_mut().for_each(|value| replace(value, known)),
        _ => {}
    }
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
