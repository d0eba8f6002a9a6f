//! The relay from outside, on real sockets: one file for each theme, each test a sentence.

mod authentication;
mod drain;
mod first_words;
mod hostile;
mod house;
mod identity;
mod keys;
mod limits;
mod order;
mod presence;
mod queue;
mod receipts;
mod reload;
mod repeats;
mod resume;
mod seed;
mod size;
mod ttl;
