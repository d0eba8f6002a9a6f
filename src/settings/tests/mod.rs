//! Every rule of the settings, tried by the function that the relay calls, with the test's own variables.

mod names;
mod reload;

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use super::*;
use crate::cli::Cli;

/// The settings of `file` and `variables`, without a command line.
fn load_with(file: &str, variables: &[(&str, &str)]) -> Result<Settings, Problems> {
    load_all(file, variables, &Cli::default())
}

fn load_all(file: &str, variables: &[(&str, &str)], cli: &Cli) -> Result<Settings, Problems> {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("settings.toml");
    fs::write(&path, file).expect("the folder can be written");
    let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
    load_from(cli, &path, variables)
}

/// The settings of a valid file.
fn settings(file: &str) -> Settings {
    load_with(file, &[]).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The problems of a file, a line each.
fn problems(file: &str) -> Vec<String> {
    problems_with(file, &[])
}

fn problems_with(file: &str, variables: &[(&str, &str)]) -> Vec<String> {
    match load_with(file, variables) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.to_string().lines().map(str::to_owned).collect(),
    }
}

/// A file with one key.
fn only(key: &str, value: &str) -> String {
    let (section, name) = key.split_once('.').expect("section.key");
    format!("[{section}]\n{name} = {value}\n")
}

#[test]
fn without_file_variables_and_flags_the_defaults_hold() {
    let nowhere = Path::new("/nonexistent/settings.toml");
    let loaded = load_from(&Cli::default(), nowhere, Vec::new());
    assert_eq!(loaded, Ok(Settings::default()));
    assert_eq!(load_with("", &[]), Ok(Settings::default()));
}

#[test]
fn the_defaults_do_not_contradict_each_other() {
    assert!(check::contradictions(&Settings::default(), &Problems::default()).is_empty());
}

#[test]
fn a_key_of_the_file_wins_over_the_default_and_leaves_the_others() {
    let settings = settings("[limits]\nstrikes = 3\n");
    let mut expected = Settings::default();
    expected.limits.strikes = 3;
    assert_eq!(settings, expected);
}

#[test]
fn the_environment_wins_over_the_file_and_the_command_line_over_both() {
    let file = "[server]\nlisten = \"127.0.0.1:1\"\nadmin_listen = \"127.0.0.1:2\"\nworkers = 3\n";
    let variables = [
        ("SEALPOST__SERVER__LISTEN", "127.0.0.1:11"),
        ("SEALPOST__SERVER__ADMIN_LISTEN", "127.0.0.1:12"),
    ];
    let cli = Cli { listen: Some("127.0.0.1:21".to_owned()), ..Cli::default() };
    let server = load_all(file, &variables, &cli).expect("nothing is wrong").server;
    assert_eq!(server.listen.port(), 21);
    assert_eq!(server.admin_listen.tcp().map(|address| address.port()), Some(12));
    assert_eq!(server.workers, 3);
}

#[test]
fn every_key_can_be_set_by_the_environment() {
    let printed: toml::Table = print(&Settings::default()).parse().expect("TOML");
    let variables: Vec<(OsString, OsString)> = KEYS
        .iter()
        .map(|(section, key)| {
            let value = match &printed[*section][*key] {
                toml::Value::String(text) => text.clone(),
                toml::Value::Array(_) => String::new(),
                other => other.to_string(),
            };
            let name = format!("SEALPOST__{}__{}", section.to_uppercase(), key.to_uppercase());
            (name.into(), value.into())
        })
        .collect();
    let nowhere = Path::new("/nonexistent/settings.toml");
    assert_eq!(load_from(&Cli::default(), nowhere, variables), Ok(Settings::default()));
}

#[test]
fn values_of_the_environment_are_read_by_the_type_of_their_key() {
    let settings = load_with(
        "",
        &[
            ("SEALPOST__LIMITS__MESSAGE_BYTES", "65537"),
            ("SEALPOST__LIMITS__STRIKES", "007"),
            ("SEALPOST__LOG__LEVEL", "sealpost=debug,info"),
            ("SEALPOST__QUEUE__SENDER_SHARE", "1"),
            ("SEALPOST__HEARTBEAT__INTERVAL", "1m 5s"),
            ("SEALPOST__SERVER__TRUSTED_PROXIES", "10.1.2.3/8, fd00::/8 ,192.0.2.7"),
            ("SEALPOST__SERVER__ALLOWED_ORIGINS", "https://a.example,HTTP://B.example:8080"),
        ],
    )
    .expect("nothing is wrong");
    assert_eq!(settings.limits.message_bytes, 65_537);
    assert_eq!(settings.limits.strikes, 7);
    assert_eq!(settings.log.level, "sealpost=debug,info");
    assert_eq!(settings.queue.sender_share, 1.0);
    assert_eq!(settings.heartbeat.interval, Duration::from_secs(65));
    let proxies: Vec<String> =
        settings.server.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(proxies, ["10.0.0.0/8", "fd00::/8", "192.0.2.7/32"]);
    assert_eq!(settings.server.allowed_origins, ["https://a.example", "http://b.example:8080"]);
}

