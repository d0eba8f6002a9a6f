//! The JSON Schemas of docs/schemas and docs/asyncapi.yaml are made from the types of the protocol, and say what the decoder
//! and the encoders do.
//!
//! After a change of the types, `SCHEMAS=write cargo test --test protocol_schema` writes the files anew.

#[path = "../support/mod.rs"]
mod support;

mod agreement;
mod asyncapi;
mod files;
mod yaml;

/// The reference of the protocol; its vectors are the examples.
const REFERENCE: &str = include_str!("../../docs/protocol.md");

/// The page for a first client. Its vectors are frames of clients and of the relay.
const WRITE_A_CLIENT: &str = include_str!("../../docs/write-a-client.md");
