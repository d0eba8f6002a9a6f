//! The binary as an operator uses it: command line, settings, signals, exit codes, log.

mod support;

use std::fs;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use support::{Binary, Device, PATIENCE, eventually, message_id};

/// A directory with only the settings that a test writes.
fn place() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// The binary in that directory, on free ports.
fn sealpost(place: &TempDir) -> Command {
    let mut command = support::binary::sealpost(place.path());
    command.env("SEALPOST__SERVER__LISTEN", "127.0.0.1:0");
    command.env("SEALPOST__SERVER__ADMIN_LISTEN", "127.0.0.1:0");
    command
}

/// Runs a command to its end.
async fn run(command: Command) -> Output {
    let ended = tokio::process::Command::from(command).kill_on_drop(true).output();
    tokio::time::timeout(PATIENCE, ended).await.expect("it ends in time").expect("it starts")
}

/// Waits for the end of a relay; returns its exit code and its log.
async fn end(mut relay: Binary) -> (Option<i32>, String) {
    let code = relay.exit().await;
    (code, std::mem::take(&mut relay.log))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

async fn device(relay: &Binary, payload: Value) -> Device {
    Device::register(relay, json!({"type": "Register", "payload": payload})).await
}

#[tokio::test]
async fn valid_settings_are_reported_as_valid() {
    let place = place();
    let mut command = sealpost(&place);
    command.arg("--check-config");
    let output = run(command).await;
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), "settings are valid\n");
}

/// Runs `--check-config`; returns the exit code, the standard output and the standard error.
async fn check(mut command: Command) -> (Option<i32>, String, String) {
    command.arg("--check-config");
    let output = run(command).await;
    (output.status.code(), text(&output.stdout).to_owned(), text(&output.stderr).to_owned())
}

#[tokio::test]
async fn a_check_finds_what_the_machine_would_refuse_and_changes_nothing() {
    let place = place();
    let (code, _, stderr) = check(sealpost(&place)).await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(!place.path().join("data").exists(), "a check creates nothing");

    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = listener.local_addr().expect("an address").to_string();
    fs::create_dir(place.path().join("data")).expect("room");
    fs::write(place.path().join("data/queue.redb"), "").expect("room");
    let mut command = sealpost(&place);
    command.env("SEALPOST__SERVER__LISTEN", &taken);
    command.env("SEALPOST__SERVER__ADMIN_LISTEN", "192.0.2.1:1");
    let (code, out, stderr) = check(command).await;
    assert_eq!((code, out.as_str()), (Some(69), ""), "{stderr}");
    for part in [
        "data/queue.redb: is empty".to_owned(),
        format!("server.listen = {taken}: "),
        "choose another one with --listen".to_owned(),
        "server.admin_listen = 192.0.2.1:1: ".to_owned(),
    ] {
        assert!(stderr.contains(&part), "{part} is not in\n{stderr}");
    }
    assert_eq!(stderr.lines().count(), 3, "one sentence each:\n{stderr}");
    assert!(fs::read(place.path().join("data/queue.redb")).expect("it is there").is_empty());
}

#[tokio::test]
async fn a_check_takes_the_addresses_of_the_relay_that_holds_its_queue_for_a_note_only() {
    let (one, other) = (place(), place());
    let running = Binary::start(sealpost(&one)).await;
    let with_addresses_of_running = |place: &TempDir| {
        let mut command = sealpost(place);
        command.env("SEALPOST__SERVER__LISTEN", running.public.to_string());
        command.env("SEALPOST__SERVER__ADMIN_LISTEN", running.admin.to_string());
        command
    };
    let (code, out, stderr) = check(with_addresses_of_running(&one)).await;
    assert_eq!((code, out.as_str()), (Some(0), "settings are valid\n"), "{stderr}");
    assert!(stderr.lines().count() == 3 && stderr.lines().all(|line| line.starts_with("note: ")));
    let (code, _, stderr) = check(with_addresses_of_running(&other)).await;
    assert_eq!(code, Some(69), "a relay with another queue could not start: {stderr}");

    // An address that another process uses is a problem, even if a relay holds the queue.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut command = with_addresses_of_running(&one);
    let taken = listener.local_addr().expect("an address").to_string();
    command.env("SEALPOST__SERVER__LISTEN", &taken);
    let (code, _, stderr) = check(command).await;
    assert!(code == Some(69) && stderr.contains(&format!("server.listen = {taken}")), "{stderr}");
    device(&running, json!({})).await.expect_nothing_and_close().await;
}

