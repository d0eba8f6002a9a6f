//! Recipients that stop reading or read slowly: their queue grows within bounds, and no other device waits. (threats: T24)

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::support::peer::text;
use crate::support::{Binary, ConnectOptions, RawClient, Relay, message_id};

/// Messages that are sent to a recipient that does not read.
const FLOOD: u64 = 4000;
/// Data of each message, bytes.
const DATA: usize = 8 * 1024;
/// Senders that share the flood, because one sender may take only half of a queue.
const SENDERS: u64 = 4;

const RATES: [(&str, &str); 6] = [
    ("LIMITS__EXEMPT_CIDRS", "127.0.0.0/8"),
    ("RATE_LIMIT__MESSAGES_PER_MINUTE", "1000000"),
    ("RATE_LIMIT__BURST", "1000000"),
    ("SERVER__TCP_USER_TIMEOUT", "1s"),
    // Only a stalled socket ends a connection in these tests.
    ("HEARTBEAT__INTERVAL", "1h"),
    ("HEARTBEAT__TIMEOUT", "2h"),
];

async fn narrow(relay: std::net::SocketAddr, register: Value) -> RawClient {
    let options = ConnectOptions { receive_buffer: Some(4096), ..ConnectOptions::default() };
    let mut client = RawClient::try_connect(relay, options).await.expect("let in");
    client.register(register).await;
    client
}

/// The outcome of a flood, by the answers to its senders.
#[derive(Debug, Default)]
struct Outcome {
    acked: Vec<u64>,
    full: u64,
}

/// Several senders send a flood and count the answers; each waits for one answer before its next message.
async fn flood(senders: &mut [RawClient], to: &str, count: u64, ttl: u64) -> Outcome {
    let data = "x".repeat(DATA);
    let share = count / senders.len() as u64;
    let floods = senders.iter_mut().enumerate().map(async |(n, sender)| {
        let mut outcome = Outcome::default();
        let template = sender.message(to, 0, &data, ttl).to_string();
        let template = template.replace(&message_id(0), "MESSAGE");
        for number in (n as u64 * share)..((n as u64 + 1) * share) {
            sender.peer.send(&text(template.replace("MESSAGE", &message_id(number)))).await;
            let frame = sender.receive_any().await;
            assert_eq!(frame["payload"]["message_id"], message_id(number), "{frame}");
            match frame["type"].as_str() {
                Some("Ack") => outcome.acked.push(number),
                _ => {
                    assert_eq!(frame["payload"]["code"], 507, "{frame}");
                    outcome.full += 1;
                }
            }
        }
        outcome
    });
    let mut all = Outcome::default();
    for one in futures_util::future::join_all(floods).await {
        all.acked.extend(one.acked);
        all.full += one.full;
    }
    all
}

async fn senders(relay: std::net::SocketAddr) -> Vec<RawClient> {
    let mut senders = Vec::new();
    for _ in 0..SENDERS {
        senders.push(RawClient::plain(relay).await);
    }
    senders
}

/// The page cache of the queue's database, KiB; a flood of stored messages fills it.
const STORE_CACHE: u64 = 16 * 1024;

/// A client that sends messages to itself all the time.
fn bystander(relay: std::net::SocketAddr) -> tokio::task::JoinHandle<()> {
    actix_rt::spawn(async move {
        let mut client = RawClient::plain(relay).await;
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        for number in 0.. {
            tick.tick().await;
            client.send_to_itself(number).await;
        }
    })
}

#[actix_rt::test]
async fn a_stalled_recipient_costs_no_more_than_its_queue_and_delays_no_other_device() {
    let relay = Binary::with(&RATES).await;
    let stalled = narrow(relay.public, json!({"type": "Register"})).await;
    let mut senders = senders(relay.public).await;
    let bystander = bystander(relay.public);
    // The first message of the bystander passes before the flood, and more of them during the flood.
    relay.wait_for("devices", SENDERS + 2).await;
    let before = relay.memory();
    let outcome = flood(&mut senders, &stalled.id, FLOOD, 3600).await;
    let health = relay.health().await;
    // 1,000 messages of 8 KiB and the window; messages that the socket took count as delivered.
    assert!((1000..1200).contains(&outcome.acked.len()), "{} acked", outcome.acked.len());
    assert_eq!(outcome.acked.len() as u64 + outcome.full, FLOOD);
    // The messages in flight at the end of the connection went back to a full queue.
    assert!(health["queued"].as_u64() <= Some(1000 + 64), "{health}");
    let grown = relay.peak_memory().saturating_sub(before);
    assert!(grown < 24 * 1024 + STORE_CACHE, "{grown} KiB more than {before} KiB");
    // The socket is closed within its time limit; messages that were in flight wait again.
    relay.wait_for("connected", SENDERS + 1).await;
    let health = relay.health().await;
    let round = senders[0].id.clone();
    assert!(health["queued"].as_u64() >= Some(900), "{health}");
    assert!(!bystander.is_finished(), "the bystander failed");
    let message = senders[1].message(&round, 1 << 20, "well?", 60);
    senders[1].send(message).await;
    senders[1].expect_frame("Ack").await;
    senders[0].expect_frame("Receive").await;
    bystander.abort();
}

