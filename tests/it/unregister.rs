//! What a client decides over its own identity: its end, a new token; and how often it may resume.

use std::num::NonZeroU32;

use serde_json::{Value, json};

use crate::support::{Device, Relay, message_id};

fn resume(token: &Value, renew: bool) -> Value {
    json!({"type": "Register", "payload": {"resume_token": token, "renew_token": renew}})
}

#[tokio::test]
async fn an_unregistered_device_is_unknown_and_what_waited_for_it_is_reported() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    bob.set_status("Offline").await;
    alice.send_and_expect_ack(&bob.id, 1).await;
    let token = bob.token();
    let id = bob.id.clone();
    bob.send(json!({"type": "Unregister"})).await;
    bob.expect_closed_with(1000).await;
    assert_eq!(alice.expect_error(410).await["message_id"], json!(message_id(1)));
    let frame = alice.message_to(&id, 2, json!({}));
    alice.expect_refusal(frame, 404).await;
    let mut again = Device::connect(&relay).await;
    again.expect_refusal(resume(&token, false), 401).await;
}

#[tokio::test]
async fn a_connection_without_a_device_has_nothing_to_unregister() {
    let relay = Relay::start();
    let mut unregistered = Device::connect(&relay).await;
    unregistered.expect_refusal(json!({"type": "Unregister", "payload": {}}), 401).await;
    unregistered.expect_nothing_and_close().await;
}

#[tokio::test]
async fn a_new_token_ends_the_old_one_when_it_is_used_first() {
    let relay = Relay::start();
    let device = Device::resumable(&relay).await;
    let (id, old) = (device.id.clone(), device.token());
    drop(device);
    let renewed = Device::register(&relay, resume(&old, true)).await;
    let new = renewed.token();
    assert_eq!((&renewed.id, renewed.registration["resumed"].as_bool()), (&id, Some(true)));
    assert_ne!(new, old);
    // The response may have been lost: the old token is still good.
    let again = Device::register(&relay, resume(&old, false)).await;
    assert_eq!((&again.id, again.token()), (&id, old.clone()));
    let used = Device::register(&relay, resume(&new, false)).await;
    assert_eq!((&used.id, used.token()), (&id, new));
    let mut late = Device::connect(&relay).await;
    late.expect_refusal(resume(&old, false), 401).await;
}

#[tokio::test]
async fn a_device_resumes_at_most_so_often_in_a_minute() {
    let relay = Relay::with(|settings| {
        settings.rate_limit.resumes_per_minute = NonZeroU32::new(18).expect("not zero");
    });
    let token = Device::resumable(&relay).await.token();
    // A sixth of them at once.
    for _ in 0..3 {
        Device::register(&relay, resume(&token, false)).await;
    }
    let mut fourth = Device::connect(&relay).await;
    let error = fourth.expect_refusal(resume(&token, false), 429).await;
    assert_eq!((&error["limit"], &error["retry_after_ms"]), (&json!(18), &json!(3_334)));
    relay.advance(4);
    fourth.send(resume(&token, false)).await;
    assert_eq!(fourth.expect_frame("RegisterResponse").await["resumed"], true);
}

#[tokio::test]
async fn wrong_tokens_never_bar_a_good_one_of_the_same_address() {
    let relay = Relay::start();
    let token = Device::resumable(&relay).await.token();
    let mut guesser = Device::connect(&relay).await;
    for _ in 0..10 {
        guesser.expect_refusal(resume(&json!("wrong"), false), 401).await;
    }
    guesser.expect_refusal(resume(&json!("wrong"), false), 429).await;
    guesser.send(resume(&token, false)).await;
    assert_eq!(guesser.expect_frame("RegisterResponse").await["resumed"], true);
}
