use super::*;
use crate::protocol::envelope::ENVELOPE_OVERHEAD;

#[test]
fn a_full_queue_refuses_and_loses_nothing() {
    let mut relay = relay();
    let (alice, bob, carol) = (relay.plain(1), relay.resumable(2), relay.plain(3));
    let dave = relay.plain(4);
    relay.leaves(bob);
    for name in ["1", "2", "3"] {
        relay.sends(alice, name, bob);
        relay.sends(carol, name, bob);
    }
    relay.received(carol);
    relay.sends(dave, "4", bob);
    assert_eq!(relay.received(dave), ["507 4"]);
    relay.resumes(bob);
    assert_eq!(relay.received(bob), ["resumed 6", "1", "1", "2"]);
}

#[test]
fn one_sender_fills_its_share_and_the_others_get_through() {
    let mut relay = relay();
    let (alice, bob, carol) = (relay.plain(1), relay.resumable(2), relay.plain(3));
    relay.leaves(bob);
    for name in ["1", "2", "3", "4"] {
        relay.sends(alice, name, bob);
    }
    relay.sends(carol, "5", bob);
    assert_eq!(relay.received(alice), ["ack 1", "ack 2", "ack 3", "507 4"]);
    assert_eq!(relay.received(carol), ["ack 5"]);
}

#[test]
fn expired_items_make_room_before_a_queue_counts_as_full() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain(1), relay.resumable(2));
    relay.leaves(bob);
    for name in ["1", "2", "3"] {
        relay.sends_for(alice, name, bob, Some(5));
    }
    relay.pass(5);
    relay.sends(alice, "4", bob);
    relay.sweeps();
    let received = relay.received(alice);
    assert_eq!(received[3..], ["ack 4", "410 1", "410 2", "410 3"]);
}

#[test]
fn a_queue_has_a_limit_in_bytes() {
    let mut relay = relay();
    relay.settings(|settings| settings.queue.bytes = 1_000 + 4 * ENVELOPE_OVERHEAD as usize);
    let (alice, bob) = (relay.plain(1), relay.resumable(2));
    relay.leaves(bob);
    relay.sends(alice, &"a".repeat(300), bob);
    relay.sends(alice, &"b".repeat(201), bob);
    relay.sends(alice, &"c".repeat(200), bob);
    let codes = relay.received(alice).into_iter().map(|text| text[..3].to_owned());
    assert!(codes.eq(["ack", "507", "ack"]));
}

#[test]
fn all_queues_have_a_limit_together() {
    let mut relay = relay();
    relay.settings(|settings| settings.queue.total_bytes = 400);
    let (alice, bob, carol) = (relay.plain(1), relay.resumable(2), relay.plain(3));
    relay.leaves(bob);
    relay.sends(alice, "123456", bob);
    relay.sends(alice, "12345", bob);
    assert_eq!(relay.received(alice), ["ack 123456", "503 12345"]);
    relay.sends(alice, "straight through", carol);
    assert_eq!(relay.received(carol), ["straight through"]);
}

/// Auth frames counted in no byte limit, and a step that was refused for lack of room had advanced its exchange.
#[test]
fn auth_frames_count_in_the_quota_and_a_refused_step_can_be_repeated() {
    let mut relay = relay();
    let (alice, bob, carol) = (relay.plain(1), relay.resumable(2), relay.plain(3));
    relay.settings(|settings| settings.queue.messages = 1);
    relay.auth(bob, AuthStep::Request, Some(alice));
    relay.leaves(bob);
    relay.sends(carol, "first", bob);
    relay.auth(alice, AuthStep::Response, None);
    assert_eq!(relay.received(alice), ["Request", "507"]);
    relay.resumes(bob);
    relay.confirms(bob, "first");
    relay.auth(alice, AuthStep::Response, None);
    assert_eq!(relay.received(bob), ["resumed 1", "first", "Response"]);
}
