//! A sender without an Ack repeats its message. (threats: T30)

use serde_json::{Value, json};

use crate::support::{Device, Relay, message_id};

#[tokio::test]
async fn a_repeat_is_acked_again_and_delivered_once() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    let first = alice.message_to(&bob.id, 1, json!({"timestamp": 1, "ttl": 300}));
    let repeats = [
        first.clone(),
        alice.message_to(&bob.id, 1, json!({"timestamp": 2, "ttl": 20, "x-note": true})),
    ];
    alice.send(first.clone()).await;
    alice.expect_ack(1).await;
    assert_eq!(bob.receive(1).await, first["payload"]);
    for repeat in repeats {
        alice.send(repeat).await;
        alice.expect_ack(1).await;
        bob.expect_nothing().await;
    }
}

#[tokio::test]
async fn the_same_id_with_other_content_is_refused() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    alice.send_to(&bob, 1).await;
    alice.expect_ack(1).await;
    bob.receive(1).await;
    let other = alice.message_to(&bob.id, 1, json!({"encrypted_data": "something else"}));
    let error = alice.expect_refusal(other, 409).await;
    assert_eq!(error["message"], "This message_id was used for other content.");
    assert_eq!(error["message_id"], json!(message_id(1)));
    assert_eq!(error["recipient_id"], json!(bob.id));
    bob.expect_nothing().await;
}

#[tokio::test]
async fn content_is_compared_by_what_it_stands_for() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    let spelled = |alice: &Device, number: u64, data: &str| {
        let frame = alice.message_to(&bob.id, number, json!({"encrypted_data": "DATA"}));
        frame.to_string().replace("\"DATA\"", data)
    };
    let contents = [
        (r#""AA/BB+é==""#, r#""AA\/B\u0042+\u00E9==""#, r#""AA\\/BB+é==""#),
        (r#""\ud800 🦭""#, r#""\uD800\u0020\uD83E\uDDAD""#, r#""\ufffd 🦭""#),
    ];
    let frames: Vec<[String; 4]> = (1..)
        .zip(contents)
        .map(|(number, (data, same, other))| {
            [data, same, data, other].map(|data| spelled(&alice, number, data))
        })
        .collect();
    for (number, [first, same, again, other]) in (1..).zip(frames) {
        alice.send_text(&first).await;
        alice.expect_ack(number).await;
        bob.receive_text().await;
        for repeat in [same, again] {
            alice.send_text(&repeat).await;
            alice.expect_ack(number).await;
            bob.expect_nothing().await;
        }
        alice.send_text(&other).await;
        alice.expect_error(409).await;
        bob.expect_nothing().await;
    }
}

#[tokio::test]
async fn an_id_belongs_to_its_sender_and_its_recipient() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    let mut carol = Device::plain(&relay).await;
    let data = |text: &str| json!({"encrypted_data": text});
    let (to_bob, to_carol) =
        (alice.message_to(&bob.id, 1, data("a")), alice.message_to(&carol.id, 1, data("b")));
    let (back, from_carol) =
        (bob.message_to(&alice.id, 1, data("c")), carol.message_to(&bob.id, 1, data("d")));
    alice.send(to_bob).await;
    alice.expect_ack(1).await;
    bob.receive(1).await;
    alice.send(to_carol).await;
    alice.expect_ack(1).await;
    carol.receive(1).await;
    bob.send(back).await;
    bob.expect_ack(1).await;
    alice.receive(1).await;
    carol.send(from_carol).await;
    carol.expect_ack(1).await;
    bob.receive(1).await;
}

#[tokio::test]
async fn a_sender_repeats_after_it_has_resumed() {
    let relay = Relay::start();
    let (alice, mut bob) = (Device::resumable(&relay).await, Device::plain(&relay).await);
    let mut alice = alice;
    let frame = alice.message_to(&bob.id, 1, json!({}));
    alice.send(frame.clone()).await;
    bob.receive(1).await;
    // The connection is cut, before or after the Ack arrived.
    let mut alice = alice.reconnect(&relay).await;
    alice.send(frame).await;
    alice.expect_ack(1).await;
    bob.expect_nothing().await;
}

