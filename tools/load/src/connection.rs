//! One device's connection: opened, registered, then split into [`Writer`], which sends, and [`Reader`], which receives.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, ready};

use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;

use crate::dialect::Dialect;
use crate::frame::{self, BINARY, CLOSE, PING, PONG, Parser, TEXT};
use crate::messages::{self, Id, Incoming, Registered, code};
use crate::nats::{self, Operation};
use crate::stats::Stats;
use crate::stream::{ReadHalf, Stream, Tls, WriteHalf};

/// Key and answer are the RFC's own example (RFC 6455, section 1.3).
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// More than any head of an answer.
const HEAD: usize = 8 * 1024;
/// Read at once.
const SCRATCH: usize = 256 * 1024;

thread_local! {
    /// All connections read into this, one after the other; what they keep is a frame that has not come whole.
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// Where the relay is, and from where to come.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its address.
    pub address: SocketAddr,
    /// Its name and port, for the handshake.
    pub host: String,
    /// Where the WebSocket is.
    pub path: String,
    /// For `wss`.
    pub tls: Option<Tls>,
    /// Connections come from 127.0.0.1 to 127.0.0.N in turn; 0: from wherever the system likes.
    pub sources: u8,
    /// What is spoken there.
    pub dialect: Dialect,
}

/// A registered device: both halves of its connection and the relay's response.
pub struct Device {
    /// The sending half.
    pub writer: Rc<Writer>,
    /// The receiving half.
    pub reader: Reader,
    /// The response.
    pub registered: Registered,
}

impl Device {
    /// The `number`th connection, registered with this payload (`{"resumable":true}`) or none.
    ///
    /// # Errors
    ///
    /// When the relay refuses the connection; the error says why.
    pub async fn join(route: &Route, number: usize, payload: Option<&str>) -> io::Result<Self> {
        let mut stream = open(route, number).await?;
        let ahead = handshake(&mut stream, route).await?;
        if route.dialect == Dialect::Nats {
            return Self::subscribe(stream, &ahead, number).await;
        }
        if !ahead.is_empty() {
            return Err(io::Error::other("the relay sent a frame before Register"));
        }
        let text = match payload {
            Some(payload) => format!(r#"{{"type":"Register","payload":{payload}}}"#),
            None => r#"{"type":"Register"}"#.to_owned(),
        };
        let mut out = Vec::new();
        frame::write(&mut out, TEXT, text.as_bytes());
        stream.write_all(&out).await?;
        let registered = response(&mut stream).await?;
        let (read, write) = stream.into_split();
        let frames = Frames::new(read);
        let reader = Reader { frames, nats: None };
        let id = registered.device_id.as_bytes();
        let id = *<&Id>::try_from(id).map_err(|_| io::Error::other("a device_id of odd length"))?;
        Ok(Self { writer: Writer::new(write, id), reader, registered })
    }

    /// Joins NATS: a device there is a subscriber of a subject of its own choice. `ahead` was read with the handshake.
    async fn subscribe(mut stream: Stream, ahead: &[u8], number: usize) -> io::Result<Self> {
        let id = messages::numbered_id(number);
        let mut out = Vec::new();
        frame::write(&mut out, BINARY, &nats::connect(&id));
        stream.write_all(&out).await?;
        let (read, write) = stream.into_split();
        let mut frames = Frames::new(read);
        let mut nats = nats::Parser::default();
        let is_in = Cell::new(false);
        let mut handle_frame = |first: u8, payload: &[u8]| {
            if !frame::is_data(first) {
                return Err(format!("CONNECT was answered by a frame that begins with {first:#x}"));
            }
            nats.feed(payload, |operation| match operation {
                Operation::Error(line) => Err(String::from_utf8_lossy(line).into_owned()),
                operation => {
                    is_in.set(is_in.get() || operation == Operation::Pong);
                    Ok(())
                }
            })
        };
        let mut answered = frames.cut(ahead, &mut handle_frame);
        while answered.is_ok() && !is_in.get() {
            answered = frames.read(&mut handle_frame).await;
        }
        answered.map_err(io::Error::other)?;
        let registered = Registered { device_id: String::new(), resume_token: None, queued: 0 };
        Ok(Self {
            writer: Writer::new(write, id),
            reader: Reader { frames, nats: Some(nats) },
            registered,
        })
    }

    /// Says close_frame and waits for the relay's.
    pub async fn leave(mut self) -> io::Result<()> {
        self.writer.with(close_frame);
        while self.reader.frames.read.read(&mut [0; 256]).await? > 0 {}
        Ok(())
    }
}

/// Appends a Close frame with code 1000.
pub fn close_frame(out: &mut Vec<u8>) {
    frame::write(out, CLOSE, &1000_u16.to_be_bytes());
}

async fn open(route: &Route, number: usize) -> io::Result<Stream> {
    if route.sources > 0 && route.address.is_ipv4() {
        let last = (number % usize::from(route.sources)) as u8 + 1;
        return open_from(route, Ipv4Addr::new(127, 0, 0, last)).await;
    }
    let stream = TcpStream::connect(route.address).await?;
    stream.set_nodelay(true)?;
    Stream::open(stream, route.tls.as_ref()).await
}

/// Connects from this address.
///
/// # Errors
///
/// When this machine has no such address or port, or the relay does not accept.
pub async fn open_from(route: &Route, source: Ipv4Addr) -> io::Result<Stream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    let stream = socket.connect(route.address).await?;
    stream.set_nodelay(true)?;
    Stream::open(stream, route.tls.as_ref()).await
}

