use super::*;

#[test]
fn a_message_to_a_connected_plain_device_is_delivered_when_the_socket_took_it() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain_with_receipts(1), relay.plain(2));
    relay.sends(alice, "hi", bob);
    assert_eq!(relay.received(alice), NOTHING);
    relay.takes(bob);
    assert_eq!(relay.received(alice), ["ack hi delivered"]);
}

#[test]
fn a_message_whose_connection_dies_first_is_queued_instead() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain_with_receipts(1), relay.plain(2));
    relay.sends(alice, "hi", bob);
    relay.leaves(bob);
    assert_eq!(relay.received(alice), ["ack hi queued until 60"]);
    relay.pass(60);
    relay.sweeps();
    assert_eq!(relay.received(alice), ["410 hi"]);
}

#[test]
fn a_message_to_an_offline_plain_device_is_queued_and_then_delivered() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain_with_receipts(1), relay.plain(2));
    relay.status(bob, Presence::Offline);
    relay.sends(alice, "hi", bob);
    assert_eq!(relay.received(alice), ["ack hi queued until 60"]);
    relay.status(bob, Presence::Online);
    relay.takes(bob);
    assert_eq!(relay.received(alice), ["ack hi delivered"]);
}

#[test]
fn a_message_to_a_resumable_device_is_queued_and_delivered_at_its_ack() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain_with_receipts(1), relay.resumable(2));
    relay.sends(alice, "hi", bob);
    relay.takes(bob);
    assert_eq!(relay.received(alice), ["ack hi queued until 60"]);
    relay.confirms(bob, "hi");
    assert_eq!(relay.received(alice), ["ack hi processed"]);
}

#[test]
fn a_plain_device_may_ack_what_it_received_and_no_more() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain(1), relay.plain(2));
    relay.sends(alice, "one", bob);
    relay.sends(alice, "two", bob);
    assert_eq!(relay.received(bob), ["one", "two"]);
    relay.confirms(bob, "one");
    relay.confirms(bob, "two");
    assert_eq!(relay.received(bob), NOTHING);
    relay.confirms(bob, "two");
    assert_eq!(relay.received(bob), ["unmatched ack"]);
}

#[test]
fn an_unmatched_ack_is_only_counted() {
    let mut relay = relay();
    let (alice, bob, carol) =
        (relay.plain_with_receipts(1), relay.resumable(2), relay.resumable(3));
    relay.sends(alice, "hi", bob);
    relay.received(alice);
    relay.confirms(carol, "hi");
    relay.confirms(bob, "other");
    assert_eq!(relay.received(alice), NOTHING);
    assert_eq!((relay.counts().stray_acks, relay.counts().delivered), (2, 0));
}

#[test]
fn a_resumable_sender_gets_its_receipts_and_errors_when_it_resumes() {
    let mut relay = relay();
    let alice = relay.resumable_with_receipts(1);
    let (bob, carol) = (relay.resumable(2), relay.plain(3));
    relay.leaves(carol);
    relay.sends(alice, "hi", bob);
    relay.sends_for(alice, "gone", carol, Some(5));
    relay.leaves(alice);
    relay.confirms(bob, "hi");
    relay.pass(5);
    relay.sweeps();
    relay.resumes_with_receipts(alice);
    assert_eq!(relay.received(alice), ["resumed 0", "ack hi processed", "410 gone"]);
}

#[test]
fn a_disconnected_plain_sender_gets_no_notice() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain_with_receipts(1), relay.resumable(2));
    relay.leaves(bob);
    relay.sends_for(alice, "hi", bob, Some(5));
    relay.leaves(alice);
    relay.pass(5);
    relay.sweeps();
    let counts = relay.counts();
    assert_eq!((counts.expired, counts.queued_bytes), (1, 0));
}

/// More notices than a queue has places were thrown away.
#[test]
fn every_expired_message_is_reported_however_many_notices_wait() {
    let mut relay = relay();
    relay.settings(|settings| {
        settings.queue.messages = 20;
        settings.queue.sender_share = 1.0;
    });
    let (alice, bob) = (relay.resumable(1), relay.resumable(2));
    relay.leaves(bob);
    for number in 0..20 {
        relay.sends_for(alice, &number.to_string(), bob, Some(5));
    }
    relay.received(alice);
    relay.leaves(alice);
    relay.settings(|settings| settings.queue.messages = 6);
    relay.pass(5);
    relay.sweeps();
    relay.resumes(alice);
    let mut reported = 0;
    loop {
        reported += relay.received(alice).iter().filter(|text| text.starts_with("410")).count();
        if reported == 20 {
            break;
        }
        relay.takes(alice);
    }
}
