//! Boots of a machine whose wall clock is set at will.

use super::*;

const TTL: Duration = Duration::from_secs(600);
const HOUR: u64 = 3_600_000;
/// A wall clock that is right.
const TODAY: u64 = 500_000 * HOUR;

fn at(boot_ms: u64, wall_ms: u64) -> Now {
    Now { mono: Moment(0) + Duration::from_millis(boot_ms), wall_ms }
}

/// Boots by their first starts. The wall clocks are not set meanwhile.
fn boots(starts: &[Now]) -> Boots {
    let mut boots = Boots::default();
    for (start, id) in starts.iter().zip(1..) {
        boots.enter(Some(id), *start);
    }
    boots
}

/// What is left of `stored` at the last start.
fn left(boots: &Boots, stored: BootTime) -> Duration {
    let now = boots.current().entered;
    boots.moment(now, stored, TTL) - now.mono
}

fn in_boot(boot: u32, boot_ms: u64) -> BootTime {
    BootTime { boot, at: at(boot_ms, 0).mono }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_restart_within_a_boot_does_not_look_at_the_wall_clock() {
    for wall_ms in [0, TODAY - HOUR, TODAY, TODAY + HOUR, u64::MAX] {
        let mut boots = boots(&[at(5_000, TODAY)]);
        let now = at(100_000, wall_ms);
        boots.enter(Some(1), now);
        assert_eq!(boots.current().number, 1);
        let deadline = boots.moment(now, in_boot(1, 400_000), TTL);
        assert_eq!(deadline - now.mono, seconds(300), "at {wall_ms}");
    }
}

#[test]
fn a_restart_in_a_later_boot_goes_by_the_last_offset_of_the_wall_clock() {
    // Stored when 300 s were left; the second boot begins 100 s later.
    let stored = in_boot(1, 400_000);
    let second = at(7_000, TODAY + 200_000);
    let right = at(0, TODAY);
    assert_eq!(left(&boots(&[right, second]), stored), seconds(200));
    // The first boot began in 1970; its clock was set while the relay ran.
    let mut from_1970 = boots(&[at(0, 0)]);
    let stepped = from_1970.current().renewed(at(100_000, TODAY + 100_000));
    from_1970.records[0] = stepped.expect("the clock was set");
    from_1970.enter(Some(2), second);
    assert_eq!(left(&from_1970, stored), seconds(200));
}

#[test]
fn what_is_left_is_never_more_than_the_ttl_whatever_ran_backwards() {
    let stored = in_boot(1, 400_000);
    let first = at(0, TODAY);
    for wall_ms in [0, TODAY - HOUR] {
        assert_eq!(left(&boots(&[first, at(7_000, wall_ms)]), stored), TTL, "at {wall_ms}");
    }
    for wall_ms in [TODAY + HOUR, u64::MAX] {
        let boots = boots(&[first, at(7_000, wall_ms)]);
        assert_eq!(left(&boots, stored), Duration::ZERO, "at {wall_ms}");
    }
    // Even the boot time.
    let now = at(0, TODAY);
    assert_eq!(boots(&[first]).moment(now, in_boot(1, 86_400_000), TTL) - now.mono, TTL);
}

#[test]
fn a_ttl_is_not_granted_anew_by_each_restart_in_a_boot() {
    let mut boots = boots(&[at(0, TODAY), at(7_000, 0)]);
    let stored = in_boot(1, 400_000);
    assert_eq!(left(&boots, stored), TTL);
    let now = at(107_000, TODAY + HOUR);
    boots.enter(Some(2), now);
    assert_eq!(boots.moment(now, stored, TTL) - now.mono, TTL - seconds(100));
}

#[test]
fn time_passes_in_every_boot_between() {
    let starts = [at(0, TODAY), at(7_000, TODAY + 200_000), at(9_000, TODAY + 250_000)];
    let mut boots = boots(&starts);
    assert_eq!(left(&boots, in_boot(1, 400_000)), seconds(150));
    assert_eq!(left(&boots, in_boot(2, 107_000)), seconds(50));
    // The first id again: the database was on another machine.
    boots.enter(Some(1), at(350_000, TODAY + 350_000));
    assert_eq!(boots.current().number, 4);
    assert_eq!(left(&boots, in_boot(1, 400_000)), seconds(50));
}

#[test]
fn without_an_id_every_start_is_a_boot_of_its_own() {
    let mut boots = Boots::default();
    boots.enter(None, at(0, TODAY));
    boots.enter(None, at(100_000, TODAY + 100_000));
    assert_eq!(boots.current().number, 2);
    assert_eq!(left(&boots, in_boot(1, 400_000)), seconds(300));
}

#[test]
fn what_a_forgotten_boot_has_stored_has_its_ttl_from_the_oldest_known_one() {
    let mut boots = boots(&[at(0, TODAY), at(0, TODAY), at(0, TODAY + 100_000)]);
    boots.records.remove(0);
    assert_eq!(left(&boots, in_boot(1, 9)), TTL - seconds(100));
}

#[test]
fn never_and_over_mean_the_same_in_every_boot() {
    let boots = boots(&[at(9_000, TODAY), at(7_000, 0)]);
    let now = boots.current().entered;
    for boot in 0..4 {
        let never = BootTime { boot, ..BootTime::NEVER };
        assert_eq!(boots.moment(now, never, TTL), Moment::NEVER);
        assert!(boots.moment(now, BootTime { boot, ..BootTime::OVER }, TTL) <= now.mono);
    }
}

#[test]
fn drift_is_no_step() {
    let boot = boots(&[at(0, TODAY)]).current();
    assert_eq!(boot.renewed(at(HOUR, TODAY + HOUR + STEP_MS - 1)), None);
    assert_eq!(boot.renewed(at(HOUR, TODAY + HOUR - STEP_MS + 1)), None);
    let renewed = boot.renewed(at(HOUR, TODAY)).expect("a step");
    assert_eq!(BootRecord { wall_offset_ms: boot.wall_offset_ms, ..renewed }, boot);
    assert_eq!(renewed.renewed(at(HOUR, TODAY)), None);
}

#[test]
fn a_boot_is_decoded_as_it_was_encoded_and_damage_is_detected() {
    let mut value = Vec::new();
    for now in [at(1, 2), at(9_000, 0), at(0, u64::MAX)] {
        let boot = boots(&[at(0, 0), now]).current();
        boot.encode(&mut value);
        assert_eq!(BootRecord::decode(2, &value), Some(boot));
        assert_eq!(BootRecord::decode(3, &value), None);
    }
    for bit in 0..value.len() * 8 {
        let mut flipped = value.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(BootRecord::decode(2, &flipped), None, "bit {bit}");
    }
}
