//! Peers that do not read, watermarks, and the pause.

use std::time::Duration;

use sealpost::transport::{CloseOutcome, Limits};

use super::{
    peer::{soon, text},
    session::{Report, connect, connect_narrow},
};

/// Far more than the kernel's buffers take.
const HEAP: usize = 1024 * 1024;
const LONG: Duration = Duration::from_secs(600);

fn patient() -> Limits {
    Limits {
        write_timeout: LONG,
        heartbeat_interval: LONG,
        idle_timeout: LONG,
        ..Limits::default()
    }
}

#[actix_rt::test]
async fn a_session_handles_its_mailbox_while_its_peer_does_not_read() {
    let (mut peer, mut watch) = connect_narrow(patient(), 4096).await;
    watch
        .act(|session, _| {
            session.writer.text("x".repeat(HEAP));
            session.handle.watermark([1, 0]);
            session.writer.text("end");
            session.handle.watermark([2, 0]);
        })
        .await;
    // The mailbox works, the unwritten output is counted, and the peer's input waits in its socket.
    peer.send(&text("ignored for now")).await;
    watch.expect_nothing().await;
    assert!(watch.handle.backlog() > HEAP / 2);
    let before = watch.polls();
    watch.act(|_, _| {}).await;
    assert!(watch.polls() - before < 5, "a blocked connection is not polled for nothing");

    peer.expect_text("x".repeat(HEAP)).await;
    peer.expect_text("end").await;
    peer.expect_text("ignored for now").await;
    let mut seen = Vec::new();
    while !seen.contains(&Report::Written(2)) || !seen.contains(&Report::text("ignored for now")) {
        seen.push(watch.report().await);
    }
    assert_eq!(watch.handle.backlog(), 0);
}

#[actix_rt::test]
async fn watermarks_come_back_in_order_and_only_for_bytes_that_were_written() {
    let (mut peer, mut watch) = connect_narrow(patient(), 4096).await;
    watch
        .act(|session, _| {
            session.writer.text("small");
            session.handle.watermark([1, 0]);
        })
        .await;
    watch.expect(Report::Written(1)).await;
    watch.handle.watermark([2, 0]);
    watch.expect(Report::Written(2)).await;
    for mark in 3..10 {
        watch
            .act(move |session, _| {
                session.writer.text("y".repeat(HEAP / 8));
                session.handle.watermark([mark, 0]);
            })
            .await;
    }
    peer.expect_text("small").await;
    let mut last = 2;
    for mark in 3..10 {
        peer.expect_text("y".repeat(HEAP / 8)).await;
        // The peer has read the bytes up to `mark`, so the socket has taken them.
        while last < mark {
            match watch.report().await {
                Report::Written(taken) => {
                    assert!(taken > last);
                    last = taken;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(last, 9);
}

#[actix_rt::test]
async fn unwritten_output_over_the_bound_drops_the_peer() {
    let limits = Limits { outbound_max: HEAP / 2, ..patient() };
    let (peer, watch) = connect_narrow(limits, 4096).await;
    watch.act(|session, _| session.writer.text("x".repeat(HEAP))).await;
    assert_eq!(watch.ending().await, CloseOutcome::Stalled);
    drop(peer);
}

#[actix_rt::test]
async fn unwritten_output_without_progress_drops_the_peer() {
    let limits = Limits { write_timeout: Duration::from_millis(30), ..patient() };
    let (peer, watch) = connect_narrow(limits, 4096).await;
    watch.act(|session, _| session.writer.text("x".repeat(HEAP))).await;
    assert_eq!(watch.ending().await, CloseOutcome::Stalled);
    drop(peer);
}

#[actix_rt::test]
async fn output_that_nobody_reads_does_not_keep_a_connection() {
    let limits = Limits { write_timeout: Duration::from_millis(30), ..patient() };
    let (peer, watch) = connect_narrow(limits, 4096).await;
    watch
        .act(|session, ctx| {
            session.writer.text("x".repeat(HEAP));
            session.writer.close(1001, "going", ctx);
        })
        .await;
    assert_eq!(watch.ending().await, CloseOutcome::Stalled);
    drop(peer);
}

#[actix_rt::test]
async fn the_last_output_is_written_to_a_peer_that_reads_late() {
    let (mut peer, watch) = connect_narrow(patient(), 4096).await;
    watch
        .act(|session, ctx| {
            session.writer.text("x".repeat(HEAP));
            session.writer.close(1001, "going", ctx);
        })
        .await;
    peer.expect_text("x".repeat(HEAP)).await;
    assert_eq!(peer.close_code().await, Some(1001));
    drop(peer);
    assert_eq!(watch.ending().await, CloseOutcome::Closed(1001));
}

#[actix_rt::test]
async fn a_pause_is_exact_to_the_frame() {
    let (mut peer, mut watch) = connect(patient()).await;
    peer.send(&[text("one"), text("pause"), text("two"), text("three")].concat()).await;
    watch.expect(Report::text("one")).await;
    watch.expect(Report::text("pause")).await;
    peer.expect_text("one").await;
    watch.expect_nothing().await;
    let before = watch.polls();
    watch.handle.pause(false);
    watch.expect(Report::text("two")).await;
    watch.expect(Report::text("three")).await;
    peer.expect_text("two").await;
    peer.expect_text("three").await;
    assert!(watch.polls() - before < 10);
}

#[actix_rt::test]
async fn a_peer_that_hung_up_during_a_pause_is_noticed_after_it() {
    let (mut peer, mut watch) = connect(patient()).await;
    peer.send(&[text("pause"), text("two")].concat()).await;
    watch.expect(Report::text("pause")).await;
    drop(peer);
    watch.act(|session, _| session.handle.pause(false)).await;
    watch.expect(Report::text("two")).await;
    assert_eq!(soon("the end", watch.ending()).await, CloseOutcome::Gone);
}
