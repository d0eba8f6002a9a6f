//! `sealpost token`: makes, lists and revokes access tokens. The commands work on the file of the settings; a relay that runs
//! reads it at its next reload.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::admin_client::{AdminClient, Failed};
use super::text::print;
use super::{EX_UNAVAILABLE, EX_USAGE};
use crate::access::file::{self, ChangeError};
use crate::access::{self, AccessTable, AccessToken, Bounds, SecretHash};
use crate::cli::{Json, NewToken, TokenCommand};
use crate::clock::Clock;
use crate::settings::{AccessMode, Settings};

const NAMES: &str = "a name has 1 to 64 letters, digits, points, hyphens or underscores";
const HOW_TO_RELOAD: &str =
    "a relay that runs takes it over on SIGHUP (systemctl reload sealpost, or kill -HUP)";

pub(super) fn run(what: TokenCommand, settings: &Settings) -> ExitCode {
    let path = &settings.access.tokens_file;
    match what {
        TokenCommand::New(wanted) => {
            let as_json = wanted.json;
            let made = match make(wanted) {
                Ok(made) => made,
                Err(sentence) => return failed(EX_USAGE, &sentence),
            };
            let Ok(secret) = access::fresh_secret() else {
                return failed(EX_UNAVAILABLE, "the operating system has no random bits");
            };
            let token = AccessToken { hash: SecretHash::of(&secret), ..made };
            let name = token.name.clone();
            if let Err(error) = file::add(path, token) {
                return not_changed(&error);
            }
            let made = json!({ "name": &*name, "secret": secret });
            print(&made, as_json, |_| format!("{secret}\n"));
            eprintln!("the token {name} is in {}; its secret is shown only now", path.display());
        }
        TokenCommand::List(Json { json }) => match file::load(path) {
            Ok(table) => return list(&table, json),
            Err(problems) => return not_changed(&ChangeError::Unusable(problems)),
        },
        TokenCommand::Revoke { name, .. } if !access::is_name(&name) => {
            return failed(EX_USAGE, NAMES);
        }
        TokenCommand::Revoke { name, devices, json } => {
            match file::remove(path, &name) {
                Ok(()) => eprintln!("the token {name} is no longer in {}", path.display()),
                // It may have been revoked before.
                Err(ChangeError::Refused(sentence)) if devices => eprintln!("{sentence}"),
                Err(error) => return not_changed(&error),
            }
            if devices {
                return super::answer(end_devices(settings, name, json));
            }
            print(&json!({ "name": name }), json, |_| String::new());
        }
    }
    eprintln!("{HOW_TO_RELOAD}");
    if settings.access.mode == AccessMode::Open {
        eprintln!(
            "note: access.mode is \"open\": everybody may register, with and without a token"
        );
    }
    ExitCode::SUCCESS
}

/// Has the running relay read the tokens again and end the devices of one.
async fn end_devices(settings: &Settings, name: String, json: Json) -> Result<(), Failed> {
    let path = format!("/admin/access/{name}/end-devices");
    let answer = AdminClient::new(settings).post(&path, &json!({})).await?;
    let ended = json!({ "name": name, "devices": answer["devices"] });
    print(&ended, json, |ended| format!("{} devices of {name} have ended\n", ended["devices"]));
    Ok(())
}

/// The token that is wanted, without its secret. The error says what is wrong.
fn make(wanted: NewToken) -> Result<AccessToken, String> {
    let NewToken { name, expires, devices, messages_per_minute, queued_bytes, json: _ } = wanted;
    if !access::is_name(&name) {
        return Err(NAMES.to_owned());
    }
    let expires_ms = expires.as_deref().map(expiry).transpose()?;
    let queued_bytes = queued_bytes.as_deref().map(access::line::queued_bytes).transpose()?;
    let bounds = Bounds { devices, messages_per_minute, queued_bytes };
    Ok(AccessToken { name: name.into(), hash: SecretHash::of(""), expires_ms, bounds })
}

/// A time from now on, or a point in time, in Unix milliseconds.
fn expiry(text: &str) -> Result<u64, String> {
    let now = Clock::system().now().wall_ms;
    match humantime::parse_duration(text) {
        Ok(after) if after >= Duration::from_secs(1) => {
            let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            // Whole seconds, as in the file.
            let at = now.saturating_add(after) / 1_000 * 1_000;
            // The file has years of four digits.
            Some(at).filter(|at| *at < access::line::END_OF_TIME_MS)
        }
        Ok(_) => None,
        Err(_) => access::line::time(text).ok().filter(|at| *at > now),
    }
    .ok_or_else(|| {
        "expires must be a time from now on (30d) or a point in the future (2027-01-01T00:00:00Z)"
            .to_owned()
    })
}

fn list(table: &AccessTable, as_json: bool) -> ExitCode {
    let now = Clock::system().now().wall_ms;
    if as_json {
        let tokens = table.tokens().iter().map(|token| {
            let Bounds { devices, messages_per_minute, queued_bytes } = token.bounds;
            json!({
                "name": token.name.as_ref(),
                "expires": token.expires(),
                "expired": token.is_expired(now),
                "devices": devices,
                "messages_per_minute": messages_per_minute,
                "queued_bytes": queued_bytes,
            })
        });
        println!("{}", tokens.collect::<serde_json::Value>());
        return ExitCode::SUCCESS;
    }
    let widest = table.tokens().iter().map(|token| token.name.len()).max().unwrap_or(0).max(4);
    println!("{:widest$}  {:20}  devices  messages/min  queued bytes", "name", "expires");
    for token in table.tokens() {
        let Bounds { devices, messages_per_minute, queued_bytes } = token.bounds;
        let expires = token.expires().unwrap_or_else(|| "never".to_owned());
        let [devices, rate, bytes] = [
            devices.map(|devices| devices.to_string()),
            messages_per_minute.map(|rate| rate.to_string()),
            queued_bytes.map(|bytes| bytes.to_string()),
        ]
        .map(|bound| bound.unwrap_or_else(|| "-".to_owned()));
        let expired = if token.is_expired(now) { "  expired" } else { "" };
        println!(
            "{:widest$}  {expires:20}  {devices:>7}  {rate:>12}  {bytes:>12}{expired}",
            token.name
        );
    }
    ExitCode::SUCCESS
}

fn not_changed(error: &ChangeError) -> ExitCode {
    match error {
        ChangeError::Refused(sentence) => {
            eprintln!("{sentence}");
            ExitCode::FAILURE
        }
        ChangeError::Unusable(problems) => {
            super::show("", problems);
            ExitCode::from(EX_UNAVAILABLE)
        }
    }
}

fn failed(status: u8, sentence: &str) -> ExitCode {
    eprintln!("{sentence}");
    ExitCode::from(status)
}
