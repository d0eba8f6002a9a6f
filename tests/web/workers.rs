//! The main scenarios with sessions on two threads and the core on one of them.

use std::collections::HashSet;
use std::time::Duration;

use crate::support::{Device, RawClient, Relay, message_id};
use futures_util::future::join_all;
use serde_json::json;

fn two() -> Relay {
    Relay::with(|settings| {
        settings.server.workers = 2;
        settings.limits.exempt_cidrs = vec!["127.0.0.0/8".parse().expect("a network")];
        settings.rate_limit.messages_per_minute = 1_000_000.try_into().unwrap();
        settings.rate_limit.burst = 1_000_000.try_into().unwrap();
    })
}

#[actix_rt::test]
async fn devices_on_two_threads_talk_wait_expire_and_replace_each_other() {
    let relay = two();
    // Connections are distributed over the threads in turn: some of these pairs share a thread, some do not.
    for _ in 0..4 {
        let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
        let carol = Device::resumable(&relay).await;
        alice.send_to(&bob, 1).await;
        alice.expect_ack(1).await;
        bob.receive(1).await;

        let id = carol.id.clone();
        let token = carol.registration["resume_token"].clone();
        carol.close().await;
        for (number, ttl) in [(2, 300), (3, 30)] {
            alice.send(alice.message_to(&id, number, json!({"ttl": ttl}))).await;
            alice.expect_ack(number).await;
        }
        relay.clock.advance(Duration::from_secs(31));
        alice.expect_error(410).await;
        let register = json!({"type": "Register", "payload": {"resume_token": token}});
        let mut carol = Device::register(&relay, register.clone()).await;
        carol.receive(2).await;
        let mut newer = Device::register(&relay, register).await;
        carol.expect_error(409).await;
        carol.expect_closed_with(4409).await;
        newer.receive(2).await;
        newer.ack(2).await;
        newer.expect_nothing().await;
    }
    relay.wait_for("connections", 0).await;
    relay.wait_for("connected", 0).await;
}

#[actix_rt::test]
async fn a_crowd_on_two_threads_gets_each_message_once_and_in_order() {
    const DEVICES: usize = 40;
    const MESSAGES: u64 = 100;
    let relay = two();
    let clients = join_all((0..DEVICES).map(|_| RawClient::plain(relay.public))).await;
    let ids: Vec<String> = clients.iter().map(|client| client.id.clone()).collect();
    // Each client sends all messages to the next client at once, without waiting for answers.
    let talk = clients.into_iter().enumerate().map(async |(n, mut client)| {
        let (next, before) = (&ids[(n + 1) % DEVICES], &ids[(n + DEVICES - 1) % DEVICES]);
        let bytes: Vec<u8> = (0..MESSAGES)
            .flat_map(|number| {
                let message = client.message(next, number, "sealed", 600);
                crate::support::peer::text(message.to_string())
            })
            .collect();
        client.peer.send(&bytes).await;
        // A message without credit is acked when it is durable; a later one may be in flight first: Acks have no order.
        let (mut unacked, mut received) = ((0..MESSAGES).map(message_id).collect(), 0);
        let unacked: &mut HashSet<String> = &mut unacked;
        while !unacked.is_empty() || received < MESSAGES {
            let frame = client.receive_any().await;
            let id = frame["payload"]["message_id"].as_str().expect("an id");
            match frame["type"].as_str() {
                Some("Ack") => assert!(unacked.remove(id), "acked twice: {frame}"),
                Some("Receive") => {
                    assert_eq!(frame["payload"]["sender_id"], *before);
                    assert_eq!(id, message_id(received));
                    received += 1;
                }
                _ => panic!("{frame}"),
            }
        }
        client
    });
    let clients = join_all(talk).await;
    let all = (DEVICES as u64) * MESSAGES;
    relay.wait_for("delivered", all).await;
    relay.wait_for("in_flight", 0).await;
    drop(clients);
    relay.wait_for("connections", 0).await;
    relay.wait_for("connected", 0).await;
}

#[actix_rt::test]
async fn connections_that_end_in_the_middle_of_everything_leave_nothing_on_two_threads() {
    let relay = two();
    for round in 0..5 {
        let ends = (0..60).map(async |n| {
            let mut client = RawClient::connect(relay.public).await;
            client.send(json!({"type": "Register"})).await;
            match n % 3 {
                // The connection ends during its registration.
                0 => {}
                1 => {
                    client.expect_frame("RegisterResponse").await;
                }
                _ => {
                    let _ = socket2::SockRef::from(client.peer.stream.tcp())
                        .set_linger(Some(Duration::ZERO));
                }
            }
        });
        join_all(ends).await;
        relay.wait_for("connections", 0).await;
        relay.wait_for("connected", 0).await;
        let mut device = RawClient::plain(relay.public).await;
        device.send_to_itself(round).await;
    }
}
