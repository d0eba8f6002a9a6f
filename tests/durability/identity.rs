//! What a device decided and whom it knows survives a restart; an operator can end what one holder has in the queue.

use serde_json::json;

use crate::setup::Setup;
use crate::support::{Device, message_id};

/// Each loopback address is an origin, also of the tests that share a directory.
fn with_origins(data: &std::path::Path) -> Setup {
    Setup::on(data).with("LIMITS__EXEMPT_CIDRS", "10.0.0.0/8").with("QUEUE__MESSAGES", "60")
}

#[tokio::test]
async fn correspondents_and_the_origin_of_waiting_messages_survive_kill_9() {
    let data = tempfile::tempdir().expect("a place");
    let setup = with_origins(data.path());
    let mut relay = setup.start().await;
    let mut victim = Device::resumable_from(&relay, 1, json!({})).await;
    let mut friend = Device::resumable_from(&relay, 2, json!({})).await;
    victim.send_and_expect_ack(&friend.id, 1).await;
    friend.receive_and_ack(1).await;
    let id = victim.id.clone();
    victim.leave(&relay).await;
    let mut attacker = Device::resumable_from(&relay, 3, json!({})).await;
    assert_eq!(attacker.fill_queue_of(&id, 100).await, 11);
    relay.kill();
    let relay = setup.start().await;
    let mut attacker = Device::resume(&relay, &attacker.token()).await;
    attacker.send_message(&id, 200, json!({})).await;
    attacker.expect_error(507).await;
    let mut again = Device::resumable_from(&relay, 3, json!({})).await;
    again.send_message(&id, 201, json!({})).await;
    again.expect_error(507).await;
    let mut friend = Device::resume(&relay, &friend.token()).await;
    assert_eq!(friend.fill_queue_of(&id, 300).await, 49, "all that is left of the queue");
}

#[tokio::test]
async fn a_choice_of_correspondents_and_a_renewed_token_survive_kill_9() {
    let data = tempfile::tempdir().expect("a place");
    let setup = with_origins(data.path());
    let mut relay = setup.start().await;
    let hidden = Device::resumable_from(&relay, 1, json!({"accept": "correspondents"})).await;
    let (id, old) = (hidden.id.clone(), hidden.token());
    let renew = json!({"type": "Register", "payload": {"resume_token": old, "renew_token": true}});
    let new = Device::register(&relay, renew).await.token();
    relay.kill();
    let mut relay = setup.start().await;
    let mut unknown = Device::plain_from(&relay, 3).await;
    let frame = unknown.message_to(&id, 1, json!({}));
    unknown.expect_refusal(frame, 404).await;
    assert_eq!(Device::resume(&relay, &new).await.id, id);
    relay.kill();
    let relay = setup.start().await;
    let mut late = Device::connect(&relay).await;
    let resume = json!({"type": "Register", "payload": {"resume_token": old}});
    late.expect_refusal(resume, 401).await;
    assert_eq!(Device::resume(&relay, &new).await.id, id);
}

#[tokio::test]
async fn an_unregistered_device_stays_unknown_after_kill_9() {
    let data = tempfile::tempdir().expect("a place");
    let setup = Setup::on(data.path());
    let mut relay = setup.start().await;
    let mut device = Device::resumable(&relay).await;
    let (id, token) = (device.id.clone(), device.token());
    device.send(json!({"type": "Unregister"})).await;
    device.expect_closed_with(1000).await;
    relay.kill();
    let relay = setup.start().await;
    let mut late = Device::connect(&relay).await;
    let resume = json!({"type": "Register", "payload": {"resume_token": token}});
    late.expect_refusal(resume, 401).await;
    let mut sender = Device::plain(&relay).await;
    let frame = sender.message_to(&id, 1, json!({}));
    sender.expect_refusal(frame, 404).await;
}

#[tokio::test]
async fn an_operator_finds_the_largest_holders_and_ends_what_one_of_them_holds() {
    let data = tempfile::tempdir().expect("a place");
    let setup = with_origins(data.path());
    let mut relay = setup.start().await;
    let bob = Device::resumable_from(&relay, 1, json!({})).await;
    let (bob_id, bob_token) = (bob.id.clone(), bob.token());
    bob.leave(&relay).await;
    let mut alice = Device::resumable_from(&relay, 2, json!({})).await;
    let mut carol = Device::resumable_from(&relay, 3, json!({})).await;
    for number in 1..=3 {
        alice.send_and_expect_ack(&bob_id, number).await;
    }
    carol.send_and_expect_ack(&bob_id, 4).await;
    relay.stop().await;

    let output = setup.run(&["queue", "top", "--count", "1"]);
    assert!(output.status.success(), "{output:?}");
    let top = String::from_utf8(output.stdout).expect("text");
    let line = |kind: &str| {
        let line = top.lines().find(|line| line.starts_with(kind)).expect("a line");
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(line("recipient")[1..3], [bob_id.clone(), "4".into()]);
    assert_eq!(line("sender")[1..3], [alice.id.clone(), "3".into()]);
    let origin = line("origin");
    assert_eq!(origin[2], "3", "{top}");
    assert_eq!(top.lines().count(), 4);

    let output = setup.run(&["queue", "drop", "--origin", &origin[1]]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("dropped 3;"), "{output:?}");
    let relay = setup.start().await;
    let mut alice = Device::resume(&relay, &alice.token()).await;
    for number in 1..=3 {
        assert_eq!(alice.expect_error(410).await["message_id"], json!(message_id(number)));
    }
    let mut bob = Device::resume(&relay, &bob_token).await;
    bob.receive_and_ack(4).await;
    bob.expect_nothing().await;
}
