//! However a connection ends, its session stops exactly once ([`Watch::ending`] checks it).

use std::{net::Shutdown, time::Duration};

use sealpost::transport::{CloseOutcome, Limits};
use socket2::SockRef;
use tokio::io::AsyncReadExt as _;

use super::{
    peer::{FIN, PING, PONG, close, frame, soon, text},
    session::{Report, connect},
};

fn linger(linger: Duration) -> Limits {
    Limits { linger, ..Limits::default() }
}

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(20);

#[actix_rt::test]
async fn the_end_of_the_peers_stream_stops_the_session() {
    let (mut peer, mut watch) = connect(linger(LONG)).await;
    peer.send(&text("last message")).await;
    SockRef::from(peer.stream.tcp()).shutdown(Shutdown::Write).unwrap();
    watch.expect(Report::text("last message")).await;
    peer.expect_text("last message").await;
    peer.expect_end().await;
    assert_eq!(watch.ending().await, CloseOutcome::Gone);
}

#[actix_rt::test]
async fn an_end_of_stream_inside_a_frame_stops_the_session() {
    let (mut peer, watch) = connect(linger(LONG)).await;
    peer.send(&text("never complete")[..9]).await;
    drop(peer);
    assert_eq!(watch.ending().await, CloseOutcome::Gone);
}

#[actix_rt::test]
async fn a_reset_stops_the_session() {
    let (mut peer, mut watch) = connect(linger(LONG)).await;
    peer.send(&frame(FIN | PING, b"")).await;
    peer.expect(FIN | PONG, b"").await;
    watch.report().await;
    SockRef::from(peer.stream.tcp()).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    assert_eq!(watch.ending().await, CloseOutcome::Gone);
}

#[actix_rt::test]
async fn our_close_and_the_peers_answer_end_the_connection() {
    let (mut peer, mut watch) = connect(linger(LONG)).await;
    peer.send(&[text("bye"), text("not handled")].concat()).await;
    watch.expect(Report::text("bye")).await;
    peer.expect(FIN | 0x8, [&4000u16.to_be_bytes()[..], b"as you wish"].concat()).await;
    peer.send(&[text("not handled"), close(4000)].concat()).await;
    peer.expect_end().await;
    assert_eq!(watch.ending().await, CloseOutcome::Closed(4000));
}

#[actix_rt::test]
async fn our_close_ends_the_connection_of_a_peer_that_never_answers() {
    let (mut peer, watch) = connect(linger(SHORT)).await;
    peer.send(&text("bye")).await;
    assert_eq!(peer.close_code().await, Some(4000));
    peer.expect_end().await;
    assert_eq!(watch.ending().await, CloseOutcome::Closed(4000));
}

#[actix_rt::test]
async fn a_panic_of_one_session_ends_only_its_own_connection() {
    let (mut other, _other) = connect(Limits::default()).await;
    for command in ["panic", "panic twice"] {
        let (mut peer, watch) = connect(linger(LONG)).await;
        peer.send(&text(command)).await;
        assert_eq!(peer.close_code().await, Some(1011));
        peer.send(&close(1011)).await;
        peer.expect_end().await;
        assert_eq!(watch.ending().await, CloseOutcome::Panicked);
    }
    other.send(&text("well?")).await;
    other.expect_text("well?").await;
}

#[actix_rt::test]
async fn a_panic_in_stopped_ends_the_connection() {
    let (mut peer, watch) = connect(linger(SHORT)).await;
    watch.act(|session, _| session.panic_in_stopped = true).await;
    peer.send(&close(1000)).await;
    while peer.frame().await.is_some() {}
    assert_eq!(watch.ending().await, CloseOutcome::Panicked);
}

#[actix_rt::test]
async fn a_connection_that_the_runtime_drops_stops_its_session() {
    let (mut peer, mut watch) = connect(Limits::default()).await;
    watch.task.abort();
    assert!(soon("the abort", &mut watch.task).await.is_err());
    watch.expect_stopped().await;
    peer.expect_end().await;
}

#[actix_rt::test]
async fn a_dropped_connection_survives_a_panic_in_stopped() {
    let (mut peer, mut watch) = connect(Limits::default()).await;
    watch.act(|session, _| session.panic_in_stopped = true).await;
    watch.task.abort();
    assert!(soon("the abort", &mut watch.task).await.is_err_and(|error| error.is_cancelled()));
    watch.expect_stopped().await;
    peer.expect_end().await;
}

#[actix_rt::test]
async fn input_from_before_the_peer_hung_up_is_handled() {
    // The answers meet a closed socket, and the reset that they cause must not cost the messages
    // that are still unread.
    let (mut peer, mut watch) = connect(Limits::default()).await;
    let all: Vec<u8> = (0..500).flat_map(|n| text(format!("message {n}"))).collect();
    peer.send(&all).await;
    drop(peer);
    for n in 0..500 {
        watch.expect(Report::text(&format!("message {n}"))).await;
    }
    assert_eq!(watch.ending().await, CloseOutcome::Gone);
}

#[actix_rt::test]
async fn an_ended_connection_is_polled_no_more_than_it_must() {
    let (mut peer, watch) = connect(linger(Duration::from_millis(200))).await;
    peer.send(&frame(FIN | 0x3, b"")).await;
    assert_eq!(peer.close_code().await, Some(1002));
    let before = watch.polls();
    assert_eq!(peer.stream.read(&mut [0; 16]).await.unwrap_or(0), 0);
    let polls = watch.polls() - before;
    assert!(polls < 10, "{polls} polls while lingering");
    assert_eq!(watch.ending().await, CloseOutcome::Closed(1002));
}
