use super::*;

#[test]
fn no_message_is_acked_before_it_is_durable_or_delivered() {
    let mut relay = relay();
    relay.disk().slow = true;
    let (alice, bob, carol) = (relay.plain(1), relay.resumable(2), relay.resumable(3));
    relay.leaves(carol);
    relay.sends(alice, "one", bob);
    relay.sends(alice, "two", carol);
    relay.sends(alice, "two", carol);
    assert_eq!(relay.received(alice), NOTHING);
    relay.confirms(bob, "one");
    assert_eq!(relay.received(alice), ["ack one"]);
    let last = relay.disk().last;
    relay.commits(last);
    relay.commits(last);
    assert_eq!(relay.received(alice), ["ack two", "ack two"], "one for each Send");
}

/// A commit of a newer message acked an older message that was put later, when its connection ended.
#[test]
fn a_message_that_was_put_late_is_acked_late() {
    let mut relay = relay();
    relay.disk().slow = true;
    let (alice, bob, carol) = (relay.plain_with_receipts(1), relay.plain(2), relay.resumable(3));
    relay.leaves(carol);
    relay.sends(alice, "older", bob);
    relay.sends(alice, "newer", carol);
    let first = relay.disk().last;
    relay.leaves(bob);
    relay.commits(first);
    assert_eq!(relay.received(alice), ["ack newer queued until 60"]);
    let last = relay.disk().last;
    relay.commits(last);
    assert_eq!(relay.received(alice), ["ack older queued until 60"]);
}

#[test]
fn the_counts_of_a_device_are_written_once_for_all_that_expires_together() {
    let mut relay = relay();
    let (alice, bob, carol) = (relay.plain(1), relay.resumable(2), relay.resumable(3));
    relay.leaves(bob);
    relay.leaves(carol);
    for (name, recipient) in [("a", bob), ("b", carol), ("c", bob), ("d", bob)] {
        relay.sends_for(alice, name, recipient, Some(10));
    }
    relay.pass(10);
    relay.disk().devices.clear();
    relay.sweeps();
    let written =
        relay.disk().devices.iter().map(|it| (it.id, it.history.expired)).collect::<Vec<_>>();
    assert_eq!(written, [(bob.id(), 3), (carol.id(), 1)]);
}

/// A device that was connected at a crash got a whole absence anew at each start.
#[test]
fn the_end_of_a_device_that_was_connected_is_written_at_the_start() {
    let mut relay = relay();
    let record = DeviceRecord {
        id: Who(1).id(),
        token: None,
        next_token: None,
        forget_at: None,
        origin: Origin::NONE,
        used: true,
        accept: Accept::Anyone,
        receipts: false,
        registered_at: 5,
        blocked: true,
        access: Some("team".into()),
        history: History::default(),
    };
    let loaded = Loaded { devices: vec![record.clone()], ..Loaded::default() };
    let (now, allowance) = (relay.step.now, relay.allowance.clone());
    relay.router.restore(now, loaded, |_| allowance.clone());
    let forget_at = Some(BootTime { boot: 0, at: now.mono + Duration::from_secs(300) });
    assert_eq!(relay.disk().devices, [DeviceRecord { forget_at, ..record }]);
}

#[test]
fn a_device_keeps_when_and_by_which_access_token_it_registered() {
    let mut relay = relay();
    relay.access = Some("team".into());
    let registered_at = relay.step.now.wall_ms as i64;
    let alice = relay.resumable(1);
    relay.access = Some("guests".into());
    relay.pass(5);
    relay.leaves(alice);
    relay.resumes(alice);
    let records = &relay.disk().devices;
    assert!(records.len() >= 3, "at registration, at its end and at its return");
    for record in records {
        assert_eq!(record.registered_at, registered_at);
        assert_eq!(record.access.as_deref(), Some("team"));
        assert!(!record.blocked);
    }
}

#[test]
fn a_sender_that_was_away_at_the_commit_repeats_its_message_and_is_acked() {
    let mut relay = relay();
    relay.disk().slow = true;
    let (alice, bob) = (relay.resumable(1), relay.resumable(2));
    relay.sends(alice, "hi", bob);
    relay.leaves(alice);
    let last = relay.disk().last;
    relay.commits(last);
    relay.resumes(alice);
    relay.sends(alice, "hi", bob);
    assert_eq!(relay.received(alice), ["resumed 0", "ack hi"]);
    assert_eq!(relay.received(bob), ["hi"]);
}
