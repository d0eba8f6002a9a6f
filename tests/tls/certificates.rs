//! The certificate and its key: which files are taken, at the start and by a reload, and when their end is near.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sealpost::clock::Clock;
use sealpost::settings::Settings;
use sealpost::tls::Certificate;
use sealpost::web::tls::Tls;
use tempfile::TempDir;

use crate::support::binary::{FREE_PORTS, sealpost};
use crate::support::tls::{Pair, Stream, set_mode};
use crate::support::{Binary, RawClient, Relay, http, skip};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn place() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls/fixtures").join(name);
    fs::read_to_string(path).expect("a fixture")
}

/// Loads a certificate and a key from files with these contents.
fn load(certificate: &str, key: &str) -> Result<Certificate, String> {
    let place = place();
    let pair = Pair { certificate: certificate.to_owned(), key: key.to_owned() };
    let (certificate, key) = pair.write(place.path());
    Certificate::load(&certificate, &key)
}

#[test]
fn chains_and_keys_of_every_usual_kind_are_read() {
    let (pair, other) = (Pair::new(), Pair::new());
    load(&pair.certificate, &pair.key).expect("PKCS#8");
    load(&fixture("rsa-pkcs1.pem"), &fixture("rsa-pkcs1.key")).expect("PKCS#1");
    load(&fixture("ec-sec1.pem"), &fixture("ec-sec1.key")).expect("SEC1");
    let chain = format!("a comment\n{}{}", pair.certificate, other.certificate);
    load(&chain, &pair.key).expect("a chain");
    let both = format!("{}{}", pair.key, pair.certificate);
    load(&both, &both).expect("one file");
}

#[test]
fn files_that_cannot_be_used_are_refused_with_a_sentence_that_names_the_setting() {
    let pair = Pair::new();
    let cut = &pair.certificate[..pair.certificate.len() / 2];
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (certificate, key, setting, why) in [
        (&*pair.certificate, &*Pair::new().key, "tls.key = ", "is not the key of tls.certificate"),
        (&pair.key, &pair.key, "tls.certificate = ", "has no certificate"),
        ("", &pair.key, "tls.certificate = ", "has no certificate"),
        (cut, &pair.key, "tls.certificate = ", "is no PEM"),
        (nonsense, &pair.key, "tls.certificate = ", "is no certificate"),
        (&pair.certificate, &pair.certificate, "tls.key = ", "has no private key"),
        (&pair.certificate, "", "tls.key = ", "has no private key"),
        (&fixture("ec-sec1.pem"), &fixture("ec-encrypted.key"), "tls.key = ", "is encrypted"),
        (&pair.certificate, &" ".repeat(2 << 20), "tls.key = ", "larger than 1 MiB"),
    ] {
        let reason = load(certificate, key).expect_err(why);
        assert!(reason.starts_with(setting) && reason.contains(why), "{reason}");
        let secret = pair.key.lines().nth(1).expect("a line of the key");
        assert!(!reason.contains(secret), "{reason}");
    }
}

#[test]
fn a_path_that_is_no_file_is_refused_without_waiting() {
    let place = place();
    let (certificate, key) = Pair::new().write(place.path());
    let missing = place.path().join("missing");
    let reason = Certificate::load(&missing, &key).expect_err("missing");
    assert!(reason.contains("tls.certificate = ") && reason.contains("cannot be read"), "{reason}");
    let pipe = place.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    for no_file in [place.path(), &pipe] {
        let reason = Certificate::load(&certificate, no_file).expect_err("no file");
        assert!(reason.ends_with("is not a file"), "{reason}");
    }
}

/// Whether a key with this mode is taken.
fn is_taken((certificate, key): &(PathBuf, PathBuf), mode: u32) -> bool {
    set_mode(key, mode);
    match Certificate::load(certificate, key) {
        Ok(_) => true,
        Err(reason) => {
            assert!(reason.contains(&format!("its mode is {mode:03o}")), "{reason}");
            false
        }
    }
}

#[test]
fn a_key_that_everyone_can_read_is_refused() {
    let place = place();
    let files = Pair::new().write(place.path());
    for mode in [0o400, 0o600] {
        assert!(is_taken(&files, mode), "{mode:o}");
    }
    for mode in [0o604, 0o644, 0o640 | 0o004, 0o660, 0o620, 0o602, 0o601] {
        assert!(!is_taken(&files, mode), "{mode:o}");
    }
    set_mode(&files.0, 0o644);
    assert!(is_taken(&files, 0o600), "the certificate is public");
}

