//! The entry: health over HTTP, and the handshake that turns a request into a session.

pub mod admin;
pub mod connection_counter;
pub mod handshake;
pub mod health;
pub mod hosts;
pub mod http;
pub mod ingress;
pub mod ws;
