//! The cost of one hostile connection for the whole relay. (threats: T11, T20 to T23)

use std::time::{Duration, Instant};

use sealpost::settings::Settings;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::support::peer::{BINARY, CONTINUATION, FIN, TEXT, frame, soon, text};
use crate::support::{Binary, RawClient, Relay, message_id};

/// Memory that one connection may take with any input, KiB.
const MIB: u64 = 1024;

fn hasty(settings: &mut Settings) {
    settings.limits.frame_timeout = Duration::from_millis(200);
    settings.limits.register_timeout = Duration::from_secs(60);
}

/// A `Send` from `client` to a device, as a text of exactly `bytes`.
fn message_of(client: &RawClient, to: &str, number: u64, bytes: usize) -> String {
    let empty = client.message(to, number, "", 60).to_string();
    client.message(to, number, &"x".repeat(bytes - empty.len()), 60).to_string()
}

#[actix_rt::test]
async fn a_frame_that_declares_a_terabyte_costs_its_sender_the_connection_and_the_relay_nothing() {
    let relay = Binary::with(&[]).await;
    // The memory of the first connection is not measured.
    let mut client = RawClient::plain(relay.public).await;
    client.send_to_itself(1).await;
    let mut unregistered = RawClient::connect(relay.public).await;
    let before = relay.memory();

    let mut header = vec![FIN | BINARY, 0x80 | 127];
    header.extend((1_u64 << 40).to_be_bytes());
    header.extend([1, 2, 3, 4]);
    unregistered.peer.send(&header).await;
    let block = vec![0; 64 * 1024];
    let stream = &mut unregistered.peer.stream;
    soon("the first block", stream.write_all(&block)).await.expect("the kernel takes it");
    unregistered.expect_closed_with(1009).await;
    // The client goes on sending until the relay has closed the socket.
    let stream = &mut unregistered.peer.stream;
    let sent = soon("an end", async {
        let mut sent = 0;
        while sent < 512 && stream.write_all(&block).await.is_ok() {
            sent += 1;
        }
        sent
    })
    .await;
    assert!(sent < 512, "the relay took 32 MiB");
    relay.wait_for("connections", 1).await;
    let grown = relay.peak_memory().saturating_sub(before);
    assert!(grown <= MIB, "{grown} KiB more than {before} KiB");
    client.send_to_itself(2).await;
}

#[actix_rt::test]
async fn a_message_at_the_cap_is_relayed_and_one_byte_more_is_not() {
    let relay = Relay::start();
    let (mut alice, mut bob) =
        (RawClient::plain(relay.public).await, RawClient::plain(relay.public).await);
    let limits = Settings::default().limits;
    let pieces = |message: &str| -> Vec<u8> {
        let chunks: Vec<&[u8]> = message.as_bytes().chunks(1000).collect();
        let last = chunks.len() - 1;
        let piece = |(n, chunk): (usize, &&[u8])| {
            let opcode = if n == 0 { TEXT } else { CONTINUATION };
            frame(if n == last { FIN | opcode } else { opcode }, chunk)
        };
        chunks.iter().enumerate().flat_map(piece).collect()
    };
    let whole = |message: &str| text(message);
    type Way<'a> = &'a dyn Fn(&str) -> Vec<u8>;
    let ways: [(u64, Way<'_>); 2] = [(10, &whole), (20, &pieces)];
    for (number, way) in ways {
        let fits = message_of(&alice, &bob.id, number, limits.message_bytes);
        alice.peer.send(&way(&fits)).await;
        alice.expect_frame("Ack").await;
        let received = bob.expect_frame("Receive").await;
        assert_eq!(received["sender_id"], alice.id);

        for over in [limits.message_bytes + 1, limits.frame_bytes] {
            let over = message_of(&alice, &bob.id, number + 1, over);
            alice.peer.send(&way(&over)).await;
            let error = alice.expect_frame("Error").await;
            assert_eq!(error["code"], 413);
            assert_eq!(error["message_id"], message_id(number + 1));
        }
        let over = message_of(&alice, &bob.id, number + 1, limits.frame_bytes + 1);
        let mut eve = RawClient::plain(relay.public).await;
        // The relay may close before all bytes are sent.
        let _ = soon("sending", eve.peer.stream.write_all(&way(&over))).await;
        eve.expect_closed_with(1009).await;
    }
    bob.send_to_itself(1).await;
}

#[actix_rt::test]
async fn floods_of_fragments_and_messages_without_end_cost_only_their_sender() {
    let relay = Relay::with(hasty);
    let mut bystander = RawClient::plain(relay.public).await;
    let empty = frame(CONTINUATION, b"");
    for (bytes, code) in [
        ([frame(TEXT, b""), empty.repeat(10_000)].concat(), 1008),
        ([frame(TEXT, b"{"), empty.repeat(1024)].concat(), 1008),
        (frame(TEXT, b"never the end"), 1013),
        ([frame(TEXT, b""), frame(CONTINUATION, &[b'x'; 60_000]).repeat(3)].concat(), 1009),
    ] {
        let mut client = RawClient::plain(relay.public).await;
        let _ = soon("sending", client.peer.stream.write_all(&bytes)).await;
        client.expect_closed_with(code).await;
    }
    bystander.send_to_itself(1).await;
    relay.wait_for("connections", 1).await;
}

#[actix_rt::test]
async fn single_bytes_sent_slowly_do_not_keep_a_frame_open() {
    let relay = Relay::with(hasty);
    let mut client = RawClient::plain(relay.public).await;
    let started = Instant::now();
    let ping = text(json!({"type": "Ping"}).to_string());
    let (mut read, mut write) = tokio::io::split(client.peer.stream);
    // One byte in 20 ms: the frame does not end within its 200 ms.
    let trickle = actix_rt::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        for byte in ping {
            tick.tick().await;
            if write.write_all(&[byte]).await.is_err() {
                return;
            }
        }
    });
    let mut head = [0; 4];
    let read_head =
        soon("a close", tokio::io::AsyncReadExt::read_exact(&mut read, &mut head)).await;
    read_head.expect("a close");
    assert_eq!((head[0], u16::from_be_bytes([head[2], head[3]])), (0x88, 1013));
    assert!(started.elapsed() < Duration::from_secs(5));
    trickle.abort();
    client = RawClient::plain(relay.public).await;
    client.send_to_itself(1).await;
}

#[actix_rt::test]
async fn an_unregistered_connection_is_closed_at_the_register_timeout_even_if_it_sends_frames() {
    let relay = Relay::with(|settings| {
        settings.limits.register_timeout = Duration::from_millis(300);
    });
    let mut silent = RawClient::connect(relay.public).await;
    let mut active = RawClient::connect(relay.public).await;
    let mut device = RawClient::plain(relay.public).await;
    active.send(json!({"type": "Status", "payload": {}})).await;
    assert_eq!(active.expect_frame("Error").await["code"], 400);
    active.send(json!({"type": "Register", "payload": {"resume_token": "0".repeat(64)}})).await;
    assert_eq!(active.expect_frame("Error").await["code"], 401);
    active.send(json!({"type": "Ping"})).await;
    active.expect_frame("Pong").await;
    silent.expect_closed_with(4401).await;
    active.expect_closed_with(4401).await;
    device.send_to_itself(1).await;
    relay.wait_for("connections", 1).await;
}
