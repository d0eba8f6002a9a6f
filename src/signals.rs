//! SIGTERM and SIGINT: the end of a relay that starts, and of one that serves.
//!
//! A start blocks the thread that would handle a signal: the queue is read, and the core restored from it. So a thread of
//! its own waits for signals during the start. No connection has been served then and nothing was acked, so the process
//! ends at once. A commit that is under way is lost as a whole, like in every crash.

use std::future::Future;
use std::io;
use std::process::exit;
use std::thread::{self, JoinHandle};

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// The exit status of an orderly end.
const EX_OK: i32 = 0;
/// A second signal came while draining.
const EX_INTERRUPTED: i32 = 130;

/// The signals that end the relay. The handlers stay installed, and a signal is kept until it is read.
struct EndSignals {
    term: Signal,
    int: Signal,
}

impl EndSignals {
    /// Within a runtime.
    fn install() -> io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// The name of the next signal.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

/// Waits for SIGTERM or SIGINT; the handlers are installed at once. A second signal ends the process without waiting for
/// the drain.
pub fn first_signal() -> impl Future<Output = ()> {
    let signals = EndSignals::install();
    async move {
        let Ok(mut signals) = signals else {
            log::error!("no handler for signals; only SIGKILL will end the relay");
            return std::future::pending().await;
        };
        // Not in the arguments of the log line, which are not evaluated below the level of the log.
        let first = signals.next().await;
        log::info!(signal:% = first; "shutting down");
        tokio::spawn(async move {
            let second = signals.next().await;
            log::warn!(signal:% = second; "second signal, ending at once");
            exit(EX_INTERRUPTED);
        });
    }
}

/// While this value lives, a signal ends the process at once.
pub struct EndDuringStart {
    /// Ends the thread when it is dropped.
    started: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EndDuringStart {
    /// Starts the thread. Every signal also reaches [`first_signal`], if that was called before, so that none is lost
    /// between the two.
    ///
    /// # Errors
    ///
    /// The system has no thread or descriptor left.
    pub fn begin() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let mut signals = {
            let _runtime = runtime.enter();
            EndSignals::install()?
        };
        let (started, is_started) = oneshot::channel();
        let wait = async move {
            tokio::select! {
                // The start is over, and the relay drains after a signal that comes together with that.
                biased;
                _ = is_started => {}
                name = signals.next() => {
                    log::info!(signal:% = name; "shutting down");
                    log::info!("goodbye, no connection was served yet");
                    log::logger().flush();
                    exit(EX_OK);
                }
            }
        };
        let thread = thread::Builder::new().name("start_signals".into());
        let thread = thread.spawn(move || runtime.block_on(wait))?;
        Ok(Self { started: Some(started), thread: Some(thread) })
    }
}

impl Drop for EndDuringStart {
    /// Waits for the thread: if a signal came first, the process ends before this returns.
    fn drop(&mut self) {
        self.started = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
