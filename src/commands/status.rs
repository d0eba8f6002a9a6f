//! `sealpost status` and `sealpost top`: one screen on how a running relay does.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, stdout};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::admin_client::{AdminClient, Failed};
use super::text::{bytes, number, share, text, time};
use crate::cli::Json;
use crate::settings::Settings;

/// The time between the two looks that rates are made of.
const RATE_TIME: Duration = Duration::from_secs(1);
/// Clears a terminal.
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(super) async fn run(settings: &Settings, Json { json }: Json) -> Result<(), Failed> {
    let client = AdminClient::new(settings);
    let first = client.get("/admin/status").await?;
    if json {
        println!("{first:#}");
        return Ok(());
    }
    let began = Instant::now();
    tokio::time::sleep(RATE_TIME).await;
    let second = client.get("/admin/status").await?;
    print!("{}", screen(&second, Some((&first, began.elapsed()))));
    Ok(())
}

/// The same again and again, `count` times or until a signal ends the process.
pub(super) async fn top(
    settings: &Settings,
    interval: Duration,
    count: Option<u64>,
    Json { json }: Json,
) -> Result<(), Failed> {
    let client = AdminClient::new(settings);
    let mut before: Option<(Value, Instant)> = None;
    let mut looks = 0;
    loop {
        let status = client.get("/admin/status").await?;
        let rates = before.as_ref().map(|(status, at)| (status, at.elapsed()));
        if json {
            println!("{status}");
        } else {
            let clear = if stdout().is_terminal() { CLEAR } else { "" };
            print!("{clear}{}", screen(&status, rates));
        }
        before = Some((status, Instant::now()));
        looks += 1;
        if count.is_some_and(|count| looks >= count) {
            return Ok(());
        }
        if !json {
            println!();
        }
        tokio::time::sleep(interval).await;
    }
}

fn screen(status: &Value, before: Option<(&Value, Duration)>) -> String {
    let rate = |key: &str| {
        let Some((before, passed)) = before else { return String::new() };
        let more = number(status, key).saturating_sub(number(before, key));
        format!(", {:.0}/s", more as f64 / passed.as_secs_f64().max(0.001))
    };
    let of = |key: &str| number(status, key);
    let state = match (&status["draining"], &status["store_failing"]) {
        (Value::Bool(true), _) => ", DRAINING",
        (_, Value::Bool(true)) => ", THE DISK TAKES NO WRITES",
        _ => "",
    };
    let mut out = String::new();
    // Writing to a String cannot fail.
    let mut line = |name: &str, text: String| {
        let _ = writeln!(out, "{name:12} {text}");
    };
    line(
        "relay",
        format!("sealpost {}, up for {}{state}", text(&status["version"]), time(of("uptime"))),
    );
    line(
        "connections",
        format!(
            "{} of {} ({})",
            of("connections"),
            of("max_connections"),
            share(of("connections"), of("max_connections"))
        ),
    );
    line(
        "devices",
        format!(
            "{} known ({}), {} connected, {} stuck",
            of("devices"),
            share(of("devices"), of("max_devices")),
            of("connected"),
            of("stuck")
        ),
    );
    line("accepted", format!("{}{}", of("accepted"), rate("accepted")));
    line("delivered", format!("{}{}", of("delivered"), rate("delivered")));
    line("expired", format!("{}{}", of("expired"), rate("expired")));
    line("in flight", of("in_flight").to_string());
    let oldest = match status["oldest_waiting"].as_u64() {
        Some(age) => format!(", the oldest for {}", time(age)),
        None => String::new(),
    };
    line(
        "queue",
        format!(
            "{} messages, {} of {} ({}){oldest}",
            of("queued"),
            bytes(of("queued_bytes")),
            bytes(of("max_queued_bytes")),
            share(of("queued_bytes"), of("max_queued_bytes"))
        ),
    );
    line("disk", bytes(of("disk_bytes")));
    let errors = status["last_errors"].as_array().map_or(&[][..], Vec::as_slice);
    for error in errors {
        let at = humantime::format_rfc3339_seconds(
            std::time::UNIX_EPOCH + Duration::from_secs(number(error, "at")),
        );
        line("last errors", format!("{at} {} {}", text(&error["level"]), text(&error["message"])));
    }
    if errors.is_empty() {
        line("last errors", "none".to_owned());
    }
    out
}