/// The relay did not make a WebSocket of the connection; inside the [`io::Error`] of [`handshake`].
#[derive(Debug, PartialEq, Eq)]
pub struct HandshakeRefused {
    /// The first line of the response.
    pub line: String,
    /// The HTTP status; 0: there was none.
    pub status: u16,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u64>,
}

impl HandshakeRefused {
    fn read(head: &str) -> Self {
        let line = head.lines().next().unwrap_or("nothing").to_owned();
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let retry_after = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("retry-after"))
            .and_then(|(_, seconds)| seconds.trim().parse().ok());
        Self { line, status, retry_after }
    }
}

impl fmt::Display for HandshakeRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the handshake was answered: {}", self.line)
    }
}

impl std::error::Error for HandshakeRefused {}

/// Returns the bytes that followed the server's response head.
///
/// # Errors
///
/// When the connection breaks, or with [`HandshakeRefused`].
pub async fn handshake(
    stream: &mut Stream,
    Route { host, path, .. }: &Route,
) -> io::Result<Vec<u8>> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    let mut ahead = Vec::new();
    while stream.read_buf(&mut head).await? > 0 && head.len() <= HEAD {
        if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            ahead = head.split_off(end + 4);
            break;
        }
    }
    let head = String::from_utf8_lossy(&head);
    if head.starts_with("HTTP/1.1 101 ") && head.contains(ACCEPT) {
        Ok(ahead)
    } else {
        Err(io::Error::other(HandshakeRefused::read(&head)))
    }
}

/// The answer to `Register`, and not a byte more: queued messages may follow at once.
async fn response(stream: &mut Stream) -> io::Result<Registered> {
    let (first, second) = (stream.read_u8().await?, stream.read_u8().await?);
    let length = if second == 126 { stream.read_u16().await? } else { second.into() };
    let mut text = vec![0; length.into()];
    stream.read_exact(&mut text).await?;
    let answer = (first == TEXT).then(|| Registered::read(&text)).flatten();
    answer.ok_or_else(|| {
        io::Error::other(format!("Register was answered: {}", String::from_utf8_lossy(&text)))
    })
}

/// The sending half.
pub struct Writer {
    /// The device's id.
    pub id: Id,
    out: RefCell<Vec<u8>>,
    write: WriteHalf,
    /// The socket is full; [`Writer::push`] goes on when it is not.
    is_full: Cell<bool>,
    full: Notify,
}

impl Writer {
    /// Nothing is to be sent yet.
    pub fn new(write: WriteHalf, id: Id) -> Rc<Self> {
        Rc::new(Self {
            id,
            out: RefCell::default(),
            write,
            is_full: Cell::new(false),
            full: Notify::new(),
        })
    }

    /// Appends to what is to be sent.
    pub fn put(&self, put: impl FnOnce(&mut Vec<u8>)) {
        put(&mut self.out.borrow_mut());
    }

    /// Appends and sends.
    pub fn with(&self, put: impl FnOnce(&mut Vec<u8>)) {
        self.put(put);
        self.flush();
    }

    /// Sends as much as the socket takes. The reader reports a broken socket.
    pub fn flush(&self) {
        let mut out = self.out.borrow_mut();
        if out.is_empty() || self.is_full.get() {
            return;
        }
        let written = match self.write.try_write(&out) {
            Ok(written) => written,
            Err(full) if full.kind() == io::ErrorKind::WouldBlock => 0,
            // Nothing will ever fit again; trying on and on would take the time of all others.
            Err(_) => out.len(),
        };
        let is_done = written == out.len();
        if is_done {
            out.clear();
        } else {
            out.drain(..written);
        }
        if !is_done || self.write.is_unflushed() {
            self.is_full.set(true);
            self.full.notify_one();
        }
    }

    /// Sends the rest when the socket is writable again; runs beside the reader.
    pub async fn push(self: Rc<Self>) {
        loop {
            self.full.notified().await;
            if self.write.writable().await.is_err() {
                return;
            }
            self.is_full.set(false);
            self.flush();
        }
    }
}

