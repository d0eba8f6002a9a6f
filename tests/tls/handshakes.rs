//! Handshakes: which are completed, and what becomes of those that are not. (threats: T4)

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, ProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::peer::{CLOSE, FIN, soon, text};
use crate::support::tls::{Stream, client_config};
use crate::support::{Binary, Device, RawClient, Relay, eventually, http};

/// The first bytes of a handshake record that announces 512 more.
const HALF_A_HELLO: [u8; 9] = [22, 3, 1, 2, 0, 1, 0, 1, 0xfc];
/// The descriptions in an alert to a client that speaks no version, or names no signature, that the relay has (RFC 8446,
/// section 6.2).
const REFUSED: [u8; 2] = [40, 70];

/// Sends bytes in place of a handshake; everything that comes until the relay closes the connection.
async fn conversation(relay: &Relay, bytes: &[u8]) -> Vec<u8> {
    let mut socket = http::connect_tcp(relay.public, None, None).await;
    soon("sending", socket.write_all(bytes)).await.expect("sent");
    let mut answer = Vec::new();
    soon("the end", socket.read_to_end(&mut answer)).await.expect("an end, not a reset");
    answer
}

fn counts(relay: &Relay) -> [u64; 3] {
    relay.tls.as_ref().expect("TLS").handshakes.counts().map(|(_, count)| count)
}

#[actix_rt::test]
async fn results_are_counted_by_their_names() {
    let relay = Relay::start();
    Device::plain(&relay).await.close().await;
    conversation(&relay, b"\x16junk that is long enough").await;
    let counts = relay.tls.as_ref().expect("TLS").handshakes.counts();
    assert_eq!(counts, [("ok", 1), ("failed", 1), ("timeout", 0)]);
}

#[actix_rt::test]
async fn silent_and_half_handshakes_cost_their_place_for_the_time_of_a_head() {
    let relay = Relay::with(|settings| {
        settings.limits.connections = 1;
        settings.limits.connections_per_address = 1;
    });
    let started = Instant::now();
    let mut waiting = Vec::new();
    for n in 0..1 + 64 {
        let mut socket = http::connect_tcp(relay.public, None, None).await;
        if n % 2 == 0 {
            soon("sending", socket.write_all(&HALF_A_HELLO)).await.expect("sent");
        }
        waiting.push(socket);
    }
    let one_more = http::connect_tcp(relay.public, None, None).await;
    assert!(Stream::try_open(one_more, relay.public).await.is_err(), "no place is left");
    for mut socket in waiting {
        let mut rest = Vec::new();
        let _ = soon("the end", socket.read_to_end(&mut rest)).await;
        assert!(rest.is_empty(), "nobody is there to be told");
    }
    assert!((4.5..10.0).contains(&started.elapsed().as_secs_f64()), "{:?}", started.elapsed());
    eventually("the last result", async || counts(&relay)[2] == 65).await;
    RawClient::plain(relay.public).await.send_to_itself(1).await;
}

#[actix_rt::test]
async fn the_time_of_a_head_is_not_renewed_by_a_handshake() {
    let relay = Relay::start();
    let started = Instant::now();
    let socket = http::connect_tcp(relay.public, None, None).await;
    // A client that takes three of its five seconds for the handshake.
    let mut tick = tokio::time::interval(Duration::from_secs(3));
    tick.tick().await;
    tick.tick().await;
    let mut stream = Stream::open(socket, relay.public).await;
    assert_eq!(http::answer(&mut stream).await.status, 408);
    assert!((4.5..7.5).contains(&started.elapsed().as_secs_f64()), "{:?}", started.elapsed());
}

#[actix_rt::test]
async fn garbage_is_answered_by_an_alert_and_an_end() {
    let relay = Relay::start();
    for garbage in [
        &b"\x16\xff\xff\xff\xff\xff\xff\xff\xff"[..],
        b"\x17\x03\x03\x00\x05early",
        b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10\x01\x00\x80",
        &[0; 100_000],
    ] {
        let answer = conversation(&relay, garbage).await;
        assert_eq!(answer.first(), Some(&21), "{answer:?}");
    }
    assert_eq!(counts(&relay), [0, 4, 0]);
    RawClient::plain(relay.public).await.send_to_itself(1).await;
    relay.wait_for("connections", 0).await;
}

#[actix_rt::test]
async fn plain_http_is_told_what_the_port_speaks() {
    let relay = Relay::start();
    for request in [&b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"[..], &http::head(&http::handshake())]
    {
        let answer = String::from_utf8(conversation(&relay, request).await).expect("text");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.ends_with("This port speaks TLS: connect by https:// or wss://.\n"));
    }
    assert_eq!(counts(&relay), [0, 2, 0]);
    assert_eq!(http::get(relay.admin, "/livez").await.status, 200, "the admin address is plain");
}

