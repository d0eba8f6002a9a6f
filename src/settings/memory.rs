//! The memory that this process may use: the machine's, or less where a control group limits the process.

use std::fs;
use std::path::Path;

use bytesize::{GIB, MIB};

/// Where the kernel tells about memory and control groups.
const ROOT: &str = "/";
/// The bounds of `queue.total_bytes = "auto"`.
const SMALLEST: u64 = 16 * MIB;
const LARGEST: u64 = GIB;

/// A quarter of the memory that this process may use, at most 1 GiB: the queue's own books count what a message costs, and
/// the rest is for connections, the store and the kernel.
pub(super) fn automatic_total() -> u64 {
    total_of(usable_memory(Path::new(ROOT)))
}

fn total_of(usable: Option<u64>) -> u64 {
    usable.map_or(LARGEST, |bytes| (bytes / 4).clamp(SMALLEST, LARGEST))
}

/// Bytes; `None` if the kernel tells nothing.
fn usable_memory(root: &Path) -> Option<u64> {
    let machine = read(&root.join("proc/meminfo")).and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    });
    machine.into_iter().chain(group_limits(root)).min()
}

/// The limits of the control groups of this process, of the parents too. (cgroup v2 `memory.max`, v1
/// `memory.limit_in_bytes`)
fn group_limits(root: &Path) -> Vec<u64> {
    let groups = read(&root.join("proc/self/cgroup")).unwrap_or_default();
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let (mount, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            it if it.split(',').any(|controller| controller == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mount = root.join(mount);
        // Inside a container the own group is the root of the mount, whatever its name outside.
        let own = mount.join(group.trim_start_matches('/'));
        let parents = own.ancestors().take_while(|path| path.starts_with(&mount));
        limits
            .extend(parents.filter_map(|path| read(&path.join(file))?.trim().parse::<u64>().ok()));
    }
    limits
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
        root
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:       2048000 kB\nMemFree: 1 kB\n");

    #[test]
    fn a_machine_without_groups_has_its_memory() {
        assert_eq!(usable_memory(machine(&[MEMINFO]).path()), Some(2_048_000 * 1024));
        assert_eq!(usable_memory(machine(&[]).path()), None);
    }

    #[test]
    fn the_smallest_limit_of_a_group_and_its_parents_counts() {
        let root = machine(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/system.slice/relay.service\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "268435456\n"),
            ("sys/fs/cgroup/system.slice/relay.service/memory.max", "max\n"),
        ]);
        assert_eq!(usable_memory(root.path()), Some(256 * MIB));
    }

    #[test]
    fn groups_of_the_first_version_and_of_containers_count() {
        let root = machine(&[
            MEMINFO,
            ("proc/self/cgroup", "5:cpu,memory:/docker/abc\n4:pids:/x\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728\n"),
        ]);
        assert_eq!(usable_memory(root.path()), Some(128 * MIB));
    }

    #[test]
    fn the_total_is_a_quarter_within_bounds() {
        assert_eq!(total_of(Some(400 * MIB)), 100 * MIB);
        assert_eq!(total_of(Some(64 * GIB)), GIB);
        assert_eq!(total_of(Some(MIB)), 16 * MIB);
        assert_eq!(total_of(None), GIB);
    }
}
