//! A disk that is full, slow, or broken, under the real binary.
//!
//! The full disk is a small tmpfs, which only root can mount. Without root, set `SEALPOST_NO_MOUNT=1`: the test then prints
//! that it was skipped; without the variable it fails. `strace`, which must be installed, makes syncs fail or slow.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::client::{Client, confirmation, message_id};
use crate::process::{Process, Setup};

/// A small file system that is unmounted at the end of the test.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(size: &str) -> Option<Self> {
        let place = tempfile::tempdir().expect("a place");
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "none"]).arg(place.path());
        if mount.status().is_ok_and(|status| status.success()) {
            return Some(Self(place));
        }
        let excused = std::env::var_os("SEALPOST_NO_MOUNT").is_some();
        assert!(excused, "a tmpfs cannot be mounted; where that is so, set SEALPOST_NO_MOUNT=1");
        eprintln!("not tried: SEALPOST_NO_MOUNT is set");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a process that still has a file open there is about to end.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Sends large messages until one is refused. Returns the numbers of the acked ones.
async fn fills(sender: &mut Client, to: &str, numbers: std::ops::RangeFrom<u64>) -> Vec<u64> {
    let mut acked = Vec::new();
    for number in numbers {
        sender.sends(to, number, json!({"signature": "s".repeat(32 * 1024)})).await;
        let frame = sender.next().await.expect("the relay is there");
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
async fn is_accepted_again(sender: &mut Client, to: &str, mut number: u64) -> u64 {
    loop {
        number += 1;
        sender.sends(to, number, json!({})).await;
        let frame = sender.next().await.expect("the relay is there");
        if frame["type"] == "Ack" {
            return number;
        }
        assert_eq!(frame["payload"]["code"], 503, "{frame}");
    }
}

/// Messages between plain devices go back and forth.
async fn live_traffic_flows(relay: &Process) {
    let (mut carol, mut dave) = (Client::plain(relay).await, Client::plain(relay).await);
    for number in 1..=20 {
        carol.sends(&dave.id, number, json!({})).await;
        dave.receives(number).await;
        carol.hears_ack(number).await;
        dave.sends(&carol.id, number, json!({})).await;
        carol.receives(number).await;
        dave.hears_ack(number).await;
    }
}

#[tokio::test]
async fn a_full_disk_refuses_new_messages_delivers_acked_ones_and_accepts_again_by_itself() {
    let Some(disk) = Tmpfs::mount("12m") else { return };
    let setup = Setup::on(&disk.path().join("data"));
    let filler = disk.path().join("filler");
    std::fs::write(&filler, vec![1; 4 * 1024 * 1024]).expect("room");
    let mut relay = setup.start();
    let bob = Client::resumable(&relay).await;
    let (id, token) = (bob.id.clone(), bob.token());
    bob.leaves(&relay).await;
    let mut alice = Client::plain(&relay).await;

    let mut acked = fills(&mut alice, &id, 1..).await;
    assert!(!acked.is_empty());
    live_traffic_flows(&relay).await;
    assert_eq!(relay.figure("queued"), acked.len() as u64);

    // Space becomes free.
    std::fs::remove_file(&filler).expect("it is there");
    relay.says("the queue can be written again");
    acked.push(is_accepted_again(&mut alice, &id, 20_000).await);
    acked.extend(fills(&mut alice, &id, 50_000..).await);
    live_traffic_flows(&relay).await;

    // The acked messages survive the process although the disk is full.
    relay.is_killed();
    let relay = setup.start();
    assert_eq!(relay.figure("queued"), acked.len() as u64);
    let mut alice = Client::plain(&relay).await;
    let more = fills(&mut alice, &id, 60_000..).await;
    acked.extend(more);

    // Bob frees space by reading.
    let mut bob = Client::resumes(&relay, &token).await;
    assert_eq!(bob.waited(), acked.len() as u64);
    for number in &acked {
        bob.receives(*number).await;
    }
    bob.hears_nothing().await;
    relay.says("the queue can be written again");
    bob.leaves(&relay).await;
    let last = is_accepted_again(&mut alice, &id, 70_000).await;
    let mut bob = Client::resumes(&relay, &token).await;
    bob.receives(last).await;
    bob.hears_nothing().await;
}

#[tokio::test]
async fn a_failed_sync_ends_the_process_with_74_and_every_acked_message_survives() {
    for when in ["12+", "13+", "31+"] {
        let data = tempfile::tempdir().expect("a place");
        let setup = Setup::on(data.path());
        let broken = setup.clone().inject(&format!("fsync,fdatasync:error=EIO:when={when}"));
        let mut relay = broken.start();
        let bob = Client::resumable(&relay).await;
        let (id, token) = (bob.id.clone(), bob.token());
        bob.leaves(&relay).await;
        let mut alice = Client::plain(&relay).await;
        let mut acked = Vec::new();
        for number in 1.. {
            if alice.tries(alice.message(&id, number, json!({}))).await.is_err() {
                break;
            }
            match alice.next().await {
                Ok(frame) if frame["type"] == "Ack" => acked.push(number),
                Ok(frame) => assert_eq!(frame["payload"]["code"], 503, "{frame}"),
                Err(_) => break,
            }
            assert!(number < 1000, "the sync never failed");
        }
        assert_eq!(relay.ends(), Some(74));
        assert!(!acked.is_empty(), "it failed before anything was acked");

        let relay = setup.start();
        let mut bob = Client::resumes(&relay, &token).await;
        for number in &acked {
            bob.receives(*number).await;
        }
        // The message that was being committed may be there, too; its sender has no Ack.
        assert!(bob.waited() <= acked.len() as u64 + 1);
    }
}

#[tokio::test]
async fn a_slow_disk_slows_down_only_the_acks_of_stored_messages() {
    let data = tempfile::tempdir().expect("a place");
    let setup = Setup::on(data.path()).inject("fdatasync:delay_enter=200000");
    let relay = setup.start();
    let bob = Client::resumable(&relay).await;
    let (id, token) = (bob.id.clone(), bob.token());
    bob.leaves(&relay).await;
    let mut alice = Client::plain(&relay).await;
    let mut carol = Client::plain(&relay).await;
    for number in 1..=5 {
        alice.sends(&id, number, json!({})).await;
        // Each of these answers overtakes the Ack that waits for the disk.
        alice.sends(&carol.id, 100 + number, json!({})).await;
        carol.receives(100 + number).await;
        alice.hears_ack(100 + number).await;
        alice.says(json!({"type": "Ping"})).await;
        assert_eq!(alice.next().await.expect("it is there"), json!({"type": "Pong"}));
        alice.hears_ack(number).await;
    }
    let mut bob = Client::resumes(&relay, &token).await;
    for number in 1..=5 {
        bob.receives(number).await;
    }
    bob.hears_nothing().await;
}

#[tokio::test]
async fn a_message_confirmed_while_the_disk_is_full_does_not_come_back() {
    let Some(disk) = Tmpfs::mount("12m") else { return };
    let setup = Setup::on(&disk.path().join("data"));
    let filler = disk.path().join("filler");
    std::fs::write(&filler, vec![1; 6 * 1024 * 1024]).expect("room");
    let mut relay = setup.start();
    let mut bob = Client::resumable(&relay).await;
    let (id, token) = (bob.id.clone(), bob.token());
    let away = Client::resumable(&relay).await;
    let away_id = away.id.clone();
    away.leaves(&relay).await;
    let mut alice = Client::plain(&relay).await;
    // In flight to Bob and stored, not confirmed yet.
    alice.sends(&id, 1, json!({})).await;
    let first: Value = bob.hears("Receive").await;
    alice.hears_ack(1).await;
    fills(&mut alice, &away_id, 1000..).await;
    bob.says(confirmation(&first)).await;
    relay.has("delivered", 1);
    std::fs::remove_file(&filler).expect("it is there");
    relay.says("the queue can be written again");
    is_accepted_again(&mut alice, &away_id, 90_000).await;
    relay.is_killed();
    let relay = setup.start();
    let mut bob = Client::resumes(&relay, &token).await;
    assert_eq!(bob.waited(), 0);
    bob.hears_nothing().await;
}
