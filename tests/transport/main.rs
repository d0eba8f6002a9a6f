//! The transport floor, from outside: real sockets on loopback, and a peer that sends raw bytes.
//!
//! Nothing here sleeps. A test waits for bytes, for a report of the session, or for the end, and the
//! limits that involve a clock are set to milliseconds.

mod endings;
mod flow;
mod messages;
#[path = "../support/peer.rs"]
mod peer;
mod session;
mod time;
#[path = "../support/tls.rs"]
mod tls;
mod violations;
