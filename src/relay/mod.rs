//! Rules: who is here, where a frame goes next, what waits and for how long.
//!
//! Plain structs without actix: time is an argument, what follows from a word is a list of posts. A simulation drives
//! exactly this code (`tests/simulation`).

pub mod conversation;
pub mod exchange;
pub mod mailbox;
pub mod quota;
pub mod repeats;
pub mod router;
pub mod word;
