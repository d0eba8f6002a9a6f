//! Violations of RFC 6455 and of the limits, and the close code of each.

use sealpost::transport::{CloseOutcome, Limits};

use super::{
    peer::{BINARY, CLOSE, CONTINUATION, FIN, PING, TEXT, frame, soon, text},
    session::connect,
};

/// Sends `bytes`; the session closes with `code` and then with the socket.
async fn refused(name: &str, bytes: &[u8], code: u16) {
    let (mut peer, watch) = connect(Limits::default()).await;
    peer.send(bytes).await;
    assert_eq!(peer.close_code().await, Some(code), "{name}");
    drop(peer);
    assert_eq!(watch.ending().await, CloseOutcome::Closed(code), "{name}");
}

#[actix_rt::test]
async fn a_header_that_declares_too_much_is_refused_while_the_peer_still_streams() {
    let (mut peer, watch) = connect(Limits::default()).await;
    let mut header = vec![FIN | BINARY, 0x80 | 127];
    header.extend((1u64 << 40).to_be_bytes());
    header.extend([1, 2, 3, 4]);
    peer.send(&header).await;
    assert_eq!(peer.close_code().await, Some(1009));
    // The remaining input is read and dropped up to a bound, then the socket is closed.
    let block = vec![0; 64 * 1024];
    let sent = soon("an end to the streaming", async {
        use tokio::io::AsyncWriteExt as _;
        let mut sent = 0;
        while peer.stream.write_all(&block).await.is_ok() {
            sent += block.len();
        }
        sent
    })
    .await;
    assert!(sent < 64 * 1024 * 1024, "{sent} bytes went through");
    assert_eq!(watch.ending().await, CloseOutcome::Closed(1009));
}

#[actix_rt::test]
async fn messages_over_the_cap_are_refused_and_messages_at_the_cap_are_not() {
    let cap = Limits::default().message_bytes;
    let (mut peer, _watch) = connect(Limits::default()).await;
    let payload = vec![b'x'; cap];
    peer.send(&text(&payload)).await;
    peer.expect_text(&payload).await;
    let (a, b) = payload.split_at(cap / 2);
    peer.send(&[frame(TEXT, a), frame(FIN | CONTINUATION, b)].concat()).await;
    peer.expect_text(&payload).await;

    refused("one over", &text(vec![b'x'; cap + 1])[..14], 1009).await;
    let over = [frame(TEXT, a), frame(CONTINUATION, b), frame(CONTINUATION, b"x")].concat();
    refused("one over, in fragments", &over, 1009).await;
}

#[actix_rt::test]
async fn too_many_fragments_are_refused() {
    let empty = frame(CONTINUATION, b"");
    let many = [frame(TEXT, b""), empty.repeat(10_000)].concat();
    refused("ten thousand empty ones", &many, 1008).await;
    let over = [frame(TEXT, b""), empty.repeat(1024)].concat();
    refused("the 1,025th", &over, 1008).await;

    let (mut peer, _watch) = connect(Limits::default()).await;
    let most = [frame(TEXT, b"a"), empty.repeat(1022), frame(FIN | CONTINUATION, b"z")].concat();
    peer.send(&most).await;
    peer.expect_text("az").await;
}

#[actix_rt::test]
async fn frames_that_the_protocol_forbids_are_refused() {
    let mut unmasked = text("a");
    unmasked[1] &= 0x7f;
    refused("reserved bits", &frame(FIN | 0x40 | TEXT, b"a"), 1002).await;
    refused("opcode", &frame(FIN | 0x3, b"a"), 1002).await;
    refused("unmasked", &unmasked, 1002).await;
    refused("long ping", &frame(FIN | PING, &[0; 126]), 1002).await;
    refused("fragmented ping", &frame(PING, b""), 1002).await;
    refused("continuation of nothing", &frame(FIN | CONTINUATION, b""), 1002).await;
    let twice = [frame(TEXT, b"a"), frame(TEXT, b"b")].concat();
    refused("a message inside a message", &twice, 1002).await;
}

#[actix_rt::test]
async fn text_that_is_not_utf_8_is_refused() {
    let large = [&b"x".repeat(5000)[..], b"\xff"].concat();
    refused("whole", &text(b"ab\xff"), 1007).await;
    refused("whole and large", &text(&large), 1007).await;
    refused("in fragments", &frame(TEXT, b"\xed\xa0"), 1007).await;
    let cut = [frame(TEXT, b"\xe2"), frame(FIN | CONTINUATION, b"")].concat();
    refused("cut short", &cut, 1007).await;
    // The Close comes although the frame is far from complete.
    let frame = text([&b"\xff"[..], &[b'x'; 9000]].concat());
    refused("at the first impossible byte", &frame[..20], 1007).await;
}

#[actix_rt::test]
async fn frames_before_a_violation_are_handled_and_frames_after_it_are_not() {
    let (mut peer, watch) = connect(Limits::default()).await;
    let bytes = [text("one"), text("two"), frame(FIN | 0x3, b""), text("three")].concat();
    peer.send(&bytes).await;
    peer.expect_text("one").await;
    peer.expect_text("two").await;
    assert_eq!(peer.close_code().await, Some(1002));
    peer.stream.shutdown_now();
    peer.expect_end().await;
    assert_eq!(watch.ending().await, CloseOutcome::Closed(1002));
}

#[actix_rt::test]
async fn close_frames_are_echoed_and_unlawful_ones_refused() {
    for code in [1000u16, 1001, 1003, 1007, 1011, 1014, 3000, 3999, 4000, 4999] {
        refused("lawful", &frame(FIN | CLOSE, &code.to_be_bytes()), code).await;
    }
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        refused("unlawful", &frame(FIN | CLOSE, &code.to_be_bytes()), 1002).await;
    }
    // The peer's Close has come, lawful or not, so the session waits for nothing more.
    let patient = Limits { linger: std::time::Duration::from_secs(600), ..Limits::default() };
    let (mut peer, watch) = connect(patient).await;
    peer.send(&frame(FIN | CLOSE, &1005u16.to_be_bytes())).await;
    assert_eq!(peer.close_code().await, Some(1002));
    peer.expect_end().await;
    assert_eq!(watch.ending().await, CloseOutcome::Closed(1002));

    refused("one byte", &frame(FIN | CLOSE, b"\x03"), 1002).await;
    refused("reason not UTF-8", &frame(FIN | CLOSE, b"\x03\xe8\xff"), 1002).await;

    let (mut peer, watch) = connect(Limits::default()).await;
    peer.send(&frame(FIN | CLOSE, b"")).await;
    assert_eq!(peer.close_code().await, None, "an empty one is answered by an empty one");
    peer.expect_end().await;
    assert_eq!(watch.ending().await, CloseOutcome::Closed(1005));
}

trait ShutdownNow {
    fn shutdown_now(&self);
}

impl ShutdownNow for crate::tls::Stream {
    fn shutdown_now(&self) {
        let _ = socket2::SockRef::from(self.tcp()).shutdown(std::net::Shutdown::Write);
    }
}
