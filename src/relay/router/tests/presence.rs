use super::*;

#[test]
fn unconfirmed_messages_come_before_waiting_ones_and_those_before_new_ones() {
    let mut relay = relay();
    let (alice, bob, carol) = (relay.plain(1), relay.resumable(2), relay.plain(3));
    for name in ["one", "two", "three"] {
        relay.sends(alice, name, bob);
    }
    relay.sends(carol, "four", bob);
    assert_eq!(relay.received(bob), ["one", "two", "three"]);
    relay.confirms(bob, "two");
    assert_eq!(relay.received(bob), ["four"]);
    relay.leaves(bob);
    relay.sends(carol, "five", bob);
    relay.resumes(bob);
    assert_eq!(relay.received(bob), ["resumed 4", "one", "three", "four"]);
    relay.sends(carol, "six", bob);
    relay.confirms(bob, "one");
    relay.confirms(bob, "three");
    assert_eq!(relay.received(bob), ["five", "six"]);
}

#[test]
fn the_newest_connection_wins_and_a_late_disconnect_changes_nothing() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain(1), relay.resumable(2));
    let older = relay.conns[&bob.0];
    relay.resumes(bob);
    assert_eq!(relay.received.remove(&older).unwrap(), ["409", "closed 4409"]);
    relay.router.disconnect(&mut relay.step, older, 1000);
    relay.sends(alice, "hi", bob);
    assert_eq!(relay.received(bob), ["resumed 0", "hi"]);
    assert_eq!(relay.router.observe().connected, 2);
}

#[test]
fn offline_holds_away_and_online_deliver() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain(1), relay.plain(2));
    relay.status(bob, Presence::Offline);
    relay.sends(alice, "one", bob);
    assert_eq!(relay.received(bob), NOTHING);
    assert_eq!(relay.received(alice), ["ack one"]);
    relay.status(bob, Presence::Away);
    relay.sends(alice, "two", bob);
    assert_eq!(relay.received(bob), ["one", "two"]);
}

#[test]
fn waiting_messages_expire_when_their_plain_recipient_is_forgotten() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain(1), relay.plain(2));
    relay.leaves(bob);
    relay.sends_for(alice, "hi", bob, Some(600));
    relay.received(alice);
    relay.pass(299);
    relay.sweeps();
    assert_eq!(relay.received(alice), NOTHING);
    relay.pass(1);
    relay.sweeps();
    relay.sends(alice, "again", bob);
    assert_eq!(relay.received(alice), ["410 hi", "404 again"]);
    assert_eq!(relay.router.observe().devices, 1);
}

#[test]
fn a_session_that_is_over_is_unknown_even_before_the_sweep() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain(1), relay.resumable(2));
    relay.leaves(bob);
    relay.pass(3_600);
    relay.sends(alice, "hi", bob);
    relay.rotates(alice, "7", bob);
    assert_eq!(relay.received(alice), ["404 hi", "404 key 7"]);
    assert_eq!(relay.hello(bob, false, false, true), Err(Refusal::BadToken));
}

#[test]
fn an_unknown_token_is_refused_and_a_plain_device_has_no_token() {
    let mut relay = relay();
    let alice = relay.plain(1);
    assert_eq!(relay.hello(Who(9), false, false, true), Err(Refusal::BadToken));
    assert_eq!(relay.hello(alice, false, false, true), Err(Refusal::BadToken));
}

#[test]
fn the_number_of_known_devices_is_limited() {
    let mut relay = relay();
    for number in 1..=5 {
        relay.resumable(number);
    }
    assert_eq!(relay.hello(Who(6), false, false, false), Err(Refusal::Full));
    relay.leaves(Who(1));
    relay.pass(3_600);
    relay.sweeps();
    relay.plain(6);
}
