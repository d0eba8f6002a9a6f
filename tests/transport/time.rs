//! Heartbeats, silence and deadlines, with limits of milliseconds.

use std::time::Duration;

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
    let limits = Limits { frame_timeout: SHORT, ..patient() };
    for (name, bytes) in [
        ("half a header", text("abc")[..1].to_vec()),
        ("half a frame", text("abc")[..8].to_vec()),
        ("half a message", frame(TEXT, b"abc")),
        ("half a large frame", text([b'x'; 9000])[..5000].to_vec()),
    ] {
        let (mut peer, watch) = connect(limits).await;
        peer.send(&bytes).await;
        assert_eq!(peer.close_code().await, Some(1008), "{name}");
        assert_eq!(watch.ending().await, CloseOutcome::Closed(1008), "{name}");
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
    assert_eq!((kind, &payload[..2]), (0x88, &1008u16.to_be_bytes()[..]));
    assert_eq!(watch.ending().await, CloseOutcome::Closed(1008));
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
