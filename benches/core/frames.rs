//! Frames as clients write them.

use sealpost::protocol::id::{DeviceId, MessageId};

/// Sizes of the encrypted data: a short message, and one close to the limit of 64 KiB for a frame.
pub const SIZES: [(&str, usize); 2] = [("256 B", 256), ("60 KB", 60_000)];

/// The sender.
pub const ALICE: DeviceId = DeviceId::from_u128(0xd8f8a9b0_f6e1_4a2b_8d7c_1e9f0a1b2c3d);
const BOB: DeviceId = DeviceId::from_u128(0xa1b2c3d4_e5f6_4890_9234_567890abcdef);
/// The id of the message.
pub const MESSAGE: MessageId = MessageId::from_u128(0xf47ac10b_58cc_4372_a567_0e02b2c3d479);

/// The payload of a `Send` with every field that the protocol names.
pub fn payload(encrypted: usize) -> String {
    let data: String = "Base64+/".chars().cycle().take(encrypted).collect();
    format!(
        r#"{{"recipient_id":"{BOB}","sender_id":"{ALICE}","encrypted_data":"{data}","message_id":"{MESSAGE}","timestamp":1678886400,"ttl":300,"signature":"{}","content_type":"text/plain","size_bytes":{encrypted}}}"#,
        "c2ln".repeat(22)
    )
}

/// A `Send` in the usual order of keys.
pub fn send(encrypted: usize) -> String {
    format!(r#"{{"type":"Send","payload":{}}}"#, payload(encrypted))
}

/// A `Send` by a serializer that sorts keys.
pub fn send_payload_first(encrypted: usize) -> String {
    format!(r#"{{"payload":{},"type":"Send"}}"#, payload(encrypted))
}

/// A client's `Ack`.
pub fn ack() -> String {
    format!(r#"{{"type":"Ack","payload":{{"message_id":"{MESSAGE}","sender_id":"{ALICE}"}}}}"#)
}
