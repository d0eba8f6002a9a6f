//! What survives a restart, and which process may use the directory.

use serde_json::json;

use crate::client::{Client, message_id};
use crate::process::{Setup, eventually};

#[tokio::test]
async fn a_resumable_device_its_messages_and_the_counters_survive_kill_9() {
    let data = tempfile::tempdir().expect("a place");
    let setup = Setup::on(data.path());
    let mut relay = setup.start();
    let bob = Client::resumable(&relay).await;
    let (id, token) = (bob.id.clone(), bob.token());
    bob.leaves(&relay).await;
    let mut alice = Client::plain(&relay).await;
    for number in 1..=5 {
        alice.has_kept(&id, number).await;
    }
    assert_eq!((relay.figure("queued"), relay.figure("accepted")), (5, 5));
    let bytes = relay.figure("queued_bytes");
    relay.is_killed();
    let relay = setup.start();
    assert_eq!((relay.figure("queued"), relay.figure("accepted")), (5, 5));
    assert_eq!(relay.figure("queued_bytes"), bytes);
    let mut bob = Client::resumes(&relay, &token).await;
    assert_eq!((&bob.id, bob.waited()), (&id, 5));
    for number in 1..=5 {
        bob.receives(number).await;
    }
    bob.hears_nothing().await;
    relay.has("delivered", 5);
    assert_eq!((relay.figure("queued_bytes"), relay.figure("in_flight")), (0, 0));
}

#[tokio::test]
async fn a_repeat_is_recognised_after_a_restart_delivered_or_not() {
    let data = tempfile::tempdir().expect("a place");
    let setup = Setup::on(data.path());
    let mut relay = setup.start();
    let mut alice = Client::resumable(&relay).await;
    let mut bob = Client::resumable(&relay).await;
    let carol = Client::resumable(&relay).await;
    let (carol_id, carol_token) = (carol.id.clone(), carol.token());
    carol.leaves(&relay).await;
    alice.sends(&bob.id, 1, json!({})).await;
    bob.receives(1).await;
    alice.hears_ack(1).await;
    relay.has("delivered", 1);
    alice.has_kept(&carol_id, 2).await;
    relay.is_killed();

    let relay = setup.start();
    let mut alice = Client::resumes(&relay, &alice.token()).await;
    let mut bob = Client::resumes(&relay, &bob.token()).await;
    alice.has_kept(&bob.id, 1).await;
    alice.has_kept(&carol_id, 2).await;
    alice.sends(&bob.id, 1, json!({"encrypted_data": "something else"})).await;
    alice.hears_error(409).await;
    bob.hears_nothing().await;
    let mut carol = Client::resumes(&relay, &carol_token).await;
    carol.receives(2).await;
    carol.hears_nothing().await;
}

#[tokio::test]
async fn a_message_that_expired_while_the_relay_was_down_is_dropped_and_its_sender_notified_once() {
    let data = tempfile::tempdir().expect("a place");
    let setup = Setup::on(data.path());
    let mut relay = setup.start();
    let bob = Client::resumable(&relay).await;
    let (bob_id, bob_token) = (bob.id.clone(), bob.token());
    bob.leaves(&relay).await;
    let mut alice = Client::resumable(&relay).await;
    let token = alice.token();
    alice.sends(&bob_id, 1, json!({"ttl": 1})).await;
    alice.hears_ack(1).await;
    alice.has_kept(&bob_id, 2).await;
    relay.is_killed();
    eventually("the end of the ttl", || setup.stat("expired") == 1);

    let mut relay = setup.start();
    relay.has("expired", 1);
    assert_eq!((relay.figure("accepted"), relay.figure("queued")), (2, 1));
    // The notice to Alice survives another restart.
    relay.is_killed();
    let mut relay = setup.start();
    let mut alice = Client::resumes(&relay, &token).await;
    let told = alice.hears_error(410).await;
    assert_eq!(told["message_id"], message_id(1));
    alice.hears_nothing().await;
    alice.has_kept(&bob_id, 3).await;
    relay.is_killed();

    let relay = setup.start();
    let mut alice = Client::resumes(&relay, &token).await;
    alice.hears_nothing().await;
    let mut bob = Client::resumes(&relay, &bob_token).await;
    bob.receives(2).await;
    bob.receives(3).await;
    bob.hears_nothing().await;
}

