//! Access tokens at the command line, and the real relay that asks for them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use sealpost::settings::AccessMode;

use crate::support::binary::{FREE_PORTS, sealpost};
use crate::support::operator::Operator;
use crate::support::{Binary, Device, Relay};

const FILE: &str = "access-tokens";

/// Commands in a directory, whose settings are the defaults.
fn operator(directory: &Path) -> Operator {
    Operator::of("127.0.0.1:9090").at(directory).with("ACCESS__MODE", "tokens")
}

/// Makes a token, and returns its secret.
async fn new(operator: &Operator, args: &[&str]) -> String {
    let printed = operator.prints(&[&["token", "new"], args].concat()).await;
    let secret = printed.trim_end().to_owned();
    assert!(secret.starts_with("sealpost_") && secret.len() == 73, "only the secret: {printed}");
    secret
}

async fn relay(directory: &Path) -> Binary {
    let mut command = sealpost(directory);
    command.args(FREE_PORTS).env("SEALPOST__ACCESS__MODE", "tokens");
    command.env("RUST_LOG", "trace");
    Binary::start(command).await
}

fn register(secret: &str) -> Value {
    json!({"type": "Register", "payload": {"access_token": secret, "resumable": true}})
}

#[actix_rt::test]
async fn tokens_are_made_listed_and_revoked() {
    let directory = tempfile::tempdir().expect("a directory");
    let (operator, path) = (operator(directory.path()), directory.path().join(FILE));
    let bounds = ["--devices", "5", "--messages-per-minute", "10", "--queued-bytes", "10 MiB"];
    let secret =
        new(&operator, &[&["acme", "--expires", "2100-01-01T00:00:00Z"], &bounds[..]].concat())
            .await;
    let other = new(&operator, &["other", "--expires", "30d"]).await;
    assert_ne!(secret, other);
    let text = fs::read_to_string(&path).expect("a file");
    assert!(!text.contains(&secret) && !text.contains(&other[9..]), "{text}");
    assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o640);
    let listed = operator.json(&["token", "list", "--json"]).await;
    let expected = json!({
        "name": "acme", "expires": "2100-01-01T00:00:00Z", "expired": false,
        "devices": 5, "messages_per_minute": 10, "queued_bytes": 10 << 20,
    });
    assert_eq!((&listed[0], &listed[1]["name"]), (&expected, &json!("other")));
    assert_eq!(listed[1]["devices"], Value::Null);
    let listed = operator.prints(&["token", "list"]).await;
    assert!(listed.contains("acme ") && listed.contains("2100-01-01T00:00:00Z"), "{listed}");
    let revoked = operator.run(&["token", "revoke", "acme"]).await;
    assert!(revoked.code == Some(0) && revoked.stderr.contains("SIGHUP"), "{revoked:?}");
    assert_eq!(operator.json(&["token", "list", "--json"]).await[0]["name"], "other");
}

#[actix_rt::test]
async fn what_cannot_be_done_has_a_status_and_a_sentence_and_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let operator = operator(directory.path());
    let missing = operator.run(&["token", "list"]).await;
    assert!(
        missing.code == Some(69) && missing.stderr.contains("sealpost token new"),
        "{missing:?}"
    );
    new(&operator, &["acme"]).await;
    let before = fs::read_to_string(directory.path().join(FILE)).expect("a file");
    for (args, code, sentence) in [
        (&["new", "acme"][..], 1, "another token with the name acme"),
        (&["new", "two words"], 64, "a name has"),
        (&["new", "b", "--expires", "yesterday"], 64, "expires must be"),
        (&["new", "b", "--expires", "2020-01-01T00:00:00Z"], 64, "expires must be"),
        (&["new", "b", "--expires", "0s"], 64, "expires must be"),
        (&["new", "b", "--queued-bytes", "1"], 64, "queued_bytes must be"),
        (&["revoke", "b"], 1, "no token with the name b"),
    ] {
        let printed = operator.run(&[&["token"], args].concat()).await;
        assert_eq!(printed.code, Some(code), "{args:?} {printed:?}");
        assert!(printed.stderr.contains(sentence) && printed.stdout.is_empty(), "{printed:?}");
    }
    assert_eq!(fs::read_to_string(directory.path().join(FILE)).expect("a file"), before);
}

