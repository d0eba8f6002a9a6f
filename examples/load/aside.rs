//! A second thread, for what is done to the relay while others are measured.
//!
//! Whoever measures must not wait for that work, or its own delay would be in the latencies. So work that never ends for a moment
//! makes its thread idle, as the kernel calls it: on a core that both share, whoever measures interrupts it at once. A mere `nice` would let it finish
//! its slice of milliseconds first.

use std::future::Future;
use std::io;
use std::process::Command;
use std::thread;

use rustix::thread::gettid;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

/// Work on another thread; waiting for it answers what came of it.
pub struct Aside<T>(oneshot::Receiver<io::Result<T>>);

impl<T: Send + 'static> Aside<T> {
    /// Begins it.
    ///
    /// # Errors
    ///
    /// When the system has no thread for us.
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
        thread::Builder::new().name("aside".to_owned()).spawn(move || drop(done.send(run())))?;
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

/// Makes this thread idle. There is no safe call for it but there is a program (util-linux has it).
///
/// # Errors
///
/// When there is not.
pub fn give_way() -> io::Result<()> {
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
    async fn work_aside_gives_way_and_its_answer_comes_back() {
        let work = async || {
            give_way()?;
            policy()
        };
        let aside = Aside::begin(work).unwrap();
        assert_eq!(aside.end().await.unwrap(), "5");
        assert_eq!(policy().unwrap(), "0");
        let failed = Aside::<()>::begin(async || Err(io::Error::other("no"))).unwrap();
        assert_eq!(failed.end().await.unwrap_err().to_string(), "no");
    }
}
