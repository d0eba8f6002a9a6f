//! The relay from outside, on real sockets: one file for each theme, each test a sentence.

mod access;
mod authentication;
mod dedup;
mod drain;
mod end_to_end;
mod fair_shares;
mod hostile;
mod identity;
mod ids;
mod keys;
mod limits;
mod notices;
mod order;
mod presence;
mod queue;
mod receipts;
mod reload;
mod resume;
mod seed;
mod size;
mod ttl;
mod unknown_senders;
mod unregister;

#[path = "../support/mod.rs"]
mod support;
