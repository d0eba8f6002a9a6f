//! What an operator sees and does: the admin listener and the commands that are its clients.
//!
//! Nothing here sleeps. A test waits for a frame, a figure of /healthz or a line of the log.

#[path = "../support/mod.rs"]
mod support;

mod access;
mod backup;
mod devices;
mod entry;
mod logs;
mod metrics;
mod offline;
mod ops;
mod queue;
mod status;
