//! A backup of a relay that goes on: what is in it, and what an interrupted one leaves. (docs/durability.md: Backup)

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::setup::{Setup, Started};
use crate::small_disk::SmallDisk;
use crate::support::{Device, eventually};

/// Messages that do not fit between a relay and a client that does not read.
const MANY: u64 = 400;

/// An absent device, by its id and token, for which large messages wait.
async fn many_wait(relay: &Started) -> (String, Value) {
    let bob = Device::resumable(relay).await;
    let (id, token) = (bob.id.clone(), bob.token());
    bob.leave(relay).await;
    let mut alice = Device::plain(relay).await;
    for number in 1..=MANY {
        alice.send_message(&id, number, json!({"signature": "s".repeat(50_000)})).await;
        alice.expect_ack(number).await;
    }
    (id, token)
}

/// The commands of an operator of this relay.
fn operator(setup: &Setup, admin: SocketAddr) -> Setup {
    setup.clone().with("SERVER__ADMIN_LISTEN", &admin.to_string())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of letters")
}

/// A client that asks for a backup and reads only its head.
async fn asks_and_does_not_read(admin: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(admin).await.expect("the relay listens");
    let request = format!("POST /admin/backup HTTP/1.1\r\nHost: {admin}\r\n\r\n");
    client.write_all(request.as_bytes()).await.expect("the relay reads");
    let mut head = [0; 15];
    client.read_exact(&mut head).await.expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    client
}

/// Passes a request on, and `bytes` of the answer; then says so and waits. Closes both connections when the client has gone, or
/// the test drops the last of the three.
async fn passes_on(
    admin: SocketAddr,
    bytes: usize,
) -> (SocketAddr, oneshot::Receiver<()>, oneshot::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (reached, half) = oneshot::channel();
    let (close, closed) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.expect("a client");
        let mut relay = TcpStream::connect(admin).await.expect("the relay listens");
        let (mut from_relay, mut to_relay) = relay.split();
        let (mut from_client, mut to_client) = client.split();
        let mut request = [0; 4096];
        let read = from_client.read(&mut request).await.expect("a request");
        to_relay.write_all(&request[..read]).await.expect("the relay reads");
        let mut answer = vec![0; bytes];
        from_relay.read_exact(&mut answer).await.expect("an answer");
        to_client.write_all(&answer).await.expect("the client reads");
        let _ = reached.send(());
        let mut rest = [0; 1];
        tokio::select! {
            _ = from_client.read(&mut rest) => {}
            _ = closed => {}
        }
    });
    (address, half, close)
}

