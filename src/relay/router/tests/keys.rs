use super::*;

#[test]
fn an_update_is_delivered_when_its_confirmation_passes_back() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain(1), relay.resumable(2));
    relay.rotates(alice, "7", bob);
    relay.takes(bob);
    assert_eq!(relay.counts().delivered, 0);
    relay.resumes(bob);
    assert_eq!(relay.received(bob), ["resumed 1", "key 7"]);
    relay.confirms_key(bob, "7", alice);
    assert_eq!(relay.received(alice), ["key 7 confirmed"]);
    assert_eq!(relay.counts().delivered, 1);
    relay.takes(alice);
    assert_eq!(relay.counts().delivered, 2);
    assert_eq!(relay.received(alice), NOTHING, "there is no Ack for a key");
}

#[test]
fn keys_and_messages_of_a_pair_keep_their_order() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain(1), relay.resumable(2));
    relay.leaves(bob);
    relay.sends(alice, "before", bob);
    relay.rotates(alice, "7", bob);
    relay.sends(alice, "after", bob);
    relay.resumes(bob);
    assert_eq!(relay.received(bob), ["resumed 3", "before", "key 7", "after"]);
}

#[test]
fn the_outcome_of_a_key_is_reported_with_its_key_id() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain(1), relay.resumable(2));
    relay.leaves(bob);
    relay.rotates(alice, "7", Who(9));
    relay.rotates(alice, "8", bob);
    relay.pass(120);
    relay.sweeps();
    assert_eq!(relay.received(alice), ["404 key 7", "410 key 8"]);
}
