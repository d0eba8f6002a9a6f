//! What survives a restart, and which process may use the directory.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::setup::Setup;
use crate::support::{Device, eventually, message_id};

#[tokio::test]
async fn a_resumable_device_its_messages_and_the_counters_survive_kill_9() {
    let data = tempfile::tempdir().expect("a place");
    let setup = Setup::on(data.path());
    let mut relay = setup.start().await;
    let bob = Device::resumable(&relay).await;
    let (id, token) = (bob.id.clone(), bob.token());
    bob.leave(&relay).await;
    let mut alice = Device::plain(&relay).await;
    for number in 1..=5 {
        alice.send_and_expect_ack(&id, number).await;
    }
    assert_eq!((relay.figure("queued").await, relay.figure("accepted").await), (5, 5));
    let bytes = relay.figure("queued_bytes").await;
    relay.kill();
    let relay = setup.start().await;
    assert_eq!((relay.figure("queued").await, relay.figure("accepted").await), (5, 5));
    assert_eq!(relay.figure("queued_bytes").await, bytes);
    let mut bob = Device::resume(&relay, &token).await;
    assert_eq!((&bob.id, bob.queued()), (&id, 5));
    for number in 1..=5 {
        bob.receive_and_ack(number).await;
    }
    bob.expect_nothing().await;
    relay.wait_for("delivered", 5).await;
    assert_eq!((relay.figure("queued_bytes").await, relay.figure("in_flight").await), (0, 0));
}

#[tokio::test]
async fn a_repeat_is_recognised_after_a_restart_delivered_or_not() {
    let data = tempfile::tempdir().expect("a place");
    let setup = Setup::on(data.path());
    let mut relay = setup.start().await;
    let mut alice = Device::resumable(&relay).await;
    let mut bob = Device::resumable(&relay).await;
    let carol = Device::resumable(&relay).await;
    let (carol_id, carol_token) = (carol.id.clone(), carol.token());
    carol.leave(&relay).await;
    alice.send_message(&bob.id, 1, json!({})).await;
    bob.receive_and_ack(1).await;
    alice.expect_ack(1).await;
    relay.wait_for("delivered", 1).await;
    alice.send_and_expect_ack(&carol_id, 2).await;
    relay.kill();

    let relay = setup.start().await;
    let mut alice = Device::resume(&relay, &alice.token()).await;
    let mut bob = Device::resume(&relay, &bob.token()).await;
    alice.send_and_expect_ack(&bob.id, 1).await;
    alice.send_and_expect_ack(&carol_id, 2).await;
    alice.send_message(&bob.id, 1, json!({"encrypted_data": "something else"})).await;
    alice.expect_error(409).await;
    bob.expect_nothing().await;
    let mut carol = Device::resume(&relay, &carol_token).await;
    carol.receive_and_ack(2).await;
    carol.expect_nothing().await;
}

#[tokio::test]
async fn a_message_that_expired_while_the_relay_was_down_is_dropped_and_its_sender_notified_once() {
    let data = tempfile::tempdir().expect("a place");
    let setup = Setup::on(data.path());
    let mut relay = setup.start().await;
    let bob = Device::resumable(&relay).await;
    let (bob_id, bob_token) = (bob.id.clone(), bob.token());
    bob.leave(&relay).await;
    let mut alice = Device::resumable(&relay).await;
    let token = alice.token();
    alice.send_message(&bob_id, 1, json!({"ttl": 1})).await;
    alice.expect_ack(1).await;
    alice.send_and_expect_ack(&bob_id, 2).await;
    relay.kill();
    eventually("the end of the ttl", async || setup.stat("expired") == 1).await;

    let mut relay = setup.start().await;
    relay.wait_for("expired", 1).await;
    assert_eq!((relay.figure("accepted").await, relay.figure("queued").await), (2, 1));
    // The notice to Alice survives another restart.
    relay.kill();
    let mut relay = setup.start().await;
    let mut alice = Device::resume(&relay, &token).await;
    let notice = alice.expect_error(410).await;
    assert_eq!(notice["message_id"], message_id(1));
    alice.expect_nothing().await;
    alice.send_and_expect_ack(&bob_id, 3).await;
    relay.kill();

    let relay = setup.start().await;
    let mut alice = Device::resume(&relay, &token).await;
    alice.expect_nothing().await;
    let mut bob = Device::resume(&relay, &bob_token).await;
    bob.receive_and_ack(2).await;
    bob.receive_and_ack(3).await;
    bob.expect_nothing().await;
}

