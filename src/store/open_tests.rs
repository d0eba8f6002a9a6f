//! The data directory: its permissions, what a start creates and refuses, and whether the open file is found again.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use rustix::fs::{CWD, FileType};

use super::*;

/// A directory that is removed at the end of the test, and the path of a data directory in it.
fn place() -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().expect("a place");
    let data = place.path().join("data");
    (place, data)
}

fn open(path: &Path) -> Result<(QueueFile, Database), OpenError> {
    Directory::take(path)?.open(SyncFailed::default())
}

/// A closed queue in `path`.
fn create(path: &Path) {
    drop(open(path).expect("a new queue"));
}

fn refusal(path: &Path) -> String {
    open(path).expect_err("it is refused").to_string()
}

#[test]
fn the_directory_and_its_files_are_for_their_owner_alone() {
    let (place, _) = place();
    let path = place.path().join("some/data");
    create(&path);
    let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for file in [LOCK, FILE] {
        assert_eq!(mode(&path.join(file)), 0o600, "{file}");
    }
    assert!(!path.join(NEW_FILE).exists());
}

#[test]
fn a_directory_that_others_may_write_is_warned_of_and_used() {
    let (_place, path) = place();
    create(&path);
    for (mode, is_exposed) in [(0o700, false), (0o755, false), (0o770, true), (0o1777, true)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
        let directory = Directory::take(&path).expect("it can be used");
        let warning = directory.exposure();
        assert_eq!(warning.is_some(), is_exposed, "{mode:o}: {warning:?}");
        let names = warning.is_none_or(|warning| warning.contains(path.to_str().expect("text")));
        assert!(names, "the warning names the directory");
    }
}

#[test]
fn a_half_created_database_is_created_again() {
    let (_place, path) = place();
    fs::create_dir(&path).expect("room");
    for half in [&[0_u8; 5000][..], b"redb"] {
        fs::write(path.join(NEW_FILE), half).expect("room");
        create(&path);
        fs::remove_file(path.join(FILE)).expect("it was created");
    }
}

#[test]
fn left_over_names_are_removed_and_never_followed() {
    let (place, path) = place();
    let other = place.path().join("other");
    fs::write(&other, "untouched").expect("room");
    fs::create_dir(&path).expect("room");
    symlink(&other, path.join(NEW_FILE)).expect("a link");
    create(&path);
    assert_eq!(fs::read_to_string(&other).expect("it is there"), "untouched");
    assert!(path.join(FILE).symlink_metadata().expect("it is there").is_file());
}

#[test]
fn links_pipes_and_directories_in_place_of_the_files_are_refused() {
    let (place, path) = place();
    let other = place.path().join("other");
    create(&path);
    fs::rename(path.join(FILE), &other).expect("it is there");
    for name in [FILE, LOCK] {
        let file = path.join(name);
        let _ = fs::remove_file(&file);
        symlink(&other, &file).expect("a link");
        let refused = refusal(&path);
        assert!(refused.contains(name) && refused.contains("symbolic link"), "{refused}");
        fs::remove_file(&file).expect("the link");
        let pipe = rustix::fs::mknodat(CWD, &file, FileType::Fifo, Mode::RWXU, 0);
        pipe.expect("a pipe");
        assert!(refusal(&path).contains("no regular file"), "{name}");
        fs::remove_file(&file).expect("the pipe");
        fs::create_dir(&file).expect("room");
        assert!(refusal(&path).contains(name), "{name}");
        fs::remove_dir(&file).expect("the directory");
    }
}

#[test]
fn a_directory_behind_a_link_is_used() {
    let (place, path) = place();
    fs::create_dir(place.path().join("disk")).expect("room");
    symlink("disk", &path).expect("a link");
    let (file, database) = open(&path).expect("a new queue");
    drop(database);
    file.check().expect("the path leads to the file");
    drop(file.reopen().expect("the same file"));
}

/// None of them may become a new queue: what was acked would be forgotten without a word.
#[test]
fn a_file_that_is_no_queue_is_refused_with_its_name_and_left_as_it_is() {
    let (_place, path) = place();
    fs::create_dir(&path).expect("room");
    let file = path.join(FILE);
    for content in [&[][..], &[0], &[1; 8192], &[0; 1 << 20], b"SQLite format 3\0"] {
        fs::write(&file, content).expect("room");
        for _ in 0..2 {
            let refused = refusal(&path);
            assert!(refused.contains(FILE), "{refused}");
        }
        assert!(fs::read(&file).expect("it is there") == content, "it was changed");
    }
    fs::remove_file(&file).expect("it is there");
    for table in [None, Some("queue")] {
        let foreign = redb::Database::create(&file).expect("another program's database");
        if let Some(table) = table {
            let transaction = foreign.begin_write().expect("a transaction");
            let table = redb::TableDefinition::<u64, u64>::new(table);
            transaction.open_table(table).expect("a table").insert(1, 1).expect("room");
            transaction.commit().expect("room");
        }
        drop(foreign);
        let refused = refusal(&path);
        assert!(refused.contains("is no queue of this relay"), "{refused}");
        fs::remove_file(&file).expect("it is there");
    }
}

#[test]
fn only_the_same_file_is_opened_again() {
    let (place, path) = place();
    let (file, database) = open(&path).expect("a new queue");
    drop(database);
    drop(file.reopen().expect("nothing has happened"));
    let (database, aside) = (path.join(FILE), place.path().join("aside"));
    let is_lost = || {
        assert!(file.check().is_err_and(|error| error.is_lost()));
        assert!(file.reopen().is_err_and(|error| error.is_lost()));
    };

    fs::rename(&database, &aside).expect("it is there");
    is_lost();
    assert!(!database.exists(), "only a start creates");
    fs::copy(&aside, &database).expect("room");
    is_lost();
    symlink(&aside, place.path().join("link")).expect("a link");
    fs::rename(place.path().join("link"), &database).expect("it is replaced");
    is_lost();
    fs::rename(&aside, &database).expect("it is there");
    file.check().expect("it is back");
    drop(file.reopen().expect("it is back"));

    let moved = place.path().join("moved");
    fs::rename(&path, &moved).expect("it is there");
    is_lost();
    create(&path);
    is_lost();
    fs::remove_dir_all(&path).expect("it is there");
    fs::rename(&moved, &path).expect("it is there");
    drop(file.reopen().expect("it is back"));

    // Without the locked file a second relay could use the directory.
    fs::remove_file(path.join(LOCK)).expect("it is there");
    is_lost();
}

#[test]
fn another_database_in_the_same_file_is_not_the_same() {
    let (place, path) = place();
    let (file, database) = open(&path).expect("a new queue");
    drop(database);
    let other = place.path().join("other");
    create(&other);
    let other = fs::read(other.join(FILE)).expect("it is there");
    fs::write(path.join(FILE), other).expect("room");
    file.check().expect("it is the same file");
    assert!(file.reopen().is_err_and(|error| error.is_lost()));
}

#[test]
fn inspecting_a_missing_queue_creates_none() {
    let (_place, path) = place();
    assert!(Directory::take_existing(&path).is_err());
    assert!(!path.exists());
    fs::create_dir(&path).expect("room");
    assert!(Directory::take_existing(&path).is_err());
    assert!(fs::read_dir(&path).expect("it is there").next().is_none());
}
