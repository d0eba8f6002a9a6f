//! The access tokens of the simulated relay: two names, of which one may have few devices.

use sealpost::access::{AccessTable, AccessToken, Bounds, Policy, SecretHash};

/// By which a device registers; `None` for a device of an open relay.
pub const NAMES: [Option<&str>; 3] = [None, Some("team"), Some("guests")];
/// Devices that `guests` may have alive.
pub const GUESTS: usize = 2;

pub fn policy() -> Policy {
    let bounds = Bounds { devices: Some(GUESTS as u32), ..Bounds::default() };
    let hash = SecretHash::of("guests");
    let token = AccessToken { name: "guests".into(), hash, expires_ms: None, bounds };
    let mut table = AccessTable::default();
    table.insert(token).expect("the only token");
    Policy::Tokens(table)
}
