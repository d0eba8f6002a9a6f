//! The promise of docs/durability.md, kept by the real binary on real files: killed, filled, slowed down, broken.
//!
//! Nothing here sleeps. A test waits for a frame, a line of the log, the end of a process, or a figure of /healthz.

mod client;
mod process;

mod disk;
mod kills;
mod restart;
