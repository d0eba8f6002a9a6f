//! The manual page and the completions, made from the definition of the command line.

use std::io::{self, Write as _, stdout};
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;

use super::{EX_UNAVAILABLE, EXIT_STATUSES};
use crate::cli::Cli;

/// What the relay and the commands read and write.
const FILES: &[(&str, &str)] = &[
    ("settings.toml", "the settings, in the working directory; --config names another file"),
    (
        "/etc/sealpost/settings.toml",
        "the settings of an installed relay; commands read it where there is no settings.toml",
    ),
    ("/usr/share/sealpost/settings.toml", "every setting with its default and a sentence"),
    ("/etc/sealpost/access-tokens", "the access tokens of an installed relay"),
    ("/var/lib/sealpost", "the queue of an installed relay"),
    ("/run/sealpost/admin.sock", "the admin socket of an installed relay"),
];

/// What is read of the environment.
const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "SEALPOST__SECTION__KEY",
        "a setting, as in SEALPOST__LIMITS__CONNECTIONS=50000; it wins over the file",
    ),
    ("RUST_LOG", "what is logged, instead of log.level"),
    (
        "LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES",
        "sockets of a service manager, see sd_listen_fds(3)",
    ),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID",
        "where and how often a service manager wants a report, see sd_notify(3)",
    ),
];

pub(super) fn completions(shell: Shell) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sealpost", &mut text);
    written(stdout().write_all(&text))
}

/// One page for the binary and all its commands.
pub(super) fn page() -> ExitCode {
    let mut text = Vec::new();
    let rendered = render(&mut text).and_then(|()| stdout().write_all(&text));
    written(rendered)
}

fn render(text: &mut Vec<u8>) -> io::Result<()> {
    let mut command = Cli::command();
    command.build();
    let page = Man::new(command.clone());
    page.render_title(text)?;
    page.render_name_section(text)?;
    page.render_synopsis_section(text)?;
    page.render_description_section(text)?;
    page.render_options_section(text)?;
    writeln!(
        text,
        ".SH COMMANDS\n\\-\\-config and \\-\\-admin\\-listen may stand behind each of them, too."
    )?;
    render_commands(&command, "sealpost", text)?;
    let statuses: Vec<_> =
        EXIT_STATUSES.iter().map(|(code, meaning)| (code.to_string(), *meaning)).collect();
    let statuses = statuses.iter().map(|(code, meaning)| (code.as_str(), *meaning));
    render_list("EXIT STATUS", statuses, text)?;
    render_list("FILES", FILES.iter().copied(), text)?;
    render_list("ENVIRONMENT", ENVIRONMENT.iter().copied(), text)?;
    page.render_version_section(text)
}

/// Each command that does something, with its synopsis and what it takes.
fn render_commands(command: &clap::Command, name: &str, text: &mut Vec<u8>) -> io::Result<()> {
    for child in command.get_subcommands().filter(|it| !it.is_hide_set() && it.get_name() != "help")
    {
        let name = format!("{name} {}", child.get_name());
        if child.has_subcommands() {
            render_commands(child, &name, text)?;
            continue;
        }
        // What every command takes stands before them all.
        let own = child.clone().mut_args(|arg| {
            let is_own = !arg.is_global_set() && arg.get_id() != "help";
            arg.hide(!is_own)
        });
        let mut sections = Vec::new();
        let page = Man::new(own);
        page.render_synopsis_section(&mut sections)?;
        page.render_description_section(&mut sections)?;
        page.render_options_section(&mut sections)?;
        writeln!(text, ".SS {}", escaped(&name))?;
        let sections = String::from_utf8_lossy(&sections);
        // The title of the page has defined the apostrophe.
        let lines = sections.lines().filter(|line| !line.contains(".ds Aq"));
        for line in lines {
            // The sections of a command are paragraphs of one section of the page.
            writeln!(text, "{}", if line.starts_with(".SH ") { ".PP" } else { line })?;
        }
    }
    Ok(())
}

fn render_list<'a>(
    title: &str,
    items: impl IntoIterator<Item = (&'a str, &'a str)>,
    text: &mut Vec<u8>,
) -> io::Result<()> {
    writeln!(text, ".SH {title}")?;
    for (name, meaning) in items {
        writeln!(text, ".TP\n\\fB{}\\fR\n{}", escaped(name), escaped(meaning))?;
    }
    Ok(())
}

/// A hyphen that can be copied from the page is written with a backslash. No line here begins with a point.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('-', "\\-")
}

fn written(result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // `sealpost completions bash | head`
        Err(failed) if failed.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("{failed}");
            ExitCode::from(EX_UNAVAILABLE)
        }
    }
}
