//! Heartbeats, silence and deadlines, with limits of milliseconds.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use sealpost::transport::{CloseOutcome, Event, Limits};

use super::{
    peer::{CONTINUATION, FIN, PING, PONG, TEXT, frame, text},
    session::{Report, connect},
};

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(30);

fn patient() -> Limits {
    Limits {
        frame_timeout: LONG,
        heartbeat_interval: LONG,
        idle_timeout: LONG,
        linger: SHORT,
        ..Limits::default()
    }
}

#[actix_rt::test]
async fn an_unfinished_frame_ends_the_connection() {
    let limits = Limits { frame_timeout: SHORT, frame_rate: NonZeroU32::MAX, ..patient() };
    for (name, bytes) in [
        ("half a header", text("abc")[..1].to_vec()),
        ("half a frame", text("abc")[..8].to_vec()),
        ("half a message", frame(TEXT, b"abc")),
        ("half a large frame", text([b'x'; 9000])[..5000].to_vec()),
    ] {
        let (mut peer, watch) = connect(limits).await;
        peer.send(&bytes).await;
        assert_eq!(peer.close_code().await, Some(1013), "{name}");
        assert_eq!(watch.ending().await, CloseOutcome::Closed(1013), "{name}");
    }
}

#[actix_rt::test]
async fn pings_and_more_fragments_do_not_prolong_a_message() {
    let limits = Limits { frame_timeout: SHORT, ..patient() };
    let (mut peer, watch) = connect(limits).await;
    peer.send(&frame(TEXT, b"abc")).await;
    let last = loop {
        let more = [frame(FIN | PING, b"p"), frame(CONTINUATION, b"")].concat();
        let _ = tokio::io::AsyncWriteExt::write_all(&mut peer.stream, &more).await;
        match peer.frame().await {
            Some((kind, _)) if kind == FIN | PONG => {}
            other => break other,
        }
    };
    let (kind, payload) = last.expect("a close");
    assert_eq!((kind, &payload[..2]), (0x88, &1013u16.to_be_bytes()[..]));
    assert_eq!(watch.ending().await, CloseOutcome::Closed(1013));
}

fn bytes_a_second(rate: u32) -> NonZeroU32 {
    NonZeroU32::new(rate).expect("not zero")
}

#[actix_rt::test]
async fn a_message_that_comes_fast_enough_on_average_may_take_longer_than_the_timeout() {
    let limits = Limits {
        frame_timeout: SHORT,
        frame_rate: bytes_a_second(10),
        heartbeat_interval: SHORT,
        ..patient()
    };
    let long = "x".repeat(1200);
    let fragments =
        [frame(TEXT, &[b'x'; 600]), frame(CONTINUATION, &[b'x'; 300]), frame(FIN, &[b'x'; 300])];
    for bytes in [text(&long), fragments.concat()] {
        let (mut peer, mut watch) = connect(limits).await;
        // At ten bytes a second, half of the message may take a minute.
        let (first, second) = bytes.split_at(bytes.len() / 2);
        peer.send(first).await;
        for _ in 0..5 {
            let report = watch.report().await;
            assert!(matches!(report, Report::Event(Event::HeartbeatDue { .. })), "{report:?}");
        }
        peer.send(second).await;
        assert_eq!(watch.next_but_heartbeats().await, Report::text(&long));
    }
}

#[actix_rt::test]
async fn a_message_whose_average_falls_below_the_rate_ends_the_connection_with_1013() {
    let rate = bytes_a_second(2000);
    let limits = Limits { frame_timeout: SHORT, frame_rate: rate, ..patient() };
    let (mut peer, watch) = connect(limits).await;
    let started = Instant::now();
    let head = frame(FIN | TEXT, &[b'x'; 5000]);
    // Of the payload 600 bytes, which is 300 ms at this rate.
    peer.send(&head[..head.len() - 4400]).await;
    peer.expect(0x88, [&1013u16.to_be_bytes()[..], b"you read or write too slowly"].concat()).await;
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_eq!(watch.ending().await, CloseOutcome::Closed(1013));
}

#[actix_rt::test]
async fn a_peer_that_is_sending_a_long_message_is_not_idle() {
    let limits = Limits { heartbeat_interval: SHORT, idle_timeout: 10 * SHORT, ..patient() };
    let (mut peer, mut watch) = connect(limits).await;
    let bytes = text([b'x'; 40]);
    for byte in &bytes[..bytes.len() - 1] {
        watch.expect(Report::Event(Event::HeartbeatDue { quiet: true })).await;
        peer.send(&[*byte]).await;
    }
    // Silence counts again as soon as no byte comes.
    assert_eq!(peer.close_code().await, Some(4408));
    assert_eq!(watch.ending().await, CloseOutcome::Closed(4408));
}

#[actix_rt::test]
async fn a_deadline_does_not_run_while_input_is_not_read() {
    let limits = Limits { frame_timeout: 10 * SHORT, heartbeat_interval: 5 * SHORT, ..patient() };
    let (mut peer, mut watch) = connect(limits).await;
    let second = text("two");
    peer.send(&[&text("one")[..], &second[..4]].concat()).await;
    assert_eq!(watch.next_but_heartbeats().await, Report::text("one"));
    watch.handle.pause(true);
    watch.act(|_, _| {}).await;
    for _ in 0..4 {
        watch.expect(Report::Event(Event::HeartbeatDue { quiet: false })).await;
    }
    peer.send(&second[4..]).await;
    watch.handle.pause(false);
    peer.expect_text("one").await;
    peer.expect_text("two").await;
}

#[actix_rt::test]
async fn heartbeats_report_whether_a_frame_arrived() {
    let limits = Limits { heartbeat_interval: SHORT, ..patient() };
    let (mut peer, mut watch) = connect(limits).await;
    watch.expect(Report::Event(Event::HeartbeatDue { quiet: true })).await;
    peer.send(&text("here")).await;
    assert_eq!(watch.next_but_heartbeats().await, Report::text("here"));
    watch.expect(Report::Event(Event::HeartbeatDue { quiet: false })).await;
    watch.expect(Report::Event(Event::HeartbeatDue { quiet: true })).await;
    // Half a frame does not count as a frame.
    peer.send(&text("here")[..3]).await;
    watch.expect(Report::Event(Event::HeartbeatDue { quiet: true })).await;
    watch.expect(Report::Event(Event::HeartbeatDue { quiet: true })).await;
}

#[actix_rt::test]
async fn an_idle_timeout_is_reported_and_closed_by_the_session() {
    let limits = Limits { heartbeat_interval: SHORT, idle_timeout: 3 * SHORT, ..patient() };
    let (mut peer, watch) = connect(limits).await;
    assert_eq!(peer.close_code().await, Some(4408));
    peer.expect_end().await;
    assert_eq!(watch.ending().await, CloseOutcome::Closed(4408));
}

#[actix_rt::test]
async fn an_idle_connection_is_polled_once_a_heartbeat() {
    let limits = Limits { heartbeat_interval: SHORT, ..patient() };
    let (_peer, mut watch) = connect(limits).await;
    watch.expect(Report::Event(Event::HeartbeatDue { quiet: true })).await;
    let before = watch.polls();
    for _ in 0..10 {
        watch.expect(Report::Event(Event::HeartbeatDue { quiet: true })).await;
    }
    let polls = watch.polls() - before;
    assert!(polls <= 30, "{polls} polls in ten beats");
}
