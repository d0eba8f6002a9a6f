//! Words: what a device may say and what the relay may say.
//!
//! No actix, no clock, no I/O: text in, words out, and back. The shapes are those of `docs/protocol.md`.

pub mod decode;
pub mod encode;
pub mod envelope;
pub mod frame;
pub mod id;
mod json_object;
pub mod kind;
pub mod refusal;
