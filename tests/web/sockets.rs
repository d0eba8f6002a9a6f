//! How long a socket lives that is no WebSocket: one request, a few seconds, no body. (threats: T4)

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::Relay;
use crate::support::http::{self, handshake, head};
use crate::support::peer::soon;
use crate::support::tls::Stream;

/// Everything that the relay sends until it closes the connection.
async fn until_closed(mut stream: Stream) -> String {
    let mut bytes = Vec::new();
    soon("the end", stream.read_to_end(&mut bytes)).await.expect("an end, not a reset");
    String::from_utf8(bytes).expect("text")
}

/// What the relay answers to these bytes, and how long the connection lives. The client keeps it open.
async fn conversation(relay: &Relay, request: &str) -> (String, Duration) {
    let started = Instant::now();
    let mut stream = http::connect(relay.public, None, None).await;
    soon("sending", stream.write_all(request.as_bytes())).await.expect("sent");
    (until_closed(stream).await, started.elapsed())
}

fn statuses(answers: &str) -> Vec<&str> {
    let lines = answers.lines().filter(|line| line.starts_with("HTTP/"));
    lines.filter_map(|line| line.split(' ').nth(1)).collect()
}

#[actix_rt::test]
async fn one_request_is_answered_and_the_connection_is_closed() {
    let relay = Relay::start();
    let refused = handshake().join("\r\n").replace("Version: 13", "Version: 8");
    for (request, status) in [
        ("GET /livez HTTP/1.1\r\nHost: a", "200"),
        ("GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: keep-alive", "200"),
        ("GET /livez HTTP/1.0\r\nConnection: keep-alive", "200"),
        ("GET /elsewhere HTTP/1.1\r\nHost: a", "404"),
        ("POST /livez HTTP/1.1\r\nHost: a", "405"),
        ("GET /ws HTTP/1.1\r\nHost: a", "426"),
        (&refused, "426"),
        ("junk", "400"),
    ] {
        // Requests behind the first are no requests.
        let requests = format!("{request}\r\n\r\n").repeat(3);
        let (answers, took) = conversation(&relay, &requests).await;
        assert_eq!(statuses(&answers), [status], "{request}");
        assert!(took < Duration::from_secs(4), "{request}: {took:?}");
    }
}

/// The client never sends its body, or never ends it.
#[actix_rt::test]
async fn a_body_is_refused_before_it_comes() {
    let relay = Relay::start();
    for request in [
        "GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n",
        "POST /readyz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST /elsewhere HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        "GET /ws HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe",
    ] {
        let (answers, took) = conversation(&relay, request).await;
        assert_eq!(statuses(&answers), ["400"], "{request}");
        assert!(took < Duration::from_secs(4), "{request}: {took:?}");
    }
    let mut stream = http::connect(relay.public, None, None).await;
    let head = "POST /livez HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    soon("sending", stream.write_all(head.as_bytes())).await.expect("sent");
    let chunk = [b"1000\r\n".to_vec(), vec![b'x'; 0x1000], b"\r\n".to_vec()].concat();
    soon("an end of the endless body", async { while stream.write_all(&chunk).await.is_ok() {} })
        .await;
}

#[actix_rt::test]
async fn half_a_head_and_silence_are_answered_with_408() {
    let relay = Relay::start();
    let half = "GET /ws HTTP/1.1\r\nHost: relay.example\r\n";
    let whole = "GET /livez HTTP/1.1\r\nHost: relay.example\r\n\r\n";
    let trickle = async {
        let started = Instant::now();
        let stream = http::connect(relay.public, None, None).await;
        let (mut read, mut write) = tokio::io::split(stream);
        let endless = actix_rt::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(100));
            let _ = write.write_all(half.as_bytes()).await;
            while write.write_all(b"X: y\r\n").await.is_ok() {
                tick.tick().await;
            }
        });
        let mut answer = String::new();
        let _ = soon("the end", read.read_to_string(&mut answer)).await;
        endless.abort();
        (answer, started.elapsed())
    };
    let (silent, half, trickled, served) = tokio::join!(
        conversation(&relay, ""),
        conversation(&relay, half),
        trickle,
        conversation(&relay, whole),
    );
    for (name, (answer, took)) in [("silent", silent), ("half", half), ("trickled", trickled)] {
        assert_eq!(statuses(&answer), ["408"], "{name}");
        assert!((4.5..10.0).contains(&took.as_secs_f64()), "{name}: {took:?}");
    }
    assert_eq!(statuses(&served.0), ["200"]);
}

/// After its answer a socket lives for a second at most, so an address has its places back.
#[actix_rt::test]
async fn an_answered_socket_is_not_held_by_a_client_that_keeps_it_open() {
    let relay = Relay::with(|settings| {
        settings.limits.connections = 1;
        settings.limits.connections_per_address = 1;
    });
    let mut kept = Vec::new();
    for _ in 0..1 + 64 {
        let mut stream = http::connect(relay.public, None, None).await;
        let request = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";
        soon("sending", stream.write_all(request)).await.expect("sent");
        assert_eq!(http::answer(&mut stream).await.status, 200);
        kept.push(stream);
    }
    crate::support::eventually("a place", async || {
        let socket = http::connect_tcp(relay.public, None, None).await;
        let Ok(mut stream) = Stream::try_open(socket, relay.public).await else { return false };
        let _ = stream.write_all(&head(&handshake())).await;
        let mut byte = [0];
        stream.read_exact(&mut byte).await.is_ok()
    })
    .await;
    drop(kept);
}
