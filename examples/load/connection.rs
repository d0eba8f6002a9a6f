//! One device's connection: opened, registered, then split into [`Link`], which sends, and [`Ear`], which listens.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, ready};

use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;

use crate::dialect::Dialect;
use crate::frame::{self, BINARY, CLOSE, PING, PONG, Parser, TEXT};
use crate::nats::{self, Word};
use crate::stats::Stats;
use crate::words::{self, ANSWER, Heard, Id, Registered, code};

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
    /// Connections come from 127.0.0.1 to 127.0.0.N in turn; 0: from wherever the system likes.
    pub sources: u8,
    /// What is spoken there.
    pub dialect: Dialect,
}

/// A registered device: its two ends and what the relay said.
pub struct Device {
    /// What it sends on.
    pub link: Rc<Link>,
    /// What it hears with.
    pub ear: Ear,
    /// What it was answered.
    pub registered: Registered,
}

impl Device {
    /// The `number`th connection, registered with this payload (`{"resumable":true}`) or none.
    ///
    /// # Errors
    ///
    /// When the relay does not let us in; the error says why.
    pub async fn join(route: &Route, number: usize, payload: Option<&str>) -> io::Result<Self> {
        let mut stream = open(route, number).await?;
        let ahead = handshake(&mut stream, route).await?;
        if route.dialect == Dialect::Nats {
            return Self::subscribe(stream, &ahead, number).await;
        }
        if !ahead.is_empty() {
            return Err(io::Error::other("the relay speaks before it is spoken to"));
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
        let frames = Frames { read, parser: Parser::default() };
        let ear = Ear { frames, nats: None };
        let id = registered.device_id.as_bytes();
        let id = *<&Id>::try_from(id).map_err(|_| io::Error::other("a device_id of odd length"))?;
        Ok(Self { link: Link::new(write, id), ear, registered })
    }

    /// Joins NATS: a device there is who listens to a subject, and it may choose which. `ahead` has come already.
    async fn subscribe(mut stream: TcpStream, ahead: &[u8], number: usize) -> io::Result<Self> {
        let id = words::numbered(number);
        let mut out = Vec::new();
        frame::write(&mut out, BINARY, &nats::hello(&id));
        stream.write_all(&out).await?;
        let (read, write) = stream.into_split();
        let mut frames = Frames { read, parser: Parser::default() };
        let mut nats = nats::Parser::default();
        let is_in = Cell::new(false);
        let mut say = |first: u8, payload: &[u8]| {
            if !frame::is_data(first) {
                return Err(format!("CONNECT was answered by a frame that begins with {first:#x}"));
            }
            nats.feed(payload, |word| match word {
                Word::Error(line) => Err(String::from_utf8_lossy(line).into_owned()),
                word => {
                    is_in.set(is_in.get() || word == Word::Pong);
                    Ok(())
                }
            })
        };
        let mut answered = frames.cut(ahead, &mut say);
        while answered.is_ok() && !is_in.get() {
            answered = frames.hear(&mut say).await;
        }
        answered.map_err(io::Error::other)?;
        let registered = Registered { device_id: String::new(), resume_token: None, queued: 0 };
        Ok(Self { link: Link::new(write, id), ear: Ear { frames, nats: Some(nats) }, registered })
    }

    /// Says goodbye and waits for the relay's.
    pub async fn leave(mut self) -> io::Result<()> {
        self.link.with(goodbye);
        while self.ear.frames.read.read(&mut [0; 256]).await? > 0 {}
        Ok(())
    }
}

/// Appends the frame that ends a connection in peace.
pub fn goodbye(out: &mut Vec<u8>) {
    frame::write(out, CLOSE, &1000_u16.to_be_bytes());
}

async fn open(route: &Route, number: usize) -> io::Result<TcpStream> {
    let stream = if route.sources > 0 && route.address.is_ipv4() {
        let last = (number % usize::from(route.sources)) as u8 + 1;
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into())?;
        socket.connect(route.address).await?
    } else {
        TcpStream::connect(route.address).await?
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Answers what has come behind the server's head already.
async fn handshake(
    stream: &mut TcpStream,
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
        let line = head.lines().next().unwrap_or("nothing");
        Err(io::Error::other(format!("the handshake was answered: {line}")))
    }
}

/// The answer to `Register`, and not a byte more: what waits for a device may follow at once.
async fn response(stream: &mut TcpStream) -> io::Result<Registered> {
    let (first, second) = (stream.read_u8().await?, stream.read_u8().await?);
    let length = if second == 126 { stream.read_u16().await? } else { second.into() };
    let mut text = vec![0; length.into()];
    stream.read_exact(&mut text).await?;
    let answer = (first == TEXT).then(|| Registered::read(&text)).flatten();
    answer.ok_or_else(|| {
        io::Error::other(format!("Register was answered: {}", String::from_utf8_lossy(&text)))
    })
}

/// The sending end.
pub struct Link {
    /// Whose.
    pub id: Id,
    out: RefCell<Vec<u8>>,
    write: OwnedWriteHalf,
    /// The socket is full; [`Link::push`] goes on when it is not.
    is_full: Cell<bool>,
    full: Notify,
}

impl Link {
    fn new(write: OwnedWriteHalf, id: Id) -> Rc<Self> {
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

    /// Sends as much as the socket takes. A broken socket is the ear's business.
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
        if written == out.len() {
            out.clear();
        } else {
            out.drain(..written);
            self.is_full.set(true);
            self.full.notify_one();
        }
    }

