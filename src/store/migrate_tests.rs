//! Migration on a simulated disk: power that is lost at every operation, and a disk that is full.

use std::fs;
use std::time::Duration;

use super::*;
use crate::clock::Now;
use crate::store::Loaded;
use crate::store::database::Database;
use crate::store::database::tests::{Dice, Loss, Sim};

/// A queue of format 3; docs/durability.md and tests/durability/formats.rs say how it was made.
fn of_format_3() -> Vec<u8> {
    let path =
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/durability/fixtures/format-3/queue.redb");
    fs::read(path).expect("the fixture is there")
}

fn content(database: &Database) -> String {
    let loaded = database.load(Now::default(), None, Duration::MAX).expect("it can be read");
    let Loaded { devices, correspondents, messages, fingerprints, next_seq, hash_key, .. } = loaded;
    assert_eq!(loaded.damaged, 0);
    assert!(!devices.is_empty() && !messages.is_empty() && !fingerprints.is_empty());
    assert!(!correspondents.is_empty());
    format!("{devices:?}{correspondents:?}{messages:?}{fingerprints:?}{next_seq}{hash_key:?}")
}

#[test]
fn a_migration_is_done_once_and_changes_no_content() {
    let sim = Sim::holding(of_format_3());
    let mut database = Database::open_existing(sim.clone()).expect("it is read");
    let before = content(&database);
    assert_eq!((database.format(), database.migrate().expect("room")), (3, Some(3)));
    assert_eq!((database.format(), database.migrate().expect("room")), (VERSION, None));
    assert_eq!(content(&database), before);
    drop(database);
    let mut database = Database::open_existing(sim).expect("it is read");
    assert_eq!((database.format(), content(&database)), (VERSION, before));
    assert_eq!(database.migrate().expect("room"), None);
}

#[test]
fn power_that_is_lost_in_a_migration_leaves_the_older_format_or_the_new_one() {
    let mut dice = Dice(1);
    let before = content(&Database::open_existing(Sim::holding(of_format_3())).expect("read"));
    let mut formats = [0, 0];
    for left in 0.. {
        for loss in [Loss::All, Loss::Some, Loss::Torn, Loss::Nothing] {
            let sim = Sim::holding(of_format_3());
            let mut database = Database::open_existing(sim.clone()).expect("it is read");
            sim.set(|state| state.left = Some(left));
            let migrated = database.migrate();
            if migrated.is_ok() {
                assert!(formats[0] > 0 && formats[1] > 0, "{formats:?}: the power was never lost");
                return;
            }
            drop(database);
            let disk = sim.after(loss, &mut dice);
            let mut database = Database::open_existing(Sim::holding(disk)).expect("it is sound");
            formats[usize::from(database.format() == VERSION)] += 1;
            assert_eq!(content(&database), before, "after {left} operations, {loss:?}");
            database.migrate().expect("the next start migrates it");
            assert_eq!((database.format(), content(&database)), (VERSION, before.clone()));
        }
    }
}

#[test]
fn a_full_disk_leaves_the_older_format() {
    let sim = Sim::holding(of_format_3());
    let mut database = Database::open_existing(sim.clone()).expect("it is read");
    let before = content(&database);
    sim.set(|state| state.full = true);
    database.migrate().expect_err("no room");
    drop(database);
    sim.set(|state| state.full = false);
    let database = Database::open_existing(sim).expect("it is read");
    assert_eq!((database.format(), content(&database)), (3, before));
}

#[test]
fn a_large_table_is_rewritten_in_slices_and_a_damaged_row_stays() {
    const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("devices");
    let database = redb::Database::builder().create_with_backend(Sim::default()).expect("a disk");
    let transaction = database.begin_write().expect("a disk");
    for key in 0..3 * SLICE_ROWS as u64 + 1 {
        let value = if key % 1000 == 7 { &b"damaged"[..] } else { b"old" };
        transaction.open_table(TABLE).expect("room").insert(key, value).expect("room");
    }
    let visited = std::cell::Cell::new(0);
    rewrite(&transaction, TABLE, |_, value, out| {
        visited.set(visited.get() + 1);
        (value == b"old")
            .then(|| out.extend_from_slice(&[b"new"[..].to_vec(), vec![0; 2000]].concat()))
    })
    .expect("room");
    assert_eq!(visited.get(), 3 * SLICE_ROWS + 1, "each row once");
    for entry in transaction.open_table(TABLE).expect("room").iter().expect("rows") {
        let (key, value) = entry.expect("a row");
        let expected = if key.value() % 1000 == 7 { &b"damaged"[..] } else { b"new" };
        assert!(value.value().starts_with(expected), "{}", key.value());
    }
}

#[test]
fn every_format_has_a_step_or_a_sentence() {
    for format in OLDEST..=VERSION {
        assert_eq!(check(u64::from(format)).expect("it can be used"), format);
        let steps = STEPS.iter().filter(|step| step.from == format).count();
        assert_eq!(steps, usize::from(format < VERSION), "from {format}");
    }
    assert!(STEPS.is_sorted_by_key(|step| step.from));
    for older in 0..OLDEST {
        let refusal = check(u64::from(older)).expect_err("too old").to_string();
        assert!(refusal.contains(&format!("has format {older}")), "{refusal}");
        assert!(refusal.contains("begin a new queue"), "{refusal}");
    }
    for newer in [u64::from(VERSION) + 1, 255, 256, u64::MAX] {
        let refusal = check(newer).expect_err("too new").to_string();
        assert!(
            refusal.contains(&format!("has format {newer}, written by a newer version")),
            "{refusal}"
        );
    }
}
