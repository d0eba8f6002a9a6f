//! How often a device may send. (threats: T13, T25, T26)

use std::num::NonZeroU32;

use serde_json::{Value, json};

use tokio_tungstenite::tungstenite::Message;

use crate::support::{Device, Relay, message_id};

fn times(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).expect("not zero")
}

fn assert_over(error: &Value, limit: u64) {
    let expected = format!("Rate limit exceeded ({limit}/{limit}). Try again in a minute.");
    assert_eq!((&error["message"], &error["code"]), (&json!(expected), &json!(429)));
    assert_eq!((&error["limit"], &error["remaining"]), (&json!(limit), &json!(0)));
    assert!(error["retry_after_ms"].as_u64().is_some_and(|wait| wait > 0), "{error}");
}

/// The next `count` frames must be Acks and Errors 429; returns the times in the Errors, in order, with their messages.
async fn refusals_among(device: &mut Device, count: usize) -> Vec<(Value, u64)> {
    let mut refusals = Vec::new();
    for _ in 0..count {
        let frame = device.receive_any().await;
        let payload = &frame["payload"];
        if frame["type"] != "Ack" {
            assert_eq!(payload["code"], 429, "in {frame}");
            let time = payload["retry_after_ms"].as_u64().expect("a time");
            refusals.push((payload["message_id"].clone(), time));
        }
    }
    refusals
}

/// Uses up the allowance of a minute.
async fn send_sixty(from: &mut Device, to: &mut Device) {
    let frames: Vec<_> =
        (1..=60).map(|number| from.message_to(&to.id, number, json!({}))).collect();
    from.send_all(frames).await;
    for number in 1..=60 {
        from.expect_ack(number).await;
        to.receive(number).await;
    }
}

#[tokio::test]
async fn sixty_messages_pass_at_once_and_the_next_is_refused_with_the_exact_text() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    send_sixty(&mut alice, &mut bob).await;
    let frame = alice.message_to(&bob.id, 61, json!({}));
    let error = alice.expect_refusal(frame.clone(), 429).await;
    assert_eq!(error["message"], "Rate limit exceeded (60/60). Try again in a minute.");
    assert_over(&error, 60);
    assert_eq!(error["message_id"], json!(message_id(61)));
    assert_eq!(error["recipient_id"], json!(bob.id));
    bob.expect_nothing().await;
    // Bob has an allowance of his own.
    bob.send_to(&alice, 1).await;
    bob.expect_ack(1).await;
    alice.receive(1).await;
    // Alice may repeat the message after `retry_after_ms`, and not before.
    let wait = error["retry_after_ms"].as_u64().expect("a time");
    relay.clock.advance(std::time::Duration::from_millis(wait - 1));
    alice.expect_refusal(frame.clone(), 429).await;
    relay.clock.advance(std::time::Duration::from_millis(1));
    alice.send(frame).await;
    alice.expect_ack(61).await;
    bob.receive(61).await;
}

/// Issue 9, G27: 110 messages at once gave 737 Errors and a close, for all were told the same time.
#[tokio::test]
async fn who_obeys_each_429_gets_everything_through_in_order_without_another() {
    for burst in [60, 1] {
        let relay = Relay::with(|settings| settings.rate_limit.burst = times(burst));
        let burst = u64::from(burst);
        let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
        let frames: Vec<_> =
            (1..=110).map(|number| alice.message_to(&bob.id, number, json!({}))).collect();
        alice.send_all(frames.clone()).await;
        for number in 1..=burst {
            bob.receive(number).await;
        }
        let refusals = refusals_among(&mut alice, frames.len()).await;
        let expected = (1..).zip(burst + 1..=110);
        let expected = expected.map(|(place, number)| (json!(message_id(number)), place * 1_000));
        assert_eq!(refusals, expected.collect::<Vec<_>>());
        let mut waited = 0;
        for (number, (_, time)) in (burst + 1..).zip(refusals) {
            // A network adds some milliseconds, now more, now fewer.
            let now = time + if number % 2 == 0 { 40 } else { 3 };
            relay.clock.advance(std::time::Duration::from_millis(now - waited));
            waited = now;
            alice.send(frames[usize::try_from(number).expect("few") - 1].clone()).await;
            alice.expect_ack(number).await;
            bob.receive(number).await;
        }
    }
}

