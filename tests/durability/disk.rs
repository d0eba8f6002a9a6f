//! A disk that is full, slow, or broken, under the real binary.
//!
//! The full disk is a small tmpfs, and `strace` makes syncs fail or slow. Where the system allows neither, a test is skipped.

use std::path::Path;

use serde_json::{Value, json};

use crate::setup::{Setup, Started};
use crate::small_disk::SmallDisk;
use crate::support::{Device, confirmation, message_id};

/// Sends large messages until one is refused. Returns the numbers of the acked ones.
async fn fills(sender: &mut Device, to: &str, numbers: std::ops::RangeFrom<u64>) -> Vec<u64> {
    let mut acked = Vec::new();
    for number in numbers {
        sender.send_message(to, number, json!({"signature": "s".repeat(32 * 1024)})).await;
        let frame = sender.try_receive().await.expect("the relay is there");
        if frame["type"] == "Error" {
            let code = &frame["payload"]["code"];
            assert!(*code == 503 || *code == 507, "{frame}");
            break;
        }
        assert_eq!(frame["payload"]["message_id"], message_id(number), "{frame}");
        acked.push(number);
        assert!(acked.len() < 10_000, "the disk is never full");
    }
    acked
}

/// Sends until a message is accepted again. Returns its number.
async fn is_accepted_again(sender: &mut Device, to: &str, mut number: u64) -> u64 {
    loop {
        number += 1;
        sender.send_message(to, number, json!({})).await;
        let frame = sender.try_receive().await.expect("the relay is there");
        if frame["type"] == "Ack" {
            return number;
        }
        assert_eq!(frame["payload"]["code"], 503, "{frame}");
    }
}

/// Messages between plain devices go back and forth.
async fn live_traffic_flows(relay: &Started) {
    let (mut carol, mut dave) = (Device::plain(relay).await, Device::plain(relay).await);
    for number in 1..=20 {
        carol.send_message(&dave.id, number, json!({})).await;
        dave.receive_and_ack(number).await;
        carol.expect_ack(number).await;
        dave.send_message(&carol.id, number, json!({})).await;
        carol.receive_and_ack(number).await;
        dave.expect_ack(number).await;
    }
}

#[tokio::test]
async fn a_full_disk_refuses_new_messages_delivers_acked_ones_and_accepts_again_by_itself() {
    let Some(disk) = SmallDisk::mount("12m") else { return };
    let setup = Setup::on(&disk.path().join("data"));
    let filler = disk.path().join("filler");
    std::fs::write(&filler, vec![1; 4 * 1024 * 1024]).expect("room");
    let mut relay = setup.start().await;
    let bob = Device::resumable(&relay).await;
    let (id, token) = (bob.id.clone(), bob.token());
    bob.leave(&relay).await;
    let mut alice = Device::plain(&relay).await;

    let mut acked = fills(&mut alice, &id, 1..).await;
    assert!(!acked.is_empty());
    live_traffic_flows(&relay).await;
    assert_eq!(relay.figure("queued").await, acked.len() as u64);

    // Space becomes free.
    std::fs::remove_file(&filler).expect("it is there");
    relay.expect_log("the queue can be written again").await;
    acked.push(is_accepted_again(&mut alice, &id, 20_000).await);
    acked.extend(fills(&mut alice, &id, 50_000..).await);
    live_traffic_flows(&relay).await;

    // The acked messages survive the process although the disk is full.
    relay.kill();
    let mut relay = setup.start().await;
    assert_eq!(relay.figure("queued").await, acked.len() as u64);
    let mut alice = Device::plain(&relay).await;
    let more = fills(&mut alice, &id, 60_000..).await;
    acked.extend(more);

    // Bob frees space by reading.
    let mut bob = Device::resume(&relay, &token).await;
    assert_eq!(bob.queued(), acked.len() as u64);
    for number in &acked {
        bob.receive_and_ack(*number).await;
    }
    bob.expect_nothing().await;
    relay.expect_log("the queue can be written again").await;
    bob.leave(&relay).await;
    let last = is_accepted_again(&mut alice, &id, 70_000).await;
    let mut bob = Device::resume(&relay, &token).await;
    bob.receive_and_ack(last).await;
    bob.expect_nothing().await;
}

