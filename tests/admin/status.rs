//! The relay at a glance, its end, and what helps at the command line.

use serde_json::json;

use crate::support::operator::Operator;
use crate::support::{Binary, Device, Relay};

#[actix_rt::test]
async fn status_shows_on_one_screen_how_the_relay_does() {
    let relay = Relay::start();
    let operator = Operator::of(relay.admin);
    let mut alice = Device::plain(&relay).await;
    let bob = Device::resumable(&relay).await.disconnect(&relay).await;
    alice.send_message(&bob.id, 1, json!({"ttl": 3600})).await;
    alice.expect_ack(1).await;
    relay.advance(90);
    // The walk for the oldest message comes with the sweeper.
    crate::support::eventually("the oldest message", async || {
        let status = operator.json(&["status", "--json"]).await;
        status["oldest_waiting"] == 90
    })
    .await;
    let printed = operator.prints(&["status"]).await;
    for part in [
        concat!("relay        sealpost ", env!("CARGO_PKG_VERSION"), ", up for 1m 30s"),
        "connections  1 of 16000",
        "devices      2 known (0 %), 1 connected, 0 stuck",
        "accepted     1, 0/s",
        "queue        1 messages, ",
        "the oldest for 1m 30s",
        "disk         ",
        "last errors  ",
    ] {
        assert!(printed.contains(part), "{part} is not in\n{printed}");
    }
    assert!(printed.lines().count() < 24, "one screen");
    let top = operator.prints(&["top", "--count", "2", "--interval", "1ms"]).await;
    assert_eq!(top.matches("relay        sealpost").count(), 2, "{top}");
    let top = operator.prints(&["top", "--count", "2", "--interval", "1ms", "--json"]).await;
    let looks = top.lines().map(serde_json::from_str::<serde_json::Value>);
    let looks: Vec<_> = looks.collect::<Result<_, _>>().expect("an object a line");
    assert!(looks.len() == 2 && looks.iter().all(|look| look["accepted"] == 1), "{top}");
}

#[tokio::test]
async fn drain_ends_the_relay_as_a_signal_does() {
    let mut relay = Binary::with(&[]).await;
    let mut alice = Device::plain(&relay).await;
    let printed = Operator::of(relay.admin).prints(&["drain"]).await;
    assert_eq!(printed, "draining 1 connections\n");
    assert_eq!(alice.expect_close().await, Some(1001));
    drop(alice);
    assert_eq!(relay.exit().await, Some(0));
    assert!(relay.log.contains("operator action=Drain"), "{}", relay.log);
    let gone = Operator::of(relay.admin).run(&["status"]).await;
    assert_eq!(gone.code, Some(69));
    assert!(gone.stderr.starts_with(&format!("no relay answers at {}", relay.admin)), "{gone:?}");
}

#[tokio::test]
async fn warnings_are_the_last_errors_of_the_status() {
    let relay = Binary::with(&[("SERVER__ALLOWED_ORIGINS", "null")]).await;
    let status = Operator::of(relay.admin).json(&["status", "--json"]).await;
    let last = &status["last_errors"][0];
    assert_eq!(last["level"], "WARN");
    assert!(
        last["message"].as_str().is_some_and(|text| text.contains("allowed_origins")),
        "{status}"
    );
}

#[tokio::test]
async fn the_manual_and_the_completions_know_every_command() {
    let operator = Operator::of("127.0.0.1:1");
    let page = operator.prints(&["man"]).await;
    for command in ["status", "device show", "queue drop", "drain"] {
        let heading = format!(".SS sealpost {command}\n");
        let section = page.split(&heading).nth(1).unwrap_or_default();
        // With its synopsis.
        let synopsis = format!("\\fBsealpost {command}\\fR");
        assert!(section.lines().take(3).any(|line| line.starts_with(&synopsis)), "{section:.300}");
    }
    for (code, meaning) in sealpost::commands::EXIT_STATUSES {
        let item = format!("\\fB{code}\\fR\n{}\n", meaning.replace('-', "\\-"));
        assert!(page.contains(&item), "{item}");
    }
    for section in [".SH EXIT STATUS\n", ".SH FILES\n", ".SH ENVIRONMENT\n"] {
        assert!(page.contains(section), "{section}");
    }
    // There is one page only.
    let others = page.split("sealpost").filter(|after| after.contains("(1)")).count();
    assert_eq!(others, 0, "{page}");
    for shell in ["bash", "zsh", "fish"] {
        let text = operator.prints(&["completions", shell]).await;
        assert!(text.contains("device") && text.contains("drain"), "{shell}");
    }
}
