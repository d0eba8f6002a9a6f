//! A small file system that can be filled: a tmpfs.
//!
//! Root mounts it where everybody sees it. An ordinary user, and root in a container without CAP_SYS_ADMIN, mounts it in a
//! user and mount namespace of its own; the path then leads through the root directory of a process in that namespace.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::skip;

/// Mounts a tmpfs of size `$1` at `$2`, reports that, and keeps the namespace until its input ends.
const MOUNT: &str = "mount -t tmpfs -o size=\"$1\" none \"$2\" && echo mounted && exec cat";

/// A tmpfs that is unmounted at the end of the test.
pub struct SmallDisk {
    place: tempfile::TempDir,
    /// The mounted directory, for every process of this user.
    path: PathBuf,
    /// The process that keeps the namespace.
    namespace: Option<Child>,
}

impl SmallDisk {
    /// `None`, and the test counts as skipped, if the system allows neither way.
    pub fn mount(size: &str) -> Option<Self> {
        let place = tempfile::tempdir().expect("a place");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(place.path());
        if mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
            let path = place.path().to_owned();
            return Some(Self { place, path, namespace: None });
        }
        let mounted = Self::mount_in_namespace(size, place);
        if mounted.is_none() {
            skip("neither mount nor unshare --user may mount a tmpfs");
        }
        mounted
    }

    fn mount_in_namespace(size: &str, place: tempfile::TempDir) -> Option<Self> {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--mount", "sh", "-c", MOUNT, "sh", size]);
        unshare.arg(place.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = unshare.stderr(Stdio::null()).spawn().ok()?;
        let mut line = String::new();
        let output = process.stdout.take().expect("it is a pipe");
        BufReader::new(output).read_line(&mut line).expect("it can be read");
        let inside = place.path().strip_prefix("/").expect("an absolute path");
        let path = Path::new("/proc").join(process.id().to_string()).join("root").join(inside);
        // Dropped, and with it the process, where the path cannot be used.
        let disk = Self { place, path, namespace: Some(process) };
        (line == "mounted\n" && std::fs::read_dir(&disk.path).is_ok()).then_some(disk)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        match &mut self.namespace {
            // The file system ends with the last process that uses it.
            Some(process) => {
                drop(process.stdin.take());
                let _ = process.wait();
            }
            // Lazily: a process that still has a file open there is about to end.
            None => {
                let _ = Command::new("umount").arg("-l").arg(self.place.path()).status();
            }
        }
    }
}
