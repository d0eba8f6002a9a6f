//! Many connections at once: a drain closes all of them, and none leaves memory or descriptors behind.
//! (threats: Faults; platform: H10, H20)

use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::support::peer::{FIN, close, soon};
use crate::support::{Binary, ConnectOptions, RawClient, eventually};

/// Connections that are opened at the same time.
const BATCH: usize = 250;

/// Connects many devices, from several addresses of this machine, so that ports do not run short.
async fn connect_many(relay: &Binary, count: usize) -> Vec<RawClient> {
    let mut clients = Vec::with_capacity(count);
    while clients.len() < count {
        let more = (count - clients.len()).min(BATCH);
        let last = 2 + (clients.len() / 1000) as u8;
        let options = ConnectOptions {
            from: Some(IpAddr::from([127, 0, 0, last])),
            ..ConnectOptions::default()
        };
        let arriving = (0..more).map(async |_| {
            let mut client = RawClient::try_connect(relay.public, options).await.expect("let in");
            client.register(json!({"type": "Register"})).await;
            client
        });
        clients.extend(join_all(arriving).await);
    }
    clients
}

fn settings() -> Vec<(&'static str, &'static str)> {
    vec![
        ("LIMITS__EXEMPT_CIDRS", "127.0.0.0/8"),
        // A plain device stays known for a while, because messages to it must be reported as expired.
        ("SESSION__PLAIN_TTL", "1s"),
    ]
}

#[actix_rt::test]
async fn sigterm_closes_five_hundred_sessions_with_1001_and_the_relay_exits_with_0() {
    for workers in ["1", "2"] {
        let mut settings = settings();
        settings.push(("SERVER__WORKERS", workers));
        let mut relay = Binary::with(&settings).await;
        let clients = connect_many(&relay, 500).await;
        relay.wait_for("connected", 500).await;
        // An unregistered connection has a session, too; a connection without a complete handshake has none.
        let mut unregistered = RawClient::connect(relay.public).await;
        let half = crate::support::http::connect(relay.public, None, None).await;
        let asked = Instant::now();
        relay.signal("TERM");
        let closes = clients.into_iter().map(async |mut client: RawClient| {
            let (first, payload) = client.peer.frame().await.expect("a close");
            assert_eq!((first, &payload[..2]), (FIN | 0x8, &1001_u16.to_be_bytes()[..]));
            client.peer.send(&close(1001)).await;
            client.peer.expect_end().await;
        });
        join_all(closes).await;
        unregistered.expect_closed_with(1001).await;
        drop((unregistered, half));
        let status = relay.exit().await;
        assert_eq!(status, Some(0));
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    }
}

#[actix_rt::test]
async fn ten_thousand_connections_come_and_go_and_leave_nothing_behind() {
    rlimit::increase_nofile_limit(16_000).expect("enough descriptors");
    let relay = Binary::with(&settings()).await;
    drop(connect_many(&relay, 10).await);
    relay.wait_for("devices", 0).await;
    let (descriptors, memory) = (relay.descriptors(), relay.memory());

    let mut after = Vec::new();
    for _ in 0..2 {
        let clients = connect_many(&relay, 5000).await;
        relay.wait_for("connected", 5000).await;
        for (n, mut client) in clients.into_iter().enumerate() {
            match n % 4 {
                0 => client.peer.send(&close(1000)).await,
                1 => client.send(json!({"type": "Ping"})).await,
                2 => {
                    // The client resets the connection instead of closing it.
                    let linger = Some(Duration::ZERO);
                    let socket = socket2::SockRef::from(client.peer.stream.tcp());
                    socket.set_linger(linger).expect("a socket");
                }
                _ => {}
            }
        }
        for figure in ["connections", "connected", "devices", "exchanges", "queued_bytes"] {
            relay.wait_for(figure, 0).await;
        }
        eventually("the descriptors", async || relay.descriptors() <= descriptors).await;
        after.push(relay.memory());
    }
    // The allocator keeps the memory of the first connections, and the next ones use it again. A leak for each connection
    // would show: 1 KiB each is 5 MiB for each round.
    assert!(after[0] < memory + 64 * 1024, "{memory} KiB, then {after:?}");
    assert!(after[1] < after[0] + 4 * 1024, "{memory} KiB, then {after:?}");
    soon("one more", RawClient::plain(relay.public)).await.send_to_itself(1).await;
}
