//! Which settings a reload applies, and which wait for a restart.

use super::*;
use crate::settings::Change;

fn text(Change { key, before, after }: &Change) -> String {
    format!("{key}: {before} -> {after}")
}

#[test]
fn a_reload_takes_limits_rates_queue_origins_proxies_and_level() {
    let running = Settings::default();
    let fresh = settings(
        "[server]\ntrusted_proxies = [\"10.0.0.0/8\"]\nallowed_origins = [\"https://a.example\"]\n\
         [log]\nlevel = \"debug\"\n[limits]\nstrikes = 20\n[rate_limit]\nburst = 5\n[queue]\nmax_ttl = \"8d\"\n",
    );
    let reload = running.reload(fresh.clone());
    assert_eq!(reload.settings, fresh);
    assert!(reload.needs_restart.is_empty());
    assert_eq!(
        reload.changed.iter().map(text).collect::<Vec<_>>(),
        [
            "server.trusted_proxies: [] -> [\"10.0.0.0/8\"]",
            "server.allowed_origins: [] -> [\"https://a.example\"]",
            "log.level: \"info,actix_server=warn\" -> \"debug\"",
            "limits.strikes: 10 -> 20",
            "rate_limit.burst: 60 -> 5",
            "queue.max_ttl: \"7d\" -> \"8d\"",
        ]
    );
}

#[test]
fn a_reload_keeps_all_other_settings_and_reports_that_they_need_a_restart() {
    let running = Settings::default();
    let fresh = settings(
        "[server]\nlisten = \"127.0.0.1:81\"\nadmin_listen = \"127.0.0.1:91\"\nworkers = 2\ndrain_timeout = \"1s\"\n\
         tcp_user_timeout = \"1s\"\n[log]\nformat = \"json\"\n[heartbeat]\ninterval = \"1s\"\ntimeout = \"2s\"\n\
         [delivery]\nwindow = 1\nbytes = \"1 MiB\"\n[session]\nttl = \"1d\"\nplain_ttl = \"2h\"\n\
         [auth]\nexchange_ttl = \"1s\"\n[sweeper]\ninterval = \"2s\"\n",
    );
    let reload = running.reload(fresh);
    assert_eq!(reload.settings, running);
    assert!(reload.changed.is_empty());
    assert_eq!(reload.needs_restart.len(), 14);
    assert_eq!(
        text(&reload.needs_restart[0]),
        "server.listen: \"127.0.0.1:8080\" -> \"127.0.0.1:81\""
    );
}

#[test]
fn a_reload_without_changes_reports_nothing() {
    let reload = Settings::default().reload(Settings::default());
    assert!(reload.changed.is_empty() && reload.needs_restart.is_empty());
}

#[test]
fn a_reload_that_contradicts_running_settings_waits_for_the_restart() {
    let running = Settings::default();
    let fresh = settings(
        "[limits]\nmessage_bytes = \"1 MiB\"\nframe_bytes = \"2 MiB\"\nstrikes = 3\n[delivery]\nbytes = \"4 MiB\"\n",
    );
    let reload = running.reload(fresh);
    assert_eq!(reload.settings, running);
    assert!(reload.changed.is_empty());
    assert_eq!(reload.needs_restart.len(), 4, "{:?}", reload.needs_restart);
}

#[test]
fn a_reload_takes_other_files_of_a_certificate_and_turns_tls_neither_on_nor_off() {
    let with = |name: &str| {
        settings(&format!("[tls]\ncertificate = \"{name}.pem\"\nkey = \"{name}.key\"\n"))
    };
    let reload = with("a").reload(with("b"));
    assert_eq!(reload.settings, with("b"));
    assert_eq!(text(&reload.changed[0]), "tls.certificate: \"a.pem\" -> \"b.pem\"");
    for (running, fresh) in [(with("a"), Settings::default()), (Settings::default(), with("a"))] {
        let reload = running.reload(fresh);
        assert_eq!(reload.settings, running);
        assert_eq!((reload.changed.len(), reload.needs_restart.len()), (0, 2));
    }
}
