//! How large a frame may be, whole or in fragments.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::support::{Device, Relay, message_id};

const MOST: usize = 65_536;

/// A message to a device; the whole frame has `bytes` bytes.
fn of_size(from: &Device, to: &Device, number: u64, bytes: usize) -> String {
    let empty = from.message_to(&to.id, number, json!({"encrypted_data": ""})).to_string();
    let data = "e".repeat(bytes - empty.len());
    let text = from.message_to(&to.id, number, json!({"encrypted_data": data})).to_string();
    assert_eq!(text.len(), bytes);
    text
}

#[tokio::test]
async fn the_largest_message_passes_and_one_byte_more_does_not() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    let text = of_size(&alice, &bob, 1, MOST);
    alice.send_text(&text).await;
    alice.expect_ack(1).await;
    bob.receive(1).await;
    let text = of_size(&alice, &bob, 2, MOST + 1);
    alice.send_text(&text).await;
    let error = alice.expect_error(413).await;
    assert_eq!(error["message"], "Message too large: 65536 bytes at most.");
    assert_eq!(error["limit"], json!(MOST));
    assert_eq!(error["message_id"], json!(message_id(2)));
    assert_eq!(error["recipient_id"], json!(bob.id));
    assert_eq!(error.get("remaining"), None);
    bob.expect_nothing().await;
    alice.expect_nothing().await;
}

#[tokio::test]
async fn an_unregistered_connection_has_the_same_size_limit() {
    let relay = Relay::start();
    let mut unregistered = Device::connect(&relay).await;
    let large = json!({"type": "Register", "payload": {"x-note": "e".repeat(MOST)}});
    unregistered.expect_refusal(large, 413).await;
    unregistered.send(json!({"type": "Register"})).await;
    unregistered.expect_frame("RegisterResponse").await;
}

#[tokio::test]
async fn a_far_too_large_message_ends_the_connection() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    let text = of_size(&alice, &bob, 1, 2 * MOST);
    alice.send_text(&text).await;
    alice.expect_error(413).await;
    let text = of_size(&alice, &bob, 1, 2 * MOST + 1);
    alice.send_text(&text).await;
    assert_eq!(alice.expect_close().await, Some(1009));
    bob.expect_nothing().await;
}

#[tokio::test]
async fn a_message_in_fragments_is_one_message() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    let text = of_size(&alice, &bob, 1, MOST);
    let chunks: Vec<&[u8]> = text.as_bytes().chunks(1000).collect();
    let last = chunks.len() - 1;
    for (nth, chunk) in chunks.into_iter().enumerate() {
        let kind = if nth == 0 { Data::Text } else { Data::Continue };
        let frame = Frame::message(chunk.to_vec(), OpCode::Data(kind), nth == last);
        alice.send_raw(Message::Frame(frame)).await;
    }
    alice.expect_ack(1).await;
    bob.receive(1).await;
}

#[tokio::test]
async fn a_binary_message_ends_the_connection() {
    let relay = Relay::start();
    for mut device in [Device::connect(&relay).await, Device::plain(&relay).await] {
        device.send_raw(Message::binary(&b"{\"type\":\"Ping\"}"[..])).await;
        assert_eq!(device.expect_close().await, Some(1003));
    }
}

#[tokio::test]
async fn bytes_that_are_no_utf8_end_the_connection() {
    let relay = Relay::start();
    for mut device in [Device::connect(&relay).await, Device::plain(&relay).await] {
        let bytes = b"{\"type\":\"Ping\xff\"}".to_vec();
        let frame = Frame::message(bytes, OpCode::Data(Data::Text), true);
        device.send_raw(Message::Frame(frame)).await;
        assert_eq!(device.expect_close().await, Some(1007));
    }
}
