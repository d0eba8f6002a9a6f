//! The queue of a relay that runs: who holds it, and an end to that.

use serde_json::json;

use crate::support::operator::Operator;
use crate::support::{Device, Relay};

fn operator(relay: &Relay) -> Operator {
    let path = relay.settings.queue.path.display().to_string();
    Operator::of(relay.admin).with("QUEUE__PATH", &path)
}

#[actix_rt::test]
async fn top_names_recipients_senders_and_origins_and_drop_ends_what_one_holds() {
    let relay = Relay::start();
    let operator = operator(&relay);
    let (mut alice, mut carol) = (Device::plain(&relay).await, Device::plain(&relay).await);
    let bob = Device::resumable(&relay).await.disconnect(&relay).await;
    for number in 1..=3 {
        alice.send_and_expect_ack(&bob.id, number).await;
    }
    carol.send_and_expect_ack(&bob.id, 4).await;
    let top = operator.json(&["queue", "top", "--json"]).await;
    let row = |index: usize| {
        let row = &top["holders"][index];
        (row["holder"].as_str(), row["id"].as_str(), row["messages"].as_u64())
    };
    assert_eq!(row(0), (Some("recipient"), Some(bob.id.as_str()), Some(4)));
    assert_eq!(row(1), (Some("sender"), Some(alice.id.as_str()), Some(3)));
    assert_eq!(row(2), (Some("sender"), Some(carol.id.as_str()), Some(1)));
    assert_eq!((row(3).0, row(3).2), (Some("origin"), Some(4)), "both have one address");
    let printed = operator.prints(&["queue", "top", "--count", "1"]).await;
    assert!(printed.contains(&alice.id) && !printed.contains(&carol.id), "{printed}");

    // The beginning of an id is enough, as for the other commands.
    let printed = operator.prints(&["queue", "drop", "--sender", &alice.id[..13]]).await;
    assert_eq!(printed, "dropped 3; their senders get an Error 410 now\n");
    for _ in 1..=3 {
        alice.expect_error(410).await;
    }
    let mut back = bob.reconnect(&relay).await;
    assert_eq!(back.queued(), 1);
    back.receive(4).await;
    relay.wait_for("expired", 3).await;
}

#[actix_rt::test]
async fn drop_leaves_what_was_handed_over_and_refuses_who_is_no_holder() {
    let relay = Relay::start();
    let operator = operator(&relay);
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    alice.send_and_expect_ack(&bob.id, 1).await;
    bob.receive(1).await;
    let printed = operator.prints(&["queue", "drop", "--recipient", &bob.id]).await;
    assert_eq!(printed, "dropped 0; their senders get an Error 410 now\n");
    bob.ack(1).await;
    bob.expect_nothing().await;
    for (wrong, code) in [
        (["--sender", "nobody"], 64),
        (["--origin", "12"], 64),
        (["--access", "a/b"], 64),
        (["--sender", "00000000"], 1),
    ] {
        let refused = operator.run(&[&["queue", "drop"][..], &wrong].concat()).await;
        assert_eq!(refused.code, Some(code), "{refused:?}");
    }
    alice.send_message(&bob.id, 2, json!({})).await;
    alice.expect_ack(2).await;
    bob.receive(2).await;
}
