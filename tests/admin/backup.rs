//! `POST /admin/backup`: how long it may take, and who may ask.

use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::http::{ask, connect_tcp};
use crate::support::operator::Operator;
use crate::support::{Device, Relay, eventually};

/// Starts a backup and reads no more than that it began.
async fn begins(admin: SocketAddr) -> TcpStream {
    // A large receive buffer would take the whole backup.
    let mut client = connect_tcp(admin, None, Some(4096)).await;
    let request = format!("POST /admin/backup HTTP/1.1\r\nHost: {admin}\r\n\r\n");
    client.write_all(request.as_bytes()).await.expect("the relay reads");
    let mut head = [0; 15];
    client.read_exact(&mut head).await.expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    client
}

#[actix_rt::test]
async fn a_backup_that_takes_too_long_ends_and_another_may_begin() {
    let relay = Relay::generous(|settings| settings.queue.sender_share = 1.0);
    let bob = Device::resumable(&relay).await;
    let id = bob.id.clone();
    bob.leave(&relay).await;
    let mut alice = Device::plain(&relay).await;
    for number in 1..=200 {
        alice.send_message(&id, number, json!({"signature": "s".repeat(50_000)})).await;
        alice.expect_ack(number).await;
    }
    let mut client = begins(relay.admin).await;
    let second = ask(
        relay.admin,
        b"POST /admin/backup HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    );
    let second = second.await;
    assert_eq!(second.status, 409);
    assert!(second.body.contains("Another backup is running"), "{}", second.body);
    relay.advance(31 * 60);
    // The answer is cut: what came is less than was announced, and not the last chunk.
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest).await;
    assert!(!rest.ends_with(b"0\r\n\r\n"));
    let place = tempfile::tempdir().expect("room");
    let operator = Operator::of(relay.admin).at(place.path());
    let mut nth = 0;
    eventually("another backup", async || {
        nth += 1;
        operator.run(&["backup", &format!("copy-{nth}")]).await.code == Some(0)
    })
    .await;
    let verified = operator.run(&["queue", "verify", &format!("copy-{nth}")]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

#[actix_rt::test]
async fn a_page_gets_no_backup_and_a_get_is_none() {
    let relay = Relay::start();
    let page =
        b"POST /admin/backup HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\r\n";
    assert_eq!(ask(relay.admin, page).await.status, 403);
    let get = b"GET /admin/backup HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(ask(relay.admin, get).await.status, 405);
    assert_eq!(ask(relay.public, page).await.status, 404);
}
