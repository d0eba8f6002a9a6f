//! One address cannot take the memory or the table of devices of the relay. (threats: T61)

use serde_json::{Value, json};

use crate::support::{Device, Relay};

const KIB: usize = 1024;

fn resumable() -> Value {
    json!({"type": "Register", "payload": {"resumable": true}})
}

#[tokio::test]
async fn one_address_gets_its_share_of_the_queue_and_others_find_room() {
    let relay = Relay::with(|settings| {
        settings.queue.total_bytes = 80 * KIB;
        settings.queue.unknown_share = 1.0;
    });
    let mut accepted = 0;
    let large = "e".repeat(KIB - 256);
    let mut refused = 0;
    for _ in 0..3 {
        let away = Device::resumable(&relay).await.disconnect(&relay).await;
        let mut attacker = Device::plain_from(&relay, 3).await;
        for number in 0..20 {
            attacker.send_message(&away.id, number, json!({"encrypted_data": large})).await;
            match attacker.receive_any().await["type"].as_str() {
                Some("Ack") => accepted += 1,
                _ => refused += 1,
            }
        }
    }
    assert!((15..30).contains(&accepted) && refused > 20, "a third of 70 KiB: {accepted}");
    let away = Device::resumable(&relay).await.disconnect(&relay).await;
    let mut other = Device::plain_from(&relay, 4).await;
    other.send_and_expect_ack(&away.id, 1).await;
}

#[tokio::test]
async fn expired_messages_leave_the_total_before_a_message_is_refused() {
    let relay = Relay::without_origins(|settings| {
        settings.queue.total_bytes = 8 * KIB;
        settings.sweeper.interval = std::time::Duration::from_secs(3600);
    });
    let away = Device::resumable(&relay).await.disconnect(&relay).await;
    let mut sender = Device::plain(&relay).await;
    let data = "e".repeat(5 * KIB);
    let frame = sender.message_to(&away.id, 1, json!({"encrypted_data": data, "ttl": 5}));
    sender.send(frame).await;
    sender.expect_ack(1).await;
    let frame = sender.message_to(&away.id, 2, json!({"encrypted_data": data}));
    sender.expect_refusal(frame.clone(), 503).await;
    relay.advance(5);
    sender.send(frame).await;
    sender.expect_ack(2).await;
}

#[tokio::test]
async fn silent_registrations_of_one_address_leave_places_for_others() {
    let relay = Relay::with(|settings| settings.limits.devices = 12);
    let mut registered = 0;
    for _ in 0..12 {
        let mut device = Device::connect_from(&relay, 3).await;
        device.send(json!({"type": "Register"})).await;
        registered += u32::from(device.receive_any().await["type"] == "RegisterResponse");
    }
    assert_eq!(registered, 5, "a third, and the one that goes over it");
    Device::register_from(&relay, 4, resumable()).await;
}

#[tokio::test]
async fn a_full_table_forgets_devices_that_were_never_used_and_no_other() {
    let relay = Relay::with(|settings| {
        settings.limits.devices = 3;
        settings.limits.origin_share = 1.0;
    });
    let unused = Device::register_from(&relay, 3, resumable()).await.disconnect(&relay).await;
    let mut used = Device::register_from(&relay, 4, resumable()).await;
    let mut here = Device::register_from(&relay, 5, resumable()).await;
    used.send_and_expect_ack(&here.id, 1).await;
    here.receive(1).await;
    let used = used.disconnect(&relay).await;
    let newcomer = Device::plain_from(&relay, 6).await;
    let mut sender = Device::connect_from(&relay, 7).await;
    sender.expect_refusal(json!({"type": "Register"}), 503).await;
    used.reconnect(&relay).await;
    let frame = here.message_to(&unused.id, 2, json!({}));
    here.expect_refusal(frame, 404).await;
    newcomer.expect_nothing_and_close().await;
}