#[test]
fn the_group_may_read_a_key_that_root_owns_and_no_other() {
    let place = place();
    let files = Pair::new().write(place.path());
    let owner = fs::metadata(&files.1).expect("a file").uid();
    if owner != 0 {
        assert!(!is_taken(&files, 0o640), "the user's own");
        return skip("only root can make a file of root's");
    }
    assert!(is_taken(&files, 0o640), "root's");
    chown(&files.1, Some(65_534), None).expect("root may");
    assert!(!is_taken(&files, 0o640), "another user's");
    assert!(is_taken(&files, 0o600), "another user's, for itself");
}

/// A command that starts a relay with these files, on free ports.
fn relay_with(place: &TempDir, (certificate, key): &(PathBuf, PathBuf)) -> Command {
    let mut command = sealpost(place.path());
    command.args(FREE_PORTS);
    command.env("SEALPOST__TLS__CERTIFICATE", certificate).env("SEALPOST__TLS__KEY", key);
    command
}

#[tokio::test]
async fn a_wrong_key_ends_the_start_with_69_and_a_check_finds_it() {
    let place = place();
    let (certificate, key) = Pair::new().write(place.path());
    fs::write(&key, Pair::new().key).expect("a file");
    let files = (certificate, key);
    let mut relay = Binary::spawn(relay_with(&place, &files));
    relay.expect_log("is not the key of tls.certificate").await;
    assert_eq!(relay.exit().await, Some(69), "{}", relay.log);
    let mut check = relay_with(&place, &files);
    let output = check.arg("--check-config").output().expect("it runs");
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(69), "{stderr}");
    assert!(stderr.starts_with("tls.key = ") && stderr.contains("is not the key"), "{stderr}");
    assert!(!place.path().join("data").exists(), "nothing was created");
}

#[test]
fn a_certificate_without_a_key_contradicts_itself_and_ends_with_78() {
    for (given, missing) in [("CERTIFICATE", "tls.key"), ("KEY", "tls.certificate")] {
        let place = place();
        let mut command = sealpost(place.path());
        let output = command.env(format!("SEALPOST__TLS__{given}"), "relay.pem").output();
        let output = output.expect("it runs");
        let stderr = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(78), "{stderr}");
        assert!(stderr.starts_with(&format!("{missing} = \"\": must be set where")), "{stderr}");
    }
}

#[tokio::test]
async fn a_relay_with_tls_says_wss_and_warns_of_no_plain_http() {
    let place = place();
    let files = Pair::new().write(place.path());
    let mut command = sealpost(place.path());
    command.env("SEALPOST__TLS__CERTIFICATE", &files.0).env("SEALPOST__TLS__KEY", &files.1);
    command.args(["--listen", "0.0.0.0:0", "--admin-listen", "127.0.0.1:0"]);
    let mut relay = Binary::start(command).await;
    RawClient::plain(relay.public).await.send_to_itself(1).await;
    relay.stop().await;
    assert!(relay.log.contains(" wss://127.0.0.1:"), "{}", relay.log);
    assert!(!relay.log.contains("PLAIN HTTP") && !relay.log.contains(" ws://"), "{}", relay.log);
}

/// The certificate that a relay shows to a new client.
async fn shown(relay: &Relay) -> Vec<u8> {
    let socket = http::connect_tcp(relay.public, None, None).await;
    let Stream::Tls(stream) = Stream::open(socket, relay.public).await else { panic!("TLS") };
    let chain = stream.get_ref().1.peer_certificates().expect("a certificate");
    chain[0].to_vec()
}

