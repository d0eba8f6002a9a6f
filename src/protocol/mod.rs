//! The frames of `docs/protocol.md` and their text: decoding, encoding, ids, refusals and close codes.
//!
//! Pure functions: no actix, no clock, no I/O. "(protocol: X)" in a comment names the section X of that document.

pub mod decode;
pub mod encode;
pub mod envelope;
pub mod frame;
pub mod id;
mod json_object;
pub mod json_string;
pub mod kind;
pub mod refusal;
#[cfg(feature = "schema")]
pub mod schema;
