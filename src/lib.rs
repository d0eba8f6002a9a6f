//! Sealpost: a relay for end-to-end-encrypted devices. It carries, keeps and reports, and never looks inside.
//!
//! # Floors
//!
//! Imports point down only:
//!
//! ```text
//! main → app → web → actors → relay → store → protocol
//!              doors  doers    rules           words
//!
//! transport: beside them, under a session     settings, cli, clock, logging: the ground
//! ```
//!
//! # The journey of a frame
//!
//! ```text
//! socket → transport → Session: decode, own id?, allowance → Registry: rules → peer's Session → transport → socket
//! ```
//!
//! One way: nobody asks back on it. What a socket had to say travels as one [`Inbound`](actors::registry::Inbound), what
//! follows for one session comes back as one [`Turn`](actors::session::Turn).
//!
//! # What always holds
//!
//! * A message has one owner, its recipient's [`Mailbox`](relay::mailbox); a session borrows what it has credit for.
//! * Every attachment of a device has an epoch; what an older one still says changes nothing.
//! * Who sent it is checked at the door and believed inside.
//! * What expires is told to its sender first and dropped after.
//! * accepted = delivered + expired + queued + in flight, at all times.
//!
//! `docs/architecture.md` has the whole map, with the test that guards each invariant; `docs/protocol.md` what is said.

pub mod actors;
pub mod app;
pub mod cli;
pub mod clock;
pub mod logging;
pub mod protocol;
pub mod relay;
pub mod settings;
pub mod store;
pub mod transport;
pub mod web;
