//! The manual page and the completions, made from the definition of the command line.

use std::io::{self, Write as _, stdout};
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::EX_UNAVAILABLE;
use crate::cli::Cli;

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
    let page = clap_mangen::Man::new(command.clone());
    page.render(text)?;
    render_commands(&command, text)
}

/// Each command, with what it takes, as a section of the page.
fn render_commands(command: &clap::Command, text: &mut Vec<u8>) -> io::Result<()> {
    for child in command.get_subcommands().filter(|it| !it.is_hide_set() && it.get_name() != "help")
    {
        let name = child.get_display_name().unwrap_or(child.get_name()).replace('-', " ");
        writeln!(text, ".SH {}", name.to_uppercase())?;
        let page = clap_mangen::Man::new(child.clone());
        page.render_description_section(text)?;
        page.render_options_section(text)?;
        render_commands(child, text)?;
    }
    Ok(())
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
