//! Rules: who is here, where a frame goes next, what waits and for how long.
//!
//! Plain structs without actix: time is an argument, what follows from a command is a list of posts. A simulation drives
//! exactly this code (`tests/simulation`).

pub mod auth_exchange;
pub mod command;
pub mod connection_state;
pub mod dedup;
pub mod item;
pub mod mailbox;
pub mod mailbox_quota;
pub mod rate_limit;
pub mod router;
