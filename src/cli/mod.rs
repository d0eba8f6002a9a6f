//! The command line. Its flags win over the environment and the file. There are few of them: each setting has one name,
//! and only those that a first try needs have a flag.

mod device;
mod queue;
mod token;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

pub use device::{DeviceCommand, One};
pub use queue::{Dropped, QueueCommand};
pub use token::{NewToken, TokenCommand};

/// A self-hosted relay for end-to-end-encrypted devices.
///
/// Settings: built-in defaults, then settings.toml in the working directory, then the environment
/// (SEALPOST__SECTION__KEY), then these flags. Commands, --check-config and --print-config read
/// /etc/sealpost/settings.toml where there is no settings.toml.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "sealpost", version)]
pub struct Cli {
    /// Read the settings from FILE, which must exist, instead of settings.toml
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    // Text, because an address that cannot be read is listed with all other problems of the settings.
    /// Listen for devices on ADDR (server.listen)
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,

    /// Listen for operators, with health, on ADDR (server.admin_listen)
    #[arg(long, global = true, value_name = "ADDR")]
    pub admin_listen: Option<String>,

    /// Check the settings, and whether this machine allows them; say what is wrong and end
    #[arg(long, conflicts_with = "print_config")]
    pub check_config: bool,

    /// With --check-config: do not try the addresses, because a socket unit may hold them
    #[arg(long, requires = "check_config")]
    pub skip_addresses: bool,

    /// Print the settings as they would be used, in the form of settings.toml, and end
    #[arg(long)]
    pub print_config: bool,

    /// What to do instead of serving
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The settings of the Debian package.
const INSTALLED_SETTINGS: &str = "/etc/sealpost/settings.toml";

impl Cli {
    /// What looks at the relay that a package has installed needs no `--config`. A relay is never started that way: it
    /// would take the installed one's queue.
    #[must_use]
    pub fn with_installed_settings(self) -> Self {
        let is_here = Path::new("settings.toml").exists();
        let is_installed = Path::new(INSTALLED_SETTINGS).exists();
        self.with_settings_of(is_here, is_installed)
    }

    fn with_settings_of(mut self, is_here: bool, is_installed: bool) -> Self {
        let serves = self.command.is_none() && !self.check_config && !self.print_config;
        if !serves && self.config.is_none() && !is_here && is_installed {
            self.config = Some(INSTALLED_SETTINGS.into());
        }
        self
    }

