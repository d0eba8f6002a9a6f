//! The text of one message of a client: decoded or refused, and never misread.

use sealpost::protocol::decode::{decode, error_context};
use sealpost::protocol::encode;
use serde::de::IgnoredAny;

/// Returns whether the text is a frame.
pub fn run(data: &[u8]) -> bool {
    // The transport passes on nothing but UTF-8.
    let Ok(text) = std::str::from_utf8(data) else { return false };
    match decode(text) {
        Ok(frame) => {
            // Another parser must agree that a frame is JSON: what the relay forwards is part of other frames.
            let parsed = serde_json::from_str::<IgnoredAny>(text);
            assert!(parsed.is_ok(), "{frame:?} is no JSON");
            true
        }
        Err(refusal) => {
            let error = encode::error(refusal, &error_context(text, refusal));
            let error: serde_json::Value = serde_json::from_str(&error).expect("an Error is JSON");
            assert_eq!(error["payload"]["code"], 400);
            false
        }
    }
}
