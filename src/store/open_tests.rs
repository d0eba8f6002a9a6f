//! The data directory: its permissions, its name in an error, and a database that was created by half.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[test]
fn the_directory_and_its_files_are_for_their_owner_alone() {
    let place = tempfile::tempdir().expect("a place");
    let path = place.path().join("some/data");
    let directory = Directory::take(&path).expect("it can be made");
    drop(directory.open(&SyncFailed::default()).expect("it can be opened"));
    let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for file in ["lock", FILE] {
        assert_eq!(mode(&path.join(file)), 0o600, "{file}");
    }
    assert!(!path.join(NEW_FILE).exists());
}

#[test]
fn a_half_created_database_is_created_again() {
    let place = tempfile::tempdir().expect("a place");
    for half in [&[0_u8; 5000][..], b"redb"] {
        std::fs::write(place.path().join(NEW_FILE), half).expect("room");
        let directory = Directory::take(place.path()).expect("it can be taken");
        drop(directory.open(&SyncFailed::default()).expect("it can be opened"));
    }
}

#[test]
fn a_file_that_is_no_queue_is_refused_with_its_name() {
    let place = tempfile::tempdir().expect("a place");
    std::fs::write(place.path().join(FILE), [1; 8192]).expect("room");
    let directory = Directory::take(place.path()).expect("it can be taken");
    let refused = directory.open(&SyncFailed::default()).expect_err("it is no queue").to_string();
    assert!(refused.contains(FILE), "{refused}");
}

#[test]
fn inspecting_a_missing_queue_creates_none() {
    let place = tempfile::tempdir().expect("a place");
    let path = place.path().join("data");
    assert!(Directory::take_existing(&path).is_err());
    assert!(!path.exists());
}