#[tokio::test]
async fn with_a_burst_of_one_a_client_that_obeys_each_429_is_never_closed() {
    let relay = Relay::with(|settings| settings.rate_limit.burst = times(1));
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    for number in 1..=700 {
        let frame = alice.message_to(&bob.id, number, json!({}));
        if number > 1 {
            let error = alice.expect_refusal(frame.clone(), 429).await;
            let wait = error["retry_after_ms"].as_u64().expect("a time");
            relay.clock.advance(std::time::Duration::from_millis(wait));
        }
        alice.send(frame).await;
        alice.expect_ack(number).await;
        bob.receive(number).await;
    }
}

#[tokio::test]
async fn every_relayed_frame_counts_and_refused_frames_count_too() {
    let relay = Relay::with(|settings| settings.rate_limit.burst = times(7));
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    let foreign = bob.message_to(&alice.id, 1, json!({}));
    alice.expect_refusal(foreign, 403).await;
    let large = alice.message_to(&bob.id, 2, json!({"encrypted_data": "e".repeat(70_000)}));
    alice.expect_refusal(large, 413).await;
    let nobody = alice.message_to("c0ffee00-1234-4abc-9def-0123456789ab", 3, json!({}));
    alice.expect_refusal(nobody, 404).await;
    let frame = alice.key_update(&bob.id, 1);
    alice.send_through(&mut bob, frame).await;
    let frame = alice.auth("AuthRequest", json!({}));
    alice.send_through(&mut bob, frame).await;
    alice.set_status("Away").await;
    alice.send_to(&bob, 4).await;
    alice.expect_ack(4).await;
    bob.receive(4).await;
    let frame = alice.key_update(&bob.id, 2);
    let error = alice.expect_refusal(frame, 429).await;
    assert_over(&error, 60);
    assert_eq!(error["key_id"], 2);
    bob.expect_nothing().await;
}

#[tokio::test]
async fn resuming_does_not_renew_an_allowance() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::resumable(&relay).await, Device::plain(&relay).await);
    send_sixty(&mut alice, &mut bob).await;
    let mut alice = alice.disconnect(&relay).await.reconnect(&relay).await;
    let frame = alice.message_to(&bob.id, 61, json!({}));
    alice.expect_refusal(frame.clone(), 429).await;
    let mut alice = alice.reconnect(&relay).await;
    alice.expect_refusal(frame, 429).await;
}

#[tokio::test]
async fn registering_anew_is_limited_by_address() {
    let relay = Relay::start();
    for _ in 0..60 {
        drop(Device::plain(&relay).await);
    }
    let mut unregistered = Device::connect(&relay).await;
    let register = json!({"type": "Register"});
    let error = unregistered.expect_refusal(register.clone(), 429).await;
    assert_over(&error, 60);
    relay.advance(1);
    unregistered.send(register).await;
    unregistered.expect_frame("RegisterResponse").await;
}

#[tokio::test]
async fn each_refused_registration_of_an_address_has_a_time_of_its_own() {
    let relay = Relay::with(|settings| settings.rate_limit.registrations_per_minute = times(2));
    for _ in 0..2 {
        drop(Device::plain(&relay).await);
    }
    let register = json!({"type": "Register"});
    let mut waiting = Vec::new();
    for time in [30_000, 60_000, 90_000] {
        let mut device = Device::connect(&relay).await;
        let error = device.expect_refusal(register.clone(), 429).await;
        assert_eq!(error["retry_after_ms"], json!(time));
        waiting.push(device);
    }
    // One connection may stay unregistered for ten seconds of real time, whatever the relay's clock.
    for mut device in waiting {
        relay.advance(30);
        device.send(register.clone()).await;
        device.expect_frame("RegisterResponse").await;
    }
}

#[tokio::test]
async fn a_device_that_resumes_needs_no_registration() {
    let relay = Relay::with(|settings| settings.rate_limit.registrations_per_minute = times(1));
    let mut bob = Device::resumable(&relay).await;
    for _ in 0..5 {
        bob = bob.reconnect(&relay).await;
    }
    let mut unregistered = Device::connect(&relay).await;
    unregistered.expect_refusal(json!({"type": "Register"}), 429).await;
}

#[tokio::test]
async fn exempt_addresses_have_no_registration_limit() {
    let relay = Relay::with(|settings| {
        settings.rate_limit.registrations_per_minute = times(1);
        settings.limits.exempt_cidrs = vec!["127.0.0.0/8".parse().expect("a network")];
    });
    for _ in 0..10 {
        Device::plain(&relay).await.close().await;
    }
}

