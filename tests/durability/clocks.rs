//! A ttl means time that passes, whatever happens to the machine's clocks. (docs/durability.md: What time is it)

use serde_json::{Value, json};

use crate::moved_clocks::MovedClocks;
use crate::setup::{Setup, Started};
use crate::support::{Device, eventually, message_id};

const DAY: i64 = 86_400;

/// A resumable device that has left: its id and its token.
async fn absent_device(relay: &Started) -> (String, Value) {
    let device = Device::resumable(relay).await;
    let (id, token) = (device.id.clone(), device.token());
    device.leave(relay).await;
    (id, token)
}

#[tokio::test]
async fn a_suspended_machine_goes_on_counting_and_disconnects_nobody() {
    let (data, clocks) = (tempfile::tempdir().expect("a place"), MovedClocks::new());
    let setup = Setup::on(data.path()).with("SESSION__TTL", "1h").with_clocks(&clocks);
    let relay = setup.start().await;
    let (bob, token) = absent_device(&relay).await;
    let (_, forgotten) = absent_device(&relay).await;
    let mut alice = Device::plain(&relay).await;
    alice.send_message(&bob, 1, json!({"ttl": 600})).await;
    alice.expect_ack(1).await;
    alice.send_message(&bob, 2, json!({"ttl": 900})).await;
    alice.expect_ack(2).await;
    clocks.pass(700);
    let notice = alice.expect_error(410).await;
    assert_eq!(notice["message_id"], message_id(1));
    let mut bob = Device::resume(&relay, &token).await;
    bob.receive_and_ack(2).await;
    clocks.pass(3_000);
    bob.expect_nothing().await;
    alice.send_and_expect_ack(&bob.id, 3).await;
    bob.receive_and_ack(3).await;
    let resume = json!({"type": "Register", "payload": {"resume_token": forgotten}});
    Device::connect(&relay).await.expect_refusal(resume, 401).await;
}

#[tokio::test]
async fn a_restart_within_a_boot_does_not_look_at_the_wall_clock() {
    let (data, clocks) = (tempfile::tempdir().expect("a place"), MovedClocks::new());
    let setup = Setup::on(data.path()).with_clocks(&clocks);
    let today = clocks.wall_clock();
    clocks.set_wall_clock(100);
    let mut relay = setup.start().await;
    let (bob, token) = absent_device(&relay).await;
    let mut alice = Device::resumable(&relay).await;
    alice.send_message(&bob, 1, json!({"ttl": 600})).await;
    alice.expect_ack(1).await;
    alice.send_message(&bob, 2, json!({"ttl": 900})).await;
    alice.expect_ack(2).await;
    let alice_token = alice.token();
    for wall_clock in [today, today + 365 * DAY, today - DAY, 7] {
        relay.kill();
        clocks.set_wall_clock(wall_clock);
        assert_eq!((setup.stat("messages"), setup.stat("expired")), (2, 0), "at {wall_clock}");
        relay = setup.start().await;
        assert_eq!(relay.figure("queued").await, 2);
    }
    relay.kill();
    // Time passes, and the wall clock is set back by more.
    clocks.pass(700);
    clocks.set_wall_clock(today - DAY);
    let relay = setup.start().await;
    let mut alice = Device::resume(&relay, &alice_token).await;
    assert_eq!(alice.expect_error(410).await["message_id"], message_id(1));
    let mut bob = Device::resume(&relay, &token).await;
    bob.receive_and_ack(2).await;
    bob.expect_nothing().await;
}

#[tokio::test]
async fn a_later_boot_goes_by_the_last_offset_of_the_wall_clock() {
    let (data, clocks) = (tempfile::tempdir().expect("a place"), MovedClocks::new());
    let setup = Setup::on(data.path()).with_clocks(&clocks);
    let today = clocks.wall_clock();
    clocks.set_wall_clock(100);
    let mut relay = setup.start().await;
    let (bob, token) = absent_device(&relay).await;
    let mut alice = Device::plain(&relay).await;
    alice.send_message(&bob, 1, json!({"ttl": 600})).await;
    alice.expect_ack(1).await;
    // The commit of the second message has the new offset, too.
    clocks.set_wall_clock(today);
    alice.send_message(&bob, 2, json!({"ttl": 900})).await;
    alice.expect_ack(2).await;
    relay.kill();
    clocks.boot_again(300);
    assert_eq!(setup.stat("expired"), 0);
    let mut relay = setup.start().await;
    assert_eq!(relay.figure("queued").await, 2);
    relay.kill();
    clocks.boot_again(400);
    assert_eq!((setup.stat("messages"), setup.stat("expired")), (2, 1));
    // A battery that is empty: nothing is left for longer than its ttl, and no restart in this boot begins anew.
    clocks.set_wall_clock(0);
    let mut relay = setup.start().await;
    relay.kill();
    clocks.pass(650);
    let mut relay = setup.start().await;
    relay.wait_for("expired", 1).await;
    assert_eq!(relay.figure("queued").await, 1);
    let mut bob = Device::resume(&relay, &token).await;
    bob.receive_and_ack(2).await;
    bob.expect_nothing().await;
    relay.kill();
}

/// The clock is set while nothing is sent.
#[tokio::test]
async fn a_step_of_the_wall_clock_is_noticed_without_a_message() {
    let (data, clocks) = (tempfile::tempdir().expect("a place"), MovedClocks::new());
    let setup = Setup::on(data.path()).with_clocks(&clocks);
    let today = clocks.wall_clock();
    clocks.set_wall_clock(100);
    let mut relay = setup.start().await;
    let (bob, token) = absent_device(&relay).await;
    let mut alice = Device::plain(&relay).await;
    alice.send_message(&bob, 1, json!({"ttl": 600})).await;
    alice.expect_ack(1).await;
    let changed = || last_write(data.path());
    let before = changed();
    clocks.set_wall_clock(today);
    eventually("a commit", async || changed() > before).await;
    relay.kill();
    clocks.boot_again(60);
    let relay = setup.start().await;
    let mut bob = Device::resume(&relay, &token).await;
    bob.receive_and_ack(1).await;
}

fn last_write(data: &std::path::Path) -> std::time::SystemTime {
    let file = std::fs::metadata(data.join("queue.redb")).expect("the queue is there");
    file.modified().expect("a time")
}