#[tokio::test]
async fn after_a_restart_ids_are_answered_in_the_letters_of_the_sender() {
    let data = tempfile::tempdir().expect("a place");
    let setup = Setup::on(data.path());
    let mut relay = setup.start().await;
    let bob = Device::resumable(&relay).await;
    let (small, token) = (bob.id.clone(), bob.token());
    let capital = small.to_uppercase();
    bob.leave(&relay).await;
    let carol = Device::resumable(&relay).await;
    let carol_id = carol.id.clone();
    carol.leave(&relay).await;
    let mut alice = Device::with_receipts(&relay).await;
    let id = |number: u64| format!("{number}47AC10B-58CC-4372-A567-0E02B2C3D479");
    for (number, recipient, ttl) in [(1, &capital, 1), (2, &small, 300)] {
        let more = json!({"message_id": id(number), "ttl": ttl});
        alice.send_message(recipient, number, more).await;
        assert_eq!(alice.expect_frame("Ack").await["message_id"], json!(id(number)));
    }
    relay.kill();
    eventually("the end of the ttl", async || setup.stat("expired") == 1).await;

    let mut relay = setup.start().await;
    relay.wait_for("expired", 1).await;
    let mut bob = Device::resume(&relay, &token).await;
    bob.expect_frame("Receive").await;
    bob.send(json!({"type": "Ack", "payload": {"message_id": id(2).to_lowercase()}})).await;
    relay.wait_for("delivered", 1).await;
    bob.send_and_expect_ack(&carol_id, 3).await;
    // The notices survive another restart.
    relay.kill();
    let relay = setup.start().await;
    let register = json!({"resume_token": alice.token(), "receipts": true});
    let mut alice =
        Device::register(&relay, json!({"type": "Register", "payload": register})).await;
    let notice = alice.expect_error(410).await;
    let sentence = format!("Message {} expired after 1 s undelivered.", id(1));
    assert_eq!(notice["message"], json!(sentence));
    assert_eq!((&notice["message_id"], &notice["recipient_id"]), (&json!(id(1)), &json!(capital)));
    let receipt = alice.expect_frame("Ack").await;
    assert_eq!(receipt, json!({"message_id": id(2), "status": "processed"}));
}

#[tokio::test]
async fn a_plain_device_that_left_is_still_known_and_one_that_never_was_is_not() {
    let data = tempfile::tempdir().expect("a place");
    let setup = Setup::on(data.path());
    let mut relay = setup.start().await;
    let plain = Device::plain(&relay).await;
    let id = plain.id.clone();
    plain.leave(&relay).await;
    let mut alice = Device::resumable(&relay).await;
    alice.send_and_expect_ack(&id, 1).await;
    relay.kill();

    let relay = setup.start().await;
    let mut alice = Device::resume(&relay, &alice.token()).await;
    alice.send_message(&id, 2, json!({"ttl": 1})).await;
    alice.expect_ack(2).await;
    let notice = alice.expect_error(410).await;
    assert_eq!(notice["message_id"], message_id(2));
    alice.send_message(&message_id(77), 3, json!({})).await;
    alice.expect_error(404).await;
}

