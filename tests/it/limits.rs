//! How often anybody may speak. (threats: T13, T25, T26)

use std::num::NonZeroU32;

use serde_json::{Value, json};

use tokio_tungstenite::tungstenite::Message;

use crate::support::{Device, Relay, message_id};

fn times(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).expect("not zero")
}

fn assert_over(error: &Value, limit: u64) {
    let said = format!("Rate limit exceeded ({limit}/{limit}). Try again in a minute.");
    assert_eq!((&error["message"], &error["code"]), (&json!(said), &json!(429)));
    assert_eq!((&error["limit"], &error["remaining"]), (&json!(limit), &json!(0)));
    assert!(error["retry_after_ms"].as_u64().is_some_and(|wait| wait > 0), "{error}");
}

/// Uses up the allowance of a minute.
async fn says_sixty(from: &mut Device, to: &mut Device) {
    let frames: Vec<_> =
        (1..=60).map(|number| from.message_to(&to.id, number, json!({}))).collect();
    from.says_at_once(frames).await;
    for number in 1..=60 {
        from.hears_ack(number).await;
        to.receives(number).await;
    }
}

#[tokio::test]
async fn sixty_messages_pass_at_once_and_the_next_is_refused_in_these_words() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    says_sixty(&mut alice, &mut bob).await;
    let frame = alice.message_to(&bob.id, 61, json!({}));
    let error = alice.is_refused(frame.clone(), 429).await;
    assert_eq!(error["message"], "Rate limit exceeded (60/60). Try again in a minute.");
    assert_over(&error, 60);
    assert_eq!(error["message_id"], json!(message_id(61)));
    assert_eq!(error["recipient_id"], json!(bob.id));
    bob.hears_nothing().await;
    // Bob has an allowance of his own.
    bob.sends_to(&alice, 1).await;
    bob.hears_ack(1).await;
    alice.receives(1).await;
    // After the time it was told, and not before, Alice may say it again.
    let wait = error["retry_after_ms"].as_u64().expect("a time");
    relay.clock.advance(std::time::Duration::from_millis(wait - 1));
    alice.is_refused(frame.clone(), 429).await;
    relay.clock.advance(std::time::Duration::from_millis(1));
    alice.says(frame).await;
    alice.hears_ack(61).await;
    bob.receives(61).await;
}

#[tokio::test]
async fn everything_that_is_relayed_counts_and_what_is_refused_too() {
    let relay = Relay::with(|settings| settings.rate_limit.burst = times(7));
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    let foreign = bob.message_to(&alice.id, 1, json!({}));
    alice.is_refused(foreign, 403).await;
    let large = alice.message_to(&bob.id, 2, json!({"encrypted_data": "e".repeat(70_000)}));
    alice.is_refused(large, 413).await;
    let nobody = alice.message_to("c0ffee00-1234-4abc-9def-0123456789ab", 3, json!({}));
    alice.is_refused(nobody, 404).await;
    let frame = alice.key_update(&bob.id, 1);
    alice.says_to(&mut bob, frame).await;
    let frame = alice.auth("AuthRequest", json!({}));
    alice.says_to(&mut bob, frame).await;
    alice.is("Away").await;
    alice.sends_to(&bob, 4).await;
    alice.hears_ack(4).await;
    bob.receives(4).await;
    let frame = alice.key_update(&bob.id, 2);
    let error = alice.is_refused(frame, 429).await;
    assert_over(&error, 60);
    assert_eq!(error["key_id"], 2);
    bob.hears_nothing().await;
}

#[tokio::test]
async fn resuming_does_not_renew_an_allowance() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::resumable(&relay).await, Device::plain(&relay).await);
    says_sixty(&mut alice, &mut bob).await;
    let mut alice = alice.goes_away(&relay).await.comes_back(&relay).await;
    let frame = alice.message_to(&bob.id, 61, json!({}));
    alice.is_refused(frame.clone(), 429).await;
    let mut alice = alice.resumes(&relay).await;
    alice.is_refused(frame, 429).await;
}

#[tokio::test]
async fn registering_anew_is_limited_by_address() {
    let relay = Relay::start();
    for _ in 0..60 {
        drop(Device::plain(&relay).await);
    }
    let mut stranger = Device::stranger(&relay).await;
    let register = json!({"type": "Register"});
    let error = stranger.is_refused(register.clone(), 429).await;
    assert_over(&error, 60);
    relay.passes(1);
    stranger.says(register).await;
    stranger.hears("RegisterResponse").await;
}