#[test]
fn an_empty_variable_empties_a_list_and_is_refused_elsewhere() {
    let file = only("server.trusted_proxies", "[\"10.0.0.0/8\"]");
    let settings = load_with(&file, &[("SEALPOST__SERVER__TRUSTED_PROXIES", "")]).expect("fine");
    assert!(settings.server.trusted_proxies.is_empty());
    assert_eq!(
        problems_with("", &[("SEALPOST__LIMITS__STRIKES", "")]),
        ["limits.strikes = \"\": must be a whole number between 1 and 1000"]
    );
}

#[test]
fn an_unknown_variable_is_refused_by_its_name_with_the_one_that_was_meant() {
    assert_eq!(
        problems_with(
            "",
            &[
                ("SEALPOST__LIMITS__MESAGE_BYTES", "1"),
                ("SEALPOST__LIMITS", "1"),
                ("SEALPOST__", "1"),
                ("SEALPOST__LIMITS__STRIKES__MORE", "1"),
                ("SEALPOST__limits__strikes", "1"),
                ("SEALPOST__LIMITS[0]", "1"),
            ]
        ),
        [
            "SEALPOST__: unknown variable",
            "SEALPOST__LIMITS: unknown variable",
            "SEALPOST__LIMITS[0]: unknown variable",
            "SEALPOST__LIMITS__MESAGE_BYTES: unknown variable; did you mean SEALPOST__LIMITS__MESSAGE_BYTES?",
            "SEALPOST__LIMITS__STRIKES__MORE: unknown variable",
            "SEALPOST__limits__strikes: unknown variable; did you mean SEALPOST__LIMITS__STRIKES?",
        ]
    );
}

#[test]
fn variables_without_the_prefix_are_ignored() {
    let others = [
        ("SEALPOST_PORT", "tcp://10.0.0.1:80"),
        ("RUST_LOG", "x"),
        ("sealpost__limits__strikes", "1"),
    ];
    assert_eq!(load_with("", &others), Ok(Settings::default()));
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_text_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let variable = ("SEALPOST__LOG__LEVEL".into(), OsString::from_vec(vec![0xff]));
    let problems =
        load_from(&Cli::default(), Path::new("/nonexistent"), [variable]).expect_err("no text");
    assert_eq!(problems.to_string(), "SEALPOST__LOG__LEVEL: must be text in UTF-8");
}

#[test]
fn an_unknown_key_is_refused_by_its_name_with_the_one_that_was_meant() {
    let file = "frobnicate = 1\nmessage_bytes = 1\n[limit]\nstrikes = 1\n[limits]\nmesage_bytes = 1\n\
                Strikes = 2\n[queue]\nwindow = 3\nzzz = { a = 1 }\n";
    let mut found = problems(file);
    found.sort();
    assert_eq!(
        found,
        [
            "frobnicate: unknown key",
            "limit: unknown key; did you mean the section limits?",
            "limits.Strikes: unknown key; did you mean limits.strikes?",
            "limits.mesage_bytes: unknown key; did you mean limits.message_bytes?",
            "message_bytes: unknown key; did you mean limits.message_bytes?",
            "queue.window: unknown key; did you mean delivery.window?",
            "queue.zzz: unknown key",
        ]
    );
}

#[test]
fn a_key_that_is_a_path_in_disguise_is_refused_and_does_no_harm() {
    assert_eq!(problems("\"limits[99999999999]\" = 1\n\"limits.strikes\" = 2\n").len(), 2);
}

#[test]
fn a_key_cannot_break_the_line_of_its_problem() {
    let found = problems("\"a\\n\\u001b[2Jb\" = 1\n");
    assert_eq!(found, ["a\\n\\u{1b}[2Jb: unknown key"]);
}