#[tokio::test]
async fn a_device_whose_absence_ended_while_the_relay_was_down_is_gone_and_its_senders_are_notified()
 {
    let data = tempfile::tempdir().expect("a place");
    let setup = Setup::on(data.path());
    let mut relay = setup.clone().with("SESSION__TTL", "1s").start().await;
    let bob = Device::resumable(&relay).await;
    let (id, token) = (bob.id.clone(), bob.token());
    bob.leave(&relay).await;
    let mut alice = Device::resumable(&relay).await;
    alice.send_and_expect_ack(&id, 1).await;
    alice.send_message(&id, 2, json!({"ttl": 2})).await;
    alice.expect_ack(2).await;
    relay.kill();
    // Bob's absence ends before this message expires.
    eventually("the end of the ttl", async || setup.stat("expired") == 1).await;

    let relay = setup.start().await;
    let resume = json!({"type": "Register", "payload": {"resume_token": token}});
    let mut refused = Device::connect(&relay).await;
    refused.send(resume).await;
    refused.expect_error(401).await;
    let mut alice = Device::resume(&relay, &alice.token()).await;
    let mut notified = Vec::new();
    for _ in 0..2 {
        notified.push(alice.expect_error(410).await["message_id"].clone());
    }
    notified.sort_by_key(ToString::to_string);
    assert_eq!(notified, [message_id(1), message_id(2)]);
    alice.send_message(&id, 3, json!({})).await;
    alice.expect_error(404).await;
}

#[tokio::test]
async fn messages_stay_although_fewer_devices_are_allowed_after_a_restart() {
    let data = tempfile::tempdir().expect("a place");
    let setup = Setup::on(data.path());
    let mut relay = setup.start().await;
    let mut away = Vec::new();
    for _ in 0..3 {
        let device = Device::resumable(&relay).await;
        away.push((device.id.clone(), device.token()));
        device.leave(&relay).await;
    }
    let mut alice = Device::plain(&relay).await;
    for (number, (id, _)) in (1..).zip(&away) {
        alice.send_and_expect_ack(id, number).await;
    }
    relay.kill();
    let relay = setup.with("LIMITS__DEVICES", "1").start().await;
    assert_eq!(relay.figure("queued").await, 3);
    for (number, (_, token)) in (1..).zip(&away) {
        Device::resume(&relay, token).await.receive_and_ack(number).await;
    }
    let mut refused = Device::connect(&relay).await;
    refused.send(json!({"type": "Register"})).await;
    refused.expect_error(503).await;
}

#[tokio::test]
async fn one_relay_at_a_time_and_no_inspection_while_it_runs() {
    let data = tempfile::tempdir().expect("a place");
    let setup = Setup::on(data.path());
    let mut relay = setup.start().await;
    let bob = Device::resumable(&relay).await;
    let id = bob.id.clone();
    bob.leave(&relay).await;
    Device::plain(&relay).await.send_and_expect_ack(&id, 1).await;
    let second = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    for args in [&second[..], &["queue", "stats"], &["queue", "verify"]] {
        let refused = setup.run(args);
        assert_eq!(refused.status.code(), Some(69), "{refused:?}");
        let stderr = String::from_utf8(refused.stderr).expect("text");
        assert!(stderr.contains("another relay is using this directory"), "{stderr}");
        assert!(stderr.contains(data.path().to_str().expect("a path")), "{stderr}");
    }
    relay.stop().await;
    let left = ["messages", "recipients", "resumable_devices", "damaged"];
    assert_eq!(left.map(|name| setup.stat(name)), [1, 1, 1, 0]);
    setup.expect_sound();
}

#[tokio::test]
async fn a_file_that_is_no_queue_is_named_and_left_alone() {
    let data = tempfile::tempdir().expect("a place");
    let file = data.path().join("queue.redb");
    std::fs::write(&file, "something else").expect("room");
    let args = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let refused = Setup::on(data.path()).run(&args);
    assert_eq!(refused.status.code(), Some(69), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("queue.redb"), "{refused:?}");
    assert_eq!(std::fs::read(&file).expect("it is there"), b"something else");
}

