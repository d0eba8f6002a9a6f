//! A second thread, for load that runs beside a measurement.
//!
//! The measurement must not wait for this load, or the generator's own delay would be in the latencies. A thread that never
//! pauses therefore sets the kernel's idle scheduling policy: on a core that both threads share, the measuring thread
//! preempts it at once. A `nice` value would let it finish its time slice of milliseconds first.

use std::future::Future;
use std::io;
use std::process::Command;
use std::thread;

use rustix::thread::gettid;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

/// Work on another thread; [`Background::end`] returns its result.
pub struct Background<T>(oneshot::Receiver<io::Result<T>>);

impl<T: Send + 'static> Background<T> {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When the system cannot start a thread.
    pub fn begin<F>(work: impl FnOnce() -> F + Send + 'static) -> io::Result<Self>
    where
        F: Future<Output = io::Result<T>>,
    {
        let (done, doing) = oneshot::channel();
        let run = || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            LocalSet::new().block_on(&runtime, async { work().await })
        };
        // Where nobody waits any more, nobody needs the answer.
        thread::Builder::new()
            .name("background".to_owned())
            .spawn(move || drop(done.send(run())))?;
        Ok(Self(doing))
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// Those of the work.
    pub async fn end(self) -> io::Result<T> {
        self.0.await.map_err(io::Error::other)?
    }
}

/// Gives this thread the idle scheduling policy. Rust has no safe call for that; the program `chrt` (util-linux) does it.
///
/// # Errors
///
/// When `chrt` is missing or fails.
pub fn set_idle_priority() -> io::Result<()> {
    let thread = gettid().as_raw_nonzero().to_string();
    let chrt = Command::new("chrt").args(["--idle", "--pid", "0", &thread]).status();
    match chrt {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(io::Error::other(format!("chrt: {status}"))),
        Err(failed) => Err(io::Error::new(failed.kind(), format!("chrt: {failed}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's policy of this thread; 5 is idle.
    fn policy() -> io::Result<String> {
        let stat = std::fs::read_to_string("/proc/thread-self/stat")?;
        let behind_name = stat.rsplit(") ").next().unwrap_or_default();
        Ok(behind_name.split(' ').nth(38).unwrap_or_default().to_owned())
    }

    #[tokio::test]
    async fn background_work_is_idle_and_returns_its_result() {
        let work = async || {
            set_idle_priority()?;
            policy()
        };
        let background = Background::begin(work).unwrap();
        assert_eq!(background.end().await.unwrap(), "5");
        assert_eq!(policy().unwrap(), "0");
        let failed = Background::<()>::begin(async || Err(io::Error::other("no"))).unwrap();
        assert_eq!(failed.end().await.unwrap_err().to_string(), "no");
    }
}