/// Under a socket unit another process holds the addresses before the relay starts.
#[tokio::test]
async fn a_check_without_addresses_tries_everything_else() {
    let place = place();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = listener.local_addr().expect("an address").to_string();
    let checked = async || {
        let mut command = sealpost(&place);
        command.env("SEALPOST__SERVER__LISTEN", &taken).arg("--skip-addresses");
        check(command).await
    };
    let (code, _, stderr) = checked().await;
    assert_eq!(code, Some(0), "{stderr}");
    fs::create_dir(place.path().join("data")).expect("room");
    fs::write(place.path().join("data/queue.redb"), "").expect("room");
    let (code, _, stderr) = checked().await;
    assert!(code == Some(69) && stderr.contains("is empty"), "{stderr}");
}

/// A mistake in the name or value of a variable must not go unnoticed.
#[tokio::test]
async fn variables_that_have_no_effect_are_reported() {
    let place = place();
    let command = || {
        let mut command = sealpost(&place);
        command.env("SEALPOST_LISTEN", "127.0.0.1:1").env("RUST_LOG", "inof");
        command
    };
    let parts = ["did you mean SEALPOST__SERVER__LISTEN?", "RUST_LOG=\"inof\""];
    let (code, _, stderr) = check(command()).await;
    assert!(code == Some(0) && parts.iter().all(|part| stderr.contains(part)), "{stderr}");
    let running = Binary::start(command()).await;
    assert!(parts.iter().all(|part| running.log.contains(part)), "{}", running.log);
}

/// The unit does not try such a start again, by this status.
#[tokio::test]
async fn a_command_line_that_cannot_be_read_ends_with_64_and_help_with_0() {
    let place = place();
    let ended = async |line: &str| {
        let mut command = sealpost(&place);
        command.args(line.split(' '));
        let output = run(command).await;
        (output.status.code(), text(&output.stdout).to_owned(), text(&output.stderr).to_owned())
    };
    for line in [
        "--frobnicate",
        "frobnicate",
        "--listen",
        "device",
        "device show",
        "device list --limit many",
        "queue drop",
        "top --interval soon",
        "--check-config --print-config",
        "device show zzz",
        "device kick not/an/id",
        "queue drop --origin 12",
        "queue drop --sender nobody",
        "queue drop --access a/b",
        "token revoke a/b",
    ] {
        let (code, out, stderr) = ended(line).await;
        assert_eq!((code, out.as_str()), (Some(64), ""), "{line}: {stderr}");
        assert!(!stderr.is_empty(), "{line}");
    }
    for line in ["--help", "--version", "help", "device --help", "help device show"] {
        let (code, out, stderr) = ended(line).await;
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{line}");
        assert!(out.contains("sealpost"), "{line}: {out}");
    }
}

#[tokio::test]
async fn the_path_of_the_queue_is_reported_in_full() {
    let place = place();
    let running = Binary::start(sealpost(&place)).await;
    let data = place.path().canonicalize().expect("it is there").join("data");
    let line = format!("queue: {}\n", data.display());
    assert!(running.log.contains(&line), "{}", running.log);
}

