//! What clients do that an operator can act on, as log lines whose number is limited: a flood must not become one of the log.
//!
//! Each incident has one text, which docs/operations.md explains. The fields are address, device (shortened), connection, origin
//! or host, and reason, where they are known.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use log::kv::Value;
use log::{Level, Record};

use crate::clock::{Clock, Moment};

/// Lines of one incident in one [`WINDOW`].
const LINES: u64 = 10;
const WINDOW: Duration = Duration::from_secs(60);
const TARGET: &str = "sealpost::clients";

/// What a client has done, or what was done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incident {
    /// A client sends far above its rates.
    Flooding,
    /// A client breaks the protocol: malformed frames, binary messages, wrong WebSocket frames, too slow messages.
    ProtocolBroken,
    /// A client does not read what the relay sends.
    NotReading,
    /// The page of another site wants to connect.
    ForeignOrigin,
    /// The admin address is asked by another name.
    ForeignHost,
    /// A request that is no handshake, or no HTTP.
    BadRequest,
    /// An address has as many connections as one may.
    AddressFull,
    /// The relay has as many connections as it may.
    RelayFull,
    /// A resume token is not good.
    ResumeRefused,
    /// A registration has no good access token, or that token is used up.
    AccessDenied,
    /// An address registers too often.
    RegistrationsLimited,
    /// A TLS handshake has failed.
    TlsFailed,
    /// A request to the admin address has no right to it.
    OperatorRefused,
    /// A connected device has confirmed nothing for a long time although messages wait.
    Stuck,
}

impl Incident {
    pub const ALL: [Self; 14] = [
        Self::Flooding,
        Self::ProtocolBroken,
        Self::NotReading,
        Self::ForeignOrigin,
        Self::ForeignHost,
        Self::BadRequest,
        Self::AddressFull,
        Self::RelayFull,
        Self::ResumeRefused,
        Self::AccessDenied,
        Self::RegistrationsLimited,
        Self::TlsFailed,
        Self::OperatorRefused,
        Self::Stuck,
    ];

    /// The line, without its fields.
    pub fn text(self) -> &'static str {
        match self {
            Self::Flooding => "client closed for flooding",
            Self::ProtocolBroken => "client closed for breaking the protocol",
            Self::NotReading => "client closed because it does not read",
            Self::ForeignOrigin => "connection of a page refused",
            Self::ForeignHost => "admin request for another host refused",
            Self::BadRequest => "request refused",
            Self::AddressFull => "connection refused, its address has too many",
            Self::RelayFull => "connection refused, the relay is full",
            Self::ResumeRefused => "resume token refused",
            Self::AccessDenied => "registration refused, no good access token",
            Self::RegistrationsLimited => "registrations of an address limited",
            Self::TlsFailed => "TLS handshake failed",
            Self::OperatorRefused => "admin request refused",
            Self::Stuck => "a connected device takes nothing: its window has stayed full",
        }
    }

    fn level(self) -> Level {
        match self {
            Self::ProtocolBroken
            | Self::NotReading
            | Self::BadRequest
            | Self::ResumeRefused
            | Self::TlsFailed => Level::Info,
            _ => Level::Warn,
        }
    }
}

/// What is known of an incident. A text that a client chose must have been shortened.
#[derive(Default)]
pub struct Details {
    pub address: Option<IpAddr>,
    pub device: Option<String>,
    pub connection: Option<u64>,
    /// A header of the client's, by its name.
    pub header: Option<(&'static str, String)>,
    pub reason: Option<String>,
}

impl Details {
    pub fn of(address: IpAddr) -> Self {
        Self { address: Some(address), ..Self::default() }
    }