#[tokio::test]
async fn a_backup_under_traffic_has_everything_that_was_acked_before_and_a_relay_starts_on_it() {
    let (data, place) = (tempfile::tempdir().expect("a place"), tempfile::tempdir().expect("room"));
    let setup = Setup::on(data.path());
    let mut relay = setup.start().await;
    let (id, token) = many_wait(&relay).await;
    let mut alice = Device::resumable(&relay).await;
    // Repeats of what was delivered are recognised on the copy, too.
    let mut carol = Device::resumable(&relay).await;
    alice.send_message(&carol.id, 1, json!({})).await;
    carol.receive_and_ack(1).await;
    alice.expect_ack(1).await;
    let carol_id = carol.id.clone();
    carol.leave(&relay).await;

    let copy = place.path().join("some/copy");
    let operator = operator(&setup, relay.admin);
    let args = ["backup", text(&copy)];
    let backup = operator.run_beside(&args);
    let traffic = async {
        for number in MANY + 1.. {
            alice.send_and_expect_ack(&id, number).await;
            if copy.join("queue.redb").exists() {
                return number;
            }
        }
        0
    };
    let (backup, last) = tokio::join!(backup, traffic);
    assert!(backup.status.success(), "{backup:?}");
    relay.expect_log("backup sent rows=").await;
    let again = operator.run_beside(&["backup", text(&copy)]).await;
    assert_eq!(again.status.code(), Some(74), "{again:?}");
    assert!(String::from_utf8_lossy(&again.stderr).contains("there is a queue here already"));

    let verified = setup.run(&["queue", "verify", text(&copy)]);
    assert!(verified.status.success(), "{verified:?}");
    let restored = Setup::on(&copy);
    let waiting = restored.stat("messages");
    assert!((MANY..=last).contains(&waiting), "{waiting} of {last}");
    let restored = restored.start().await;
    assert_eq!(restored.figure("queued").await, waiting);
    let mut bob = Device::resume(&restored, &token).await;
    for number in 1..=waiting {
        bob.receive_and_ack(number).await;
    }
    let mut alice = Device::resume(&restored, &alice.token()).await;
    alice.send_and_expect_ack(&carol_id, 1).await;
    assert_eq!(restored.figure("queued").await, 0);
    // The relay itself has lost nothing.
    let mut bob = Device::resume(&relay, &token).await;
    for number in 1..=last {
        bob.receive_and_ack(number).await;
    }
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_backup_and_there_is_one_at_a_time() {
    let (data, place) = (tempfile::tempdir().expect("a place"), tempfile::tempdir().expect("room"));
    let setup = Setup::on(data.path());
    let mut relay = setup.start().await;
    many_wait(&relay).await;
    let operator = operator(&setup, relay.admin);
    let copy = place.path().join("copy");
    let client = asks_and_does_not_read(relay.admin).await;
    let second = operator.run_beside(&["backup", text(&copy)]).await;
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    assert!(String::from_utf8_lossy(&second.stderr).contains("Another backup is running"));
    drop(client);
    relay.expect_log("backup ended early").await;
    let mut third = operator.run_beside(&["backup", text(&copy)]).await;
    // The line is written shortly before the turn is given back.
    eventually("a turn", async || {
        if third.status.code() == Some(1) {
            third = operator.run_beside(&["backup", text(&copy)]).await;
        }
        third.status.success()
    })
    .await;
    Setup::on(&copy).expect_sound();
    // A backup that nobody reads does not hold up the end.
    let _client = asks_and_does_not_read(relay.admin).await;
    relay.stop().await;
    setup.expect_sound();
}

#[tokio::test]
async fn an_interrupted_backup_never_looks_whole_and_can_be_repeated() {
    let (data, place) = (tempfile::tempdir().expect("a place"), tempfile::tempdir().expect("room"));
    let setup = Setup::on(data.path());
    let mut relay = setup.start().await;
    let (_, token) = many_wait(&relay).await;
    let copy = place.path().join("copy");
    let no_queue = || {
        let verified = setup.run(&["queue", "verify", text(&copy)]);
        assert_eq!(verified.status.code(), Some(69), "{verified:?}");
        assert!(String::from_utf8_lossy(&verified.stderr).contains("no queue here"));
    };

    // The command is killed.
    let (proxy, half, _close) = passes_on(relay.admin, 10_000_000).await;
    let mut command = operator(&setup, proxy).begin(&["backup", text(&copy)]);
    half.await.expect("the half");
    command.kill().expect("it runs");
    command.wait().expect("it ends");
    relay.expect_log("backup ended early").await;
    no_queue();

    // The relay is killed.
    let (proxy, half, close) = passes_on(relay.admin, 10_000_000).await;
    let operator_of_proxy = operator(&setup, proxy);
    let path = text(&copy).to_owned();
    let backup =
        tokio::spawn(async move { operator_of_proxy.run_beside(&["backup", &path]).await });
    half.await.expect("the half");
    relay.kill();
    drop(close);
    let backup = backup.await.expect("it ends");
    assert_eq!(backup.status.code(), Some(74), "{backup:?}");
    assert!(String::from_utf8_lossy(&backup.stderr).contains("did not send the whole backup"));
    no_queue();
    assert!(!copy.join("queue.redb.new").exists());

    let relay = setup.start().await;
    let backup = operator(&setup, relay.admin).run_beside(&["backup", text(&copy)]).await;
    assert!(backup.status.success(), "{backup:?}");
    let restored = Setup::on(&copy).start().await;
    assert_eq!(Device::resume(&restored, &token).await.queued(), MANY);
}

#[tokio::test]
async fn a_full_target_leaves_no_copy() {
    let Some(disk) = SmallDisk::mount("4m") else { return };
    let data = tempfile::tempdir().expect("a place");
    let setup = Setup::on(data.path());
    let relay = setup.start().await;
    many_wait(&relay).await;
    let copy = disk.path().join("copy");
    let backup = operator(&setup, relay.admin).run_beside(&["backup", text(&copy)]).await;
    assert_eq!(backup.status.code(), Some(74), "{backup:?}");
    assert!(String::from_utf8_lossy(&backup.stderr).contains("No space left"), "{backup:?}");
    let left: Vec<_> = std::fs::read_dir(&copy).expect("it was made").collect();
    assert_eq!(left.len(), 1, "only the lock: {left:?}");
}

#[tokio::test]
async fn without_a_queue_on_disk_or_with_a_full_one_a_backup_is_refused() {
    let place = tempfile::tempdir().expect("room");
    let copy = place.path().join("copy");
    let refused = async |setup: &Setup, relay: &Started, why: &str| {
        let backup = operator(setup, relay.admin).run_beside(&["backup", text(&copy)]).await;
        assert_eq!(backup.status.code(), Some(1), "{backup:?}");
        assert!(String::from_utf8_lossy(&backup.stderr).contains(why), "{backup:?}");
        assert!(!copy.join("queue.redb").exists());
    };
    let setup = Setup::on(place.path()).with("QUEUE__DURABLE", "false");
    let relay = setup.start().await;
    refused(&setup, &relay, "queue.durable = false").await;

    let Some(disk) = SmallDisk::mount("8m") else { return };
    let setup = Setup::on(&disk.path().join("data"));
    let mut relay = setup.start().await;
    let bob = Device::resumable(&relay).await;
    let id = bob.id.clone();
    bob.leave(&relay).await;
    let mut alice = Device::plain(&relay).await;
    for number in 1.. {
        alice.send_message(&id, number, json!({"signature": "s".repeat(50_000)})).await;
        if alice.receive_any().await["type"] == "Error" {
            break;
        }
    }
    relay.expect_log("the queue cannot be written").await;
    refused(&setup, &relay, "full or fails").await;
}