#[tokio::test]
async fn all_problems_of_the_settings_are_reported_at_once() {
    let place = place();
    let file = "[limits]\nstrikes = -1\nfrobnicate = 1\n[queue]\ndefault_ttl = \"9d\"\n[rate_limit]\nburst = 0\n";
    fs::write(place.path().join("settings.toml"), file).expect("a file");
    for flag in [Some("--check-config"), Some("--print-config"), None] {
        let mut command = sealpost(&place);
        command.args(flag).env("SEALPOST__HEARTBEAT__TIMEOUT", "soon");
        command.env("SEALPOST__NO__SUCH", "1");
        let output = run(command).await;
        assert_eq!(output.status.code(), Some(78), "{flag:?}");
        assert_eq!(text(&output.stdout), "");
        let stderr = text(&output.stderr);
        for key in
            ["limits.strikes", "frobnicate", "queue.default_ttl", "rate_limit.burst", "NO__SUCH"]
        {
            assert!(stderr.contains(key), "{key} is not in\n{stderr}");
        }
        assert!(stderr.to_lowercase().contains("heartbeat") && stderr.contains("soon"), "{stderr}");
        assert_eq!(stderr.lines().count(), 6, "one sentence each:\n{stderr}");
    }
}

#[tokio::test]
async fn contradicting_settings_from_the_environment_are_refused() {
    let place = place();
    let mut command = sealpost(&place);
    command.env("SEALPOST__LIMITS__FRAME_BYTES", "1 KiB");
    let output = run(command).await;
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("limits.frame_bytes"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn a_named_settings_file_must_exist() {
    let place = place();
    let mut command = sealpost(&place);
    command.args(["--config", "nowhere.toml"]);
    let output = run(command).await;
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("nowhere.toml"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn the_settings_in_effect_are_printed_as_a_file() {
    let place = place();
    fs::write(place.path().join("settings.toml"), "[limits]\nstrikes = 7\n").expect("a file");
    let mut command = sealpost(&place);
    command.env("SEALPOST__QUEUE__MAX_TTL", "8d").args([
        "--print-config",
        "--listen",
        "127.0.0.1:81",
    ]);
    let printed = run(command).await;
    assert_eq!(printed.status.code(), Some(0));
    for line in ["strikes = 7", "max_ttl = \"8d\"", "listen = \"127.0.0.1:81\""] {
        assert!(text(&printed.stdout).contains(line), "{line}");
    }
    // The printed file is read back as the same settings.
    fs::write(place.path().join("settings.toml"), &printed.stdout).expect("a file");
    let mut command = sealpost(&place);
    command.env_clear().arg("--print-config");
    assert_eq!(text(&run(command).await.stdout), text(&printed.stdout));
}

#[tokio::test]
async fn a_signal_ends_the_relay_in_an_orderly_way() {
    for signal in ["TERM", "INT"] {
        let place = place();
        let running = Binary::start(sealpost(&place)).await;
        let mut devices = [
            Device::connect(&running).await,
            device(&running, json!({})).await,
            device(&running, json!({"resumable": true})).await,
        ];
        running.signal(signal);
        for device in &mut devices {
            assert_eq!(device.expect_close().await, Some(1001));
        }
        drop(devices);
        let (code, log) = end(running).await;
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains(&format!("signal=SIG{signal}")), "{log}");
        assert!(log.contains("goodbye"), "{log}");
    }
}

/// A wait in the arguments of a log line was never waited for where the line is below the level: the relay ended at once.
#[tokio::test]
async fn a_relay_that_logs_nothing_serves_until_a_signal() {
    let place = place();
    let mut command = sealpost(&place);
    command.env("RUST_LOG", "off").stdout(std::process::Stdio::null());
    let mut relay = command.stderr(std::process::Stdio::null()).spawn().expect("it starts");
    let lock = place.path().join("data/lock");
    let mut addresses: Vec<std::net::SocketAddr> = Vec::new();
    eventually("the addresses beside the queue", async || {
        let text = std::fs::read_to_string(&lock).unwrap_or_default();
        addresses = text.split_whitespace().filter_map(|it| it.parse().ok()).collect();
        addresses.len() == 2
    })
    .await;
    let endpoints = support::Endpoints { public: addresses[0], admin: addresses[1] };
    let mut device = Device::register(&endpoints, json!({"type": "Register"})).await;
    let kill = ["-TERM", &relay.id().to_string()];
    assert!(std::process::Command::new("kill").args(kill).status().expect("kill").success());
    assert_eq!(device.expect_close().await, Some(1001));
    drop(device);
    let mut status = None;
    eventually("the end of the process", async || {
        status = relay.try_wait().expect("a child");
        status.is_some()
    })
    .await;
    assert_eq!(status.and_then(|status| status.code()), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let place = place();
    let mut command = sealpost(&place);
    command.env("SEALPOST__RATE_LIMIT__BURST", "1000");
    command.env("SEALPOST__LIMITS__EXEMPT_CIDRS", "127.0.0.0/8");
    command.env("SEALPOST__SERVER__DRAIN_TIMEOUT", "1h");
    let mut running = Binary::start(command).await;
    // This client reads nothing, so the relay would wait for its Close.
    let (mut alice, slow) = (device(&running, json!({})).await, device(&running, json!({})).await);
    for number in 1..=100 {
        let data = json!({"encrypted_data": "e".repeat(60_000)});
        let frame = alice.message_to(&slow.id, number, data);
        alice.send(frame).await;
        alice.expect_ack(number).await;
    }
    running.signal("TERM");
    running.expect_log("draining").await;
    running.signal("TERM");
    let (code, log) = end(running).await;
    assert_eq!(code, Some(130), "{log}");
    drop(slow);
}

#[tokio::test]
async fn a_second_relay_on_the_same_address_or_queue_names_the_setting_in_conflict() {
    let (one, other) = (place(), place());
    let running = Binary::start(sealpost(&one)).await;
    let output = run(sealpost(&one)).await;
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{stderr}");
    assert!(stderr.contains("queue.path = "), "{stderr}");
    for (name, key) in [
        ("SEALPOST__SERVER__LISTEN", "server.listen"),
        ("SEALPOST__SERVER__ADMIN_LISTEN", "server.admin_listen"),
    ] {
        let mut command = sealpost(&other);
        command.env(name, running.public.to_string());
        let output = run(command).await;
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(69), "{stderr}");
        assert!(stderr.contains(&format!("{key} = {}", running.public)), "{stderr}");
        let flag = key.trim_start_matches("server.").replace('_', "-");
        assert!(stderr.contains(&format!("--{flag}")), "{stderr}");
    }
    device(&running, json!({})).await.expect_nothing_and_close().await;
}

#[tokio::test]
async fn a_hangup_reloads_the_settings() {
    let place = place();
    let file = place.path().join("settings.toml");
    fs::write(&file, "[rate_limit]\nburst = 50\n").expect("a file");
    let mut running = Binary::start(sealpost(&place)).await;
    let (mut alice, mut bob) =
        (device(&running, json!({})).await, device(&running, json!({})).await);

    fs::write(&file, "[rate_limit]\nburst = 1\nmessages_per_minute = 5\n[delivery]\nwindow = 7\n")
        .expect("a file");
    running.signal("HUP");
    running
        .expect_log("setting changed key=rate_limit.messages_per_minute before=60 after=5")
        .await;
    running.expect_log("setting changed key=rate_limit.burst before=50 after=1").await;
    running.expect_log("setting needs a restart key=delivery.window before=64 after=7").await;
    running.expect_log("settings reloaded").await;
    // A device that registers now is handled after the reload.
    device(&running, json!({})).await.expect_nothing_and_close().await;
    alice.send_to(&bob, 1).await;
    alice.expect_ack(1).await;
    bob.receive(1).await;
    alice.send_to(&bob, 2).await;
    let error = alice.expect_error(429).await;
    assert_eq!(error["message"], "Rate limit exceeded (5/5). Try again in a minute.");

    fs::write(&file, "[rate_limit]\nburst = 0\n").expect("a file");
    running.signal("HUP");
    let line = running.expect_log("settings not reloaded").await;
    assert!(line.contains("rate_limit.burst"), "{line}");
    alice.send_to(&bob, 3).await;
    alice.expect_error(429).await;
    running.signal("TERM");
    drop((alice, bob));
    assert_eq!(end(running).await.0, Some(0));
}

#[tokio::test]
async fn signals_are_handled_from_the_first_log_line_on() {
    for (signal, line) in [("HUP", "settings reloaded"), ("TERM", "goodbye")] {
        let place = place();
        let mut running = Binary::start(sealpost(&place)).await;
        running.signal(signal);
        running.expect_log(line).await;
    }
}

#[tokio::test]
async fn plain_http_on_a_public_address_causes_a_warning() {
    let place = place();
    let mut command = sealpost(&place);
    command.env("SEALPOST__SERVER__LISTEN", "0.0.0.0:0");
    let mut running = Binary::start(command).await;
    running.expect_log("PLAIN HTTP ON A PUBLIC ADDRESS").await;
    running.signal("TERM");
    assert_eq!(end(running).await.0, Some(0));
}

/// A page that was refused by a setting shows its operator nothing; the log must. A refusal by the admin address does not
/// use up that line.
#[tokio::test]
async fn a_refused_origin_is_logged_with_the_settings_that_decide_it() {
    let place = place();
    let mut running = Binary::start(sealpost(&place)).await;
    let admin =
        support::http::ask(running.admin, b"GET /healthz HTTP/1.1\r\nHost: relay.example\r\n\r\n");
    assert_eq!(admin.await.status, 403);
    let line = running.expect_log("admin request for another host refused").await;
    assert!(line.contains("server.hosts"), "{line}");
    let rebound = support::http::handshake_with("Origin: http://relay.example");
    assert_eq!(support::http::ask_lines(running.public, &rebound).await.status, 403);
    let line = running.expect_log("connection of a page refused").await;
    for setting in ["server.hosts", "server.trusted_proxies", "server.allowed_origins"] {
        assert!(line.contains(setting), "{line}");
    }
    assert!(line.contains(" origin=http://relay.example "), "{line}");
    running.signal("TERM");
    assert_eq!(end(running).await.0, Some(0));
}

/// Texts that must not be in any log line.
struct Secrets(Vec<String>);

impl Secrets {
    /// Adds a secret with its number.
    fn one(&mut self) -> String {
        let secret = format!("SECRET{}SECRET", self.0.len());
        self.0.push(secret.clone());
        secret
    }
}

/// Sends every frame of the protocol with secrets in it, then frames and requests that are refused.
async fn send_everything(running: &Binary) -> Secrets {
    let mut secrets = Secrets(Vec::new());
    let mut alice = device(running, json!({"resumable": true, "receipts": true})).await;
    let mut bob = device(running, json!({"resumable": true})).await;
    for device in [&alice, &bob] {
        secrets.0.push(device.id.clone());
        secrets.0.push(device.registration["resume_token"].as_str().expect("a token").to_owned());
    }

    let sealed = json!({
        "encrypted_data": secrets.one(), "signature": secrets.one(), "content_type": secrets.one(),
        "x-extra": secrets.one(),
    });
    let frame = alice.message_to(&bob.id, 1, sealed);
    alice.send(frame).await;
    alice.expect_frame("Ack").await;
    bob.receive(1).await;
    bob.ack(1).await;
    alice.expect_frame("Ack").await;
    secrets.0.push(message_id(1));

    let more =
        json!({"recipient_id": bob.id, "public_key": secrets.one(), "challenge": secrets.one()});
    let frame = alice.auth("AuthRequest", more);
    alice.send_through(&mut bob, frame).await;
    let more = json!({"challenge_response": secrets.one(), "challenge": secrets.one()});
    let frame = bob.auth("AuthResponse", more);
    bob.send_through(&mut alice, frame).await;
    let frame = alice.auth("AuthVerify", json!({"challenge_response": secrets.one()}));
    alice.send_through(&mut bob, frame).await;
    let mut frame = alice.key_update(&bob.id, secrets.one());
    frame["payload"]["encrypted_key_package"] = json!(secrets.one());
    alice.send_through(&mut bob, frame).await;

    let mut bob = {
        let resume = bob.resume_frame();
        drop(bob);
        Device::register(running, resume).await
    };
    bob.expect_frame("KeyRotationUpdate").await;

    // Frames that are refused.
    let wrong = json!({"type": "Register", "payload": {"resume_token": secrets.one()}});
    let mut unregistered = Device::connect(running).await;
    unregistered.expect_refusal(wrong, 401).await;
    for text in [
        format!("{{\"type\":\"{}\"}}", secrets.one()),
        format!("{{\"type\":\"\\r\\n\\u001b[31m{}\"}}", secrets.one()),
        format!("{{\"type\":\"{}{}\"}}", secrets.one(), "x".repeat(60_000)),
        format!("{{\"type\":\"Ping\",\"{0}\":1,\"{0}\":2}}", secrets.one()),
        format!("\r\n\u{1b}[31m{}", secrets.one()),
        format!("{{\"type\":\"Send\",\"payload\":{{\"message_id\":\"{}\"}}}}", secrets.one()),
    ] {
        alice.send_text(&text).await;
        alice.expect_error(400).await;
    }
    let large = json!({"encrypted_data": format!("{}{}", secrets.one(), "e".repeat(70_000))});
    let frame = alice.message_to(&bob.id, 2, large);
    alice.expect_refusal(frame, 413).await;
    let foreign = bob.message_to(&alice.id, 3, json!({"encrypted_data": secrets.one()}));
    alice.expect_refusal(foreign, 403).await;

    // Requests that never become a WebSocket.
    for header in
        ["Origin: https://", "Cookie: session=", "Authorization: Bearer ", "X-Forwarded-For: "]
    {
        let mut socket = TcpStream::connect(running.public).await.expect("the relay listens");
        let request = format!(
            "GET /ws?token={} HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 12\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{header}{}\r\n\r\n",
            secrets.one(),
            secrets.one()
        );
        socket.write_all(request.as_bytes()).await.expect("the relay reads");
        let mut line = String::new();
        BufReader::new(socket).read_line(&mut line).await.expect("an answer");
        assert!(line.starts_with("HTTP/1.1 4"), "{line}");
    }
    alice.close().await;
    bob.close().await;
    secrets
}

fn assert_keeps(log: &str, secrets: &Secrets) {
    for secret in &secrets.0 {
        for line in log.lines() {
            assert!(!line.contains(secret.as_str()), "{secret} is in the log:\n{line:.2000}");
        }
    }
}

#[tokio::test]
async fn no_log_line_at_any_level_contains_client_data() {
    let place = place();
    let mut command = sealpost(&place);
    command.env("RUST_LOG", "trace");
    let running = Binary::start(command).await;
    let secrets = send_everything(&running).await;
    running.signal("TERM");
    let (code, log) = end(running).await;
    assert_eq!(code, Some(0));
    assert!(log.contains(" DEBUG sealpost") && log.contains("registered connection="), "{log}");
    assert_keeps(&log, &secrets);
    for line in log.lines() {
        // Each line starts with time and level: no text of a client has started a line.
        assert!(line.starts_with("20") && line.chars().all(|c| !c.is_control()), "{line:?}");
        assert!(line.len() < 5000, "{line:.2000}");
    }
}

#[tokio::test]
async fn a_log_in_json_has_one_object_a_line() {
    let place = place();
    let mut command = sealpost(&place);
    command.env("RUST_LOG", "trace").env("SEALPOST__LOG__FORMAT", "json");
    let running = Binary::start(command).await;
    let secrets = send_everything(&running).await;
    running.signal("TERM");
    let (code, log) = end(running).await;
    assert_eq!(code, Some(0));
    assert_keeps(&log, &secrets);
    for line in log.lines() {
        let object: Value = serde_json::from_str(line).expect("an object");
        for key in ["level", "message", "target", "ts"] {
            assert!(object[key].is_string(), "{key} of {line}");
        }
        // Fields are no text in the message, and numbers no text at all.
        let fields = object.as_object().expect("an object").keys().map(|key| format!(" {key}="));
        let message = object["message"].as_str().expect("a text");
        assert!(fields.into_iter().all(|field| !message.contains(&field)), "{line}");
        assert!(object.get("connection").is_none_or(Value::is_u64), "{line}");
    }
}
