//! Doers: thin. Each receives, reads the clock once, asks the rules and posts what follows.
//!
//! A message type lives in the file of the actor that hears it. Nobody asks and waits on a message's way: sessions push
//! to the Registry, the Registry pushes to sessions.

#[cfg(test)]
pub mod deed;
pub mod fuse;
pub mod links;
pub mod marks;
pub mod rate_limiter;
pub mod registry;
pub mod session;
pub mod ttl_sweeper;
