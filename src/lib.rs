//! Sealpost: a relay for end-to-end-encrypted devices.

pub mod settings;
pub mod transport;
