//! What Prometheus gets.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::http::{ask_lines, get, handshake_with};
use crate::support::{Device, Relay, eventually, skip};

/// Names that operators' dashboards and alerts are built on: none may vanish. (operations: Seeing it)
const NAMES: &[&str] = &[
    "sealpost_connections",
    "sealpost_registered_devices",
    "sealpost_handshakes_rejected_total",
    "sealpost_connections_closed_total",
    "sealpost_messages_received_total",
    "sealpost_messages_sent_total",
    "sealpost_messages_accepted_total",
    "sealpost_messages_delivered_total",
    "sealpost_messages_expired_total",
    "sealpost_messages_rejected_total",
    "sealpost_rate_limited_total",
    "sealpost_registrations_total",
    "sealpost_access_denied_total",
    "sealpost_store_failing",
    "sealpost_disk_bytes",
    "sealpost_queue_messages",
    "sealpost_queue_bytes",
    "sealpost_inflight_messages",
    "sealpost_forward_seconds",
    "sealpost_ack_seconds",
    "sealpost_commit_seconds",
    "sealpost_sweep_lag_seconds",
    "sealpost_registry_round_messages",
    "sealpost_mailbox_wait_seconds",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "process_open_fds",
];

#[actix_rt::test]
async fn every_name_is_there_from_the_start_and_on_the_admin_listener_only() {
    let relay = Relay::start();
    let scrape = relay.scrape().await;
    let families = scrape.families();
    for name in NAMES {
        assert!(families.contains(name), "{name} is not in\n{}", scrape.text);
    }
    assert_eq!(get(relay.public, "/metrics").await.status, 404);
}

#[actix_rt::test]
async fn what_happens_is_counted_under_its_label() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    alice.send_to(&bob, 1).await;
    alice.expect_ack(1).await;
    bob.receive(1).await;
    bob.ack(1).await;
    bob.send(json!({"type": "Ping"})).await;
    bob.expect_frame("Pong").await;
    alice.send(json!({"type": "Nonsense"})).await;
    alice.expect_error(400).await;
    let nobody = "00000000-0000-4000-8000-000000000000";
    alice.send_message(nobody, 2, json!({})).await;
    alice.expect_error(404).await;
    let foreign = ask_lines(relay.public, &handshake_with("Origin: https://evil.example")).await;
    assert_eq!(foreign.status, 403);
    let (bob_id, token) = (bob.id.clone(), bob.token().to_string());
    bob.leave(&relay).await;

    eventually("the end of bob's connection", async || {
        relay.scrape().await.sum("sealpost_connections_closed_total") == 1.0
    })
    .await;
    let scrape = relay.scrape().await;
    for (name, value) in [
        ("sealpost_connections", 1.0),
        ("sealpost_registered_devices", 2.0),
        ("sealpost_connected_devices", 1.0),
        ("sealpost_registrations_total{result=\"registered\"}", 2.0),
        ("sealpost_messages_received_total{type=\"Register\"}", 2.0),
        ("sealpost_messages_received_total{type=\"Send\"}", 2.0),
        ("sealpost_messages_received_total{type=\"Ack\"}", 1.0),
        ("sealpost_messages_received_total{type=\"Ping\"}", 1.0),
        ("sealpost_messages_received_total{type=\"malformed\"}", 1.0),
        ("sealpost_messages_sent_total{type=\"RegisterResponse\"}", 2.0),
        ("sealpost_messages_sent_total{type=\"Receive\"}", 1.0),
        ("sealpost_messages_sent_total{type=\"Ack\"}", 1.0),
        ("sealpost_messages_sent_total{type=\"Pong\"}", 1.0),
        ("sealpost_messages_sent_total{type=\"Error\"}", 2.0),
        ("sealpost_messages_rejected_total{code=\"400\"}", 1.0),
        ("sealpost_messages_rejected_total{code=\"404\"}", 1.0),
        ("sealpost_messages_accepted_total", 1.0),
        ("sealpost_messages_delivered_total", 1.0),
        ("sealpost_handshakes_rejected_total{reason=\"origin\"}", 1.0),
        ("sealpost_forward_seconds_count", 1.0),
        ("sealpost_ack_seconds_count", 1.0),
        ("sealpost_store_failing", 0.0),
    ] {
        assert_eq!(scrape.value(name), value, "{name} in\n{}", scrape.text);
    }
    assert!(scrape.value("sealpost_commit_seconds_count") >= 1.0);
    assert!(scrape.value("sealpost_disk_bytes") > 0.0);
    for secret in [alice.id.as_str(), bob_id.as_str(), token.trim_matches('"')] {
        assert!(!scrape.text.contains(secret), "no label has an id");
    }
    assert!(scrape.labels().iter().all(|label| label.len() < 24), "{:?}", scrape.labels());
}

