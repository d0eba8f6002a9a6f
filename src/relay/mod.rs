//! Rules: which devices are here, where a frame goes next, what waits and for how long.
//!
//! Plain structs without actix: time is an argument, and what follows from a command is a list of deliveries. The simulation
//! in `tests/simulation` drives exactly this code.

pub mod access_rates;
pub mod auth_exchange;
pub mod bucket;
pub mod command;
pub mod connection_state;
pub mod correspondents;
pub mod dedup;
pub mod delivery;
mod fair_share;
pub mod item;
pub mod mailbox;
pub mod mailbox_quota;
pub mod notice_pings;
pub mod notice_queue;
mod on_demand;
pub mod rate_limit;
mod remaining;
pub mod router;
