//! Doors: what comes in over HTTP, and who may.

pub mod address;
pub mod connection_counter;
pub mod handshake;
pub mod health;
pub mod ingress;
pub mod ws;