    /// Sends what did not fit, whenever there is room again; runs beside the ear.
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

/// What a device does about what it hears.
pub trait Role {
    /// A message has arrived.
    fn receive(&self, link: &Link, id: &Id, now: u64);
    /// The relay has a message.
    fn ack(&self, link: &Link, id: &Id, now: u64);
    /// The relay has refused something, and it is counted already.
    fn error(&self, link: &Link);
    /// That was all for now.
    fn rest(&self) {}
}

/// The listening end.
pub struct Ear {
    frames: Frames,
    /// If NATS is spoken: what has come of its stream.
    nats: Option<nats::Parser>,
}

impl Ear {
    /// Listens until the connection ends, which is counted.
    pub async fn listen(self, link: Rc<Link>, role: Rc<impl Role>, stats: Rc<Stats>) {
        let Self { mut frames, mut nats } = self;
        let how = loop {
            let say = |first: u8, payload: &[u8]| match &mut nats {
                Some(nats) if frame::is_data(first) => {
                    nats.feed(payload, |word| hear_nats(word, &link, &*role, &stats))
                }
                _ => hear(first, payload, &link, &*role, &stats),
            };
            let heard = frames.hear(say).await;
            if let Err(how) = heard {
                break how;
            }
            role.rest();
            link.flush();
        };
        stats.close(how);
    }
}

/// What comes in, frame by frame.
struct Frames {
    read: OwnedReadHalf,
    parser: Parser,
}

impl Frames {
    /// Reads once and says each frame that is whole; an error says how the connection ended.
    async fn hear(
        &mut self,
        mut say: impl FnMut(u8, &[u8]) -> Result<(), String>,
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
                Poll::Ready(self.cut(buffer.filled(), &mut say))
            })
        })
        .await
    }

    /// Says each frame that is whole with this.
    fn cut(
        &mut self,
        mut input: &[u8],
        mut say: impl FnMut(u8, &[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        while let Some(frame) = self.parser.next(&mut input).map_err(|masked| masked.to_string())? {
            say(frame.first, frame.payload)?;
        }
        Ok(())
    }
}

/// One word of NATS; an error says how the connection ended.
fn hear_nats(word: Word<'_>, link: &Link, role: &impl Role, stats: &Stats) -> Result<(), String> {
    match word {
        Word::Message(text) => {
            let id = words::sent(text)
                .ok_or_else(|| format!("heard {}", String::from_utf8_lossy(text)))?;
            let now = stats.now();
            stats.receive(id, now);
            role.receive(link, id, now);
        }
        Word::Ping => link.put(|out| frame::write(out, BINARY, nats::ANSWER)),
        Word::Pong | Word::Other => {}
        Word::Error(line) => return Err(String::from_utf8_lossy(line).into_owned()),
    }
    Ok(())
}

/// One frame; an error says how the connection ended.
fn hear(
    first: u8,
    payload: &[u8],
    link: &Link,
    role: &impl Role,
    stats: &Stats,
) -> Result<(), String> {
    match first {
        TEXT => match Heard::read(payload) {
            Heard::Receive(id) => {
                let now = stats.now();
                stats.receive(id, now);
                role.receive(link, id, now);
            }
            Heard::Ack(id) => {
                let now = stats.now();
                stats.ack(id, now);
                role.ack(link, id, now);
            }
            Heard::Error(error) => {
                stats.error(code(error));
                role.error(link);
            }
            Heard::Ping => link.put(|out| frame::write(out, TEXT, ANSWER)),
            Heard::Other(text) => return Err(format!("heard {}", String::from_utf8_lossy(text))),
        },
        PING => link.put(|out| frame::write(out, PONG, payload)),
        PONG => {}
        CLOSE => {
            let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
            return Err(format!("close {code}"));
        }
        other => return Err(format!("a frame that begins with {other:#x}")),
    }
    Ok(())
}
