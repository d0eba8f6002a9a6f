//! Unknown senders cannot take the queue, the window or the authentications of a device. (threats: T60)

use serde_json::json;

use crate::support::{Device, Relay};

/// The hosts of the tests: each is an origin.
const VICTIM: u8 = 1;
const FRIEND: u8 = 2;
const ATTACKER: u8 = 3;

/// A resumable victim, and a plain friend to whom it has written.
async fn acquainted(relay: &Relay) -> (Device, Device) {
    let mut victim = Device::resumable_from(relay, VICTIM, json!({})).await;
    let mut friend = Device::plain_from(relay, FRIEND).await;
    victim.send_and_expect_ack(&friend.id, 1).await;
    friend.receive(1).await;
    (victim, friend)
}

fn small(settings: &mut sealpost::settings::Settings) {
    let high = std::num::NonZeroU32::new(1_000_000).expect("not zero");
    settings.rate_limit.messages_per_minute = high;
    settings.rate_limit.burst = high;
    settings.queue.messages = 60;
}

#[tokio::test]
async fn one_address_leaves_an_absent_device_room_for_its_correspondents_and_for_a_first_contact() {
    let relay = Relay::with(small);
    let (victim, mut friend) = acquainted(&relay).await;
    let victim = victim.disconnect(&relay).await;
    let mut taken = 0;
    for device in 0..5 {
        let mut attacker = Device::plain_from(&relay, ATTACKER).await;
        taken += attacker.fill_queue_of(&victim.id, 100 * device).await;
    }
    assert_eq!(taken, 11, "a third of half of the queue");
    let mut newcomer = Device::plain_from(&relay, 4).await;
    newcomer.send_and_expect_ack(&victim.id, 1).await;
    assert_eq!(friend.fill_queue_of(&victim.id, 10).await, 30, "queue.sender_share of the whole");
}

#[tokio::test]
async fn twenty_addresses_leave_an_absent_device_room_for_a_first_contact() {
    let relay = Relay::with(|settings| {
        small(settings);
        settings.queue.messages = 1_000;
    });
    let victim = Device::resumable_from(&relay, VICTIM, json!({})).await.disconnect(&relay).await;
    let mut taken = 0;
    for host in 10..30 {
        let mut attacker = Device::plain_from(&relay, host).await;
        taken += attacker.fill_queue_of(&victim.id, 1_000 * u64::from(host)).await;
    }
    assert!(taken < 500, "{taken}");
    let mut newcomer = Device::plain_from(&relay, 4).await;
    newcomer.send_and_expect_ack(&victim.id, 1).await;
}

#[tokio::test]
async fn correspondents_are_kept_when_a_connection_ends() {
    let relay = Relay::with(small);
    let (victim, mut friend) = acquainted(&relay).await;
    let mut other = Device::plain_from(&relay, FRIEND).await;
    let victim = victim.disconnect(&relay).await.reconnect(&relay).await;
    let victim = victim.disconnect(&relay).await;
    assert_eq!(other.fill_queue_of(&victim.id, 100).await, 11);
    assert_eq!(friend.fill_queue_of(&victim.id, 10).await, 30);
}

#[tokio::test]
async fn answers_make_nobody_a_correspondent() {
    let relay = Relay::with(small);
    let mut victim = Device::resumable_from(&relay, VICTIM, json!({})).await;
    let mut attacker = Device::plain_from(&relay, ATTACKER).await;
    attacker.send_and_expect_ack(&victim.id, 1).await;
    victim.receive_and_ack(1).await;
    let update = attacker.key_update(&victim.id, 7);
    attacker.send(update).await;
    victim.expect_frame("KeyRotationUpdate").await;
    let ack = victim.key_ack(&attacker.id, 7, true);
    victim.send_through(&mut attacker, ack).await;
    let victim = victim.disconnect(&relay).await;
    assert_eq!(attacker.fill_queue_of(&victim.id, 100).await, 11);
}

#[tokio::test]
async fn key_rotations_of_unknown_senders_fill_a_quarter_of_the_window() {
    let relay = Relay::with(small);
    let (mut victim, mut friend) = acquainted(&relay).await;
    for host in 10..14 {
        let mut attacker = Device::plain_from(&relay, host).await;
        for key in 0..4 {
            let update = attacker.key_update(&victim.id, key);
            attacker.send(update).await;
            victim.expect_frame("KeyRotationUpdate").await;
        }
        let error = {
            let update = attacker.key_update(&victim.id, "fifth");
            attacker.expect_refusal(update, 507).await
        };
        assert_eq!(error["key_id"], "fifth");
    }
    let mut attacker = Device::plain_from(&relay, 20).await;
    let update = attacker.key_update(&victim.id, 1);
    attacker.expect_refusal(update, 507).await;
    let update = friend.key_update(&victim.id, 1);
    friend.send(update).await;
    victim.expect_frame("KeyRotationUpdate").await;
    friend.send_and_expect_ack(&victim.id, 2).await;
    victim.receive(2).await;
}

