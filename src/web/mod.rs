//! Doors: what comes in over HTTP, and who may.

pub mod address;
pub mod caps;
pub mod doorway;
pub mod handshake;
pub mod health;
pub mod ws;
