//! Who may look and act.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use crate::support::binary::sealpost;
use crate::support::http::{Answer, ask};
use crate::support::operator::Operator;
use crate::support::{Binary, Relay};

const TOKEN: &str = "an operator's token of some length";

/// A file that only its owner reads.
fn write(path: &Path, text: impl AsRef<[u8]>) {
    fs::write(path, text).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("a mode");
}

async fn status_with(relay: &Relay, headers: &str) -> Answer {
    let request = format!("GET /admin/status HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    ask(relay.admin, request.as_bytes()).await
}

#[actix_rt::test]
async fn this_machine_needs_no_token_and_a_page_has_no_entry() {
    let relay = Relay::start();
    assert_eq!(status_with(&relay, "").await.status, 200);
    for origin in ["http://localhost", "https://evil.example", "null"] {
        let answer = status_with(&relay, &format!("Origin: {origin}\r\n")).await;
        assert_eq!(answer.status, 403, "{origin}");
        assert!(answer.body.contains("Pages may not"), "{}", answer.body);
    }
    let answer = ask(relay.public, b"GET /admin/status HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(answer.status, 404, "devices have no such page");
}

#[actix_rt::test]
async fn with_a_token_file_the_token_is_needed_and_a_reload_takes_a_new_one() {
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("token");
    write(&file, format!("{TOKEN}\n"));
    let relay = Relay::with(|settings| settings.server.admin_token_file = file.clone());
    let with = |token: &str| format!("Authorization: Bearer {token}\r\n");
    assert_eq!(status_with(&relay, &with(TOKEN)).await.status, 200);
    for wrong in [String::new(), with("another"), with(&format!("{TOKEN}x"))] {
        let answer = status_with(&relay, &wrong).await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert!(!answer.body.contains(TOKEN));
    }
    let command = Operator::of(relay.admin);
    let denied = command.run(&["status"]).await;
    assert_eq!(denied.code, Some(77), "{denied:?}");
    let command = command.with("SERVER__ADMIN_TOKEN_FILE", &file.display().to_string());
    assert_eq!(command.json(&["status", "--json"]).await["connections"], 0);

    let newer = "the operator's newer token";
    write(&file, newer);
    relay.reload_handle.reload(&relay.settings);
    assert_eq!(status_with(&relay, &with(TOKEN)).await.status, 401);
    assert_eq!(status_with(&relay, &with(newer)).await.status, 200);
    write(&file, "short");
    relay.reload_handle.reload(&relay.settings);
    assert_eq!(status_with(&relay, &with(newer)).await.status, 200, "the old one stays");
}

#[tokio::test]
async fn a_unix_socket_serves_its_owner_without_a_token_and_is_removed_at_the_end() {
    let place = tempfile::tempdir().expect("a directory");
    let socket = place.path().join("admin.sock");
    let address = format!("unix:{}", socket.display());
    write(&place.path().join("token"), TOKEN);
    let start = async || {
        let mut command = sealpost(place.path());
        command.args(["--listen", "127.0.0.1:0", "--admin-listen", &address]);
        command.env("SEALPOST__SERVER__ADMIN_TOKEN_FILE", "token");
        let mut relay = Binary::spawn(command);
        relay.expect_log("health: curl --unix-socket ").await;
        relay
    };
    let operator = Operator::of(&address).at(place.path());
    assert_eq!(operator.run(&["status"]).await.code, Some(69), "no relay is there");
    let mut relay = start().await;
    assert_eq!(fs::metadata(&socket).expect("a socket").permissions().mode() & 0o777, 0o660);
    let status = operator.json(&["status", "--json"]).await;
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));

    let second = operator.run(&["--listen", "127.0.0.1:0", "--check-config"]).await;
    assert!(second.stderr.contains("in use by the relay that holds queue.path"), "{second:?}");

    // What a killed relay leaves behind is in nobody's way.
    relay.kill();
    assert!(socket.exists());
    let mut relay = start().await;
    assert_eq!(operator.json(&["status", "--json"]).await["connections"], 0);
    relay.stop().await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_token_file_without_a_token_is_refused_at_the_start() {
    let place = tempfile::tempdir().expect("a directory");
    write(&place.path().join("token"), "short");
    let operator = Operator::of("127.0.0.1:0").at(place.path());
    let operator =
        operator.with("SERVER__ADMIN_TOKEN_FILE", "token").with("SERVER__LISTEN", "127.0.0.1:0");
    for args in [&["--check-config"][..], &[]] {
        let refused = operator.run(args).await;
        assert_eq!(refused.code, Some(69), "{refused:?}");
        assert!(refused.stderr.contains("server.admin_token_file = token: "), "{refused:?}");
    }
}

/// A socket whose client has reset it has no address any more. Such a request once passed for one of a Unix socket, which needs
/// no token: anybody could drain the relay.
#[tokio::test]
async fn a_client_that_resets_its_connection_does_not_get_past_the_token() {
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("token");
    write(&file, TOKEN);
    let token_file = file.display().to_string();
    let relay = Binary::with(&[("SERVER__ADMIN_TOKEN_FILE", &token_file)]).await;
    // While the relay stands still the clients come, ask, and are gone.
    relay.signal("STOP");
    relay.wait_until_stopped(true).await;
    for _ in 0..20 {
        let socket = std::net::TcpStream::connect(relay.admin).expect("the kernel takes it");
        let request = b"POST /admin/drain HTTP/1.1\r\nHost: localhost\r\n\r\n";
        std::io::Write::write_all(&mut &socket, request).expect("a socket");
        socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).expect("a socket");
        drop(socket);
    }
    relay.signal("CONT");
    let operator = Operator::of(relay.admin).with("SERVER__ADMIN_TOKEN_FILE", &token_file);
    let status = operator.json(&["status", "--json"]).await;
    assert_eq!(status["draining"], false);
    crate::support::Device::plain(&relay).await.close().await;
}