    pub fn because(self, reason: impl Display) -> Self {
        Self { reason: Some(reason.to_string()), ..self }
    }
}

/// The lines of one incident.
#[derive(Debug, Default)]
struct Lines {
    since: Moment,
    written: u64,
    /// Since the last line.
    left_out: u64,
}

/// The log of incidents; all threads of a relay share it.
#[derive(Debug)]
pub struct ClientLog {
    clock: Clock,
    lines: [Mutex<Lines>; Incident::ALL.len()],
}

impl ClientLog {
    pub fn new(clock: Clock) -> Self {
        Self { clock, lines: Default::default() }
    }

    /// Writes a line, unless there were too many of this incident within a minute. `details` are asked for only if there is one.
    pub fn report(&self, incident: Incident, details: impl FnOnce() -> Details) {
        if let Some(left_out) = self.take(incident) {
            write(incident, &details(), left_out);
        }
    }

    /// Writes how many lines were left out of incidents that have stopped since; to be called each minute.
    pub fn summarize(&self) {
        for incident in Incident::ALL {
            let left_out = {
                let mut lines = self.lines_of(incident);
                let is_over = self.clock.moment() >= lines.since + WINDOW;
                if is_over { std::mem::take(&mut lines.left_out) } else { 0 }
            };
            if left_out > 0 {
                write(incident, &Details::default(), left_out);
            }
        }
    }

    /// The lines come at once again, after a reload of the settings.
    pub fn reset(&self) {
        for incident in Incident::ALL {
            self.lines_of(incident).written = 0;
        }
    }

    /// How many were left out before this line; `None` if this one is left out.
    fn take(&self, incident: Incident) -> Option<u64> {
        let now = self.clock.moment();
        let mut lines = self.lines_of(incident);
        if now >= lines.since + WINDOW {
            (lines.since, lines.written) = (now, 0);
        }
        if lines.written >= LINES {
            lines.left_out += 1;
            return None;
        }
        lines.written += 1;
        Some(std::mem::take(&mut lines.left_out))
    }

    fn lines_of(&self, incident: Incident) -> std::sync::MutexGuard<'_, Lines> {
        self.lines[incident as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(incident: Incident, details: &Details, left_out: u64) {
    if incident.level() > log::max_level() {
        return;
    }
    let Details { address, device, connection, header, reason } = details;
    let address = address.map(|address| address.to_string());
    let fields: Vec<(&str, Value<'_>)> = [
        address.as_ref().map(|address| ("address", Value::from_display(address))),
        device.as_ref().map(|device| ("device", Value::from_display(device))),
        connection.map(|connection| ("connection", Value::from(connection))),
        header.as_ref().map(|(name, text)| (*name, Value::from_display(text))),
        (left_out > 0).then(|| ("left_out", Value::from(left_out))),
        reason.as_ref().map(|reason| ("reason", Value::from_display(reason))),
    ]
    .into_iter()
    .flatten()
    .collect();
    log::logger().log(
        &Record::builder()
            .level(incident.level())
            .target(TARGET)
            .module_path(Some(TARGET))
            .args(format_args!("{}", incident.text()))
            .key_values(&&fields[..])
            .build(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_a_minute_and_the_next_says_how_many_were_left_out() {
        let clock = Clock::still();
        let log = ClientLog::new(clock.clone());
        let taken: Vec<_> = (0..15).map(|_| log.take(Incident::Flooding)).collect();
        assert!(taken[..10].iter().all(|taken| *taken == Some(0)));
        assert!(taken[10..].iter().all(Option::is_none));
        assert_eq!(log.take(Incident::BadRequest), Some(0), "each incident has its own lines");
        clock.advance(WINDOW);
        assert_eq!(log.take(Incident::Flooding), Some(5));
        assert_eq!(log.take(Incident::Flooding), Some(0));
    }

    #[test]
    fn the_lines_have_different_texts() {
        let texts = Incident::ALL.map(Incident::text);
        let different: std::collections::BTreeSet<_> = texts.iter().collect();
        assert_eq!(different.len(), texts.len());
        assert!(Incident::ALL.iter().enumerate().all(|(at, incident)| *incident as usize == at));
    }
}
