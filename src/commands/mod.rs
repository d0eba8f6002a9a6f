//! What the binary does besides serving. Each command prints what it found and returns an exit status of sysexits.h.

pub mod admin_client;
mod backup;
mod device;
mod drain;
mod live_queue;
mod manual;
mod queue;
mod status;
mod text;
mod token;

use std::future::Future;
use std::process::ExitCode;

use self::admin_client::Failed;
use crate::cli::Command;
use crate::logging;
use crate::preflight;
use crate::settings::{self, Settings};

/// The command line cannot be read (EX_USAGE).
pub const EX_USAGE: u8 = 64;
/// The relay cannot start, has failed, or is not there (EX_UNAVAILABLE).
pub const EX_UNAVAILABLE: u8 = 69;
/// A fault of the relay (EX_SOFTWARE).
pub const EX_SOFTWARE: u8 = 70;
/// A file could not be written (EX_IOERR).
pub const EX_IOERR: u8 = 74;
/// The relay does not serve this user (EX_NOPERM).
pub const EX_NOPERM: u8 = 77;
/// The settings cannot be used (EX_CONFIG).
pub const EX_CONFIG: u8 = 78;
/// A second signal has ended the relay at once: 128 and the number of SIGINT.
pub const EX_INTERRUPTED: u8 = 130;

/// Every exit status of the binary and what it means, for the manual page and docs/operations.md.
pub const EXIT_STATUSES: &[(u8, &str)] = &[
    (0, "done; a relay has ended in an orderly way"),
    (1, "the relay refuses, for example an unknown device; or a check has found damage"),
    (EX_USAGE, "the command line cannot be read, or an argument is malformed"),
    (EX_UNAVAILABLE, "no relay answers, or a file or address cannot be used"),
    (EX_SOFTWARE, "a fault of the relay; please report it"),
    (
        EX_IOERR,
        "the queue's file is gone or a sync has failed; of backup: the copy could not be received or written",
    ),
    (EX_NOPERM, "the relay does not serve this user: the token or the socket's mode"),
    (EX_CONFIG, "the settings are refused"),
    (EX_INTERRUPTED, "a second signal has ended the relay at once"),
];

/// Prints what clap has to say instead of a parsed command line: help and version are what was asked for, all else is a
/// mistake. clap's own exit status for a mistake is 2, which no service manager knows.
pub fn print_parse_error(instead: &clap::Error) -> ExitCode {
    // Nothing is left to say to a terminal that is gone.
    let _ = instead.print();
    if instead.use_stderr() { ExitCode::from(EX_USAGE) } else { ExitCode::SUCCESS }
}

/// Runs a command to its end.
pub fn run(command: Command, settings: &Settings) -> ExitCode {
    match command {
        Command::Queue { what } => queue::run(what, settings),
        Command::Backup { directory, json } => answer(backup::run(settings, &directory, json)),
        Command::Token { what } => token::run(what, settings),
        Command::Status(json) => answer(status::run(settings, json)),
        Command::Top { interval, count, json } => {
            answer(status::top(settings, interval, count, json))
        }
        Command::Device { what } => answer(device::run(settings, what)),
        Command::Drain(json) => answer(drain::run(settings, json)),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man => manual::page(),
    }
}

/// Runs a command that asks a relay, on a runtime of its own.
fn answer(command: impl Future<Output = Result<(), Failed>>) -> ExitCode {
    answer_or(command, |failed| {
        eprintln!("{failed}");
        failed.code()
    })
}

/// As [`answer`], with another end of what fails.
fn answer_or(
    command: impl Future<Output = Result<(), Failed>>,
    otherwise: impl FnOnce(Failed) -> ExitCode,
) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(failed) => {
            eprintln!("{failed}");
            return ExitCode::from(EX_UNAVAILABLE);
        }
    };
    match runtime.block_on(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => otherwise(failed),
    }
}

/// Tries what a start would try, without serving; the addresses only if another process may not hold them. `note` is on where
/// the settings come from. The exit status is that of a start.
pub fn check_config(settings: &Settings, note: Option<String>, with_addresses: bool) -> ExitCode {
    let mut findings = preflight::try_settings(settings, with_addresses);
    findings.notes.extend(note);
    findings.notes.extend(settings::unread_variables(std::env::vars_os().map(|(name, _)| name)));
    findings.notes.extend(logging::mistake_in_rust_log());
    findings.notes.extend(preflight::raise_descriptor_limit(settings));
    show("note: ", &findings.notes);
    show("", &findings.problems);
    if findings.problems.is_empty() {
        println!("settings are valid");
        return ExitCode::SUCCESS;
    }
    ExitCode::from(EX_UNAVAILABLE)
}

/// Prints lines for the operator, each with what it is.
pub fn show(kind: &str, lines: &[String]) {
    for line in lines {
        eprintln!("{kind}{line}");
    }
}
