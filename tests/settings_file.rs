//! `settings.toml` is documentation that is read by machines: it must agree with the code.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sealpost::cli::Cli;
use sealpost::protocol::envelope::ENVELOPE_OVERHEAD;
use sealpost::settings::{Demo, Settings, load_from, print};

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("settings.toml")
}

fn text() -> String {
    fs::read_to_string(path()).expect("settings.toml is at the root of the repository")
}

/// `section.key` of everything in a TOML text of sections.
fn keys(toml: &str) -> BTreeSet<String> {
    let table: toml::Table = toml.parse().expect("TOML");
    let sections = table.iter().filter_map(|(section, keys)| Some((section, keys.as_table()?)));
    sections
        .flat_map(|(section, keys)| keys.keys().map(move |key| format!("{section}.{key}")))
        .collect()
}

#[test]
fn the_file_has_exactly_the_defaults() {
    let cli = Cli { config: Some(path()), ..Cli::default() };
    let loaded = load_from(&cli, Path::new("unused"), Vec::new());
    assert_eq!(loaded, Ok(Settings::default()));
}

/// The file is the default, so a change of the file alone would pass the test above. These promises stand in
/// docs/protocol.md.
#[test]
fn the_defaults_are_as_documented() {
    let settings = Settings::default();
    assert_eq!(settings.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.rate_limit.messages_per_minute.get(), 60);
    assert_eq!(settings.rate_limit.burst.get(), 60);
    assert_eq!(settings.limits.message_bytes, 64 * 1024);
    assert_eq!(settings.delivery.window, 64);
    assert_eq!((settings.queue.messages, settings.queue.bytes), (1_000, 16 * 1024 * 1024));
    assert_eq!(settings.queue.max_ttl.as_secs(), 7 * 86_400);
    assert_eq!(settings.queue.default_ttl.as_secs(), 86_400);
    assert_eq!(settings.session.plain_ttl.as_secs(), 3_600);
    assert_eq!(settings.heartbeat.interval.as_secs(), 25);
    assert_eq!(settings.heartbeat.timeout.as_secs(), 75);
    assert_eq!(settings.auth.exchange_ttl.as_secs(), 60);
    assert!(settings.queue.durable);
    assert_eq!(settings.server.demo, Demo::Auto);
}

#[test]
fn the_settings_know_what_a_message_counts_beside_its_frame() {
    assert_eq!(sealpost::settings::MESSAGE_OVERHEAD as u64, ENVELOPE_OVERHEAD);
}

#[test]
fn the_file_lists_every_key_and_no_other() {
    assert_eq!(keys(&text()), keys(&print(&Settings::default())));
}

#[test]
fn every_key_has_a_comment_of_one_sentence_above_it() {
    let text = text();
    let lines: Vec<&str> = text.lines().collect();
    for (above, line) in lines.iter().zip(lines.iter().skip(1)) {
        if line.is_empty() || line.starts_with(['#', '[']) {
            continue;
        }
        assert!(above.starts_with("# ") && above.ends_with('.'), "no sentence above: {line}");
    }
}

/// The comment marks with (*) what a reload takes over; the code decides that.
#[test]
fn the_file_marks_the_keys_that_a_reload_applies() {
    let text = text();
    let mut section = "";
    let mut above = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            let of_the_file = ["durable", "path", "commit_interval", "commit_batch"];
            let reloadable = matches!(section, "access" | "limits" | "rate_limit" | "tls")
                || (section == "queue" && !of_the_file.contains(&key))
                || matches!(
                    (section, key),
                    (
                        "server",
                        "trusted_proxies"
                            | "proxy_protocol"
                            | "allowed_origins"
                            | "hosts"
                            | "demo"
                            | "admin_token_file"
                    ) | ("log", "level")
                );
            assert_eq!(above.starts_with("# (*) "), reloadable, "{section}.{key}");
        }
        above = line;
    }
}
