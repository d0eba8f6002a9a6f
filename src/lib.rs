//! Sealpost: a relay for end-to-end-encrypted devices. The relay carries, keeps and reports messages, and never reads one.
//!
//! Imports point down only:
//!
//! ```text
//! main → commands → preflight → app → web → actors → relay (rules) → store → protocol
//!
//! transport: beside them, under a session     settings, cli, clock, logging, banner,
//!                                             client_address, web_origin, metrics, abort_on_panic, signals, systemd, tls: ground
//! ```
//!
//! A frame goes one way, and no stage waits for an answer:
//!
//! ```text
//! socket → transport → Session → CommandBatch → Registry: Router → DeliveryBatch → peer's Session → transport → socket
//! ```
//!
//! `docs/architecture.md` has the glossary, the map and the invariants; `docs/protocol.md` has the messages.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::todo,
        clippy::unimplemented,
        clippy::unreachable
    )
)]

pub mod abort_on_panic;
pub mod access;
pub mod actors;
pub mod app;
pub mod banner;
pub mod cli;
pub mod client_address;
pub mod clock;
pub mod commands;
pub mod logging;
#[warn(missing_docs)]
pub mod metrics;
pub mod preflight;
#[warn(missing_docs)]
pub mod protocol;
pub mod relay;
#[warn(missing_docs)]
pub mod settings;
pub mod signals;
pub mod store;
pub mod systemd;
pub mod tls;
#[warn(missing_docs)]
pub mod transport;
pub mod web;
#[warn(missing_docs)]
pub mod web_origin;