#[tokio::test]
async fn a_device_that_resumes_needs_no_registration() {
    let relay = Relay::with(|settings| settings.rate_limit.registrations_per_minute = times(1));
    let mut bob = Device::resumable(&relay).await;
    for _ in 0..5 {
        bob = bob.resumes(&relay).await;
    }
    let mut stranger = Device::stranger(&relay).await;
    stranger.is_refused(json!({"type": "Register"}), 429).await;
}

#[tokio::test]
async fn exempt_addresses_register_as_often_as_they_like() {
    let relay = Relay::with(|settings| {
        settings.rate_limit.registrations_per_minute = times(1);
        settings.limits.exempt_cidrs = vec!["127.0.0.0/8".parse().expect("a network")];
    });
    for _ in 0..10 {
        Device::plain(&relay).await.leaves().await;
    }
}

#[tokio::test]
async fn who_goes_on_until_ten_times_over_is_closed() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    says_sixty(&mut alice, &mut bob).await;
    let frames: Vec<_> =
        (61..=661).map(|number| alice.message_to(&bob.id, number, json!({}))).collect();
    alice.says_at_once(frames).await;
    for _ in 0..600 {
        assert_over(&alice.hears_error(429).await, 60);
    }
    assert_eq!(alice.hears_close().await, Some(1008));
    bob.hears_nothing().await;
}

/// A relay that soon has enough: 8 pings at once, 2 messages, 20 refusals.
fn touchy() -> Relay {
    Relay::with(|settings| {
        settings.rate_limit.control_per_minute = times(8);
        settings.rate_limit.burst = times(2);
        settings.limits.strikes = 1000;
    })
}

/// So many of a frame are answered by `answers`, then 20 Errors 429, then Close 1008.
async fn is_limited(
    mut device: Device,
    frame: Value,
    answer: Option<&str>,
    within: u32,
    limit: u64,
) {
    let count = usize::try_from(within).expect("few") + 21;
    device.says_at_once(vec![frame; count]).await;
    for _ in 0..within {
        if let Some(answer) = answer {
            device.hears(answer).await;
        }
    }
    for _ in 0..20 {
        assert_over(&device.hears_error(429).await, limit);
    }
    assert_eq!(device.hears_close().await, Some(1008));
}

#[tokio::test]
async fn a_flood_of_json_pings_ends() {
    let relay = touchy();
    let alice = Device::plain(&relay).await;
    // Registering was the first of the eight for a stranger, whose allowance the device keeps.
    is_limited(alice, json!({"type": "Ping"}), Some("Pong"), 7, 8).await;
    let stranger = Device::stranger(&relay).await;
    is_limited(stranger, json!({"type": "Ping"}), Some("Pong"), 8, 8).await;
}

#[tokio::test]
async fn a_flood_of_json_pongs_ends() {
    let relay = touchy();
    let stranger = Device::stranger(&relay).await;
    is_limited(stranger, json!({"type": "Pong"}), None, 8, 8).await;
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
    let stranger = Device::stranger(&relay).await;
    is_limited(stranger, json!([]), Some("Error"), 8, 8).await;
}

#[tokio::test]
async fn a_flood_of_websocket_pings_ends() {
    let relay = touchy();
    let mut alice = Device::stranger(&relay).await;
    for _ in 0..29 {
        alice.says_raw(Message::Ping("x".into())).await;
    }
    for _ in 0..20 {
        assert_over(&alice.hears_error(429).await, 8);
    }
    assert_eq!(alice.hears_close().await, Some(1008));
}

#[tokio::test]
async fn a_flood_of_acks_that_confirm_nothing_ends_without_an_error() {
    let relay = touchy();
    let mut alice = Device::plain(&relay).await;
    let ack = json!({"type": "Ack", "payload": {"message_id": message_id(1)}});
    alice.says_at_once(vec![ack; 28]).await;
    assert_eq!(alice.hears_close().await, Some(1008));
}

#[tokio::test]
async fn acks_that_confirm_something_cost_nothing() {
    let relay = Relay::with(|settings| {
        settings.rate_limit.control_per_minute = times(4);
    });
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    for number in 1..=60 {
        alice.sends_to(&bob, number).await;
        alice.hears_ack(number).await;
        bob.receives(number).await;
        bob.acks(number).await;
    }
    relay.comes_to(|health| health["delivered"] == 60).await;
    bob.hears_nothing().await;
}

#[tokio::test]
async fn the_allowance_flows_back_evenly() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    says_sixty(&mut alice, &mut bob).await;
    relay.passes(3);
    for number in 61..=63 {
        alice.sends_to(&bob, number).await;
        alice.hears_ack(number).await;
    }
    let frame = alice.message_to(&bob.id, 64, json!({}));
    alice.is_refused(frame, 429).await;
}