#[test]
fn all_problems_are_listed_at_once_and_wrong_types_hide_nothing() {
    let file = "surprise = 1\n[server]\nlisten = \"localhost:8080\"\nworkers = \"many\"\n\
                [limits]\nmessage_bytes = 0\nstrikes = [1]\nconnections = -1\n\
                [heartbeat]\ninterval = \"60s\"\ntimeout = \"30s\"\n\
                [queue]\nsender_share = true\n[sweeper]\ninterval = 5\n";
    assert_eq!(
        problems_with(file, &[("SEALPOST__LOG__FORMAT", "xml"), ("SEALPOST__X", "1")]),
        [
            "surprise: unknown key",
            "SEALPOST__X: unknown variable",
            "server.listen = \"localhost:8080\": must be an IP address with a port, such as \"127.0.0.1:8080\" \
             or \"[::1]:8080\"",
            "server.workers = \"many\": must be a whole number between 1 and 1024",
            "log.format = \"xml\": must be \"text\" or \"json\"",
            "limits.connections = -1: must be between 1 and 10000000",
            "limits.message_bytes = 0: must be between 1 KiB and 16 MiB",
            "limits.strikes = [1]: must be a whole number between 1 and 1000",
            "queue.sender_share = true: must be a number above 0 and at most 1",
            "sweeper.interval = 5: must be a time between 10ms and 1m, written like \"30s\" or \"1h 30m\"",
            "heartbeat.timeout = 30s: must be longer than heartbeat.interval (1m), or no answer can come in time",
        ]
    );
}

#[test]
fn a_section_that_is_none_is_one_problem_and_hides_nothing() {
    assert_eq!(
        problems(
            "limits = 5\n[[queue]]\nmessages = 1\n[log]\nformat = 7\n[delivery]\nbytes = \"1 KiB\"\n"
        ),
        [
            "limits = 5: must be a section, begun by a line [limits]",
            "queue = [{ messages = 1 }]: must be a section, begun by a line [queue]",
            "log.format = 7: must be \"text\" or \"json\"",
        ]
    );
}

#[test]
fn every_number_refuses_zero_negative_huge_fractions_and_other_types() {
    for key in keys_like(toml::Value::is_integer) {
        for bad in [
            "0",
            "-1",
            "9223372036854775807",
            "1.5",
            "true",
            "\"\"",
            "\"many\"",
            "[]",
            "1979-05-27",
        ] {
            let found = problems(&only(&key, bad));
            assert!(
                found.iter().any(|line| line.starts_with(&format!("{key} = "))),
                "{key} = {bad}: {found:?}"
            );
        }
    }
}

#[test]
fn every_time_refuses_zero_negative_huge_unitless_and_other_types() {
    for key in keys_like(|value| {
        value.as_str().is_some_and(|text| humantime::parse_duration(text).is_ok())
    }) {
        for bad in [
            "\"0s\"",
            "\"-1s\"",
            "\"1000years\"",
            "\"99999999999999999999s\"",
            "\"10\"",
            "10",
            "1.5",
            "[]",
            "\"\"",
        ] {
            let found = problems(&only(&key, bad));
            assert!(
                found.iter().any(|line| line.starts_with(&format!("{key} = "))),
                "{key} = {bad}: {found:?}"
            );
        }
    }
}

#[test]
fn every_size_refuses_zero_negative_huge_and_other_types() {
    for key in keys_like(|value| value.as_str().is_some_and(|text| text.ends_with("iB"))) {
        for bad in [
            "0",
            "\"0 KiB\"",
            "-1",
            "\"-1 KiB\"",
            "\"9 EiB\"",
            "\"99999999999999999999 EiB\"",
            "1.5",
            "\"KiB\"",
        ] {
            let found = problems(&only(&key, bad));
            assert!(
                found.iter().any(|line| line.starts_with(&format!("{key} = "))),
                "{key} = {bad}: {found:?}"
            );
        }
    }
}

fn keys_like(is_meant: impl Fn(&toml::Value) -> bool) -> Vec<String> {
    let printed: toml::Table = print(&Settings::default()).parse().expect("TOML");
    let keys: Vec<String> = KEYS
        .iter()
        .filter(|(section, key)| is_meant(&printed[*section][*key]))
        .map(|(section, key)| format!("{section}.{key}"))
        .collect();
    assert!(keys.len() >= 5, "{keys:?}");
    keys
}

#[test]
fn the_share_of_a_sender_is_above_zero_and_at_most_one() {
    for bad in ["0", "0.0", "-0.1", "1.01", "2", "nan", "inf", "\"half\"", "\"NaN\""] {
        assert_eq!(problems(&only("queue.sender_share", bad)).len(), 1, "{bad}");
    }
    assert_eq!(settings(&only("queue.sender_share", "1")).queue.sender_share, 1.0);
}

