use super::*;

#[test]
fn a_repeat_is_acked_again_and_delivered_once() {
    let mut relay = relay();
    let (alice, bob) = (relay.resumable(1), relay.plain(2));
    relay.sends(alice, "hi", bob);
    relay.resumes(alice);
    relay.received(alice);
    relay.sends(alice, "hi", bob);
    assert_eq!(relay.received(alice), ["ack hi"]);
    assert_eq!(relay.received(bob), ["hi"]);
    relay.takes(bob);
    relay.sends(alice, "hi", bob);
    assert_eq!(relay.received(alice), ["ack hi"]);
    assert_eq!(relay.received(bob), NOTHING);
    assert_eq!(relay.counts().accepted, 1);
}

#[test]
fn other_content_under_the_same_id_is_refused() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain(1), relay.plain(2));
    relay.sends(alice, "hi", bob);
    relay.sends_content(alice, "hi", "something else", bob, None);
    assert_eq!(relay.received(alice), ["ack hi", "409 hi"]);
}

#[test]
fn an_id_belongs_to_sender_and_recipient() {
    let mut relay = relay();
    let (alice, bob, carol) = (relay.plain(1), relay.plain(2), relay.plain(3));
    relay.sends(alice, "hi", bob);
    relay.sends(alice, "hi", carol);
    relay.sends(bob, "hi", alice);
    assert_eq!(relay.received(carol), ["hi"]);
    assert_eq!(relay.received(alice), ["ack hi", "ack hi", "hi"]);
}

#[test]
fn an_expired_message_may_be_sent_again_after_its_notice() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain_with_receipts(1), relay.resumable(2));
    relay.leaves(bob);
    relay.sends_for(alice, "hi", bob, Some(5));
    relay.pass(5);
    relay.router.next_expired(relay.step.now, 10);
    relay.received(alice);
    relay.sends_for(alice, "hi", bob, Some(5));
    assert_eq!(relay.received(alice), NOTHING, "its 410 is on its way");
    relay.sweeps();
    relay.sends_for(alice, "hi", bob, Some(5));
    assert_eq!(relay.received(alice), ["410 hi", "ack hi queued until 10"]);
}

#[test]
fn a_repeat_is_forgotten_after_the_window_at_the_earliest() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain(1), relay.plain(2));
    relay.sends(alice, "hi", bob);
    relay.takes(bob);
    relay.pass(99);
    relay.sweeps();
    relay.sends(alice, "hi", bob);
    relay.pass(300);
    relay.sweeps();
    relay.sends(alice, "hi", bob);
    assert_eq!(relay.received(bob), ["hi", "hi"]);
}
