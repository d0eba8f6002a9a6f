//! Words: what a device may say and what the relay may say.
//!
//! No actix, no clock, no I/O: text in, words out, and back. The shapes are those of `docs/protocol.md`.

pub mod client;
pub mod envelope;
pub mod id;
mod json_object;
pub mod refusal;
pub mod server;