#[test]
fn sizes_are_read_with_and_without_units() {
    for (written, bytes) in [
        ("65536", 65_536),
        ("\"65536\"", 65_536),
        ("\"64 KiB\"", 65_536),
        ("\"64kb\"", 64_000),
        ("\"0.5 MiB\"", 524_288),
    ] {
        let file = format!(
            "[limits]\nmessage_bytes = {written}\nframe_bytes = \"1 MiB\"\n[delivery]\nbytes = \"1 MiB\"\n"
        );
        assert_eq!(settings(&file).limits.message_bytes, bytes, "{written}");
    }
}

#[test]
fn tcp_and_drain_wait_at_least_a_second() {
    for key in ["server.tcp_user_timeout", "server.drain_timeout"] {
        assert_eq!(
            problems(&only(key, "\"999ms\"")),
            [format!("{key} = \"999ms\": must be between 1s and 1h")]
        );
    }
}

#[test]
fn the_public_and_the_admin_listener_do_not_share_a_port() {
    let file = |listen: &str, admin: &str| {
        problems(&format!("[server]\nlisten = \"{listen}\"\nadmin_listen = \"{admin}\"\n"))
    };
    assert_eq!(
        file("127.0.0.1:8080", "127.0.0.1:8080"),
        [
            "server.admin_listen = \"127.0.0.1:8080\": must not share the port of server.listen (127.0.0.1:8080)"
        ]
    );
    assert_eq!(file("0.0.0.0:8080", "127.0.0.1:8080").len(), 1);
    assert_eq!(file("127.0.0.1:8080", "[::]:8080").len(), 1);
    assert!(file("127.0.0.1:8080", "127.0.0.2:8080").is_empty());
    assert!(file("127.0.0.1:0", "127.0.0.1:0").is_empty(), "the system chooses two ports");
}

#[test]
fn contradictions_are_refused_with_both_keys() {
    for (file, first, second) in [
        (
            "[limits]\nframe_bytes = \"63 KiB\"",
            "limits.frame_bytes = 63 KiB",
            "limits.message_bytes (64 KiB)",
        ),
        (
            "[server]\nproxy_protocol = true",
            "server.proxy_protocol = true",
            "server.trusted_proxies",
        ),
        ("[tls]\ncertificate = \"a.pem\"", "tls.key = \"\"", "tls.certificate"),
        ("[tls]\nkey = \"a.key\"", "tls.certificate = \"\"", "tls.key"),
        ("[heartbeat]\ntimeout = \"25s\"", "heartbeat.timeout = 25s", "heartbeat.interval (25s)"),
        ("[queue]\ndefault_ttl = \"8d\"", "queue.default_ttl = 8d", "queue.max_ttl (7d)"),
        ("[queue]\ntotal_bytes = \"1 MiB\"", "queue.total_bytes = 1 MiB", "queue.bytes (16 MiB)"),
        ("[queue]\nmessages = 1", "queue.sender_share = 0.5", "queue.messages (1)"),
        (
            "[queue]\nbytes = \"128 KiB\"",
            "queue.sender_share = 0.5",
            "limits.message_bytes (64 KiB)",
        ),
        (
            "[queue]\nbytes = \"64.25 KiB\"\nsender_share = 1.0",
            "queue.unknown_share = 0.5",
            "limits.message_bytes (64 KiB)",
        ),
        (
            "[delivery]\nbytes = \"63 KiB\"",
            "delivery.bytes = 63 KiB",
            "limits.message_bytes (64 KiB)",
        ),
    ] {
        let found = problems(file);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(first) && found[0].contains(second), "{found:?}");
    }
}

#[test]
fn a_value_that_cannot_be_read_is_not_also_a_contradiction() {
    let found = problems("[heartbeat]\ninterval = \"80s\"\ntimeout = \"soon\"\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("heartbeat.timeout = \"soon\""));
}

#[test]
fn a_misspelt_level_is_refused_rather_than_taken_for_a_target() {
    for good in
        ["info", "WARN", "off", "info,sealpost::actors=debug", "sealpost=trace", "info/needle"]
    {
        assert!(problems(&only("log.level", &format!("\"{good}\""))).is_empty(), "{good}");
    }
    for bad in [
        "\"inof\"",
        "\"\"",
        "\"sealpost=loud\"",
        "\"a=b=c\"",
        "7",
        "[\"info\"]",
        "\"info/a/b\"",
        "\"warn,inof\"",
    ] {
        assert_eq!(problems(&only("log.level", bad)).len(), 1, "{bad}");
    }
}