#[tokio::test]
async fn a_failed_sync_ends_the_process_with_74_and_every_acked_message_survives() {
    if !Setup::can_inject() {
        return;
    }
    for when in ["12+", "13+", "31+"] {
        let data = tempfile::tempdir().expect("a place");
        let setup = Setup::on(data.path());
        let broken = setup.clone().inject(&format!("fsync,fdatasync:error=EIO:when={when}"));
        let mut relay = broken.start().await;
        let bob = Device::resumable(&relay).await;
        let (id, token) = (bob.id.clone(), bob.token());
        bob.leave(&relay).await;
        let mut alice = Device::plain(&relay).await;
        let mut acked = Vec::new();
        for number in 1.. {
            if alice.try_send(alice.message_to(&id, number, json!({}))).await.is_err() {
                break;
            }
            match alice.try_receive().await {
                Ok(frame) if frame["type"] == "Ack" => acked.push(number),
                Ok(frame) => assert_eq!(frame["payload"]["code"], 503, "{frame}"),
                Err(_) => break,
            }
            assert!(number < 1000, "the sync never failed");
        }
        assert_eq!(relay.exit().await, Some(74));
        assert!(!acked.is_empty(), "it failed before anything was acked");

        let relay = setup.start().await;
        let mut bob = Device::resume(&relay, &token).await;
        for number in &acked {
            bob.receive_and_ack(*number).await;
        }
        // The message that was being committed may be there, too; its sender has no Ack.
        assert!(bob.queued() <= acked.len() as u64 + 1);
    }
}

#[tokio::test]
async fn a_slow_disk_slows_down_only_the_acks_of_stored_messages() {
    if !Setup::can_inject() {
        return;
    }
    let data = tempfile::tempdir().expect("a place");
    let setup = Setup::on(data.path()).inject("fdatasync:delay_enter=200000");
    let relay = setup.start().await;
    let bob = Device::resumable(&relay).await;
    let (id, token) = (bob.id.clone(), bob.token());
    bob.leave(&relay).await;
    let mut alice = Device::plain(&relay).await;
    let mut carol = Device::plain(&relay).await;
    for number in 1..=5 {
        alice.send_message(&id, number, json!({})).await;
        // Each of these answers overtakes the Ack that waits for the disk.
        alice.send_message(&carol.id, 100 + number, json!({})).await;
        carol.receive_and_ack(100 + number).await;
        alice.expect_ack(100 + number).await;
        alice.send(json!({"type": "Ping"})).await;
        assert_eq!(alice.try_receive().await.expect("it is there"), json!({"type": "Pong"}));
        alice.expect_ack(number).await;
    }
    let mut bob = Device::resume(&relay, &token).await;
    for number in 1..=5 {
        bob.receive_and_ack(number).await;
    }
    bob.expect_nothing().await;
}

#[tokio::test]
async fn a_message_confirmed_while_the_disk_is_full_does_not_come_back() {
    let Some(disk) = SmallDisk::mount("12m") else { return };
    let setup = Setup::on(&disk.path().join("data"));
    let filler = disk.path().join("filler");
    std::fs::write(&filler, vec![1; 6 * 1024 * 1024]).expect("room");
    let mut relay = setup.start().await;
    let mut bob = Device::resumable(&relay).await;
    let (id, token) = (bob.id.clone(), bob.token());
    let away = Device::resumable(&relay).await;
    let away_id = away.id.clone();
    away.leave(&relay).await;
    let mut alice = Device::plain(&relay).await;
    // In flight to Bob and stored, not confirmed yet.
    alice.send_message(&id, 1, json!({})).await;
    let first: Value = bob.expect_frame("Receive").await;
    alice.expect_ack(1).await;
    fills(&mut alice, &away_id, 1000..).await;
    bob.send(confirmation(&first)).await;
    relay.wait_for("delivered", 1).await;
    std::fs::remove_file(&filler).expect("it is there");
    relay.expect_log("the queue can be written again").await;
    is_accepted_again(&mut alice, &away_id, 90_000).await;
    relay.kill();
    let relay = setup.start().await;
    let mut bob = Device::resume(&relay, &token).await;
    assert_eq!(bob.queued(), 0);
    bob.expect_nothing().await;
}

