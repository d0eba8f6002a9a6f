//! No step visits more than a slice, whatever waits. (threats: T62)

use super::*;

/// Steps of a sweep that drop what they find, until nothing is left: how many there were, and the most that one found.
fn sweep_all(relay: &mut Relay, limit: usize) -> (usize, usize) {
    let (mut steps, mut most) = (0, 0);
    loop {
        let Sweep { expired, more } = relay.router.next_expired(relay.step.now, limit);
        steps += 1;
        most = most.max(expired.len());
        if let Some(last) = expired.last() {
            relay.router.drop_expired(&mut relay.step, last.ticket + 1, []);
        }
        relay.step.out.clear();
        if expired.is_empty() && !more {
            return (steps, most);
        }
    }
}

/// Sends messages, without the recount that the other tests make after each.
fn send_many(relay: &mut Relay, from: Who, to: Who, count: u64, ttl: u64) {
    for number in 1..=count {
        let id = MessageId::from_u128(u128::from(number));
        let body = "a body".into();
        let message =
            SendCommand { recipient: to.id().into(), id, ttl: Some(ttl), content: 2, body };
        let connection = relay.conns[&from.0];
        relay.router.handle(&mut relay.step, connection, [Command::Send(message)]);
        relay.step.out.clear();
    }
}

fn wide() -> Relay {
    let mut relay = relay();
    relay.settings(|settings| {
        settings.queue.messages = 1_000_000;
        settings.queue.bytes = usize::MAX;
        settings.queue.total_bytes = usize::MAX;
        settings.queue.sender_share = 1.0;
        settings.limits.devices = 2_000_000;
    });
    relay
}

#[test]
fn a_resume_to_a_mailbox_of_200_000_expired_messages_visits_one_slice() {
    let mut relay = wide();
    let (alice, bob) = (relay.plain(1), relay.resumable(2));
    relay.leaves(bob);
    send_many(&mut relay, alice, bob, 200_000, 5);
    relay.pass(5);
    relay.resumes(bob);
    assert_eq!(relay.router.expiry.len(), STEP_ENTRIES + EXPIRED_PER_DISPATCH);
    let (steps, most) = sweep_all(&mut relay, 64);
    assert!(most <= 64 && steps >= 200_000 / 64, "{steps} steps, {most} at most");
    assert_eq!(relay.router.observe().counts.queued, 0);
    relay.router.audit().unwrap();
}

#[test]
fn a_million_devices_that_end_together_are_forgotten_in_slices() {
    let mut relay = wide();
    for number in 1..=1_000_000 {
        let (who, connection) = (Who(number), ConnectionId(number as u64));
        let hello = Registration {
            resumable: false,
            receipts: false,
            origin: Origin::NONE,
            access: None,
            accept: None,
            resume: None,
            fresh_id: who.id(),
            fresh_token: who.token(),
        };
        let allowance = relay.allowance.clone();
        relay.router.register(&mut relay.step, connection, hello, allowance).unwrap();
        relay.router.disconnect(&mut relay.step, connection);
        relay.step.out.clear();
    }
    relay.pass(300);
    let before = relay.router.observe().devices;
    relay.router.next_expired(relay.step.now, 64);
    assert_eq!(before - relay.router.observe().devices, STEP_ENTRIES);
    let (steps, _) = sweep_all(&mut relay, 64);
    assert!(steps >= 1_000_000 / STEP_ENTRIES - 1);
    assert_eq!((relay.router.observe().devices, relay.router.residue()), (0, 0));
}

#[test]
fn a_device_that_ends_with_a_full_mailbox_gives_it_up_in_slices() {
    let mut relay = wide();
    let (alice, bob) = (relay.plain(1), relay.resumable(2));
    relay.leaves(bob);
    send_many(&mut relay, alice, bob, 10_000, 600);
    relay.resumes(bob);
    relay.send(bob, Command::Unregister);
    let counts = relay.router.observe().counts;
    assert_eq!((counts.queued + counts.in_flight, relay.router.expiry.len()), (10_000, 0));
    relay.router.audit().unwrap();
    let (_, most) = sweep_all(&mut relay, 64);
    assert_eq!((most, relay.router.observe().counts.expired), (64, 10_000));
    relay.router.audit().unwrap();
}

#[test]
fn after_a_failure_of_the_store_a_full_mailbox_is_put_again_in_slices() {
    let mut relay = wide();
    let (alice, bob) = (relay.plain(1), relay.resumable(2));
    relay.leaves(bob);
    send_many(&mut relay, alice, bob, 10_000, 600);
    let slot = relay.router.directory.find(bob.id()).unwrap();
    for seq in 1..=10_000 {
        if let Some(item) = relay.router.directory[slot].mailbox.get_mut(seq) {
            item.stored = false;
        }
    }
    let before = relay.router.last_put();
    relay.router.recovered(&mut relay.step);
    let mut steps = 0;
    let mut last = before;
    while relay.router.is_unfinished() {
        relay.router.continue_work(&mut relay.step);
        steps += 1;
        let now = relay.router.last_put();
        assert!(now.0 - last.0 <= STEP_ENTRIES as u64);
        last = now;
    }
    assert_eq!((steps, relay.router.last_put().0 - before.0), (3, 10_000));
}
