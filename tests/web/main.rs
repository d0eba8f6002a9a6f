//! The HTTP side and the load: which connections are accepted, the cost of one connection, and its remains.
//!
//! Nothing here sleeps. A test waits for bytes, for a close, or for a figure of /proc or /healthz, with a deadline.

#[path = "../support/mod.rs"]
mod support;

mod connection_caps;
mod demo;
mod handshake;
mod health;
mod heartbeat;
mod hostile;
mod many_connections;
mod proxy_protocol;
mod slow_readers;
mod sockets;
mod workers;