    /// A sentence if the settings are those of the package: the operator may have meant others.
    pub fn note_on_settings(&self) -> Option<String> {
        let is_installed = self.config.as_deref() == Some(Path::new(INSTALLED_SETTINGS));
        is_installed.then(|| format!("the settings are those of {INSTALLED_SETTINGS}"))
    }
}

/// How a command prints what it has found.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Json {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What the binary does besides serving.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show how a running relay does: version, sessions, messages, queue
    Status(Json),
    /// Show the status again and again, every 2 s
    Top {
        /// The time between two looks
        #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
        interval: Duration,
        /// End after N looks instead of at Ctrl-C
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        #[command(flatten)]
        json: Json,
    },
    /// Look at devices of a running relay, or do something to one
    Device {
        /// What to do
        #[command(subcommand)]
        what: DeviceCommand,
    },
    /// Shut a running relay down, as SIGTERM does
    Drain(Json),
    /// Print the completions of a shell
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: Shell,
    },
    /// Print the manual page
    #[command(hide = true)]
    Man,
    /// Copy the queue of a running relay to DIR, an empty directory: a relay can start on the copy
    Backup {
        /// Where the copy goes; made if it is missing
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        #[command(flatten)]
        json: Json,
    },
    /// Look at the queue in queue.path, or end a part of it; top and drop ask a relay that runs
    Queue {
        /// What to look for
        #[command(subcommand)]
        what: QueueCommand,
    },
    /// Make, list or revoke the access tokens in access.tokens_file
    Token {
        /// What to do
        #[command(subcommand)]
        what: TokenCommand,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_of_the_command_line_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_is_optional() {
        let cli = Cli::try_parse_from(["sealpost"]).expect("no flag is needed");
        assert!(cli.config.is_none() && cli.listen.is_none() && cli.admin_listen.is_none());
        assert!(!cli.check_config && !cli.print_config);
    }

    #[test]
    fn flags_are_applied() {
        let cli = Cli::try_parse_from([
            "sealpost",
            "--config",
            "a.toml",
            "--listen",
            "127.0.0.1:1",
            "--admin-listen=127.0.0.1:2",
            "--check-config",
        ])
        .expect("these flags exist");
        assert_eq!(cli.config.as_deref(), Some(std::path::Path::new("a.toml")));
        assert_eq!(cli.listen.as_deref(), Some("127.0.0.1:1"));
        assert_eq!(cli.admin_listen.as_deref(), Some("127.0.0.1:2"));
        assert!(cli.check_config);
    }

    #[test]
    fn the_settings_and_the_admin_address_may_be_named_behind_a_command() {
        let of = |args: &[&str]| Cli::try_parse_from(args).expect("flags of every command");
        let cli = of(&["sealpost", "queue", "top", "--config", "a.toml", "--admin-listen", "b:1"]);
        assert_eq!(cli.config.as_deref(), Some(Path::new("a.toml")));
        assert_eq!(cli.admin_listen.as_deref(), Some("b:1"));
    }

    #[test]
    fn what_looks_at_an_installed_relay_reads_its_settings_and_a_relay_does_not() {
        let read = |args: &[&str], is_here, is_installed| {
            let cli = Cli::try_parse_from(["sealpost"].iter().chain(args)).expect("known flags");
            let cli = cli.with_settings_of(is_here, is_installed);
            let note = cli.note_on_settings();
            (cli.config.map(|path| path.display().to_string()), note.is_some())
        };
        let installed = || (Some(INSTALLED_SETTINGS.to_owned()), true);
        for args in [&["status"][..], &["--check-config"], &["--print-config"]] {
            assert_eq!(read(args, false, true), installed(), "{args:?}");
            assert_eq!(read(args, true, true), (None, false), "{args:?}");
            assert_eq!(read(args, false, false), (None, false), "{args:?}");
        }
        assert_eq!(read(&[], false, true), (None, false));
        assert_eq!(
            read(&["--config", INSTALLED_SETTINGS, "--check-config"], true, true),
            installed()
        );
        let named = read(&["--config", "a.toml", "--check-config"], false, true);
        assert_eq!(named, (Some("a.toml".to_owned()), false));
    }

    #[test]
    fn every_command_that_finds_something_prints_it_as_json_too() {
        fn walk(command: &clap::Command, name: &str, found: &mut usize) {
            if command.has_subcommands() {
                let children = command.get_subcommands().filter(|it| it.get_name() != "help");
                children.for_each(|it| walk(it, &format!("{name} {}", it.get_name()), found));
            } else if !["sealpost completions", "sealpost man"].contains(&name) {
                let has_json = command.get_arguments().any(|it| it.get_long() == Some("json"));
                assert!(has_json, "{name} has no --json");
                *found += 1;
            }
        }
        let mut found = 0;
        walk(&Cli::command(), "sealpost", &mut found);
        assert!(found >= 18, "only {found} commands were found");
    }

    #[test]
    fn a_drop_names_one_holder() {
        let parse = |args: &[&str]| {
            Cli::try_parse_from(["sealpost", "queue", "drop"].iter().chain(args)).is_ok()
        };
        let id = "d8f8a9b0-f6e1-4a2b-8d7c-1e9f0a1b2c3d";
        assert!(parse(&["--sender", id]) && parse(&["--origin", "00000000000000ff"]));
        assert!(!parse(&[]) && !parse(&["--sender", id, "--recipient", id]));
    }

    #[test]
    fn addresses_are_skipped_by_a_check_only() {
        let parse = |args: &[&str]| Cli::try_parse_from(["sealpost"].iter().chain(args)).is_ok();
        assert!(parse(&["--check-config", "--skip-addresses"]) && !parse(&["--skip-addresses"]));
    }

    #[test]
    fn an_unknown_flag_is_refused() {
        assert!(Cli::try_parse_from(["sealpost", "--frobnicate"]).is_err());
    }
}