/// Each connection is a descriptor that devices need, too.
#[actix_rt::test]
async fn the_admin_listener_serves_a_bounded_number_of_connections() {
    let relay = Relay::start();
    let mut held = Vec::new();
    for _ in 0..64 {
        let mut socket = crate::support::http::connect(relay.admin, None, None).await;
        let request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut socket, request).await.expect("a socket");
        assert_eq!(crate::support::http::answer(&mut socket).await.status, 200);
        held.push(socket);
    }
    let mut more = crate::support::http::connect(relay.admin, None, None).await;
    let mut nothing = [0; 1];
    let read = tokio::io::AsyncReadExt::read(&mut more, &mut nothing).await;
    assert!(matches!(read, Ok(0) | Err(_)), "closed without an answer");
    drop(held);
    crate::support::eventually("a free place", async || {
        let mut socket = crate::support::http::connect(relay.admin, None, None).await;
        let request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let sent = tokio::io::AsyncWriteExt::write_all(&mut socket, request).await;
        sent.is_ok()
            && tokio::io::AsyncReadExt::read(&mut socket, &mut nothing)
                .await
                .is_ok_and(|read| read > 0)
    })
    .await;
}

/// As somebody who is not in the group of the socket.
#[actix_rt::test]
async fn a_socket_that_lets_nobody_in_is_no_missing_relay() {
    let place = tempfile::tempdir().expect("a place");
    let path = place.path().join("admin.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).expect("a mode");
    if std::os::unix::net::UnixStream::connect(&path).is_ok() {
        return crate::support::skip("modes do not bind root");
    }
    let denied = Operator::of(format!("unix:{}", path.display())).run(&["status"]).await;
    assert_eq!(denied.code, Some(77), "{denied:?}");
    assert!(denied.stderr.contains("this user may not connect"), "{denied:?}");
}
