//! The entry: what precedes HTTP on a socket (PROXY header, TLS), health over HTTP, and the handshake that turns a request into
//! a session.

pub mod admin;
pub mod connection_counter;
pub mod demo;
pub mod handshake;
pub mod health;
pub mod hosts;
pub mod http;
pub mod ingress;
pub mod metrics;
pub mod proxy_protocol;
pub mod tls;
pub mod ws;