#[tokio::test]
async fn as_many_key_acks_are_free_as_updates_were_delivered() {
    let one = std::num::NonZeroU32::MIN;
    let relay = Relay::without_origins(|settings| {
        settings.rate_limit.messages_per_minute = one;
        settings.rate_limit.burst = one;
    });
    let mut victim = Device::resumable(&relay).await;
    for key in 0..3 {
        let mut sender = Device::plain(&relay).await;
        let update = sender.key_update(&victim.id, key);
        sender.send(update).await;
        victim.expect_frame("KeyRotationUpdate").await;
        let ack = victim.key_ack(&sender.id, key, true);
        victim.send_through(&mut sender, ack).await;
    }
    let mut other = Device::plain(&relay).await;
    let ack = victim.key_ack(&other.id, 9, true);
    victim.send_through(&mut other, ack.clone()).await;
    let error = victim.expect_refusal(ack, 429).await;
    assert!(error["retry_after_ms"].is_u64(), "{error}");
    other.expect_nothing().await;
}

#[tokio::test]
async fn unknown_senders_do_not_block_the_authentications_of_a_device() {
    let relay = Relay::with(|settings| {
        small(settings);
        settings.queue.messages = 10_000;
        settings.queue.unknown_share = 1.0;
        settings.limits.origin_share = 1.0;
    });
    let (mut victim, mut friend) = acquainted(&relay).await;
    let mut first = Device::plain_from(&relay, ATTACKER).await;
    let request = first.auth("AuthRequest", json!({"recipient_id": victim.id}));
    first.send(request).await;
    victim.expect_frame("AuthRequest").await;
    for _ in 1..40 {
        let mut attacker = Device::plain_from(&relay, ATTACKER).await;
        let request = attacker.auth("AuthRequest", json!({"recipient_id": victim.id}));
        attacker.send(request).await;
        victim.expect_frame("AuthRequest").await;
    }
    let request = friend.auth("AuthRequest", json!({"recipient_id": victim.id}));
    friend.send(request).await;
    victim.expect_frame("AuthRequest").await;
    let response = victim.auth("AuthResponse", json!({"recipient_id": friend.id}));
    victim.send(response).await;
    friend.expect_frame("AuthResponse").await;
    let request = victim.auth("AuthRequest", json!({"recipient_id": first.id}));
    victim.send(request).await;
    first.expect_frame("AuthRequest").await;
}

#[tokio::test]
async fn a_device_that_takes_only_correspondents_looks_unknown_to_all_others() {
    let relay = Relay::with(small);
    let accept = json!({"accept": "correspondents"});
    let mut hidden = Device::resumable_from(&relay, VICTIM, accept.clone()).await;
    let mut other = Device::resumable_from(&relay, FRIEND, accept).await;
    let nobody = "0badc0de-0000-4000-8000-000000000001";
    let mut errors = Vec::new();
    for to in [&hidden.id.clone(), nobody] {
        let frame = other.message_to(to, 1, json!({}));
        let mut error = other.expect_refusal(frame, 404).await;
        error.as_object_mut().expect("an object").remove("recipient_id");
        errors.push(error);
        let update = other.key_update(to, 1);
        other.expect_refusal(update, 404).await;
        let request = other.auth("AuthRequest", json!({"recipient_id": to}));
        other.expect_refusal(request, 404).await;
    }
    assert_eq!(errors[0], errors[1]);
    hidden.expect_nothing().await;
    // The refused message made the hidden device a correspondent of its sender: they meet.
    hidden.send_and_expect_ack(&other.id, 2).await;
    other.receive(2).await;
    other.send_and_expect_ack(&hidden.id, 3).await;
    hidden.receive(3).await;
    // The choice stays until a Register makes another.
    let hidden = hidden.disconnect(&relay).await.reconnect(&relay).await;
    let mut unknown = Device::plain_from(&relay, ATTACKER).await;
    let frame = unknown.message_to(&hidden.id, 4, json!({}));
    unknown.expect_refusal(frame.clone(), 404).await;
    let mut resume = hidden.resume_frame();
    resume["payload"]["accept"] = json!("anyone");
    let mut hidden = Device::register(&relay, resume).await;
    unknown.send(frame).await;
    unknown.expect_ack(4).await;
    hidden.receive(3).await;
    hidden.receive(4).await;
}
