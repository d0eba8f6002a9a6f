//! `sealpost queue compact`: a smaller file with the same content, or the old one. (docs/durability.md: Compaction)

use std::fs;

use serde_json::json;

use crate::setup::{Setup, Started};
use crate::small_disk::SmallDisk;
use crate::support::Device;

/// Many messages were delivered, and the last `left` wait for the device with this token.
async fn much_has_gone(relay: &Started, all: u64, left: u64) -> serde_json::Value {
    let bob = Device::resumable(relay).await;
    let (id, token) = (bob.id.clone(), bob.token());
    bob.leave(relay).await;
    let mut alice = Device::plain(relay).await;
    for number in 1..=all {
        alice.send_message(&id, number, json!({"signature": "s".repeat(30_000)})).await;
        alice.expect_ack(number).await;
    }
    let mut bob = Device::resume(relay, &token).await;
    for number in 1..=all - left {
        bob.receive_and_ack(number).await;
    }
    bob.leave(relay).await;
    token
}

#[tokio::test]
async fn a_compacted_queue_is_smaller_and_has_everything() {
    let data = tempfile::tempdir().expect("a place");
    let (setup, file) = (Setup::on(data.path()), data.path().join("queue.redb"));
    let mut relay = setup.start().await;
    let token = much_has_gone(&relay, 400, 5).await;
    let refused = setup.run(&["queue", "compact"]);
    assert_eq!(refused.status.code(), Some(69), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("another relay is using"));
    relay.stop().await;

    let before = file.metadata().expect("it is there").len();
    let compacted = setup.run(&["queue", "compact"]);
    assert!(compacted.status.success(), "{compacted:?}");
    let after = file.metadata().expect("it is there").len();
    let text = String::from_utf8_lossy(&compacted.stdout).into_owned();
    assert!(text.ends_with(&format!("{before} bytes before, {after} after\n")), "{text}");
    assert!(after < before / 4, "{text}");
    assert!(!data.path().join("queue.redb.new").exists());
    setup.expect_sound();
    let relay = setup.start().await;
    let mut bob = Device::resume(&relay, &token).await;
    for number in 396..=400 {
        bob.receive_and_ack(number).await;
    }
    bob.expect_nothing().await;
}

#[tokio::test]
async fn a_compaction_without_room_leaves_the_queue_as_it_was() {
    let Some(disk) = SmallDisk::mount("16m") else { return };
    let setup = Setup::on(&disk.path().join("data"));
    let mut relay = setup.start().await;
    let token = much_has_gone(&relay, 300, 299).await;
    relay.stop().await;
    let compacted = setup.run(&["queue", "compact"]);
    assert_eq!(compacted.status.code(), Some(69), "{compacted:?}");
    assert!(String::from_utf8_lossy(&compacted.stderr).contains("No space left"), "{compacted:?}");
    setup.expect_sound();
    let relay = setup.start().await;
    assert_eq!(Device::resume(&relay, &token).await.queued(), 299);
}

#[tokio::test]
async fn what_a_killed_compaction_leaves_is_removed_at_the_next_start() {
    let data = tempfile::tempdir().expect("a place");
    let setup = Setup::on(data.path());
    let mut relay = setup.start().await;
    let token = much_has_gone(&relay, 3, 2).await;
    relay.stop().await;
    let half = fs::read(data.path().join("queue.redb")).expect("it is there");
    fs::write(data.path().join("queue.redb.new"), &half[..half.len() / 2]).expect("room");
    let relay = setup.start().await;
    assert!(!data.path().join("queue.redb.new").exists());
    assert_eq!(Device::resume(&relay, &token).await.queued(), 2);
}
