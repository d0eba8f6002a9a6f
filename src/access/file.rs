//! The file of tokens: read as a whole, and changed by one line at a time.
//!
//! A change writes a new file beside the old one and renames it, so that a relay that reads never finds half of it. Comments,
//! owner and mode stay. The directory is locked meanwhile, so that two commands do not undo each other's change.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use super::{AccessTable, AccessToken, Policy};
use crate::settings::{Access, AccessMode};

/// A hundred thousand tokens; more is another file, or a device that never ends.
const LARGEST_FILE: u64 = 16 * 1024 * 1024;
/// Sentences about lines that are wrong; one more says how many others there are.
const MOST_PROBLEMS: usize = 20;
/// Of a new file: its group, which is that of the directory, may read it. Only hashes of secrets are in there.
const NEW_MODE: u32 = 0o640;
const WRITABLE_BY_EVERYONE: u32 = 0o002;

/// Reads all tokens.
///
/// # Errors
///
/// Everything that is wrong, a sentence each that names the setting or the line: the file cannot be read or may be written by
/// everyone; a line is malformed; a name or a hash is there twice.
pub fn load(path: &Path) -> Result<AccessTable, Vec<String>> {
    let at = format!("access.tokens_file = {}", path.display());
    let text = match read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let advice =
                "there is no such file; `sealpost token new NAME` makes it with a first token";
            return Err(vec![format!("{at}: {advice}")]);
        }
        Err(error) => return Err(vec![format!("{at}: cannot be read: {error}")]),
    };
    parse(&text).map_err(|wrong| wrong.into_iter().map(|line| format!("{at}, {line}")).collect())
}

/// Who may register by these settings. The file is read in mode "tokens" only.
///
/// # Errors
///
/// As [`load`].
pub fn policy(settings: &Access) -> Result<Policy, Vec<String>> {
    match settings.mode {
        AccessMode::Open => Ok(Policy::Open),
        AccessMode::Tokens => load(&settings.tokens_file).map(Policy::Tokens),
    }
}

/// Adds a token, and makes the file if there is none.
///
/// # Errors
///
/// As [`load`]; the name is taken; the file cannot be written.
pub fn add(path: &Path, token: AccessToken) -> Result<(), ChangeError> {
    change(path, true, |text, mut table| {
        let line = token.to_string();
        table.insert(token).map_err(ChangeError::Refused)?;
        let separator = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        Ok(format!("{text}{separator}{line}\n"))
    })
}

/// Removes the token with this name.
///
/// # Errors
///
/// As [`load`]; there is no such token; the file cannot be written.
pub fn remove(path: &Path, name: &str) -> Result<(), ChangeError> {
    change(path, false, |text, table| {
        if !table.tokens().iter().any(|token| &*token.name == name) {
            return Err(ChangeError::Refused(format!("there is no token with the name {name}")));
        }
        let named = |line: &str| AccessToken::parse(line).is_ok_and(|token| &*token.name == name);
        let is_other = |line: &&str| !is_token(line) || !named(line.trim_end());
        Ok(text.split_inclusive('\n').filter(is_other).collect())
    })
}

/// Why a file was not changed.
#[derive(Debug, PartialEq, Eq)]
pub enum ChangeError {
    /// The change itself is wrong: what, in a sentence.
    Refused(String),
    /// The file cannot be used as it is, a sentence each.
    Unusable(Vec<String>),
}

fn change(
    path: &Path,
    creates: bool,
    edit: impl FnOnce(&str, AccessTable) -> Result<String, ChangeError>,
) -> Result<(), ChangeError> {
    let at = format!("access.tokens_file = {}", path.display());
    let unusable = |what: &str, error: io::Error| {
        ChangeError::Unusable(vec![format!("{at}: {what}: {error}")])
    };
    // A link stays a link: the file that it names is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = parent(&target);
    let locked = File::open(&directory).map_err(|error| unusable("its directory", error))?;
    locked.lock().map_err(|error| unusable("its directory cannot be locked", error))?;
    let exists = target.try_exists().map_err(|error| unusable("cannot be read", error))?;
    let (text, table) = if exists || !creates {
        let table = load(path).map_err(ChangeError::Unusable)?;
        (read(&target).map_err(|error| unusable("cannot be read", error))?, table)
    } else {
        Default::default()
    };
    let text = edit(&text, table)?;
    replace(&target, &directory, exists, &text)
        .map_err(|error| unusable("cannot be written", error))
}

