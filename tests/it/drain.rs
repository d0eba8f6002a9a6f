//! The drain: the relay closes all sessions and ends.

use serde_json::json;

use crate::support::{Device, Relay, http};

#[tokio::test]
async fn a_drain_closes_every_connection_with_1001() {
    let mut relay = Relay::start();
    let devices = [
        Device::connect(&relay).await,
        Device::plain(&relay).await,
        Device::resumable(&relay).await,
    ];
    relay.begin_stop();
    for mut device in devices {
        assert_eq!(device.expect_close().await, Some(1001));
    }
    relay.stop().expect("it ends well");
}

#[tokio::test]
async fn a_drain_closes_many_connections_in_slices() {
    let mut relay = Relay::generous(|_| {});
    let mut devices = Vec::new();
    for _ in 0..150 {
        devices.push(Device::plain(&relay).await);
    }
    relay.begin_stop();
    for mut device in devices {
        assert_eq!(device.expect_close().await, Some(1001));
    }
    relay.stop().expect("it ends well");
}

#[tokio::test]
async fn a_message_acked_before_the_drain_is_delivered_before_the_close() {
    let mut relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    for number in 1..=10 {
        alice.send_to(&bob, number).await;
        alice.expect_ack(number).await;
    }
    relay.begin_stop();
    for number in 1..=10 {
        bob.receive(number).await;
    }
    assert_eq!(bob.expect_close().await, Some(1001));
}

#[tokio::test]
async fn a_draining_relay_accepts_no_connection() {
    let mut relay = Relay::generous(|_| {});
    // The slow client reads nothing, not even a Close, so the relay waits for its Close.
    let (mut alice, slow) = (Device::plain(&relay).await, Device::plain(&relay).await);
    let large = "e".repeat(60_000);
    for number in 1..=100 {
        let frame = alice.message_to(&slow.id, number, json!({"encrypted_data": large}));
        alice.send(frame).await;
        alice.expect_ack(number).await;
    }
    assert_ne!(relay.health().await["queued"], 0, "its socket is full");
    relay.begin_stop();
    assert_eq!(alice.expect_close().await, Some(1001));
    let late = http::ask_lines(relay.public, &http::handshake()).await;
    assert_eq!(late.status, 503, "{late:?}");
    assert!(late.header("Retry-After").is_some(), "{late:?}");
    assert_eq!(http::get(relay.admin, "/readyz").await.body, "draining\n");
    drop(slow);
    relay.stop().expect("it ends well");
}

#[tokio::test]
async fn a_relay_without_connections_ends_at_once() {
    let mut relay = Relay::start();
    Device::plain(&relay).await.close().await;
    relay.stop().expect("it ends well");
}
