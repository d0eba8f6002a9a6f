use super::*;

#[test]
fn a_message_is_acked_once_when_it_is_handed_over() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain(1), relay.plain(2));
    relay.sends(alice, "hi", bob);
    assert_eq!(relay.received(bob), ["hi"]);
    assert_eq!(relay.received(alice), ["ack hi"]);
    relay.takes(bob);
    assert_eq!(relay.received(alice), NOTHING);
    assert_eq!(relay.counts().delivered, 1);
}

#[test]
fn a_message_to_a_disconnected_device_is_acked_once_when_it_is_queued() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain(1), relay.resumable(2));
    relay.leaves(bob);
    relay.sends(alice, "hi", bob);
    assert_eq!(relay.received(alice), ["ack hi"]);
    relay.resumes(bob);
    assert_eq!(relay.received(bob), ["resumed 1", "hi"]);
    relay.confirms(bob, "hi");
    assert_eq!(relay.received(alice), NOTHING);
}

#[test]
fn a_device_may_send_to_itself() {
    let mut relay = relay();
    let alice = relay.resumable(1);
    relay.sends(alice, "note", alice);
    assert_eq!(relay.received(alice), ["note", "ack note"]);
    relay.confirms(alice, "note");
    assert_eq!(relay.counts().delivered, 1);
}

#[test]
fn a_recipient_that_never_registered_is_unknown() {
    let mut relay = relay();
    let alice = relay.plain(1);
    relay.sends(alice, "hi", Who(9));
    assert_eq!(relay.received(alice), ["404 hi"]);
}

#[test]
fn a_message_with_ttl_zero_is_delivered_at_once_or_refused() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain(1), relay.resumable(2));
    relay.sends_for(alice, "now", bob, Some(0));
    assert_eq!(relay.received(bob), ["now"]);
    assert_eq!(relay.received(alice), ["ack now"]);
    relay.status(bob, Presence::Offline);
    relay.sends_for(alice, "never", bob, Some(0));
    assert_eq!(relay.received(alice), ["410 never"]);
    assert_eq!(relay.counts().accepted, 1);
}

#[test]
fn a_message_with_ttl_zero_is_refused_if_other_messages_wait() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain(1), relay.resumable(2));
    for name in ["one", "two", "three"] {
        relay.sends(alice, name, bob);
    }
    relay.received(alice);
    relay.sends_for(alice, "four", bob, Some(0));
    assert_eq!(relay.received(alice), ["410 four"]);
}

#[test]
fn a_message_with_ttl_zero_is_lost_with_its_connection_and_its_sender_gets_an_error() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain(1), relay.resumable(2));
    relay.sends_for(alice, "now", bob, Some(0));
    relay.leaves(bob);
    relay.sweeps();
    assert_eq!(relay.received(alice), ["ack now", "410 now"]);
}

#[test]
fn a_missing_ttl_means_the_default_and_a_huge_ttl_means_the_longest() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain_with_receipts(1), relay.plain(2));
    relay.leaves(bob);
    relay.sends(alice, "a", bob);
    relay.sends_for(alice, "b", bob, Some(u64::MAX));
    assert_eq!(relay.received(alice), ["ack a queued until 60", "ack b queued until 600"]);
}

#[test]
fn an_expired_message_is_reported_once_and_never_delivered() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain(1), relay.resumable(2));
    relay.leaves(bob);
    relay.sends_for(alice, "late", bob, Some(5));
    relay.pass(5);
    relay.resumes(bob);
    assert_eq!(relay.received(bob)[1..], NOTHING);
    relay.sweeps();
    relay.sweeps();
    assert_eq!(relay.received(alice), ["ack late", "410 late"]);
    assert_eq!(relay.counts().expired, 1);
}

#[test]
fn messages_of_all_recipients_expire_in_the_order_of_their_deadlines() {
    let mut relay = relay();
    let (alice, bob, carol) = (relay.plain(1), relay.resumable(2), relay.resumable(3));
    relay.leaves(bob);
    relay.leaves(carol);
    for (name, recipient) in [("a", bob), ("b", carol), ("c", bob)] {
        relay.sends_for(alice, name, recipient, Some(10));
        relay.pass(1);
    }
    relay.received(alice);
    relay.pass(10);
    relay.sweeps();
    assert_eq!(relay.received(alice), ["410 a", "410 b", "410 c"]);
}

#[test]
fn an_unconfirmed_message_expires_too_and_does_not_come_again() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain(1), relay.resumable(2));
    relay.sends_for(alice, "hi", bob, Some(5));
    relay.takes(bob);
    relay.pass(5);
    relay.sweeps();
    assert_eq!(relay.received(alice), ["ack hi", "410 hi"]);
    relay.resumes(bob);
    assert_eq!(relay.received(bob), ["resumed 0"]);
}

/// When all messages in flight had expired unconfirmed, the waiting messages stayed until another event.
#[test]
fn an_unconfirmed_message_that_expires_makes_room_for_waiting_messages() {
    let mut relay = relay();
    let (alice, bob) = (relay.resumable(1), relay.resumable(2));
    relay.settings(|settings| settings.queue.sender_share = 1.0);
    for name in ["one", "two", "three"] {
        relay.sends_for(alice, name, bob, Some(5));
    }
    relay.sends_for(alice, "four", bob, Some(50));
    assert_eq!(relay.received(bob), ["one", "two", "three"]);
    relay.pass(5);
    relay.sweeps();
    assert_eq!(relay.received(bob), ["four"]);
}
