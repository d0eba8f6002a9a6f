//! The relay at its door and under load: who gets in, what one connection may cost, what is left when it is gone.
//!
//! Nothing here sleeps. A test waits for bytes, for a close, or for a figure of /proc or /healthz, with a deadline.

#[allow(dead_code)]
#[path = "../transport/peer.rs"]
mod peer;
#[path = "../it/support/mod.rs"]
mod support;

mod http;
mod process;
mod raw_client;

mod connection_caps;
mod handshake;
mod health;
mod heartbeat;
mod hostile;
mod many_connections;
mod slow_readers;
mod workers;
