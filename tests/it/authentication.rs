//! Two devices verify each other; the relay forwards the steps to the right device, in order. (threats: T45)

use serde_json::{Value, json};

use crate::support::{Device, Relay};

fn success(of: &Device) -> Value {
    json!({"type": "AuthSuccess", "payload": {"device_id": of.id, "trusted": true}})
}

fn to(device: &Device) -> Value {
    json!({"recipient_id": device.id})
}

async fn two(relay: &Relay) -> (Device, Device) {
    (Device::plain(relay).await, Device::plain(relay).await)
}

async fn requests(from: &mut Device, whom: &mut Device) {
    let frame = from.auth("AuthRequest", to(whom));
    from.send_through(whom, frame).await;
}

async fn responds(from: &mut Device, whom: &mut Device) {
    let frame = from.auth("AuthResponse", json!({}));
    from.send_through(whom, frame).await;
}

async fn verifies(from: &mut Device, whom: &mut Device) {
    let frame = from.auth("AuthVerify", json!({}));
    from.send_through(whom, frame).await;
}

async fn is_404(device: &mut Device, step: &str, more: Value) {
    let frame = device.auth(step, more);
    let error = device.expect_refusal(frame, 404).await;
    assert_eq!(error["message"], "No open authentication exchange.");
}

async fn is_403(device: &mut Device, frame: Value) {
    let error = device.expect_refusal(frame, 403).await;
    let expected = "No authentication exchange with this device has been verified.";
    assert_eq!(error["message"], expected);
}

#[tokio::test]
async fn an_exchange_goes_through_step_by_step() {
    let relay = Relay::start();
    let (mut alice, mut bob) = two(&relay).await;
    requests(&mut alice, &mut bob).await;
    responds(&mut bob, &mut alice).await;
    verifies(&mut alice, &mut bob).await;
    for _ in 0..2 {
        let frame = success(&bob);
        alice.send_through(&mut bob, frame).await;
        let frame = success(&alice);
        bob.send_through(&mut alice, frame).await;
    }
}

#[tokio::test]
async fn a_step_without_an_exchange_is_refused() {
    let relay = Relay::start();
    let (mut alice, mut bob) = two(&relay).await;
    for step in ["AuthResponse", "AuthVerify"] {
        is_404(&mut alice, step, json!({})).await;
        is_404(&mut alice, step, to(&bob)).await;
    }
    let frame = success(&bob);
    is_403(&mut alice, frame).await;
    bob.expect_nothing().await;
}

#[tokio::test]
async fn a_step_out_of_order_or_repeated_is_refused() {
    let relay = Relay::start();
    let (mut alice, mut bob) = two(&relay).await;
    requests(&mut alice, &mut bob).await;
    is_404(&mut alice, "AuthResponse", json!({})).await;
    is_404(&mut alice, "AuthVerify", json!({})).await;
    is_404(&mut bob, "AuthVerify", json!({})).await;
    let (of_alice, of_bob) = (success(&alice), success(&bob));
    is_403(&mut alice, of_bob.clone()).await;
    is_403(&mut bob, of_alice.clone()).await;
    responds(&mut bob, &mut alice).await;
    is_404(&mut bob, "AuthResponse", json!({})).await;
    is_404(&mut bob, "AuthVerify", to(&alice)).await;
    is_403(&mut alice, of_bob).await;
    is_403(&mut bob, of_alice).await;
    verifies(&mut alice, &mut bob).await;
    is_404(&mut alice, "AuthVerify", json!({})).await;
    is_404(&mut bob, "AuthResponse", to(&alice)).await;
    for device in [&mut alice, &mut bob] {
        device.expect_nothing().await;
    }
}

#[tokio::test]
async fn a_third_device_takes_no_part() {
    let relay = Relay::start();
    let (mut alice, mut bob) = two(&relay).await;
    let mut mallory = Device::plain(&relay).await;
    requests(&mut alice, &mut bob).await;
    for other in [&alice, &bob] {
        let named = to(other);
        is_404(&mut mallory, "AuthResponse", named.clone()).await;
        is_404(&mut mallory, "AuthVerify", named).await;
    }
    is_404(&mut mallory, "AuthResponse", json!({})).await;
    is_404(&mut bob, "AuthResponse", to(&mallory)).await;
    responds(&mut bob, &mut alice).await;
    is_404(&mut alice, "AuthVerify", to(&mallory)).await;
    verifies(&mut alice, &mut bob).await;
    let (of_alice, of_mallory) = (success(&alice), success(&mallory));
    is_403(&mut mallory, of_alice).await;
    is_403(&mut alice, of_mallory).await;
    for device in [&mut alice, &mut bob, &mut mallory] {
        device.expect_nothing().await;
    }
}

#[tokio::test]
async fn an_exchange_ends_with_its_time() {
    let relay = Relay::start();
    let (mut alice, mut bob) = two(&relay).await;
    requests(&mut alice, &mut bob).await;
    relay.advance(59);
    responds(&mut bob, &mut alice).await;
    relay.advance(1);
    is_404(&mut alice, "AuthVerify", json!({})).await;
    requests(&mut alice, &mut bob).await;
    responds(&mut bob, &mut alice).await;
    verifies(&mut alice, &mut bob).await;
    relay.advance(60);
    let frame = success(&bob);
    is_403(&mut alice, frame).await;
    relay.wait_until(|health| health["exchanges"] == 0).await;
}