/// A ClientHello of TLS 1.1, as a client of 2010 would send it.
fn hello_of_tls_1_1() -> Vec<u8> {
    let ciphers = [0xc0, 0x13, 0xc0, 0x14, 0x00, 0x2f, 0x00, 0x35];
    let mut body = vec![3, 2];
    body.extend([7; 32]);
    body.extend([0, 0, ciphers.len() as u8]);
    body.extend(ciphers);
    body.extend([1, 0]);
    let mut hello = vec![22, 3, 1, 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8];
    hello.extend(body);
    hello
}

#[actix_rt::test]
async fn tls_1_1_is_refused() {
    let relay = Relay::start();
    let answer = conversation(&relay, &hello_of_tls_1_1()).await;
    assert_eq!((answer.len(), answer[0], answer[5]), (7, 21, 2), "a fatal alert: {answer:?}");
    assert!(REFUSED.contains(&answer[6]), "{answer:?}");
}

async fn connect(
    relay: &Relay,
    config: &Arc<rustls::ClientConfig>,
) -> std::io::Result<(TlsStream, u16)> {
    let socket: TcpStream = http::connect_tcp(relay.public, None, None).await;
    let mut stream = Stream::encrypt(socket, config.clone()).await?;
    let request = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";
    soon("sending", stream.write_all(request)).await?;
    let status = http::answer(&mut stream).await.status;
    match stream {
        Stream::Tls(stream) => Ok((stream, status)),
        Stream::Plain(_) => panic!("it is encrypted"),
    }
}

type TlsStream = Box<tokio_rustls::client::TlsStream<TcpStream>>;

#[actix_rt::test]
async fn tls_1_2_and_1_3_are_spoken_and_http_1_1_alone() {
    let relay = Relay::start();
    for (version, number) in
        [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)]
    {
        let mut config = client_config(&[version]);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let (stream, status) = connect(&relay, &Arc::new(config)).await.expect("a handshake");
        let session = stream.get_ref().1;
        assert_eq!((status, session.protocol_version()), (200, Some(number)));
        assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));

        let mut config = client_config(&[version]);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let refused = connect(&relay, &Arc::new(config)).await.expect_err("no h2");
        assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
    }
}

#[actix_rt::test]
async fn a_client_that_comes_back_needs_no_new_signature() {
    let relay = Relay::start();
    for version in [&TLS12, &TLS13] {
        let config = Arc::new(client_config(&[version]));
        let (stream, _) = connect(&relay, &config).await.expect("a handshake");
        assert_ne!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
        let (stream, _) = connect(&relay, &config).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    }
}

/// Without the alert `close_notify` a client cannot tell the end from a cut, and its TLS reports an error.
#[actix_rt::test]
async fn a_drain_ends_with_a_close_and_close_notify() {
    let mut relay = Relay::start();
    let mut device = RawClient::plain(relay.public).await;
    relay.begin_stop();
    device.expect_closed_with(1001).await;
    device.peer.send(&crate::support::peer::close(1001)).await;
    let end = soon("the end", device.peer.stream.read(&mut [0; 16])).await;
    assert_eq!(end.expect("close_notify"), 0);
    relay.stop().expect("it ends well");
}

/// What the client has sent before it hung up counts, with `close_notify` and without.
#[actix_rt::test]
async fn half_closed_and_cut_connections_end_after_what_they_have_sent() {
    let relay = Relay::start();
    let mut bob = RawClient::plain(relay.public).await;
    for (number, with_notify) in [(1, true), (2, false)] {
        let mut alice = RawClient::plain(relay.public).await;
        let message = alice.message(&bob.id, number, "the last", 60).to_string();
        alice.peer.send(&text(&message)).await;
        match with_notify {
            true => alice.peer.stream.shutdown().await.expect("shut"),
            false => socket2::SockRef::from(alice.peer.stream.tcp())
                .shutdown(std::net::Shutdown::Write)
                .expect("shut"),
        }
        bob.expect_frame("Receive").await;
        relay.wait_for("connected", 1).await;
    }
    bob.send_to_itself(3).await;
    bob.peer.send(&crate::support::peer::close(1000)).await;
    assert_eq!(bob.peer.frame().await.map(|(first, _)| first), Some(FIN | CLOSE));
}

/// The target is 24 KiB, and what the transport and the session take is in it.
#[actix_rt::test]
async fn an_idle_connection_takes_at_most_24_kib() {
    const CONNECTIONS: usize = 500;
    let relay = Binary::with(&[("LIMITS__EXEMPT_CIDRS", "127.0.0.0/8")]).await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(RawClient::plain(relay.public).await);
    }
    let before = relay.memory();
    for _ in 0..CONNECTIONS {
        clients.push(RawClient::plain(relay.public).await);
    }
    let each = (relay.memory() - before) * 1024 / CONNECTIONS as u64;
    println!("{each} bytes for each idle connection");
    assert!(each <= 24 * 1024, "{each} bytes for each connection");
    for client in &mut clients {
        client.send_to_itself(1).await;
    }
}
