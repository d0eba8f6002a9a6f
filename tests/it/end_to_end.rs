//! One short test of each basic step: register, send, receive, ack, expire, resume.

use std::time::Duration;

use serde_json::json;

use crate::support::{Device, Relay};

#[tokio::test]
async fn two_devices_talk() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    alice.send_to(&bob, 1).await;
    alice.expect_ack(1).await;
    bob.receive(1).await;
}

#[tokio::test]
async fn a_message_waits_for_a_device_that_comes_back() {
    let relay = Relay::start();
    let (mut alice, bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    let (id, token) = (bob.id.clone(), bob.registration["resume_token"].clone());
    bob.close().await;
    let frame = alice.message_to(&id, 1, json!({"ttl": 300}));
    alice.send(frame).await;
    alice.expect_ack(1).await;
    let register = json!({"type": "Register", "payload": {"resume_token": token}});
    let mut bob = Device::register(&relay, register).await;
    assert_eq!((bob.id.as_str(), &bob.registration["queued"]), (id.as_str(), &json!(1)));
    bob.receive(1).await;
}

#[tokio::test]
async fn a_message_that_expires_is_reported_to_its_sender() {
    let relay = Relay::start();
    let (mut alice, bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    let id = bob.id.clone();
    bob.close().await;
    let frame = alice.message_to(&id, 1, json!({"ttl": 300}));
    alice.send(frame).await;
    alice.expect_ack(1).await;
    relay.clock.advance(Duration::from_secs(301));
    let error = alice.expect_error(410).await;
    let expected = "Message 00000001-0000-4000-8000-000000000001 expired after 300 s undelivered.";
    assert_eq!(error["message"], expected);
}
