//! What a process costs, as the kernel counts it.

use std::fs;
use std::io;

/// A process on this machine, by its id.
#[derive(Debug, Clone, Copy)]
pub struct Process(pub u32);

impl Process {
    /// This one.
    pub fn own() -> Self {
        Self(std::process::id())
    }

    /// Nanoseconds that all its threads have run.
    ///
    /// # Errors
    ///
    /// When there is no such process, or it is somebody else's.
    pub fn run_time(self) -> io::Result<u64> {
        let mut sum = 0;
        for thread in self.find(fs::read_dir(format!("/proc/{}/task", self.0)))? {
            // A thread may end between the two; what it ran is lost then.
            let Ok(line) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            sum += line.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(sum)
    }

    /// Bytes of it that are in memory.
    ///
    /// # Errors
    ///
    /// When there is no such process.
    pub fn resident(self) -> io::Result<u64> {
        let status = self.find(fs::read_to_string(format!("/proc/{}/status", self.0)))?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("no VmRSS: not a process?"))
    }

    /// Says whose file it was that could not be read.
    fn find<T>(self, read: io::Result<T>) -> io::Result<T> {
        read.map_err(|failed| {
            io::Error::new(failed.kind(), format!("process {}: {failed}", self.0))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_run_and_is_in_memory() {
        assert!(Process::own().run_time().unwrap() > 0);
        assert!(Process::own().resident().unwrap() > 64 * 1024);
    }
}
