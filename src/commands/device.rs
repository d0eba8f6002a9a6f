//! `sealpost device`: looks at devices of a running relay, or does something to one.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::admin_client::{AdminClient, Failed};
use super::text::{bytes, number, print, text, time};
use crate::cli::{DeviceCommand, One};
use crate::settings::Settings;

pub(super) async fn run(settings: &Settings, what: DeviceCommand) -> Result<(), Failed> {
    let client = AdminClient::new(settings);
    match what {
        DeviceCommand::List { queued, connected, blocked, limit, json } => {
            let filter = match (queued, connected, blocked) {
                (true, ..) => "&filter=queued",
                (_, true, _) => "&filter=connected",
                (.., true) => "&filter=blocked",
                _ => "",
            };
            let found = client.get(&format!("/admin/devices?limit={limit}{filter}")).await?;
            print(&found, json, list);
            Ok(())
        }
        DeviceCommand::Show(One { id, json }) => {
            let device = client.get(&path(&id)?).await?;
            print(&device, json, show);
            Ok(())
        }
        DeviceCommand::Kick(one) => act(&client, one, "kick", ["kicked", "not connected"]).await,
        DeviceCommand::Forget(one) => act(&client, one, "forget", ["forgotten", "unknown"]).await,
        DeviceCommand::Block(one) => {
            act(&client, one, "block", ["blocked", "blocked already"]).await
        }
        DeviceCommand::Unblock(one) => {
            act(&client, one, "unblock", ["unblocked", "not blocked"]).await
        }
    }
}

/// An id is written by the operator: nothing else may get into the request.
pub(super) fn path(id: &str) -> Result<String, Failed> {
    let is_id = (1..=36).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let path = is_id.then(|| format!("/admin/devices/{id}"));
    path.ok_or(Failed::Usage("a device id is a UUID, or the beginning of one"))
}

async fn act(
    client: &AdminClient<'_>,
    One { id, json }: One,
    action: &str,
    [changed, unchanged]: [&str; 2],
) -> Result<(), Failed> {
    let done = client.post(&format!("{}/{action}", path(&id)?), &json!({})).await?;
    print(&done, json, |done| {
        let word = if done["changed"] == true { changed } else { unchanged };
        format!("{} {word}\n", text(&done["device"]))
    });
    Ok(())
}

fn list(found: &Value) -> String {
    let mut out = String::from(
        "id                                    state      messages        bytes  access\n",
    );
    let devices = found["devices"].as_array().map_or(&[][..], Vec::as_slice);
    for device in devices {
        let state = match (&device["blocked"], &device["connected"]) {
            (Value::Bool(true), _) => "blocked",
            (_, Value::Bool(true)) => "connected",
            _ => "away",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{}  {state:9} {:>9} {:>12}  {}",
            text(&device["id"]),
            number(device, "messages"),
            number(device, "bytes"),
            text(&device["access"]),
        );
    }
    if found["more"] == true {
        let _ = writeln!(out, "and more: see --limit");
    }
    out
}

/// The cause first: that is what the operator looks for.
fn show(device: &Value) -> String {
    let mut out = format!("{}: {}\n", text(&device["cause"]), text(&device["diagnosis"]));
    let mut line = |name: &str, text: String| {
        let _ = writeln!(out, "{name:14} {text}");
    };
    let seconds = |value: &Value| value.as_u64().map_or_else(|| "-".to_owned(), time);
    line("device", text(&device["id"]));
    let registered = device["registered_at"].as_u64().map_or_else(
        || "at an unknown time".to_owned(),
        |at| {
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(at);
            humantime::format_rfc3339_seconds(at).to_string()
        },
    );
    let kind = if device["resumable"] == true { "resumable" } else { "plain: it cannot come back" };
    line("registered", format!("{registered}, access token {}, {kind}", text(&device["access"])));
    let connection = &device["connection"];
    if connection.is_null() {
        line("connection", "none".to_owned());
    } else {
        let session = &device["session"];
        let heard = match session["error"].as_str() {
            Some(error) => error.to_owned(),
            None => format!(
                "from {}, silent for {}, {} not taken by its socket",
                text(&session["address"]),
                seconds(&session["silent_for"]),
                bytes(number(session, "unwritten_bytes")),
            ),
        };
        line("connection", format!("for {}, {heard}", seconds(&connection["connected_for"])));
        let presence = if connection["held"] == true {
            "Offline: messages are held"
        } else {
            "takes messages"
        };
        line("presence", presence.to_owned());
        let full = match connection["window_full_for"].as_u64() {
            Some(since) if connection["stuck"] == true => {
                format!(", full for {}: stuck", time(since))
            }
            Some(since) => format!(", full for {}", time(since)),
            None => String::new(),
        };
        line(
            "in flight",
            format!(
                "{} of {}{full}",
                number(connection, "in_flight"),
                number(connection, "window")
            ),
        );
    }
    let end = &device["last_end"];
    if !end.is_null() {
        line("last end", format!("code {}, {} ago", text(&end["code"]), seconds(&end["ago"])));
    }
    let queue = &device["queue"];
    line(
        "queue",
        format!(
            "{} of {} messages, {} of {}; {} wait, the oldest for {}, the next expires in {}",
            number(queue, "messages"),
            number(queue, "max_messages"),
            bytes(number(queue, "bytes")),
            bytes(number(queue, "max_bytes")),
            number(queue, "waiting"),
            seconds(&queue["oldest"]),
            seconds(&queue["next_expiry_in"]),
        ),
    );
    line("allowance", format!("{} messages now", number(device, "allowance_left")));
    let history = &device["since_registration"];
    let refused = &history["refused"];
    line(
        "so far",
        format!(
            "{} accepted, {} delivered, {} expired, {} taken over",
            number(history, "accepted"),
            number(history, "delivered"),
            number(history, "expired"),
            number(history, "replaced"),
        ),
    );
    let refused = refused.as_object().into_iter().flatten();
    let refused: Vec<String> = refused
        .filter(|(_, count)| count.as_u64() > Some(0))
        .map(|(code, count)| format!("{count} with {code}"))
        .collect();
    line("refused", if refused.is_empty() { "none".to_owned() } else { refused.join(", ") });
    out
}
