//! The relay at its door and under load: who gets in, what one connection may cost, what is left when it is gone.
//!
//! Nothing here sleeps. A test waits for bytes, for a close, or for a figure of /proc or /healthz, with a deadline.

#[path = "../it/house/mod.rs"]
mod house;
#[allow(dead_code)]
#[path = "../transport/peer.rs"]
mod peer;

mod guest;
mod http;
mod process;

mod handshake;
mod health;
mod heartbeat;
mod hostile;
mod places;
mod slow_readers;
mod throng;
mod workers;