#[tokio::test]
async fn after_its_410_the_same_message_is_a_new_one() {
    let relay = Relay::start();
    let (mut alice, bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    let bob = bob.disconnect(&relay).await;
    let frame = alice.message_to(&bob.id, 1, json!({"ttl": 10}));
    alice.send(frame.clone()).await;
    alice.expect_ack(1).await;
    relay.advance(10);
    alice.expect_error(410).await;
    alice.send(frame).await;
    alice.expect_ack(1).await;
    let mut bob = bob.reconnect(&relay).await;
    bob.receive(1).await;
    bob.expect_nothing().await;
}

#[tokio::test]
async fn a_refused_message_leaves_its_id_free() {
    let relay = Relay::start();
    let (mut alice, bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    let bob = bob.disconnect(&relay).await;
    let frame = alice.message_to(&bob.id, 1, json!({"ttl": 0}));
    alice.expect_refusal(frame, 410).await;
    let frame = alice.message_to(&bob.id, 1, json!({"encrypted_data": "other"}));
    alice.send(frame).await;
    alice.expect_ack(1).await;
    bob.reconnect(&relay).await.receive(1).await;
}

#[tokio::test]
async fn repeats_are_known_for_the_window_and_forgotten_in_the_end() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    alice.send_to(&bob, 1).await;
    alice.expect_ack(1).await;
    bob.receive(1).await;
    relay.advance(599);
    alice.send_to(&bob, 1).await;
    alice.expect_ack(1).await;
    bob.expect_nothing().await;
    relay.advance(1201);
    alice.send_to(&bob, 2).await;
    alice.expect_ack(2).await;
    bob.receive(2).await;
    alice.send_to(&bob, 1).await;
    alice.expect_ack(1).await;
    bob.receive(1).await;
}

#[tokio::test]
async fn a_repeat_is_acked_with_what_has_become_of_the_message() {
    let relay = Relay::start();
    let mut alice = Device::with_receipts(&relay).await;
    let (mut bob, mut carol) = (Device::resumable(&relay).await, Device::plain(&relay).await);
    let status = |ack: Value| ack["status"].as_str().expect("a status").to_owned();

    alice.send_to(&bob, 1).await;
    assert_eq!(status(alice.expect_frame("Ack").await), "queued");
    bob.receive(1).await;
    alice.send_to(&bob, 1).await;
    assert_eq!(status(alice.expect_frame("Ack").await), "queued");
    bob.ack(1).await;
    assert_eq!(status(alice.expect_frame("Ack").await), "processed");
    alice.send_to(&bob, 1).await;
    assert_eq!(status(alice.expect_frame("Ack").await), "processed");
    bob.expect_nothing().await;

    alice.send_to(&carol, 1).await;
    assert_eq!(status(alice.expect_frame("Ack").await), "delivered");
    carol.receive(1).await;
    alice.send_to(&carol, 1).await;
    assert_eq!(status(alice.expect_frame("Ack").await), "delivered");
    carol.expect_nothing().await;

    let at_once = alice.message_to(&bob.id, 2, json!({"ttl": 0}));
    for _ in 0..2 {
        alice.send(at_once.clone()).await;
        assert_eq!(status(alice.expect_frame("Ack").await), "delivered");
    }
    // The ttl of a repeat is ignored.
    let patient = alice.message_to(&bob.id, 2, json!({"ttl": 300}));
    alice.send(patient).await;
    assert_eq!(status(alice.expect_frame("Ack").await), "delivered");
    bob.receive(2).await;
    bob.expect_nothing().await;
}

#[tokio::test]
async fn each_of_two_equal_sends_in_one_write_gets_its_ack() {
    let relay = Relay::start();
    let bob = Device::resumable(&relay).await.disconnect(&relay).await;
    let mut alice = Device::plain(&relay).await;
    let frame = alice.message_to(&bob.id, 1, json!({}));
    alice.send_all([frame.clone(), frame]).await;
    alice.expect_ack(1).await;
    alice.expect_ack(1).await;
    let mut bob = bob.reconnect(&relay).await;
    bob.receive_and_ack(1).await;
    bob.expect_nothing().await;
    alice.expect_nothing().await;
}
