//! Doers: thin. Each receives, reads the clock once, asks the rules and posts what follows.
//!
//! A message type lives in the file of the actor that handles it. Nobody asks and waits on a message's way: sessions push
//! to the Registry, the Registry pushes to sessions.

pub mod abort_on_panic;
pub mod access_control;
pub mod connection_table;
pub mod rate_limiter;
pub mod registry;
pub mod session;
#[cfg(test)]
pub mod test_probe;
pub mod ttl_sweeper;
pub mod write_watermarks;