/// Writes a new file, and gives it the old one's name when it is on disk.
fn replace(target: &Path, directory: &Path, exists: bool, text: &str) -> io::Result<()> {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = directory.join(name);
    // Left by a command that was killed.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    let written = (|| {
        let made = file.metadata()?;
        let mode = if exists {
            let old = fs::metadata(target)?;
            if (old.uid(), old.gid()) != (made.uid(), made.gid()) {
                fchown(&file, Some(old.uid()), Some(old.gid()))?;
            }
            old.permissions().mode() & 0o7777
        } else {
            // The relay may run as another user, with the group of the directory. If this user may not give a file to that
            // group, the relay probably runs as this user.
            let _ = fchown(&file, None, Some(fs::metadata(directory)?.gid()));
            NEW_MODE
        };
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, target)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
        return written;
    }
    File::open(directory)?.sync_all()
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    if found.permissions().mode() & WRITABLE_BY_EVERYONE != 0 {
        return Err(io::Error::other(
            "everyone may write it, and so give himself a token: chmod o-w",
        ));
    }
    let mut text = String::new();
    let length = file.take(LARGEST_FILE + 1).read_to_string(&mut text)?;
    if length as u64 > LARGEST_FILE {
        return Err(io::Error::other("it is larger than 16 MiB"));
    }
    Ok(text)
}

/// Whether a line has a token: it is neither empty nor a comment.
fn is_token(line: &str) -> bool {
    let line = line.trim_start();
    !line.is_empty() && !line.starts_with('#')
}

fn parse(text: &str) -> Result<AccessTable, Vec<String>> {
    let (mut table, mut wrong) = (AccessTable::default(), Vec::new());
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| is_token(line)) {
        let added = AccessToken::parse(line).and_then(|token| table.insert(token));
        wrong.extend(added.err().map(|reason| format!("line {number}: {reason}")));
    }
    let more = wrong.len().saturating_sub(MOST_PROBLEMS);
    wrong.truncate(MOST_PROBLEMS);
    if more > 0 {
        wrong.push(format!("and {more} more lines"));
    }
    if wrong.is_empty() { Ok(table) } else { Err(wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Bounds, SecretHash};

    fn token(name: &str) -> AccessToken {
        let hash = SecretHash::of(name);
        AccessToken { name: name.into(), hash, expires_ms: None, bounds: Bounds::default() }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_file_is_made_for_the_first_token_and_keeps_comments_and_mode_after_that() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access-tokens");
        add(&path, token("one")).unwrap();
        assert_eq!(mode(&path), NEW_MODE);
        let text = fs::read_to_string(&path).unwrap();
        // The last line may have no end.
        fs::write(&path, format!("# the office\n\n{text}# one and two")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        add(&path, token("two")).unwrap();
        remove(&path, "one").unwrap();
        let expected = format!("# the office\n\n# one and two\n{}\n", token("two"));
        assert_eq!((fs::read_to_string(&path).unwrap(), mode(&path)), (expected, 0o600));
        assert_eq!(load(&path).unwrap().tokens(), [token("two")]);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_stays_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let [path, link] = ["access-tokens", "link"].map(|name| directory.path().join(name));
        add(&path, token("one")).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        add(&link, token("two")).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(load(&path).unwrap().tokens().len(), 2);
    }

    #[test]
    fn what_is_there_twice_or_not_at_all_is_refused_and_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access-tokens");
        assert!(matches!(remove(&path, "one"), Err(ChangeError::Unusable(_))));
        add(&path, token("one")).unwrap();
        let before = fs::read_to_string(&path).unwrap();
        assert!(matches!(add(&path, token("one")), Err(ChangeError::Refused(_))));
        assert!(matches!(remove(&path, "two"), Err(ChangeError::Refused(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once_with_its_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access-tokens");
        let missing = load(&path).unwrap_err();
        assert!(missing[0].contains("sealpost token new"), "{missing:?}");
        let (one, two) = (token("one"), token("two"));
        let twice = one.to_string().replace("one", "three");
        fs::write(&path, format!("{one}\nbad\n# {two}\n{one}\n{twice}\n")).unwrap();
        let wrong = load(&path).unwrap_err();
        let lines: Vec<bool> = [2, 4, 5]
            .iter()
            .zip(&wrong)
            .map(|(n, it)| it.contains(&format!("line {n}: ")))
            .collect();
        assert_eq!((wrong.len(), lines), (3, vec![true; 3]), "{wrong:?}");
        // A file with a mistake is not changed either.
        assert!(matches!(add(&path, two), Err(ChangeError::Unusable(_))));
        fs::write(&path, "bad\n".repeat(30)).unwrap();
        assert_eq!(load(&path).unwrap_err().len(), MOST_PROBLEMS + 1);
    }

    #[test]
    fn a_file_that_everyone_may_write_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access-tokens");
        add(&path, token("one")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o646)).unwrap();
        assert!(load(&path).unwrap_err()[0].contains("chmod o-w"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
        assert!(load(&path).is_ok());
        assert!(load(directory.path()).unwrap_err()[0].contains("no file"));
    }
}
