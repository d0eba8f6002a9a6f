//! Why a device does not get its messages, and what an operator does about it. (operations: Looking inside)

use serde_json::{Value, json};

use crate::support::binary::{FREE_PORTS, sealpost};
use crate::support::operator::Operator;
use crate::support::{Binary, Device, Relay};

/// Messages that fit into the window of these tests.
const WINDOW: u64 = 4;

fn relay() -> Relay {
    Relay::generous(|settings| settings.delivery.window = WINDOW as usize)
}

/// What `sealpost device show` says of a device: its first line.
async fn first_line(relay: &Relay, device: &str) -> String {
    let shown = Operator::of(relay.admin).prints(&["device", "show", device]).await;
    shown.lines().next().expect("a first line").to_owned()
}

async fn shown(relay: &Relay, device: &str) -> Value {
    Operator::of(relay.admin).json(&["device", "show", device, "--json"]).await
}

#[actix_rt::test]
async fn a_device_that_is_well_has_no_cause() {
    let relay = relay();
    let bob = Device::resumable(&relay).await;
    assert_eq!(
        first_line(&relay, &bob.id).await,
        "none: connected, and nothing keeps its messages"
    );
    let shown = shown(&relay, &bob.id).await;
    assert_eq!(shown["session"]["address"], "127.0.0.1");
    assert_eq!(shown["resumable"], true);
    assert!(shown["registered_at"].as_u64() > Some(1_700_000_000));
}

#[actix_rt::test]
async fn a_blocked_device_is_closed_and_refused_until_the_block_ends_and_loses_nothing() {
    let relay = relay();
    let operator = Operator::of(relay.admin);
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    let printed = operator.prints(&["device", "block", &bob.id]).await;
    assert_eq!(printed, format!("{} blocked\n", bob.id));
    assert_eq!(bob.expect_close().await, Some(4403));
    alice.send_and_expect_ack(&bob.id, 1).await;
    let line = first_line(&relay, &bob.id).await;
    assert_eq!(line, "blocked: blocked by an operator; 1 messages wait for it");

    let mut refused = Device::connect(&relay).await;
    refused.send(bob.resume_frame()).await;
    let error = refused.expect_error(403).await;
    assert_eq!(error["message"], "This device is blocked.");
    let listed = operator.json(&["device", "list", "--blocked", "--json"]).await;
    assert_eq!(listed["devices"][0]["id"], bob.id.as_str());
    assert_eq!(listed["devices"].as_array().map(Vec::len), Some(1));

    operator.prints(&["device", "unblock", &bob.id]).await;
    let mut bob = bob.reconnect(&relay).await;
    bob.receive(1).await;
}

#[actix_rt::test]
async fn a_device_that_says_offline_holds_its_messages() {
    let relay = relay();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    bob.set_status("Offline").await;
    bob.expect_nothing().await;
    alice.send_and_expect_ack(&bob.id, 1).await;
    let line = first_line(&relay, &bob.id).await;
    assert_eq!(line, "held: connected, but holds its messages back: it said Offline; 1 wait");
}

#[actix_rt::test]
async fn a_device_that_confirms_nothing_has_a_full_window_and_is_stuck_after_a_while() {
    let relay = relay();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    for number in 1..=WINDOW + 2 {
        alice.send_and_expect_ack(&bob.id, number).await;
    }
    relay.advance(60);
    let line = first_line(&relay, &bob.id).await;
    assert_eq!(
        line,
        "window_full: connected, but its window is full: it has confirmed nothing for 1m; 2 wait"
    );
    assert_eq!(relay.figure("stuck").await, 0);
    relay.advance(241);
    relay.wait_for("stuck", 1).await;
    assert_eq!(relay.scrape().await.value("sealpost_stuck_devices"), 1.0);
    assert_eq!(shown(&relay, &bob.id).await["connection"]["stuck"], true);
    bob.receive_and_ack(1).await;
    relay.wait_for("stuck", 0).await;
    // One that takes its messages slowly is not stuck.
    for number in 2..=3 {
        relay.advance(250);
        bob.receive_and_ack(number).await;
        assert_eq!(relay.figure("stuck").await, 0);
    }
}

