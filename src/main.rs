//! The `sealpost` binary: command line, settings, log; build the relay, run it until a signal, drain it.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::todo,
        clippy::unimplemented,
        clippy::unreachable
    )
)]

use std::process::ExitCode;

use clap::Parser as _;
use sealpost::app::{App, Health, InheritedSockets, ReloadHandle};
use sealpost::banner;
use sealpost::cli::Cli;
use sealpost::clock::Clock;
use sealpost::commands::{self, EX_CONFIG, EX_UNAVAILABLE};
use sealpost::logging::{self, LogHandle};
use sealpost::preflight;
use sealpost::settings::{self, Change, Settings};
use sealpost::signals::{self, EndDuringStart};
use sealpost::systemd::{self, LongStart};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// See docs/performance.md for what it saves.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli.with_installed_settings(),
        Err(instead) => return commands::print_parse_error(&instead),
    };
    let settings = match settings::load(&cli) {
        Ok(settings) => settings,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(EX_CONFIG);
        }
    };
    if cli.check_config {
        let note = cli.note_on_settings();
        return commands::check_config(&settings, note, !cli.skip_addresses);
    }
    let unread = settings::unread_variables(std::env::vars_os().map(|(name, _)| name));
    if cli.print_config {
        commands::show("note: ", &unread);
        print!("{}", settings::print(&settings));
        return ExitCode::SUCCESS;
    }
    if let Some(command) = cli.command {
        return commands::run(command, &settings);
    }
    let log = logging::init(&settings);
    logging::log_only_the_place_of_a_panic();
    for variable in unread {
        log::warn!("{variable}");
    }
    let served = InheritedSockets::from_env()
        .and_then(|sockets| actix_rt::System::new().block_on(serve(cli, settings, sockets, log)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            log::error!("{failed}");
            ExitCode::from(EX_UNAVAILABLE)
        }
    }
}

async fn serve(
    cli: Cli,
    settings: Settings,
    sockets: InheritedSockets,
    log: LogHandle,
) -> std::io::Result<()> {
    // Before anything else, so that a signal starts an orderly end from the first log line on.
    let stop = signals::first_signal();
    let end_during_start = EndDuringStart::begin().inspect_err(
        |failed| log::warn!(error:% = failed; "signals wait for the end of the start"),
    );
    let hangup = signal(SignalKind::hangup());
    if let Some(warning) = preflight::raise_descriptor_limit(&settings) {
        log::warn!("{warning}");
    }
    let long_start = LongStart::begin();
    let app = App::build_on(sockets, settings.clone(), Clock::system())?;
    let mut bound = settings.clone();
    bound.server.listen = app.public_address();
    bound.server.admin_listen = app.admin_address().clone();
    for line in banner::first_lines(&bound).lines() {
        log::info!("{line}");
    }
    for warning in [banner::exposure(&bound), banner::shared_origins(&bound)].into_iter().flatten()
    {
        log::warn!("{warning}");
    }
    let serving = format!("serving on {}", app.public_address());
    app.before_serving({
        let serving = serving.clone();
        move || {
            drop((end_during_start, long_start));
            systemd::ready(&serving);
        }
    });
    if let Some(interval) = systemd::watchdog_interval() {
        actix_rt::spawn(app.health_check().run(interval, report_to_watchdog));
    }
    let reloads =
        actix_rt::spawn(reload_on_hangup(hangup, cli, settings, app.reload_handle(), log, serving));
    let stop = async {
        stop.await;
        systemd::stopping();
    };
    let ended = app.run(stop).await;
    reloads.abort();
    log::info!("goodbye");
    ended
}

/// On SIGHUP reads the settings again and applies those that a running relay can change.
async fn reload_on_hangup(
    hangup: std::io::Result<Signal>,
    cli: Cli,
    mut running: Settings,
    reload_handle: ReloadHandle,
    log: LogHandle,
    serving: String,
) {
    let Ok(mut hangup) = hangup else { return };
    while hangup.recv().await.is_some() {
        systemd::reloading();
        let reload = match settings::load(&cli) {
            Ok(fresh) => running.reload(fresh),
            Err(problems) => {
                log::error!(error:% = problems; "settings not reloaded, the old ones stay");
                systemd::ready(&format!("{serving}; the last reload was refused"));
                continue;
            }
        };
        for Change { key, before, after } in &reload.changed {
            log::info!(key, before, after; "setting changed");
        }
        for Change { key, before, after } in &reload.needs_restart {
            log::warn!(key, before, after; "setting needs a restart");
        }
        running = reload.settings;
        if let Some(warning) = banner::shared_origins(&running) {
            log::warn!("{warning}");
        }
        log.apply(&running);
        reload_handle.reload(&running);
        log::info!("settings reloaded");
        systemd::ready(&serving);
    }
}

/// A relay that hangs is restarted by the service manager; this says why in its last log lines.
fn report_to_watchdog(health: &Health) {
    match health {
        Health::Alive(status) => systemd::watchdog(status),
        Health::Hangs(why) => {
            log::error!(reason = why; "no answer for the watchdog");
            systemd::status(why);
        }
    }
}