#[actix_rt::test]
async fn limits_are_counted_by_class_and_expiry_by_its_delay() {
    let relay = Relay::with(|settings| {
        settings.rate_limit.burst = std::num::NonZeroU32::MIN;
        settings.rate_limit.registrations_per_minute = std::num::NonZeroU32::new(2).expect("2");
    });
    let (mut alice, bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    let bob_id = bob.id.clone();
    bob.leave(&relay).await;
    alice.send_message(&bob_id, 1, json!({"ttl": 2})).await;
    alice.expect_ack(1).await;
    alice.send_message(&bob_id, 2, json!({})).await;
    alice.expect_error(429).await;
    relay.advance(3);
    alice.expect_error(410).await;
    let scrape = relay.scrape().await;
    assert_eq!(scrape.value("sealpost_rate_limited_total{class=\"message\"}"), 1.0);
    assert_eq!(scrape.value("sealpost_messages_rejected_total{code=\"429\"}"), 1.0);
    assert_eq!(scrape.value("sealpost_messages_expired_total"), 1.0);
    assert_eq!(scrape.value("sealpost_sweep_lag_seconds_count"), 1.0);
    assert_eq!(scrape.value("sealpost_sweep_lag_seconds_sum"), 1.0, "found a second late");
}

/// accepted = delivered + expired + queued + in flight, in each scrape. (threats: conservation)
#[actix_rt::test]
async fn the_books_balance_in_every_scrape_under_load() {
    let relay = Relay::generous(|settings| settings.server.workers = 2);
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    let balanced = async || {
        let scrape = relay.scrape().await;
        let of = |name: &str| scrape.value(&format!("sealpost_{name}"));
        let ended = of("messages_delivered_total") + of("messages_expired_total");
        let held = of("queue_messages") + of("inflight_messages");
        assert_eq!(of("messages_accepted_total"), ended + held, "{}", scrape.text);
        of("messages_accepted_total")
    };
    for round in 0..20 {
        for number in round * 50..(round + 1) * 50 {
            alice.send_to(&bob, number).await;
        }
        balanced().await;
        for number in round * 50..(round + 1) * 50 {
            bob.receive(number).await;
            bob.ack(number).await;
            alice.expect_ack(number).await;
        }
        balanced().await;
    }
    assert_eq!(balanced().await, 1000.0);
    assert_eq!(
        relay.scrape().await.value("sealpost_messages_received_total{type=\"Send\"}"),
        1000.0
    );
}

#[actix_rt::test]
async fn promtool_has_nothing_to_say_about_a_scrape() {
    let relay = Relay::start();
    let scrape = relay.scrape().await;
    let tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut tool) = tool else {
        return skip("promtool is not installed (Debian package prometheus)");
    };
    tool.stdin.take().expect("a pipe").write_all(scrape.text.as_bytes()).expect("promtool reads");
    let output = tool.wait_with_output().expect("promtool ends");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && text.trim().is_empty(), "{text}");
}
