//! docs/operations.md, the part on packages and proxies: what it tells an operator to type is run by a script, and what it
//! names exists.

use std::fs;
use std::path::Path;

use clap::Parser as _;
use sealpost::cli::Cli;
use sealpost::settings;

/// Every command of the section `Install`, and the words by which scripts/package runs it.
const COMMANDS: &[(&str, &str)] = &[
    ("apt install ./sealpost_0.1.0-1_amd64.deb", "apt -qq install -y"),
    (
        "sealpost --config /etc/sealpost/settings.toml --check-config",
        "sealpost --config /etc/sealpost/settings.toml --check-config",
    ),
    ("systemctl reload sealpost", "systemctl reload sealpost"),
    ("systemctl restart sealpost", "systemctl restart sealpost"),
    ("sealpost status", "in_system sealpost status"),
    ("systemctl stop sealpost", "systemctl stop sealpost"),
    ("systemctl enable --now sealpost.socket", "systemctl enable --now sealpost.socket"),
    ("systemctl start sealpost", "systemctl start sealpost"),
];

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|failed| panic!("{}: {failed}", path.display()))
}

fn install() -> String {
    let page = text("docs/operations.md");
    let section = page.split("\n## Install\n").nth(1).expect("a section");
    section.split("\n## ").next().unwrap_or_default().to_owned()
}

#[test]
fn every_command_of_an_installation_is_run_by_the_script_that_tries_the_package() {
    let (section, script) = (install(), text("scripts/package"));
    let blocks = section.split("```sh\n").skip(1);
    let lines = blocks.flat_map(|block| block.split("```").next().unwrap_or_default().lines());
    let mut found = 0;
    for line in lines {
        let run = COMMANDS.iter().find(|(command, _)| *command == line);
        let (_, words) = run.unwrap_or_else(|| panic!("nothing runs: {line}"));
        assert!(script.contains(words), "scripts/package does not: {words}");
        found += 1;
    }
    assert_eq!(found, COMMANDS.len());
}

#[test]
fn the_page_says_what_the_unit_says() {
    let (section, unit) = (install(), text("ops/systemd/sealpost.service"));
    for (said, line) in [
        ("524,288 descriptors", "LimitNOFILE=524288"),
        ("Every 30 seconds", "WatchdogSec=60"),
        ("five starts that fail within a minute", "StartLimitBurst=5"),
        ("Statuses 64 (command line) and 78 (settings)", "RestartPreventExitStatus=64 78"),
        ("ports below 1024", "CapabilityBoundingSet=CAP_NET_BIND_SERVICE"),
    ] {
        assert!(section.contains(said), "the page does not say: {said}");
        assert!(unit.contains(line), "the unit does not say: {line}");
    }
}

/// The settings of the package are valid, and few.
#[test]
fn the_settings_of_the_package_are_keys_of_settings_toml() {
    let all: toml::Table = text("settings.toml").parse().expect("TOML");
    let packaged: toml::Table = text("ops/debian/settings.toml").parse().expect("TOML");
    for (section, keys) in &packaged {
        for key in keys.as_table().expect("a section").keys() {
            assert!(all[section].get(key).is_some(), "no such setting: {section}.{key}");
        }
    }
}

#[test]
fn every_proxy_waits_longer_than_the_heartbeat_and_leads_to_the_default_address() {
    let settings: toml::Table = text("settings.toml").parse().expect("TOML");
    let listen = settings["server"]["listen"].as_str().expect("an address");
    let timeout = settings["heartbeat"]["timeout"].as_str().expect("a duration");
    let timeout = humantime::parse_duration(timeout).expect("a duration");
    let patience = |file: &str, key: &str| {
        let text = text(file);
        let value = text.split(key).nth(1).unwrap_or_else(|| panic!("{file}: no {key}"));
        let value = value.split([';', '\n']).next().unwrap_or_default().trim().to_owned();
        assert!(humantime::parse_duration(&value).expect("a duration") > timeout, "{file}: {key}");
    };
    patience("ops/proxy/nginx.conf", "proxy_read_timeout ");
    patience("ops/proxy/nginx.conf", "proxy_send_timeout ");
    patience("ops/proxy/haproxy.cfg", "timeout tunnel ");
    for file in ["nginx.conf", "Caddyfile", "haproxy.cfg", "traefik-sealpost.yaml"] {
        assert!(text(&format!("ops/proxy/{file}")).contains(listen), "{file} has no {listen}");
    }
}