#[actix_rt::test]
async fn a_start_without_tokens_is_refused_with_what_to_do() {
    let directory = tempfile::tempdir().expect("a directory");
    let operator = operator(directory.path());
    for args in [&["--check-config"][..], &FREE_PORTS] {
        let refused = operator.run(args).await;
        assert_eq!(refused.code, Some(69), "{refused:?}");
        let sentence = "access.tokens_file = ./access-tokens: there is no such file; `sealpost token new NAME`";
        assert!(refused.stderr.contains(sentence), "{refused:?}");
    }
    fs::write(directory.path().join(FILE), "sealpost_pasted\n").expect("written");
    for args in [&["--check-config"][..], &FREE_PORTS] {
        let refused = operator.run(args).await;
        assert_eq!(refused.code, Some(69), "{refused:?}");
        assert!(
            refused.stderr.contains("line 1: ") && !refused.stderr.contains("pasted"),
            "{refused:?}"
        );
    }
    fs::remove_file(directory.path().join(FILE)).expect("removed");
    new(&operator, &["acme"]).await;
    let free = [&["--check-config"], &FREE_PORTS[..]].concat();
    let checked = operator.run(&free).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
}

#[actix_rt::test]
async fn a_bound_holds_after_a_restart_and_a_revoked_token_registers_nobody_after_a_reload() {
    let directory = tempfile::tempdir().expect("a directory");
    let operator = operator(directory.path());
    let secret = new(&operator, &["acme", "--devices", "1"]).await;
    let mut binary = relay(directory.path()).await;
    let device = Device::register(&binary, register(&secret)).await;
    binary.stop().await;
    let mut binary = relay(directory.path()).await;
    let mut second = Device::connect(&binary).await;
    assert_eq!(second.expect_refusal(register(&secret), 403).await["limit"], "devices");
    let device = Device::resume(&binary, &device.token()).await;
    operator.prints(&["token", "revoke", "acme"]).await;
    let newer = new(&operator, &["newer"]).await;
    binary.signal("HUP");
    binary.expect_log("registering needs an access token tokens=1").await;
    binary.expect_log("settings reloaded").await;
    second.expect_refusal(register(&secret), 401).await;
    Device::register(&binary, register(&newer)).await;
    device.close().await;
}

#[actix_rt::test]
async fn revoking_with_devices_puts_them_out_and_nobody_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let operator = operator(directory.path());
    let [secret, other] = [new(&operator, &["acme"]).await, new(&operator, &["other"]).await];
    let mut binary = relay(directory.path()).await;
    let running = Operator::of(binary.admin).at(directory.path()).with("ACCESS__MODE", "tokens");
    let mut here = Device::register(&binary, register(&secret)).await;
    let away = Device::register(&binary, register(&secret)).await.disconnect(&binary).await;
    let mut guest = Device::register(&binary, register(&other)).await;
    guest.send_and_expect_ack(&away.id, 1).await;
    let printed = running.prints(&["token", "revoke", "acme", "--devices"]).await;
    assert_eq!(printed, "2 devices of acme have ended\n");
    here.expect_closed_with(4403).await;
    guest.expect_error(410).await;
    let frame = guest.message_to(&away.id, 2, json!({}));
    guest.expect_refusal(frame, 404).await;
    let mut again = Device::connect(&binary).await;
    again.expect_refusal(here.resume_frame(), 401).await;
    again.expect_refusal(register(&secret), 401).await;
    binary.expect_log("operator action=EndDevices access=acme devices=2").await;
    // Once more is no mistake: there may have been no relay at the first time.
    let printed = running.prints(&["token", "revoke", "acme", "--devices"]).await;
    assert_eq!(printed, "0 devices of acme have ended\n");
    binary.stop().await;
    let gone = running.run(&["token", "revoke", "other", "--devices"]).await;
    assert!(gone.code == Some(69) && gone.stderr.contains("no relay answers"), "{gone:?}");
}

