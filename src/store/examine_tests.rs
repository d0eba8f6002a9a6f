//! The examination of a data directory says what a start would, and leaves everything as it was.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;
use crate::store::open::Directory;
use crate::store::sync_watch::SyncFailed;

/// Names and contents below a directory, in order.
fn content(path: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        let is_directory = path.symlink_metadata().expect("it is there").is_dir();
        if is_directory {
            found.extend(content(&path));
        }
        let bytes = (!is_directory).then(|| fs::read(&path).unwrap_or_default());
        found.push((path, bytes));
    }
    found.sort();
    found
}

/// What a start would say is what the examination says.
#[track_caller]
fn agrees_with_a_start(path: &Path, is_usable: bool) {
    let before = content(path.parent().expect("a place"));
    let examined = examine(path);
    assert_eq!(examined.is_ok(), is_usable, "{examined:?}");
    assert!(content(path.parent().expect("a place")) == before, "something was changed");
    let started = Directory::take(path).and_then(|taken| taken.open(SyncFailed::default()));
    assert_eq!(started.is_ok(), is_usable, "{:?}", started.err());
    if let (Err(examined), Err(started)) = (examined, started) {
        let (examined, started) = (examined.to_string(), started.to_string());
        let name = |text: &str| text.split(':').next().unwrap_or_default().to_owned();
        assert_eq!(name(&examined), name(&started), "{examined}\n{started}");
    }
}

#[test]
fn a_directory_is_usable_before_its_first_start_and_after_it() {
    let place = tempfile::tempdir().expect("a place");
    agrees_with_a_start(&place.path().join("some/new/data"), true);
    agrees_with_a_start(&place.path().join("some/new/data"), true);
    fs::create_dir(place.path().join("empty")).expect("room");
    agrees_with_a_start(&place.path().join("empty"), true);
}

#[test]
fn what_a_start_refuses_is_refused() {
    let place = tempfile::tempdir().expect("a place");
    let file = place.path().join("file");
    fs::write(&file, "no directory").expect("room");
    assert!(examine(&file).is_err() && Directory::take(&file).is_err());
    let below = file.join("data");
    assert!(examine(&below).is_err() && Directory::take(&below).is_err());
    let link = place.path().join("link");
    symlink("nowhere", &link).expect("a link");
    assert!(examine(&link).is_err() && Directory::take(&link).is_err());
    for (name, bytes) in [(FILE, &[][..]), (FILE, b"SQLite format 3"), (FILE, &[0; 8192])] {
        let data = tempfile::tempdir().expect("a place");
        let path = data.path().join("data");
        fs::create_dir(&path).expect("room");
        fs::write(path.join(name), bytes).expect("room");
        agrees_with_a_start(&path, false);
    }
    for name in [FILE, LOCK, NEW_FILE] {
        let data = tempfile::tempdir().expect("a place");
        let path = data.path().join("data");
        fs::create_dir_all(path.join(name)).expect("room");
        agrees_with_a_start(&path, false);
        if name != NEW_FILE {
            fs::remove_dir(path.join(name)).expect("it is there");
            symlink(&file, path.join(name)).expect("a link");
            agrees_with_a_start(&path, false);
        }
    }
    let data = tempfile::tempdir().expect("a place");
    let path = data.path().join("data");
    fs::create_dir(&path).expect("room");
    drop(redb::Database::create(path.join(FILE)).expect("another program's database"));
    agrees_with_a_start(&path, false);
}

#[test]
fn a_relay_that_uses_the_directory_is_found_with_its_addresses() {
    let place = tempfile::tempdir().expect("a place");
    let directory = Directory::take(place.path()).expect("it can be taken");
    assert_eq!(examine(place.path()).expect("it is in use"), Examined::InUse(Vec::new()));
    let (file, _database) = directory.open(SyncFailed::default()).expect("a new queue");
    let addresses = ["127.0.0.1:8080", "[::1]:9090"].map(|text| text.parse().expect("an address"));
    file.publish(&addresses.map(Some));
    assert_eq!(examine(place.path()).expect("it is in use"), Examined::InUse(addresses.into()));
}
