//! What the devices of an access token may have, and their end.

use super::*;
use crate::access::{AccessTable, AccessToken, Bounds, Policy, SecretHash};

/// A policy with one token, `team`, that has these bounds.
fn team(bounds: Bounds) -> Policy {
    let token =
        AccessToken { name: "team".into(), hash: SecretHash::of("test"), expires_ms: None, bounds };
    let mut table = AccessTable::default();
    table.insert(token).unwrap();
    Policy::Tokens(table)
}

fn devices(most: u32) -> Policy {
    team(Bounds { devices: Some(most), ..Bounds::default() })
}

const LIMIT: Result<(), Refusal> =
    Err(Refusal::AccessLimit(crate::protocol::refusal::AccessBound::Devices));

#[test]
fn a_plain_device_counts_while_it_is_connected_and_a_resumable_one_while_it_is_known() {
    let mut relay = relay();
    relay.router.set_access(&devices(2));
    relay.access = Some("team".into());
    let (alice, bob) = (relay.plain(1), relay.resumable(2));
    assert_eq!(relay.hello(Who(3), false, false, false), LIMIT);
    assert_eq!(relay.router.observe().access_refusals.devices, 1);
    relay.leaves(alice);
    relay.leaves(bob);
    let carol = relay.plain(3);
    assert_eq!(relay.hello(Who(4), false, false, false), LIMIT);
    relay.resumes(bob);
    relay.send(bob, Command::Unregister);
    relay.plain(4);
    // Bounds of a token that is gone are gone.
    relay.router.set_access(&Policy::Open);
    relay.plain(5);
    relay.leaves(carol);
}

#[test]
fn a_restart_finds_the_devices_and_the_bytes_of_a_token() {
    let mut before = relay();
    before.access = Some("team".into());
    let (alice, bob) = (before.resumable(1), before.resumable(2));
    before.leaves(bob);
    before.sends(alice, "a letter", bob);
    before.leaves(alice);
    let bytes = before.counts().queued_bytes;
    let devices = latest(before.disk().devices.clone());
    let slot = before.router.directory.find(bob.id()).unwrap();
    let letters = before.router.directory[slot].mailbox.items();
    let messages = letters.map(|item| {
        let MessageRecord { seq, to, expires_at, envelope } = item.record(0, bob.id());
        MessageRecord { seq, to, expires_at, envelope: envelope.clone() }
    });
    let messages = messages.collect();
    let mut after = relay();
    let bounds = Bounds { devices: Some(3), queued_bytes: Some(bytes), ..Bounds::default() };
    after.router.set_access(&team(bounds));
    let loaded = Loaded { devices, messages, next_seq: 100, ..Loaded::default() };
    let (now, allowance) = (before.step.now, after.allowance.clone());
    let mut names = Vec::new();
    after.router.restore(now, loaded, |name| {
        names.extend(name.cloned());
        allowance.clone()
    });
    after.router.audit().unwrap();
    assert_eq!(names, ["team".into(), "team".into()] as [Arc<str>; 2]);
    after.step.now = now;
    after.access = Some("team".into());
    let carol = after.plain(3);
    assert_eq!(after.hello(Who(4), false, false, false), LIMIT);
    after.sends(carol, "one more", bob);
    assert_eq!(after.received(carol), ["403 one more"]);
    assert_eq!(after.router.observe().access_refusals.queued_bytes, 1);
}

/// The last record of each device.
fn latest(records: Vec<DeviceRecord>) -> Vec<DeviceRecord> {
    let by_id: HashMap<_, _> = records.into_iter().map(|record| (record.id, record)).collect();
    by_id.into_values().collect()
}

#[test]
fn all_devices_of_a_token_end_and_no_others() {
    let mut relay = relay();
    relay.settings(|settings| settings.limits.devices = 100_000);
    let guest = relay.resumable(1);
    relay.access = Some("team".into());
    let (alice, bob) = (relay.resumable(2), relay.plain(3));
    relay.leaves(alice);
    relay.sends(guest, "a letter", alice);
    relay.received(guest);
    let step = &mut relay.step;
    assert_eq!(relay.router.end_devices_of(step, "nobody"), 0);
    assert_eq!(relay.router.end_devices_of(step, "team"), 2);
    relay.collect();
    assert_eq!(relay.received(bob), ["closed 4403"]);
    relay.sweeps();
    assert_eq!(relay.received(guest), ["410 a letter"]);
    assert_eq!(relay.router.observe().devices, 1);
    assert!(relay.hello(alice, false, false, true).is_err(), "its resume token is unknown");
    assert!(!relay.router.is_unfinished());
}

#[test]
fn a_hundred_thousand_devices_of_a_token_end_in_slices() {
    let mut relay = relay();
    relay.settings(|settings| settings.limits.devices = 200_000);
    for number in 1..=100_000 {
        let (who, connection) = (Who(number), ConnectionId(number as u64));
        let hello = Registration {
            resumable: true,
            receipts: false,
            origin: Origin::NONE,
            access: Some("team".into()),
            accept: None,
            resume: None,
            fresh_id: who.id(),
            fresh_token: (
                Token(number.to_string()),
                TokenHash(std::array::from_fn(|at| {
                    number.to_le_bytes().get(at).copied().unwrap_or_default()
                })),
            ),
        };
        let allowance = relay.allowance.clone();
        relay.router.register(&mut relay.step, connection, hello, allowance).unwrap();
        relay.step.out.clear();
    }
    assert_eq!(relay.router.end_devices_of(&mut relay.step, "team"), 100_000);
    let mut before = 100_000;
    let mut steps = 1;
    loop {
        let now = relay.router.observe().devices;
        assert!(before - now <= STEP_ENTRIES);
        before = now;
        if !relay.router.is_unfinished() {
            break;
        }
        relay.router.continue_work(&mut relay.step);
        steps += 1;
    }
    assert!(steps >= 100_000 / STEP_ENTRIES, "{steps}");
    assert_eq!((before, relay.router.residue()), (0, 0));
    assert_eq!(relay.step.out.len(), 100_000, "each connection is closed");
}