#[tokio::test]
async fn a_reload_shows_the_new_certificate_to_new_connections_and_old_ones_live_on() {
    let relay = Relay::start();
    let mut old = RawClient::plain(relay.public).await;
    let (before, expiry) = (shown(&relay).await, relay.tls.clone().expect("TLS"));
    let expiry = || expiry.certificate_expiry();
    let expiry_before = expiry();
    Pair::valid_for(20 * DAY).write(relay.data.path());
    assert_eq!(shown(&relay).await, before, "nobody asked for it");
    relay.reload_handle.reload(&relay.settings);
    let after = shown(&relay).await;
    assert_ne!(after, before);
    assert!(expiry() < expiry_before && expiry().abs_diff(relay.clock.now().unix()) <= 20 * 86_400);
    old.send_to_itself(1).await;
    RawClient::plain(relay.public).await.send_to_itself(1).await;

    // Bad files, and settings without any, change nothing.
    fs::write(relay.data.path().join("relay.key"), "no key").expect("a file");
    relay.reload_handle.reload(&relay.settings);
    relay.reload_handle.reload(&Settings::default());
    assert_eq!(shown(&relay).await, after);
    old.send_to_itself(2).await;
}

#[tokio::test]
async fn a_hangup_reads_the_certificate_again_and_refuses_bad_files_with_a_line() {
    let place = place();
    let files = Pair::new().write(place.path());
    let file = place.path().join("settings.toml");
    let write = |certificate: &Path, key: &Path| {
        let text = format!("[tls]\ncertificate = {certificate:?}\nkey = {key:?}\n");
        fs::write(&file, text).expect("a file");
    };
    write(&files.0, &files.1);
    let mut command = sealpost(place.path());
    command.args(FREE_PORTS);
    let mut relay = Binary::start(command).await;
    let mut old = RawClient::plain(relay.public).await;

    Pair::valid_for(5 * DAY + DAY / 2).write(place.path());
    relay.signal("HUP");
    relay.expect_log("tls.certificate expires in 5 days, at 2").await;
    relay.expect_log("settings reloaded").await;

    set_mode(&files.1, 0o644);
    relay.signal("HUP");
    let line = relay.expect_log("certificate not reloaded, the old one stays error=").await;
    assert!(line.contains("its mode is 644") && line.contains("ERROR"), "{line}");
    RawClient::plain(relay.public).await.send_to_itself(1).await;

    write(Path::new(""), Path::new(""));
    relay.signal("HUP");
    relay.expect_log("setting needs a restart key=tls.certificate").await;
    relay.expect_log("settings reloaded").await;
    RawClient::plain(relay.public).await.send_to_itself(1).await;
    old.send_to_itself(1).await;
}

#[tokio::test]
async fn an_end_that_is_near_is_a_warning_at_the_start_and_in_a_check() {
    for (left, warning) in [
        (12 * DAY + DAY / 2, Some("tls.certificate expires in 12 days, at 2")),
        (15 * DAY, None),
        (Duration::ZERO, Some("tls.certificate EXPIRED at 2")),
    ] {
        let place = place();
        let files = Pair::valid_for(left).write(place.path());
        let output = relay_with(&place, &files).arg("--check-config").output().expect("it runs");
        let stderr = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        let mut relay = Binary::start(relay_with(&place, &files)).await;
        relay.stop().await;
        for text in [stderr, relay.log.clone()] {
            assert_eq!(warning.is_some(), text.contains("tls.certificate"), "{text}");
            assert!(text.contains(warning.unwrap_or_default()), "{text}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_warning_comes_once_a_day_in_the_last_fourteen() {
    let place = place();
    let mut settings = Settings::default();
    (settings.tls.certificate, settings.tls.key) =
        Pair::valid_for(16 * DAY + DAY / 2).write(place.path());
    let clock = Clock::still();
    let tls = Tls::start(&settings.tls, &clock).expect("files in order").expect("TLS");
    let warnings = std::cell::RefCell::new(Vec::new());
    let watch = tls.warn_daily(&clock, |warning| warnings.borrow_mut().push(warning));
    let days = async {
        // So that the watch of each day comes after its dawn.
        tokio::time::sleep(DAY / 2).await;
        for _ in 0..18 {
            clock.advance(DAY);
            tokio::time::sleep(DAY).await;
        }
    };
    tokio::select! {
        () = watch => unreachable!("it never returns"),
        () = days => {}
    }
    let warnings = warnings.into_inner();
    assert_eq!(warnings.len(), 16, "{warnings:?}");
    assert!(warnings[0].contains("expires in 13 days"), "{warnings:?}");
    assert!(warnings[13].contains("expires in 0 days"), "{warnings:?}");
    assert!(warnings[14].contains("EXPIRED"), "{warnings:?}");
}