#[tokio::test]
async fn a_plain_device_that_left_is_still_known_and_one_that_never_was_is_not() {
    let data = tempfile::tempdir().expect("a place");
    let setup = Setup::on(data.path());
    let mut relay = setup.start();
    let plain = Client::plain(&relay).await;
    let id = plain.id.clone();
    plain.leaves(&relay).await;
    let mut alice = Client::resumable(&relay).await;
    alice.has_kept(&id, 1).await;
    relay.is_killed();

    let relay = setup.start();
    let mut alice = Client::resumes(&relay, &alice.token()).await;
    alice.sends(&id, 2, json!({"ttl": 1})).await;
    alice.hears_ack(2).await;
    let told = alice.hears_error(410).await;
    assert_eq!(told["message_id"], message_id(2));
    alice.sends(&message_id(77), 3, json!({})).await;
    alice.hears_error(404).await;
}

#[tokio::test]
async fn a_device_whose_absence_ended_while_the_relay_was_down_is_gone_and_its_senders_are_notified()
 {
    let data = tempfile::tempdir().expect("a place");
    let setup = Setup::on(data.path());
    let mut relay = setup.clone().with("SESSION__TTL", "1s").start();
    let bob = Client::resumable(&relay).await;
    let (id, token) = (bob.id.clone(), bob.token());
    bob.leaves(&relay).await;
    let mut alice = Client::resumable(&relay).await;
    alice.has_kept(&id, 1).await;
    alice.sends(&id, 2, json!({"ttl": 2})).await;
    alice.hears_ack(2).await;
    relay.is_killed();
    // Bob's absence ends before this message expires.
    eventually("the end of the ttl", || setup.stat("expired") == 1);

    let relay = setup.start();
    let resume = json!({"resume_token": token});
    let (_, refused) = Client::begins(&relay, resume).await.expect("it serves");
    assert_eq!(refused["payload"]["code"], 401, "{refused}");
    let mut alice = Client::resumes(&relay, &alice.token()).await;
    let mut told = Vec::new();
    for _ in 0..2 {
        told.push(alice.hears_error(410).await["message_id"].clone());
    }
    told.sort_by_key(ToString::to_string);
    assert_eq!(told, [message_id(1), message_id(2)]);
    alice.sends(&id, 3, json!({})).await;
    alice.hears_error(404).await;
}

#[tokio::test]
async fn messages_stay_although_fewer_devices_are_allowed_after_a_restart() {
    let data = tempfile::tempdir().expect("a place");
    let setup = Setup::on(data.path());
    let mut relay = setup.start();
    let mut away = Vec::new();
    for _ in 0..3 {
        let device = Client::resumable(&relay).await;
        away.push((device.id.clone(), device.token()));
        device.leaves(&relay).await;
    }
    let mut alice = Client::plain(&relay).await;
    for (number, (id, _)) in (1..).zip(&away) {
        alice.has_kept(id, number).await;
    }
    relay.is_killed();
    let relay = setup.with("LIMITS__DEVICES", "1").start();
    assert_eq!(relay.figure("queued"), 3);
    for (number, (_, token)) in (1..).zip(&away) {
        Client::resumes(&relay, token).await.receives(number).await;
    }
    let (_, refused) = Client::begins(&relay, json!({})).await.expect("it serves");
    assert_eq!(refused["payload"]["code"], 503, "{refused}");
}

#[tokio::test]
async fn one_relay_at_a_time_and_no_inspection_while_it_runs() {
    let data = tempfile::tempdir().expect("a place");
    let setup = Setup::on(data.path());
    let mut relay = setup.start();
    let bob = Client::resumable(&relay).await;
    let id = bob.id.clone();
    bob.leaves(&relay).await;
    Client::plain(&relay).await.has_kept(&id, 1).await;
    let second = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    for args in [&second[..], &["queue", "stats"], &["queue", "verify"]] {
        let refused = setup.run(args);
        assert_eq!(refused.status.code(), Some(69), "{refused:?}");
        let said = String::from_utf8(refused.stderr).expect("text");
        assert!(said.contains("another relay is using this directory"), "{said}");
        assert!(said.contains(data.path().to_str().expect("a path")), "{said}");
    }
    relay.stops();
    let left = ["messages", "recipients", "resumable_devices", "damaged"];
    assert_eq!(left.map(|name| setup.stat(name)), [1, 1, 1, 0]);
    setup.is_sound();
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