#[actix_rt::test]
async fn messages_that_a_stalled_recipient_never_received_are_reported_as_expired_to_their_senders()
{
    let relay = Relay::with(|settings| {
        settings.server.tcp_user_timeout = Duration::from_secs(1);
        settings.rate_limit.messages_per_minute = 1_000_000.try_into().unwrap();
        settings.rate_limit.burst = 1_000_000.try_into().unwrap();
    });
    let stalled = narrow(relay.public, json!({"type": "Register"})).await;
    let mut senders = senders(relay.public).await;
    let outcome = flood(&mut senders, &stalled.id, 1200, 600).await;
    relay.wait_for("connections", SENDERS).await;
    let health = relay.health().await;
    let waiting = health["queued"].as_u64().expect("a figure");
    assert_eq!(health["in_flight"], 0);
    let delivered = health["delivered"].as_u64().expect("a figure");
    assert_eq!(waiting + delivered, outcome.acked.len() as u64);
    relay.clock.advance(Duration::from_secs(601));
    relay.wait_for("expired", waiting).await;
    relay.wait_for("queued_bytes", 0).await;
    let mut notices = 0;
    for sender in &mut senders {
        // The sender gets one notice for each of its messages; then only the answer to its ping.
        sender.send(json!({"type": "Ping"})).await;
        loop {
            let frame = sender.receive_any().await;
            if frame["type"] == "Pong" {
                break;
            }
            assert_eq!(frame["payload"]["code"], 410, "{frame}");
            notices += 1;
        }
    }
    // The window limits notices as it limits messages, so some notices may come after the answer to the ping.
    for sender in &mut senders {
        if notices == waiting {
            break;
        }
        while notices < waiting {
            sender.send(json!({"type": "Ping"})).await;
            let mut more = 0;
            while sender.receive_any().await["type"] != "Pong" {
                more += 1;
            }
            if more == 0 {
                break;
            }
            notices += more;
        }
    }
    assert_eq!(notices, waiting);
}

#[actix_rt::test]
async fn a_resumable_recipient_that_stalled_gets_its_unconfirmed_messages_in_order_when_it_resumes()
{
    let relay = Binary::with(&RATES).await;
    let register = json!({"type": "Register", "payload": {"resumable": true}});
    let stalled = narrow(relay.public, register).await;
    let mut senders = senders(relay.public).await;
    let outcome = flood(&mut senders, &stalled.id, 600, 3600).await;
    assert_eq!(outcome.acked.len(), 600);
    relay.wait_for("connected", SENDERS).await;
    let mut back = RawClient::resume(relay.public, &stalled.registration["resume_token"]).await;
    assert_eq!(back.registration["queued"], 600);
    let mut next = [0, 1, 2, 3].map(|n: u64| n * 150);
    for _ in 0..600 {
        let received = back.expect_frame("Receive").await;
        let from = senders.iter().position(|sender| received["sender_id"] == sender.id);
        let expected = &mut next[from.expect("one of the senders")];
        assert_eq!(received["message_id"], message_id(*expected));
        *expected += 1;
        let (id, sender) = (&received["message_id"], &received["sender_id"]);
        back.send(json!({"type": "Ack", "payload": {"message_id": id, "sender_id": sender}})).await;
    }
    relay.wait_for("queued", 0).await;
    relay.wait_for("in_flight", 0).await;
    relay.wait_for("delivered", 600).await;
}

#[actix_rt::test]
async fn a_slow_recipient_costs_no_more_than_a_stalled_one_and_is_not_dropped() {
    let relay = Binary::with(&RATES).await;
    let slow = narrow(relay.public, json!({"type": "Register"})).await;
    let id = slow.id.clone();
    let mut senders = senders(relay.public).await;
    let before = relay.memory();
    // A read of 512 bytes every few milliseconds is far slower than the flood.
    let (mut read, write) = tokio::io::split(slow.peer.stream);
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let trickle = actix_rt::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        let mut bytes = 0;
        while stopped.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
            tick.tick().await;
            bytes += read.read(&mut [0; 512]).await.expect("still connected");
        }
        bytes
    });
    let outcome = flood(&mut senders, &id, 1600, 3600).await;
    let grown = relay.peak_memory().saturating_sub(before);
    assert!(grown < 24 * 1024 + STORE_CACHE, "{grown} KiB more than {before} KiB");
    assert!(outcome.full > 0, "{outcome:?}");
    assert_eq!(relay.health().await["connected"], SENDERS + 1, "slow is not stalled");
    stop.send(()).expect("it trickles still");
    assert!(trickle.await.expect("no panic") > 0);
    drop(write);
    relay.wait_for("connected", SENDERS).await;
}