#[tokio::test]
async fn another_request_starts_the_exchange_over() {
    let relay = Relay::start();
    let (mut alice, mut bob) = two(&relay).await;
    requests(&mut alice, &mut bob).await;
    responds(&mut bob, &mut alice).await;
    requests(&mut alice, &mut bob).await;
    is_404(&mut alice, "AuthVerify", json!({})).await;
    responds(&mut bob, &mut alice).await;
    verifies(&mut alice, &mut bob).await;
    requests(&mut bob, &mut alice).await;
    let frame = success(&bob);
    is_403(&mut alice, frame).await;
}

#[tokio::test]
async fn when_both_begin_the_later_request_counts() {
    let relay = Relay::start();
    let (mut alice, mut bob) = two(&relay).await;
    requests(&mut alice, &mut bob).await;
    requests(&mut bob, &mut alice).await;
    is_404(&mut bob, "AuthResponse", json!({})).await;
    responds(&mut alice, &mut bob).await;
    verifies(&mut bob, &mut alice).await;
}

#[tokio::test]
async fn a_request_without_a_recipient_is_refused_if_the_sender_has_no_peer() {
    let relay = Relay::start();
    let (mut alice, mut bob) = two(&relay).await;
    let frame = alice.auth("AuthRequest", json!({}));
    let error = alice.expect_refusal(frame.clone(), 400).await;
    assert!(error["message"].as_str().is_some_and(|text| text.contains("recipient_id")), "{error}");
    // The frame is not malformed, so it is no strike: more frames than strikes leave the connection open.
    for _ in 0..12 {
        alice.expect_refusal(frame.clone(), 400).await;
    }
    let unknown = json!({"recipient_id": "c0ffee00-1234-4abc-9def-0123456789ab"});
    let frame = alice.auth("AuthRequest", unknown);
    let error = alice.expect_refusal(frame, 404).await;
    assert_eq!(error["message"], "Unknown recipient.");
    bob.expect_nothing().await;
}

#[tokio::test]
async fn a_request_without_a_recipient_is_refused_if_the_sender_has_several_peers() {
    let relay = Relay::start();
    let (mut alice, mut bob) = two(&relay).await;
    let mut carol = Device::plain(&relay).await;
    alice.send_to(&bob, 1).await;
    alice.expect_ack(1).await;
    bob.receive(1).await;
    let frame = alice.auth("AuthRequest", json!({}));
    alice.send_through(&mut bob, frame.clone()).await;
    carol.send_to(&alice, 1).await;
    carol.expect_ack(1).await;
    alice.receive(1).await;
    let error = alice.expect_refusal(frame, 409).await;
    assert_eq!(error["message"], "Ambiguous recipient: set recipient_id in the payload.");
    requests(&mut alice, &mut carol).await;
    bob.expect_nothing().await;
}

#[tokio::test]
async fn an_ambiguous_answer_must_name_its_recipient() {
    let relay = Relay::start();
    let (mut alice, mut bob) = two(&relay).await;
    let mut carol = Device::plain(&relay).await;
    requests(&mut alice, &mut carol).await;
    requests(&mut bob, &mut carol).await;
    let frame = carol.auth("AuthResponse", json!({}));
    carol.expect_refusal(frame, 409).await;
    let frame = carol.auth("AuthResponse", to(&bob));
    carol.send_through(&mut bob, frame).await;
    // Only one exchange waits now.
    responds(&mut carol, &mut alice).await;
}

#[tokio::test]
async fn an_undelivered_step_is_reported_to_its_sender() {
    let relay = Relay::start();
    let (mut alice, bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    let bob = bob.disconnect(&relay).await;
    let frame = alice.auth("AuthRequest", json!({"recipient_id": bob.id}));
    alice.send(frame.clone()).await;
    alice.expect_nothing().await;
    relay.advance(60);
    let error = alice.expect_error(410).await;
    assert_eq!(error["message"], "Authentication message expired after 60 s undelivered.");
    assert_eq!(error["recipient_id"], json!(bob.id));
    alice.send(frame.clone()).await;
    let mut bob = bob.reconnect(&relay).await;
    assert_eq!(bob.receive_any().await, frame, "it waited");
    bob.expect_nothing().await;
}

#[tokio::test]
async fn an_exchange_survives_a_resume() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::resumable(&relay).await, Device::resumable(&relay).await);
    requests(&mut alice, &mut bob).await;
    let mut bob = bob.reconnect(&relay).await;
    bob.expect_nothing().await;
    responds(&mut bob, &mut alice).await;
    let mut alice = alice.reconnect(&relay).await;
    verifies(&mut alice, &mut bob).await;
}

#[tokio::test]
async fn the_recipient_named_in_a_success_wins_and_must_be_verified() {
    let relay = Relay::start();
    let (mut alice, mut bob) = two(&relay).await;
    let carol = Device::plain(&relay).await;
    requests(&mut alice, &mut bob).await;
    responds(&mut bob, &mut alice).await;
    verifies(&mut alice, &mut bob).await;
    let named = |whom: &Device, of: &Device| {
        json!({"type": "AuthSuccess", "payload": {
            "device_id": of.id, "recipient_id": whom.id, "trusted": false,
        }})
    };
    let frame = named(&bob, &carol);
    alice.send_through(&mut bob, frame).await;
    let frame = named(&carol, &bob);
    is_403(&mut alice, frame).await;
    bob.expect_nothing().await;
    carol.expect_nothing_and_close().await;
}