#[tokio::test]
async fn a_device_that_exceeds_its_limit_ten_times_over_is_closed() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    send_sixty(&mut alice, &mut bob).await;
    let frames: Vec<_> =
        (61..=661).map(|number| alice.message_to(&bob.id, number, json!({}))).collect();
    alice.send_all(frames).await;
    for _ in 0..600 {
        assert_over(&alice.expect_error(429).await, 60);
    }
    assert_eq!(alice.expect_close().await, Some(1008));
    bob.expect_nothing().await;
}

/// A relay with low limits: 8 pings and 2 messages at once. Places are promised for 80 pings and 600 messages.
fn touchy() -> Relay {
    Relay::with(|settings| {
        settings.rate_limit.control_per_minute = times(8);
        settings.rate_limit.burst = times(2);
        settings.limits.strikes = 1000;
    })
}

/// The first `within` frames get `answer`, then ten times `limit` frames get an Error 429, then comes Close 1008.
async fn is_limited(
    mut device: Device,
    frame: Value,
    answer: Option<&str>,
    within: u32,
    limit: u64,
) {
    let promises = 10 * usize::try_from(limit).expect("few");
    let count = usize::try_from(within).expect("few") + promises + 1;
    device.send_all(vec![frame; count]).await;
    for _ in 0..within {
        if let Some(answer) = answer {
            device.expect_frame(answer).await;
        }
    }
    for _ in 0..promises {
        assert_over(&device.expect_error(429).await, limit);
    }
    assert_eq!(device.expect_close().await, Some(1008));
}

#[tokio::test]
async fn a_flood_of_json_pings_ends() {
    let relay = touchy();
    let alice = Device::plain(&relay).await;
    // The Register was the first of the eight frames; the device keeps the allowance of its unregistered connection.
    is_limited(alice, json!({"type": "Ping"}), Some("Pong"), 7, 8).await;
    let unregistered = Device::connect(&relay).await;
    is_limited(unregistered, json!({"type": "Ping"}), Some("Pong"), 8, 8).await;
}

#[tokio::test]
async fn a_flood_of_json_pongs_ends() {
    let relay = touchy();
    let unregistered = Device::connect(&relay).await;
    is_limited(unregistered, json!({"type": "Pong"}), None, 8, 8).await;
}

#[tokio::test]
async fn a_flood_of_statuses_ends() {
    let relay = touchy();
    let alice = Device::plain(&relay).await;
    let status = json!({"type": "Status", "payload": {"device_id": alice.id, "status": "Away"}});
    is_limited(alice, status, None, 2, 60).await;
}

#[tokio::test]
async fn a_flood_of_malformed_frames_ends() {
    let relay = touchy();
    let unregistered = Device::connect(&relay).await;
    is_limited(unregistered, json!([]), Some("Error"), 8, 8).await;
}

#[tokio::test]
async fn a_flood_of_websocket_pings_ends() {
    let relay = touchy();
    let mut alice = Device::connect(&relay).await;
    for _ in 0..89 {
        alice.send_raw(Message::Ping("x".into())).await;
    }
    for _ in 0..80 {
        assert_over(&alice.expect_error(429).await, 8);
    }
    assert_eq!(alice.expect_close().await, Some(1008));
}

#[tokio::test]
async fn a_flood_of_acks_that_confirm_nothing_ends_without_an_error() {
    let relay = touchy();
    let mut alice = Device::plain(&relay).await;
    let ack = json!({"type": "Ack", "payload": {"message_id": message_id(1)}});
    alice.send_all(vec![ack; 88]).await;
    assert_eq!(alice.expect_close().await, Some(1008));
}

#[tokio::test]
async fn acks_that_confirm_something_cost_nothing() {
    let relay = Relay::with(|settings| {
        settings.rate_limit.control_per_minute = times(4);
    });
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    for number in 1..=60 {
        alice.send_to(&bob, number).await;
        alice.expect_ack(number).await;
        bob.receive(number).await;
        bob.ack(number).await;
    }
    relay.wait_until(|health| health["delivered"] == 60).await;
    bob.expect_nothing().await;
}

#[tokio::test]
async fn the_allowance_refills_evenly() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    send_sixty(&mut alice, &mut bob).await;
    relay.advance(3);
    for number in 61..=63 {
        alice.send_to(&bob, number).await;
        alice.expect_ack(number).await;
    }
    let frame = alice.message_to(&bob.id, 64, json!({}));
    alice.expect_refusal(frame, 429).await;
}
