//! What the binary does besides serving. Each command prints what it found and returns an exit status of sysexits.h.

mod queue;

use std::process::ExitCode;

use crate::cli::Command;
use crate::logging;
use crate::preflight;
use crate::settings::{self, Settings};

/// The settings cannot be used (EX_CONFIG of sysexits.h).
pub const EX_CONFIG: u8 = 78;
/// The command line cannot be read (EX_USAGE).
pub const EX_USAGE: u8 = 64;
/// The relay cannot start or has failed (EX_UNAVAILABLE).
pub const EX_UNAVAILABLE: u8 = 69;

/// Runs a command to its end.
pub fn run(command: Command, settings: &Settings) -> ExitCode {
    match command {
        Command::Queue { what } => queue::run(what, settings),
    }
}

/// Tries what a start would try, without serving. The exit status is that of a start.
pub fn check_config(settings: &Settings) -> ExitCode {
    let mut findings = preflight::try_settings(settings);
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
