//! The promises of docs/durability.md, tried on the real binary with real files: killed, and with a disk that is full,
//! slow or broken.
//!
//! No test sleeps. A test waits for a frame, a line of the log, the end of a process, or a figure of /healthz.

mod moved_clocks;
mod setup;
mod small_disk;
#[path = "../support/mod.rs"]
mod support;

mod backup;
mod clocks;
mod compact;
mod disk;
mod formats;
mod identity;
mod kills;
mod restart;
mod watchdog;