#[test]
fn the_exit_statuses_of_the_page_are_those_of_the_binary() {
    let page = text("docs/operations.md");
    let table = page.split("| exit status | meaning |\n|---|---|\n").nth(1).expect("a table");
    let rows = table.lines().take_while(|line| line.starts_with("| "));
    let said: Vec<String> = rows.map(|row| row.replace('`', "")).collect();
    let real = sealpost::commands::EXIT_STATUSES.iter();
    let real: Vec<String> = real.map(|(code, text)| format!("| {code} | {text} |")).collect();
    assert_eq!(said, real);
}

/// The commands in backticks and in blocks of two pages, each as an operator would type it.
#[test]
fn every_command_of_the_pages_is_one_that_the_binary_takes() {
    let mut found = 0;
    for file in ["docs/operations.md", "docs/durability.md"] {
        let page = text(file);
        let mut commands = Vec::new();
        for (nth, block) in page.split("```").enumerate() {
            if nth % 2 == 0 {
                commands.extend(block.split('`').skip(1).step_by(2).map(str::to_owned));
            } else if let Some(block) = block.strip_prefix("sh\n") {
                commands.extend(block.lines().map(str::to_owned));
            }
        }
        for command in commands.iter().filter(|command| command.starts_with("sealpost ")) {
            let words = command.split_whitespace().map(|word| match word {
                "ID" => "d8f8a9b0-f6e1-4a2b-8d7c-1e9f0a1b2c3d",
                "ORIGIN" => "00000000000000ff",
                "SHELL" => "bash",
                "TIME" => "30d",
                word => word,
            });
            let parsed = Cli::try_parse_from(words);
            assert!(parsed.is_ok(), "{file}: {command}: {}", parsed.expect_err("it is wrong"));
            found += 1;
        }
    }
    assert!(found > 30, "only {found} commands were found");
}

#[test]
fn the_settings_of_the_page_are_valid() {
    let page = text("docs/operations.md");
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("settings.toml");
    let blocks = page.split("```toml\n").skip(1);
    let blocks: Vec<_> = blocks.filter_map(|block| block.split("```").next()).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        fs::write(&file, block).expect("written");
        let loaded = settings::load_from(&Cli::default(), &file, []);
        assert!(loaded.is_ok(), "{block}{}", loaded.expect_err("it is wrong"));
    }
}

/// Files that log whole sentences about one setting or the machine: the page has one row for all of them.
const SENTENCES: &[&str] =
    &["src/app/queue.rs", "src/logging.rs", "src/main.rs", "src/web/ingress.rs", "src/web/tls.rs"];

/// The messages of `source` from level info on: of each call the last literal, behind the fields.
fn log_messages(source: &str) -> Vec<String> {
    let calls = ["log::log!(", "log::info!(", "log::warn!(", "log::error!("]
        .into_iter()
        .flat_map(|call| source.split(call).skip(1));
    calls
        .map(|call| {
            let (mut depth, mut in_text, mut last, mut literal) =
                (1, false, String::new(), String::new());
            for c in call.chars() {
                match c {
                    '"' if in_text => (in_text, last) = (false, std::mem::take(&mut literal)),
                    '"' => in_text = true,
                    _ if in_text => literal.push(c),
                    '(' => depth += 1,
                    ')' if depth == 1 => break,
                    ')' => depth -= 1,
                    _ => {}
                }
            }
            last
        })
        .collect()
}

fn sources(directory: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with("tests") {
            continue;
        }
        if path.is_dir() {
            sources(&path, found);
        } else {
            let short =
                path.strip_prefix(env!("CARGO_MANIFEST_DIR")).expect("a file of this project");
            let all = fs::read_to_string(&path).expect("a source file");
            let code = all.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            found.push((short.display().to_string(), code.to_owned()));
        }
    }
}

#[test]
fn every_line_of_the_log_is_explained_and_is_text_that_does_not_vary() {
    let page = text("docs/operations.md");
    let table = page.split("What the relay itself has to say:").nth(1).expect("a table");
    let rows = table.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let mut rows: Vec<&str> = rows
        .take_while(|line| line.starts_with("| "))
        .flat_map(|row| row.split(" | ").next().unwrap_or_default().split('`').skip(1).step_by(2))
        .collect();
    let (mut files, mut logged) = (Vec::new(), Vec::new());
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    for (file, source) in files {
        for message in log_messages(&source) {
            if message.contains('{') {
                assert!(
                    SENTENCES.contains(&&*file) && message.ends_with('}') && !message.contains(' '),
                    "{file}: what varies belongs into fields: {message}"
                );
                continue;
            }
            assert!(rows.contains(&&*message), "docs/operations.md does not explain: {message}");
            logged.push(message);
        }
    }
    rows.retain(|row| !logged.iter().any(|message| message == row));
    assert!(rows.is_empty(), "nothing logs what docs/operations.md explains: {rows:?}");
}
