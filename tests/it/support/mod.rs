//! What the tests speak of: a relay that runs, and devices that talk to it.
#![allow(dead_code, reason = "every test binary that has the support uses some of it")]

mod device;
mod relay;

#[allow(unused_imports, reason = "as above")]
pub use device::{Away, Device, PATIENCE, message_id};
pub use relay::Relay;
