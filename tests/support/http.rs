//! HTTP as bytes: a request is exactly what a test writes.

use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::peer::soon;
use super::tls::Stream;

/// The sample key of RFC 6455, section 1.3.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// A handshake that is in order, as lines to change.
pub fn handshake() -> Vec<String> {
    [
        "GET /ws HTTP/1.1",
        "Host: relay.example",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        &format!("Sec-WebSocket-Key: {KEY}"),
    ]
    .map(str::to_owned)
    .to_vec()
}

/// A handshake that names another host.
pub fn handshake_to(host: &str) -> Vec<String> {
    let mut lines = handshake();
    lines[1] = format!("Host: {host}");
    lines
}

/// A handshake with one more header.
pub fn handshake_with(line: &str) -> Vec<String> {
    let mut lines = handshake();
    lines.push(line.to_owned());
    lines
}

/// The lines as the head of a request.
pub fn head(lines: &[String]) -> Vec<u8> {
    format!("{}\r\n\r\n", lines.join("\r\n")).into_bytes()
}

/// A connection from some address of this machine, over TLS if the relay speaks it.
pub async fn connect(to: SocketAddr, from: Option<IpAddr>, receive_buffer: Option<u32>) -> Stream {
    Stream::open(connect_tcp(to, from, receive_buffer).await, to).await
}

/// A connection on which nothing was sent.
pub async fn connect_tcp(
    to: SocketAddr,
    from: Option<IpAddr>,
    receive_buffer: Option<u32>,
) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes).expect("a receive buffer");
    }
    if let Some(from) = from {
        socket.bind(SocketAddr::new(from, 0)).expect("an address of this machine");
    }
    let stream = soon("a connection", socket.connect(to)).await.expect("the relay listens");
    stream.set_nodelay(true).expect("a socket");
    stream
}

/// Sends bytes and reads one answer.
pub async fn ask(to: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = connect(to, None, None).await;
    // The relay may refuse and close before the whole request is sent.
    let _ = soon("sending", stream.write_all(request)).await;
    let _ = soon("flushing", stream.flush()).await;
    answer(&mut stream).await
}

/// Sends a head made of these lines and reads one answer.
pub async fn ask_lines(to: SocketAddr, lines: &[String]) -> Answer {
    ask(to, &head(lines)).await
}

/// Gets a page.
pub async fn get(to: SocketAddr, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
    ask(to, request.as_bytes()).await
}

/// Reads one answer: a head, and as much body as it announces.
pub async fn answer(stream: &mut Stream) -> Answer {
    soon("an answer", async {
        // One read, if the head came in one segment: some tests open thousands of connections.
        let mut ahead = [0; 1024];
        let seen = match stream {
            Stream::Plain(socket) => socket.peek(&mut ahead).await.unwrap_or(0),
            Stream::Tls(_) => 0,
        };
        let end = ahead[..seen].windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let mut head = vec![0; end.map_or(0, |end| end + 4)];
        stream.read_exact(&mut head).await.expect("what was seen can be read");
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(failed) => {
                    panic!("after {:?}: {failed}", String::from_utf8_lossy(&head))
                }
            }
        }
        let head = String::from_utf8(head).expect("a head is ASCII");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut answer = Answer { status: status.expect("a status"), head, body: String::new() };
        let length: usize =
            answer.header("content-length").map_or(0, |length| length.parse().expect("a length"));
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.expect("the whole body");
        answer.body = String::from_utf8(body).expect("a body is text");
        answer
    })
    .await
}
