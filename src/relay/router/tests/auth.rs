use super::*;

#[test]
fn the_four_steps_go_between_two_peers() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain(1), relay.plain(2));
    relay.sends(alice, "hi", bob);
    relay.received(alice);
    relay.auth(bob, AuthStep::Request, None);
    relay.auth(alice, AuthStep::Response, None);
    relay.auth(bob, AuthStep::Verify, None);
    relay.trusts(alice, bob);
    relay.trusts(bob, alice);
    assert_eq!(relay.received(alice), ["Request", "Verify", "Success"]);
    assert_eq!(relay.received(bob), ["hi", "Response", "Success"]);
}

#[test]
fn a_step_without_a_recipient_is_refused_unless_the_sender_has_one_peer() {
    let mut relay = relay();
    let (alice, bob, carol) = (relay.plain(1), relay.plain(2), relay.plain(3));
    relay.auth(alice, AuthStep::Request, None);
    relay.sends(alice, "hi", bob);
    relay.sends(carol, "ho", alice);
    relay.auth(alice, AuthStep::Request, None);
    assert_eq!(relay.received(alice), ["400", "ack hi", "ho", "409"]);
    relay.auth(alice, AuthStep::Request, Some(carol));
    assert_eq!(relay.received(carol), ["ack ho", "Request"]);
    assert_eq!(relay.received(bob), ["hi"]);
    relay.auth(alice, AuthStep::Request, Some(Who(9)));
    assert_eq!(relay.received(alice), ["404"]);
}

#[test]
fn a_step_without_an_exchange_that_waits_for_it_goes_nowhere() {
    let mut relay = relay();
    let (alice, bob, carol) = (relay.plain(1), relay.plain(2), relay.plain(3));
    relay.auth(bob, AuthStep::Response, Some(alice));
    relay.auth(alice, AuthStep::Request, Some(bob));
    relay.auth(bob, AuthStep::Verify, None);
    relay.auth(carol, AuthStep::Response, Some(alice));
    relay.trusts(bob, alice);
    relay.trusts(carol, alice);
    assert_eq!(relay.received(bob), ["404", "Request", "404", "403"]);
    assert_eq!(relay.received(carol), ["404", "403"]);
    assert_eq!(relay.received(alice), NOTHING);
}

#[test]
fn a_step_waits_for_as_long_as_its_exchange_lasts() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain(1), relay.resumable(2));
    relay.leaves(bob);
    relay.auth(alice, AuthStep::Request, Some(bob));
    relay.pass(30);
    relay.sweeps();
    assert_eq!(relay.received(alice), ["410"]);
    relay.resumes(bob);
    relay.auth(bob, AuthStep::Response, None);
    assert_eq!(relay.received(bob), ["resumed 0", "404"]);
    assert_eq!(relay.router.observe().exchanges, 0);
}

#[test]
fn a_repeated_request_is_one_exchange() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain(1), relay.plain(2));
    for _ in 0..100 {
        relay.auth(alice, AuthStep::Request, Some(bob));
        relay.takes(bob);
        relay.pass(1);
    }
    assert_eq!(relay.router.observe().exchanges, 1);
    assert!(relay.router.residue() < 20);
}
