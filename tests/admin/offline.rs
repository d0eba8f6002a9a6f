//! The commands on the queue and the tokens while no relay runs, and how they find out that none does.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::binary::{FREE_PORTS, sealpost};
use crate::support::operator::Operator;
use crate::support::{Binary, Device, Relay, skip};

/// Nobody listens at port 0.
fn operator(directory: &Path) -> Operator {
    Operator::of("127.0.0.1:0").at(directory).with("ACCESS__MODE", "tokens")
}

/// A queue of a relay that has ended: two messages of a device with the access token acme, and one without.
async fn a_queue_of_acme(directory: &Path) -> [String; 2] {
    let operator = operator(directory);
    let made = operator.json(&["token", "new", "acme", "--json"]).await;
    assert_eq!(made["name"], "acme");
    let mut command = sealpost(directory);
    command.args(FREE_PORTS).env("SEALPOST__ACCESS__MODE", "tokens");
    let mut relay = Binary::start(command).await;
    let register = json!({
        "type": "Register",
        "payload": {"access_token": made["secret"], "resumable": true},
    });
    let mut alice = Device::register(&relay, register.clone()).await;
    let bob = Device::register(&relay, register).await;
    let ids = [alice.id.clone(), bob.id.clone()];
    bob.leave(&relay).await;
    for number in 1..=2 {
        alice.send_and_expect_ack(&ids[1], number).await;
    }
    drop(alice);
    relay.stop().await;
    ids
}

#[tokio::test]
async fn the_queue_on_disk_is_shown_as_text_and_as_json_and_a_token_may_lose_its_part() {
    let place = tempfile::tempdir().expect("a directory");
    let [alice, bob] = a_queue_of_acme(place.path()).await;
    let operator = operator(place.path());
    let top = operator.json(&["queue", "top", "--json"]).await;
    let rows: Vec<_> = top["holders"].as_array().expect("rows").iter().collect();
    let row = |index: usize| (&rows[index]["holder"], &rows[index]["id"], &rows[index]["messages"]);
    assert_eq!(row(0), (&json!("recipient"), &json!(bob), &json!(2)));
    assert_eq!(row(1), (&json!("sender"), &json!(alice), &json!(2)));
    assert_eq!(row(2).0, "origin");
    assert_eq!(row(3), (&json!("access"), &json!("acme"), &json!(2)));
    let text = operator.prints(&["queue", "top"]).await;
    assert!(text.starts_with("holder     id ") && text.lines().count() == 5, "{text}");

    let stats = operator.json(&["queue", "stats", "--json"]).await;
    assert_eq!((&stats["messages"], &stats["damaged"]), (&json!(2), &json!(0)));
    let verified = operator.json(&["queue", "verify", "--json"]).await;
    assert_eq!((&verified["pages_sound"], &verified["migrates_to"]), (&json!(true), &Value::Null));
    let compacted = operator.json(&["queue", "compact", "--json"]).await;
    assert!(compacted["bytes_after"].is_u64() && compacted["bytes_before"].is_u64());
    let nobody = operator.json(&["queue", "drop", "--access", "other", "--json"]).await;
    assert_eq!(nobody, json!({"dropped": 0}));
    let dropped = operator.json(&["queue", "drop", "--access", "acme", "--json"]).await;
    assert_eq!(dropped, json!({"dropped": 2}));
    assert_eq!(operator.json(&["queue", "stats", "--json"]).await["expired"], 2);
    let revoked = operator.json(&["token", "revoke", "acme", "--json"]).await;
    assert_eq!(revoked, json!({"name": "acme"}));
}

