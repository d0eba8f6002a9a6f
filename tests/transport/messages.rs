//! Messages, fragments and pings of a peer that keeps to RFC 6455.

use sealpost::transport::{CloseOutcome, Limits};

use super::{
    peer::{BINARY, CONTINUATION, FIN, PING, PONG, TEXT, close, frame, text},
    session::{Report, connect, open},
};

#[actix_rt::test]
async fn input_read_behind_the_handshake_is_handled_first() {
    let (first, second) = (text("first"), text("second"));
    let (ahead, rest) = first.split_at(3);
    let (mut peer, watch) = open(Limits::default(), ahead.to_vec().into(), None).await;
    peer.send(rest).await;
    peer.send(&second).await;
    peer.expect_text("first").await;
    peer.expect_text("second").await;
    peer.send(&close(1000)).await;
    assert_eq!(peer.close_code().await, Some(1000));
    peer.expect_end().await;
    assert_eq!(watch.ending().await, CloseOutcome::Closed(1000));
}

#[actix_rt::test]
async fn fragments_become_one_message_and_a_ping_between_them_is_answered_at_once() {
    let (mut peer, mut watch) = connect(Limits::default()).await;
    peer.send(&frame(TEXT, b"\xe2\x82")).await;
    peer.send(&frame(FIN | PING, b"still there?")).await;
    peer.expect(FIN | PONG, "still there?").await;
    peer.send(&frame(CONTINUATION, b"\xac and ")).await;
    peer.send(&frame(FIN | CONTINUATION, b"more")).await;
    peer.expect_text("€ and more").await;
    watch.expect(Report::Incoming(sealpost::transport::Incoming::Ping)).await;
    watch.expect(Report::text("€ and more")).await;
    peer.send(&[frame(BINARY, &[0xff; 5000]), frame(FIN | CONTINUATION, &[0xfe; 5000])].concat())
        .await;
    peer.expect(FIN | BINARY, [vec![0xff; 5000], vec![0xfe; 5000]].concat()).await;
}

#[actix_rt::test]
async fn messages_of_every_size_survive_every_cut() {
    let (mut peer, _watch) = connect(Limits::default()).await;
    for size in [0, 1, 125, 126, 1023, 1024, 1025, 65_535, 65_536, 131_072] {
        let payload: Vec<u8> = (0..size).map(|i| b'a' + (i % 23) as u8).collect();
        for cut in [1, 2, 5, 13, 14, 15, 999, usize::MAX] {
            let bytes = text(&payload);
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            peer.send(head).await;
            // The session may read the pieces apart; the answer must be the same.
            tokio::task::yield_now().await;
            peer.send(tail).await;
            peer.expect_text(&payload).await;
        }
    }
}

#[actix_rt::test]
async fn a_large_message_may_arrive_one_byte_at_a_time() {
    let (mut peer, _watch) = connect(Limits::default()).await;
    let payload = "ÄÖÜ€😀".repeat(400);
    for byte in text(&payload) {
        peer.send(&[byte]).await;
    }
    peer.expect_text(payload).await;
}

#[actix_rt::test]
async fn twenty_thousand_small_frames_in_one_go_are_all_answered_in_order() {
    let (peer, _watch) = connect(Limits::default()).await;
    let bytes: Vec<u8> = (0..20_000).flat_map(|n| text(n.to_string())).collect();
    let (mut read, mut write) = tokio::io::split(peer.stream);
    let sender = actix_rt::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        write.write_all(&bytes).await.expect("sent");
        write
    });
    for n in 0..20_000 {
        use tokio::io::AsyncReadExt as _;
        let payload = n.to_string();
        let mut got = vec![0; 2 + payload.len()];
        read.read_exact(&mut got).await.expect("an answer");
        assert_eq!(&got[2..], payload.as_bytes());
    }
    sender.await.expect("sent");
}