/// A start may create the file; a relay that runs must not: what was acked is in the old one.
#[tokio::test]
async fn a_file_that_is_removed_while_the_disk_is_full_is_not_created_again() {
    let Some(disk) = SmallDisk::mount("12m") else { return };
    let data = disk.path().join("data");
    let setup = Setup::on(&data);
    let filler = disk.path().join("filler");
    std::fs::write(&filler, vec![1; 4 * 1024 * 1024]).expect("room");
    let mut relay = setup.start().await;
    let bob = Device::resumable(&relay).await;
    let id = bob.id.clone();
    bob.leave(&relay).await;
    let mut alice = Device::plain(&relay).await;
    fills(&mut alice, &id, 1..).await;
    std::fs::remove_file(data.join("queue.redb")).expect("it is there");
    std::fs::remove_file(&filler).expect("it is there");
    assert_eq!(relay.exit().await, Some(74));
    assert!(relay.log.contains("the queue's file is lost"), "{}", relay.log);
    assert!(!relay.log.contains("can be written again"), "{}", relay.log);
    assert!(!data.join("queue.redb").exists());
}

/// Each of them with a relay that has nothing to write, so that no failed write shows the loss.
#[tokio::test]
async fn a_relay_whose_file_is_gone_from_its_path_ends_with_74() {
    type Loss = fn(&Path);
    let losses: [(&str, Loss); 4] = [
        ("the directory is removed", |data| std::fs::remove_dir_all(data).expect("it is there")),
        ("the directory is moved", |data| {
            std::fs::rename(data, data.with_extension("moved")).expect("it is there");
        }),
        ("the file is replaced by a copy", |data| {
            std::fs::copy(data.join("queue.redb"), data.join("copy")).expect("room");
            std::fs::rename(data.join("copy"), data.join("queue.redb")).expect("it is there");
        }),
        ("the lock is removed", |data| {
            std::fs::remove_file(data.join("lock")).expect("it is there");
        }),
    ];
    for (what, lose) in losses {
        let place = tempfile::tempdir().expect("a place");
        let data = place.path().join("data");
        let mut relay = Setup::on(&data).start().await;
        lose(&data);
        assert_eq!(relay.exit().await, Some(74), "{what}");
        assert!(relay.log.contains("the queue's file is lost"), "{what}: {}", relay.log);
    }
}

#[tokio::test]
async fn a_directory_that_others_may_write_is_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let data = tempfile::tempdir().expect("a place");
    let mode = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(data.path(), mode).expect("it is ours");
    let relay = Setup::on(data.path()).start().await;
    assert!(relay.log.contains("OTHERS MAY WRITE INTO queue.path"), "{}", relay.log);
}

#[tokio::test]
async fn an_empty_or_foreign_file_is_refused_and_left() {
    let data = tempfile::tempdir().expect("a place");
    let file = data.path().join("queue.redb");
    for content in [&[][..], b"another program's file"] {
        std::fs::write(&file, content).expect("room");
        let output = Setup::on(data.path()).run(&crate::support::binary::FREE_PORTS);
        assert_eq!(output.status.code(), Some(69));
        let log = String::from_utf8(output.stderr).expect("text");
        assert!(log.contains("queue.redb"), "{log}");
        assert_eq!(std::fs::read(&file).expect("it is there"), content);
    }
}