/// As a member of the group of the admin socket, who may not look into the queue's directory.
#[actix_rt::test]
async fn a_relay_that_answers_is_asked_whatever_the_path_of_the_queue_is() {
    let relay = Relay::start();
    let place = tempfile::tempdir().expect("a directory");
    let asks = async |path: &str, durable: &str| {
        let operator = Operator::of(relay.admin).with("QUEUE__PATH", path);
        let operator = operator.with("QUEUE__DURABLE", durable);
        operator.prints(&["queue", "top"]).await;
        let dropped = operator.json(&["queue", "drop", "--access", "acme", "--json"]).await;
        assert_eq!(dropped, json!({"dropped": 0}));
    };
    asks("/nowhere/at/all", "true").await;
    asks("/nowhere/at/all", "false").await;
    let locked = place.path().join("locked");
    fs::create_dir(&locked).expect("room");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o0)).expect("a mode");
    if fs::read_dir(&locked).is_ok() {
        return skip("modes do not bind root");
    }
    asks(&locked.display().to_string(), "true").await;
}

#[tokio::test]
async fn without_a_relay_and_without_a_queue_the_operator_reads_about_both() {
    let place = tempfile::tempdir().expect("a directory");
    let operator = operator(place.path());
    let nobody = operator.run(&["queue", "top"]).await;
    assert_eq!(nobody.code, Some(69), "{nobody:?}");
    for part in ["no queue here", "no relay answers at 127.0.0.1:0"] {
        assert!(nobody.stderr.contains(part), "{nobody:?}");
    }
    let in_memory = operator.with("QUEUE__DURABLE", "false").run(&["queue", "top"]).await;
    assert_eq!(in_memory.code, Some(69), "{in_memory:?}");
    assert!(!in_memory.stderr.contains("no queue here"), "{in_memory:?}");
}

/// Another program may listen at the address in the settings.
#[tokio::test]
async fn a_stranger_at_the_admin_address_is_no_relay_and_a_refused_token_is_final() {
    let place = tempfile::tempdir().expect("a directory");
    a_queue_of_acme(place.path()).await;
    let asked = async |answer: &'static str| {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let stranger = tokio::spawn(async move {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let (mut socket, _) = listener.accept().await.expect("a client");
            let read = socket.read(&mut [0; 4096]).await.expect("a request");
            assert!(read > 0);
            socket.write_all(answer.as_bytes()).await.expect("it reads");
        });
        let operator = Operator::of(address).at(place.path());
        let printed = operator.run(&["queue", "top"]).await;
        stranger.await.expect("it has answered");
        printed
    };
    let printed = asked("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
    assert!(printed.code == Some(0) && printed.stdout.contains("acme"), "{printed:?}");
    let printed = asked("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").await;
    assert!(printed.code == Some(77) && printed.stdout.is_empty(), "{printed:?}");
}

#[tokio::test]
async fn the_queue_of_a_relay_at_another_address_is_left_alone() {
    let place = tempfile::tempdir().expect("a directory");
    let mut command = sealpost(place.path());
    command.args(FREE_PORTS);
    let _relay = Binary::start(command).await;
    let operator = Operator::of("127.0.0.1:0").at(place.path());
    for args in [&["top"][..], &["drop", "--access", "acme"]] {
        let refused = operator.run(&[&["queue"], args].concat()).await;
        assert_eq!(refused.code, Some(69), "{refused:?}");
        assert!(refused.stderr.contains("another relay is using"), "{refused:?}");
    }
}

#[actix_rt::test]
async fn a_backup_goes_to_an_empty_directory_only() {
    let relay = Relay::start();
    let place = tempfile::tempdir().expect("a directory");
    let operator = Operator::of(relay.admin).at(place.path());
    let copied = operator.json(&["backup", "copy", "--json"]).await;
    assert!(copied["rows"].is_u64() && copied["bytes"].is_u64(), "{copied}");
    fs::create_dir(place.path().join("used")).expect("room");
    fs::write(place.path().join("used/notes.txt"), "").expect("room");
    let refused = operator.run(&["backup", "used"]).await;
    assert_eq!(refused.code, Some(74), "{refused:?}");
    assert!(refused.stderr.contains("holds notes.txt"), "{refused:?}");
    let left = fs::read_dir(place.path().join("used")).expect("a directory").count();
    assert_eq!(left, 1, "nothing was added");
}