#[tokio::test]
async fn a_message_for_this_moment_is_delivered_once_although_its_sender_repeats_it_after_kill_9() {
    let data = tempfile::tempdir().expect("a place");
    let setup = Setup::on(data.path());
    let mut relay = setup.start().await;
    let mut alice = Device::resumable(&relay).await;
    let mut bob = Device::resumable(&relay).await;
    alice.send_message(&bob.id, 1, json!({"ttl": 0})).await;
    bob.receive(1).await;
    alice.expect_ack(1).await;
    relay.kill();
    let relay = setup.start().await;
    let mut alice = Device::resume(&relay, &alice.token()).await;
    let bob = Device::resume(&relay, &bob.token()).await;
    alice.send_message(&bob.id, 1, json!({"ttl": 0})).await;
    alice.expect_ack(1).await;
    bob.expect_nothing_and_close().await;
}

#[tokio::test]
async fn receipts_that_a_repeat_has_turned_on_and_the_wish_for_them_survive_kill_9() {
    let data = tempfile::tempdir().expect("a place");
    let setup = Setup::on(data.path());
    let mut relay = setup.start().await;
    let alice = Device::resumable(&relay).await;
    let mut bob = Device::resumable(&relay).await;
    let token = alice.token();
    let mut alice = alice.reconnect(&relay).await;
    alice.send_to(&bob, 1).await;
    alice.expect_ack(1).await;
    drop(alice);
    let resume = json!({"type": "Register", "payload": {"resume_token": token, "receipts": true}});
    let mut alice = Device::register(&relay, resume.clone()).await;
    alice.send_to(&bob, 1).await;
    assert_eq!(alice.expect_frame("Ack").await["status"], "queued");
    // Its commit follows that of the receipts.
    alice.send_to(&bob, 2).await;
    assert_eq!(alice.expect_frame("Ack").await["status"], "queued");
    bob.receive(1).await;
    relay.kill();
    let relay = setup.start().await;
    let mut bob = Device::resume(&relay, &bob.token()).await;
    for number in [1, 2] {
        bob.receive_and_ack(number).await;
    }
    relay.wait_for("delivered", 2).await;
    let mut alice = Device::register(&relay, resume).await;
    for number in [1, 2] {
        let receipt = json!({"message_id": message_id(number), "status": "processed"});
        assert_eq!(alice.expect_frame("Ack").await, receipt);
    }
}

/// A start that read a large queue ignored signals until it served, so a service manager killed it.
#[tokio::test]
async fn a_signal_during_a_start_ends_the_process_and_leaves_the_queue_as_it_was() {
    let data = tempfile::tempdir().expect("a place");
    let setup = Setup::on(data.path());
    let mut relay = setup.start().await;
    let bob = Device::resumable(&relay).await;
    let (id, token) = (bob.id.clone(), bob.token());
    bob.leave(&relay).await;
    let mut alice = Device::plain(&relay).await;
    for number in 1..=5 {
        alice.send_and_expect_ack(&id, number).await;
    }
    relay.kill();

    // The start warns of this mode before it opens the queue.
    set_permissions(data.path(), Permissions::from_mode(0o777)).expect("its owner may");
    for (place, line) in [("sync", "OTHERS MAY WRITE"), ("core", "is listening on")] {
        let held = setup.clone().held_at(place);
        for signal in ["TERM", "INT"] {
            let mut relay = held.spawn();
            relay.expect_log(line).await;
            relay.signal(signal);
            assert_eq!(relay.exit().await, Some(0), "{}", relay.log);
            for part in [&format!("signal=SIG{signal}"), "goodbye, no connection was served yet"] {
                assert!(relay.log.contains(part), "{part} is not in\n{}", relay.log);
            }
        }
    }
    setup.expect_sound();
    let relay = setup.start().await;
    let mut bob = Device::resume(&relay, &token).await;
    assert_eq!(bob.queued(), 5);
    for number in 1..=5 {
        bob.receive_and_ack(number).await;
    }
    bob.expect_nothing().await;
}
