//! A reload of the settings of a running relay.

use std::num::NonZeroU32;

use serde_json::json;

use crate::support::{Device, Relay};

#[tokio::test]
async fn changed_rates_apply_to_connected_devices() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    alice.send_to(&bob, 1).await;
    alice.expect_ack(1).await;
    bob.receive(1).await;
    relay
        .reload(|settings| {
            settings.rate_limit.messages_per_minute = NonZeroU32::new(5).expect("not zero");
            settings.rate_limit.burst = NonZeroU32::new(2).expect("not zero");
        })
        .await;
    for number in 2..=3 {
        alice.send_to(&bob, number).await;
        alice.expect_ack(number).await;
    }
    let frame = alice.message_to(&bob.id, 4, json!({}));
    let error = alice.expect_refusal(frame, 429).await;
    assert_eq!(error["message"], "Rate limit exceeded (5/5). Try again in a minute.");
    assert_eq!(error["limit"], 5);
}

#[tokio::test]
async fn a_shorter_ttl_applies_to_later_messages() {
    let relay = Relay::start();
    let (mut alice, bob) = (Device::with_receipts(&relay).await, Device::resumable(&relay).await);
    let bob = bob.disconnect(&relay).await;
    relay.reload(|settings| settings.queue.max_ttl = std::time::Duration::from_secs(60)).await;
    let before = relay.clock.now().unix();
    let frame = alice.message_to(&bob.id, 1, json!({"ttl": 300}));
    alice.send(frame).await;
    assert_eq!(alice.expect_frame("Ack").await["expires_at"], json!(before + 60));
}

#[tokio::test]
async fn a_smaller_size_applies_to_later_connections() {
    let relay = Relay::start();
    relay.reload(|settings| settings.limits.message_bytes = 1000).await;
    let register = json!({"type": "Register", "payload": {"receipts": false}});
    let mut alice = Device::register(&relay, register).await;
    assert_eq!(alice.registration["limits"]["message_bytes"], 1000);
    let own = alice.id.clone();
    let frame = alice.message_to(&own, 1, json!({"encrypted_data": "e".repeat(1000)}));
    assert_eq!(alice.expect_refusal(frame, 413).await["limit"], 1000);
}