/// The gauge was left one too high for ever.
#[actix_rt::test]
async fn a_stuck_device_that_ends_is_not_stuck_any_more() {
    let relay = relay();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    for number in 1..=WINDOW + 2 {
        alice.send_and_expect_ack(&bob.id, number).await;
    }
    relay.advance(301);
    relay.wait_for("stuck", 1).await;
    bob.send(json!({"type": "Unregister"})).await;
    relay.wait_for("stuck", 0).await;
}

#[actix_rt::test]
async fn a_device_whose_messages_expired_missed_them() {
    let relay = relay();
    let (mut alice, bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    let bob = bob.disconnect(&relay).await;
    alice.send_message(&bob.id, 1, json!({"ttl": 2})).await;
    alice.expect_ack(1).await;
    relay.advance(3);
    alice.expect_error(410).await;
    let line = first_line(&relay, &bob.id).await;
    assert!(line.starts_with("expired: 1 messages expired before they were delivered"), "{line}");
    let mut back = bob.reconnect(&relay).await;
    back.expect_nothing().await;
    let line = first_line(&relay, &bob.id).await;
    assert!(line.starts_with("expired: 1 messages expired"), "{line}");
}

#[actix_rt::test]
async fn a_device_that_was_resumed_elsewhere_says_so() {
    let relay = relay();
    let mut bob = Device::resumable(&relay).await;
    let elsewhere = Device::resume(&relay, &bob.token()).await;
    bob.expect_error(409).await;
    assert_eq!(bob.expect_close().await, Some(4409));
    let line = first_line(&relay, &elsewhere.id).await;
    assert!(line.starts_with("resumed_elsewhere: resumed elsewhere 0s ago"), "{line}");
}

#[actix_rt::test]
async fn a_device_with_a_full_queue_says_what_its_senders_get() {
    let relay = Relay::generous(|settings| settings.queue.messages = 4);
    let (mut alice, bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    let mut carol = Device::plain(&relay).await;
    let bob = bob.disconnect(&relay).await;
    for number in 1..=2 {
        alice.send_and_expect_ack(&bob.id, number).await;
        carol.send_and_expect_ack(&bob.id, number).await;
    }
    alice.send_message(&bob.id, 9, json!({})).await;
    alice.expect_error(507).await;
    let line = first_line(&relay, &bob.id).await;
    assert!(line.starts_with("queue_full: its queue is full: 4 of 4 messages"), "{line}");
    assert!(line.ends_with("1 were refused with 507; the device is away"), "{line}");
}

#[actix_rt::test]
async fn a_device_that_is_away_says_since_when_and_why() {
    let relay = relay();
    let bob = Device::resumable(&relay).await.disconnect(&relay).await;
    relay.advance(90);
    let line = first_line(&relay, &bob.id).await;
    let expected = "away: away for 1m 30s (its connection ended with 1005); 0 messages wait for it";
    assert_eq!(line, expected);
}

#[actix_rt::test]
async fn an_id_may_be_shortened_while_it_is_unique() {
    let relay = relay();
    let bob = Device::resumable(&relay).await;
    let operator = Operator::of(relay.admin);
    let shown = operator.json(&["device", "show", &bob.id[..8].to_uppercase(), "--json"]).await;
    assert_eq!(shown["id"], bob.id.as_str());
    let mut others = Vec::new();
    let twice = loop {
        let other = Device::plain(&relay).await;
        let is_alike = other.id[..1] == bob.id[..1];
        others.push(other);
        if is_alike {
            break bob.id[..1].to_owned();
        }
    };
    let refused = operator.run(&["device", "show", &twice]).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("several devices begin with this"), "{refused:?}");
    for (id, code) in [
        ("00000000-0000-4000-8000-000000000000", 1),
        ("00000000000", 1),
        ("zz", 64),
        ("../status", 64),
        ("", 64),
    ] {
        assert_eq!(operator.run(&["device", "show", id]).await.code, Some(code), "{id}");
    }
}

#[actix_rt::test]
async fn a_kicked_device_may_come_back_and_a_forgotten_one_is_unknown() {
    let relay = relay();
    let operator = Operator::of(relay.admin);
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    operator.prints(&["device", "kick", &bob.id]).await;
    assert_eq!(bob.expect_close().await, Some(1012));
    let mut bob = bob.reconnect(&relay).await;
    bob.set_status("Offline").await;
    bob.expect_nothing().await;
    alice.send_and_expect_ack(&bob.id, 1).await;
    operator.prints(&["device", "forget", &bob.id]).await;
    assert_eq!(bob.expect_close().await, Some(4403));
    assert_eq!(alice.expect_error(410).await["message_id"], crate::support::message_id(1));
    alice.send_message(&bob.id, 2, json!({})).await;
    alice.expect_error(404).await;
    assert_eq!(operator.run(&["device", "show", &bob.id]).await.code, Some(1));
    let mut late = Device::connect(&relay).await;
    late.send(bob.resume_frame()).await;
    late.expect_error(401).await;
}

#[actix_rt::test]
async fn the_list_is_bounded_and_filtered() {
    let relay = relay();
    let operator = Operator::of(relay.admin);
    let mut alice = Device::plain(&relay).await;
    let bob = Device::resumable(&relay).await.disconnect(&relay).await;
    let _carol = Device::resumable(&relay).await.disconnect(&relay).await;
    alice.send_and_expect_ack(&bob.id, 1).await;
    let ids = async |args: &[&str]| {
        let args = [&["device", "list", "--json"], args].concat();
        let listed = operator.json(&args).await;
        let ids = listed["devices"].as_array().expect("a list").iter();
        let ids: Vec<String> =
            ids.map(|device| device["id"].as_str().expect("an id").to_owned()).collect();
        (ids, listed["more"] == true)
    };
    assert_eq!(ids(&[]).await.0.len(), 3);
    assert_eq!(ids(&["--queued"]).await, (vec![bob.id.clone()], false));
    assert_eq!(ids(&["--connected"]).await, (vec![alice.id.clone()], false));
    let (some, more) = ids(&["--limit", "2"]).await;
    assert_eq!((some.len(), more), (2, true));
    let printed = operator.prints(&["device", "list", "--queued"]).await;
    assert!(printed.contains(&bob.id) && printed.lines().count() == 2, "{printed}");
}

#[actix_rt::test]
async fn a_device_that_takes_correspondents_only_says_that_others_were_refused() {
    let relay = Relay::start();
    let accept = json!({"resumable": true, "accept": "correspondents"});
    let hidden = Device::register(&relay, json!({"type": "Register", "payload": accept})).await;
    let mut stranger = Device::plain_from(&relay, 9).await;
    let frame = stranger.message_to(&hidden.id, 1, json!({}));
    stranger.expect_refusal(frame, 404).await;
    let line = first_line(&relay, &hidden.id).await;
    assert_eq!(
        line,
        "unknown_sender: it takes messages of its correspondents only: 1 of others were refused with 404"
    );
    let shown = shown(&relay, &hidden.id).await;
    assert_eq!(shown["since_registration"]["refused"]["404"], 1);
}

#[actix_rt::test]
async fn a_full_relay_is_the_cause_of_what_a_device_misses() {
    let relay = Relay::generous(|settings| settings.queue.total_bytes = 1000);
    let bob = Device::resumable(&relay).await.disconnect(&relay).await;
    let mut alice = Device::plain(&relay).await;
    let frame = alice.message_to(&bob.id, 1, json!({"encrypted_data": "e".repeat(2000)}));
    alice.expect_refusal(frame, 503).await;
    let line = first_line(&relay, &bob.id).await;
    assert_eq!(line, "relay_full: the relay's memory or disk was full: 1 were refused with 503");
}

/// The counts began anew with each start of the relay.
#[actix_rt::test]
async fn what_happened_to_a_devices_messages_is_counted_since_its_registration() {
    let directory = tempfile::tempdir().expect("a directory");
    let start = || {
        let mut command = sealpost(directory.path());
        command.args(FREE_PORTS);
        Binary::start(command)
    };
    let mut relay = start().await;
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    alice.send_and_expect_ack(&bob.id, 1).await;
    bob.receive_and_ack(1).await;
    let bob = bob.disconnect(&relay).await;
    alice.send_message(&bob.id, 2, json!({"ttl": 1})).await;
    alice.expect_ack(2).await;
    alice.expect_error(410).await;
    let expired = Operator::of(relay.admin).json(&["device", "show", &bob.id, "--json"]).await;
    relay.stop().await;
    let relay = start().await;
    let operator = Operator::of(relay.admin);
    let shown = operator.json(&["device", "show", &bob.id, "--json"]).await;
    assert_eq!(shown["since_registration"], expired["since_registration"]);
    assert_eq!(shown["since_registration"]["accepted"], 2);
    assert_eq!(shown["since_registration"]["expired"], 1);
    assert_eq!(shown["cause"], "expired");
}