#[actix_rt::test]
async fn no_secret_is_in_the_log_or_among_the_settings() {
    let directory = tempfile::tempdir().expect("a directory");
    let operator = operator(directory.path());
    let secret = new(&operator, &["acme"]).await;
    let text = fs::read_to_string(directory.path().join(FILE)).expect("a file");
    let hash = text.split_whitespace().nth(1).expect("a hash").to_owned();
    let mut binary = relay(directory.path()).await;
    let wrong = "sealpost_a-wrong-secret";
    let mut device = Device::connect(&binary).await;
    device.expect_refusal(register(wrong), 401).await;
    device.close().await;
    let mut request =
        format!("ws://{}/ws", binary.public).into_client_request().expect("a request");
    let header = format!("Bearer {secret}").parse().expect("a value");
    request.headers_mut().insert("Authorization", header);
    let tcp = TcpStream::connect(binary.public).await.expect("the relay listens");
    let mut device = Device::upgrade(request, tcp).await;
    device.send(json!({"type": "Register"})).await;
    device.expect_frame("RegisterResponse").await;
    device.close().await;
    fs::write(directory.path().join(FILE), format!("{text}{secret}\n")).expect("written");
    binary.signal("HUP");
    binary.expect_log("access tokens not reloaded, the old ones stay").await;
    Device::register(&binary, register(&secret)).await;
    binary.stop().await;
    let settings = operator.prints(&["--print-config"]).await;
    assert!(settings.contains("mode = \"tokens\""), "{settings}");
    for text in [&binary.log, &settings] {
        for hidden in [&secret["sealpost_".len()..], &hash, "a-wrong-secret"] {
            assert!(!text.contains(hidden));
        }
    }
}

#[actix_rt::test]
async fn what_is_denied_is_counted_by_its_reason() {
    let directory = tempfile::tempdir().expect("a directory");
    let operator = operator(directory.path());
    let secret = new(&operator, &["acme", "--devices", "1", "--queued-bytes", "1 KiB"]).await;
    let path = directory.path().join(FILE);
    let old = "old 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 expires=2020-01-01T00:00:00Z";
    let text = fs::read_to_string(&path).expect("a file");
    fs::write(&path, format!("{text}{old}\n")).expect("written");
    let relay = Relay::with(|settings| {
        settings.access.mode = AccessMode::Tokens;
        settings.access.tokens_file = path;
    });
    let mut alice = Device::register(&relay, register(&secret)).await;
    alice.set_status("Offline").await;
    let large = alice.message_to(&alice.id.clone(), 1, json!({"encrypted_data": "e".repeat(900)}));
    alice.expect_refusal(large, 403).await;
    let mut other = Device::connect(&relay).await;
    for (secret, times, code) in [("test", 2, 401), ("unknown", 8, 401), ("unknown", 3, 429)] {
        for _ in 0..times {
            other.expect_refusal(register(secret), code).await;
        }
    }
    other.expect_refusal(json!({"type": "Register"}), 401).await;
    other.expect_refusal(register(&secret), 403).await;
    let scrape = relay.scrape().await;
    for (reason, count) in [
        ("missing", 1.0),
        ("unknown", 8.0),
        ("expired", 2.0),
        ("limited", 3.0),
        ("devices", 1.0),
        ("queued_bytes", 1.0),
    ] {
        let name = format!("sealpost_access_denied_total{{reason=\"{reason}\"}}");
        assert_eq!(scrape.value(&name), count, "{name}");
    }
}