#[test]
fn a_file_that_is_no_toml_is_one_problem_that_shows_only_the_wrong_line() {
    let secret =
        format!("[limits]\nstrikes = 3\nkey\u{7}{} = = 3\nnext = \"line\"\n", "x".repeat(500));
    let found = problems(&secret);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("settings.toml: is not TOML, line 3: "), "{found:?}");
    assert!(found[0].contains("key\\u{7}xxx") && found[0].len() < 400, "{found:?}");
    assert!(!found[0].contains("next"), "{found:?}");

    for broken in [
        "[limits\n",
        "strikes",
        "a = 1\na = 2\n",
        "a = 99999999999999999999\n",
        "{\"json\": 1}",
        "a = \"\n",
    ] {
        let found = problems(broken);
        assert!(found.len() == 1 && found[0].contains("is not TOML, line "), "{broken}: {found:?}");
    }
}

#[test]
fn a_broken_file_does_not_hide_the_problems_of_other_sources() {
    let found = problems_with(
        "[limits\n",
        &[("SEALPOST__LIMITS__STRIKES", "0"), ("SEALPOST__HEARTBEAT__TIMEOUT", "1s")],
    );
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[1], "limits.strikes = \"0\": must be between 1 and 1000");
}

#[test]
fn a_named_file_must_exist_and_be_readable() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let named = |name: &str| {
        let cli = Cli { config: Some(folder.path().join(name)), ..Cli::default() };
        load_from(&cli, Path::new("/nonexistent"), Vec::new())
            .expect_err("cannot be read")
            .to_string()
    };
    assert!(named("missing.toml").contains("missing.toml: cannot be read: No such file"));
    assert!(named("").contains("cannot be read: Is a directory"));

    fs::write(folder.path().join("bytes.toml"), [0xff, 0xfe]).expect("the folder can be written");
    assert!(named("bytes.toml").ends_with("cannot be read: it is not UTF-8"));

    fs::write(folder.path().join("big.toml"), "#".repeat(1024 * 1024 + 1))
        .expect("the folder can be written");
    assert!(named("big.toml").ends_with("cannot be read: it is larger than 1 MiB"));
}

#[test]
fn a_named_file_is_read_instead_of_the_default() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let named = folder.path().join("other.toml");
    fs::write(&named, "[limits]\nstrikes = 4\n").expect("the folder can be written");
    let cli = Cli { config: Some(named), ..Cli::default() };
    let settings =
        load_all("[limits]\nstrikes = 3\nfragments = 7\n", &[], &cli).expect("nothing is wrong");
    assert_eq!((settings.limits.strikes, settings.limits.fragments), (4, 1024));
}

#[test]
fn an_address_of_the_command_line_that_cannot_be_read_is_listed_beside_the_rest() {
    let cli = Cli { listen: Some("nowhere".to_owned()), ..Cli::default() };
    let found = load_all("[limits]\nstrikes = 0\n", &[], &cli).expect_err("two problems");
    assert_eq!(found.0.len(), 2, "{found}");
    assert_eq!(found.0.first().map(|problem| problem.key.as_str()), Some("server.listen"));
}

#[test]
fn printed_settings_are_read_back_as_the_same_settings() {
    assert_eq!(settings(&print(&Settings::default())), Settings::default());

    let mut odd = Settings::default();
    odd.server.listen = "[::1]:4".parse().expect("an address");
    odd.server.trusted_proxies =
        vec!["10.0.0.0/8".parse().expect("a network"), "fd00::/8".parse().expect("a network")];
    odd.server.allowed_origins = vec!["https://a.example".to_owned()];
    odd.server.drain_timeout = Duration::new(3599, 7_000_001);
    odd.log.level = "warn,sealpost::web=debug/a\"b".to_owned();
    odd.log.format = LogFormat::Json;
    odd.limits.message_bytes = 65_537;
    odd.limits.frame_bytes = 1024 * 1024 + 1;
    odd.queue.sender_share = 0.1 + 0.2;
    odd.queue.default_ttl = Duration::from_secs(365 * 24 * 60 * 60);
    odd.queue.max_ttl = odd.queue.default_ttl;
    assert_eq!(settings(&print(&odd)), odd);
}

#[test]
fn a_load_test_can_lift_the_rates_out_of_the_way() {
    let most = u32::MAX.to_string();
    for key in [
        "messages_per_minute",
        "control_per_minute",
        "registrations_per_minute",
        "resume_failures_per_minute",
    ] {
        assert!(problems(&only(&format!("rate_limit.{key}"), &most)).is_empty(), "{key}");
    }
    assert_eq!(settings("[rate_limit]\nburst = 300_000_000\n").rate_limit.burst.get(), 300_000_000);
    assert!(!problems("[rate_limit]\nburst = 300_000_001\n").is_empty());
}