/// How a device reacts to received frames.
pub trait Behaviour {
    /// A message has arrived.
    fn receive(&self, writer: &Writer, id: &Id, now: u64);
    /// The relay has accepted a message.
    fn ack(&self, writer: &Writer, id: &Id, now: u64);
    /// The relay has refused something; it is already counted.
    fn error(&self, writer: &Writer);
    /// Everything that was read is handled.
    fn rest(&self) {}
}

/// The receiving half.
pub struct Reader {
    frames: Frames,
    /// With NATS: the parser of its stream.
    nats: Option<nats::Parser>,
}

impl Reader {
    /// Reads until the connection ends; counts the end.
    pub async fn run(self, writer: Rc<Writer>, role: Rc<impl Behaviour>, stats: Rc<Stats>) {
        let Self { mut frames, mut nats } = self;
        let how = loop {
            let handle_frame = |first: u8, payload: &[u8]| match &mut nats {
                Some(nats) if frame::is_data(first) => {
                    nats.feed(payload, |operation| handle_nats(operation, &writer, &*role, &stats))
                }
                _ => handle_frame(first, payload, &writer, &*role, &stats),
            };
            let result = frames.read(handle_frame).await;
            if let Err(how) = result {
                break how;
            }
            role.rest();
            writer.flush();
        };
        stats.close(how);
    }
}

/// The incoming frames.
pub struct Frames {
    read: ReadHalf,
    parser: Parser,
}

impl Frames {
    /// Those that come from here.
    pub fn new(read: ReadHalf) -> Self {
        Self { read, parser: Parser::default() }
    }

    /// Reads once and calls `handle_frame` with each complete frame; an error says how the connection ended.
    pub async fn read(
        &mut self,
        mut handle_frame: impl FnMut(u8, &[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        poll_fn(|cx| {
            READ.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                if let Err(failed) = ready!(Pin::new(&mut self.read).poll_read(cx, &mut buffer)) {
                    return Poll::Ready(Err(failed.to_string()));
                }
                if buffer.filled().is_empty() {
                    return Poll::Ready(Err("end of stream".to_owned()));
                }
                Poll::Ready(self.cut(buffer.filled(), &mut handle_frame))
            })
        })
        .await
    }

    /// Calls `handle_frame` with each frame that this input completes.
    fn cut(
        &mut self,
        mut input: &[u8],
        mut handle_frame: impl FnMut(u8, &[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        while let Some(frame) = self.parser.next(&mut input).map_err(|masked| masked.to_string())? {
            handle_frame(frame.first, frame.payload)?;
        }
        Ok(())
    }
}

/// Handles one operation of NATS; an error says how the connection ended.
fn handle_nats(
    operation: Operation<'_>,
    writer: &Writer,
    role: &impl Behaviour,
    stats: &Stats,
) -> Result<(), String> {
    match operation {
        Operation::Message(text) => {
            let id = messages::send_id(text)
                .ok_or_else(|| format!("received {}", String::from_utf8_lossy(text)))?;
            let now = stats.now();
            stats.receive(id, now);
            role.receive(writer, id, now);
        }
        Operation::Ping => writer.put(|out| frame::write(out, BINARY, nats::PONG)),
        Operation::Pong | Operation::Other => {}
        Operation::Error(line) => return Err(String::from_utf8_lossy(line).into_owned()),
    }
    Ok(())
}

/// Handles one frame; an error says how the connection ended.
fn handle_frame(
    first: u8,
    payload: &[u8],
    writer: &Writer,
    role: &impl Behaviour,
    stats: &Stats,
) -> Result<(), String> {
    match first {
        TEXT => match Incoming::read(payload) {
            Incoming::Receive(id) => {
                let now = stats.now();
                stats.receive(id, now);
                role.receive(writer, id, now);
            }
            Incoming::Ack(id) => {
                let now = stats.now();
                stats.ack(id, now);
                role.ack(writer, id, now);
            }
            Incoming::Error(error) => {
                stats.error(code(error));
                role.error(writer);
            }
            Incoming::Ping => writer.put(|out| frame::write(out, TEXT, messages::PONG)),
            Incoming::Other(text) => {
                return Err(format!("received {}", String::from_utf8_lossy(text)));
            }
        },
        PING => writer.put(|out| frame::write(out, PONG, payload)),
        PONG => {}
        CLOSE => {
            let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
            return Err(format!("close {code}"));
        }
        other => return Err(format!("a frame that begins with {other:#x}")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::HandshakeRefused;

    #[test]
    fn a_refused_handshake_has_its_status_and_how_long_to_wait() {
        let head = "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\nRetry-After: 7\r\n\r\n";
        let refused = HandshakeRefused::read(head);
        assert_eq!((refused.status, refused.retry_after), (429, Some(7)));
        let refused = HandshakeRefused::read("");
        assert_eq!((refused.status, refused.retry_after), (0, None));
        assert_eq!(refused.to_string(), "the handshake was answered: nothing");
    }
}
