//! A session that echoes, obeys a few commands, and reports every event.

use std::{
    cell::Cell,
    future::Future,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
};

use actix::{Actor, Addr, AsyncContext as _, Handler, Message, Running, StreamHandler};
use actix_http::ws::{self, ProtocolError};
use actix_web_actors::ws::WebsocketContext;
use bytes::Bytes;
use sealpost::clock::Clock;
use sealpost::settings::Settings;
use sealpost::transport::{
    CloseOutcome, Event, Incoming, Limits, SocketHandle, WebSocketWriter, connection,
};
use sealpost::web::http::Deadlines;
use sealpost::web::tls::Tls;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket},
    sync::{
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        oneshot,
    },
    task::JoinHandle,
};

use super::peer::{Peer, soon};
use super::tls::{self, Stream};

/// What a session reports.
#[derive(Debug, PartialEq)]
pub enum Report {
    Incoming(Incoming),
    Event(Event),
    Written(u64),
    Stopped,
}

impl Report {
    pub fn text(text: &str) -> Report {
        Report::Incoming(Incoming::Text(text.into()))
    }
}

pub struct Session {
    pub handle: SocketHandle,
    pub writer: WebSocketWriter,
    report: UnboundedSender<Report>,
    started: Option<oneshot::Sender<(Addr<Session>, SocketHandle)>>,
    pub panic_in_stopped: bool,
    pub echo: bool,
}

pub type Ctx = WebsocketContext<Session>;

impl Actor for Session {
    type Context = Ctx;

    fn started(&mut self, ctx: &mut Ctx) {
        let report = self.report.clone();
        self.handle.on_written(move |[mark, _]| {
            let _ = report.send(Report::Written(mark));
        });
        if let Some(started) = self.started.take() {
            let _ = started.send((ctx.address(), self.handle.clone()));
        }
    }

    fn stopping(&mut self, _: &mut Ctx) -> Running {
        Running::Stop
    }

    fn stopped(&mut self, _: &mut Ctx) {
        let _ = self.report.send(Report::Stopped);
        if self.panic_in_stopped {
            panic!("a deliberate panic in stopped()");
        }
    }
}

impl StreamHandler<Result<ws::Message, ProtocolError>> for Session {
    fn handle(&mut self, _: Result<ws::Message, ProtocolError>, _: &mut Ctx) {}
}

impl Session {
    fn on_incoming(&mut self, incoming: Incoming, ctx: &mut Ctx) {
        let _ = self.report.send(Report::Incoming(incoming.clone()));
        match incoming {
            Incoming::Text(text) if text == "pause" => self.handle.pause(true),
            Incoming::Text(text) if text == "panic" => panic!("a deliberate panic"),
            Incoming::Text(text) if text == "panic twice" => {
                self.panic_in_stopped = true;
                panic!("a deliberate panic");
            }
            Incoming::Text(text) if text == "bye" => {
                self.writer.close(4000, "as you wish", ctx);
                self.writer.text("too late");
                self.writer.close(4001, "too late", ctx);
            }
            Incoming::Text(text) if self.echo => self.writer.text(text),
            Incoming::Binary(bytes) if self.echo => self.writer.binary(bytes),
            _ => {}
        }
    }
}

impl StreamHandler<Event> for Session {
    fn handle(&mut self, event: Event, ctx: &mut Ctx) {
        match event {
            Event::Incoming(incoming) => return self.on_incoming(incoming, ctx),
            Event::ReadComplete => return,
            Event::HeartbeatDue { .. } => {}
            Event::IdleTimeout => self.writer.close(4408, "silent", ctx),
        }
        let _ = self.report.send(Report::Event(event));
    }
}

type Action = Box<dyn FnOnce(&mut Session, &mut Ctx) + Send>;

#[derive(Message)]
#[rtype(result = "()")]
struct RunOnActor(Action);

impl Handler<RunOnActor> for Session {
    type Result = ();

    fn handle(&mut self, RunOnActor(action): RunOnActor, ctx: &mut Ctx) {
        action(self, ctx);
    }
}

/// The server's side of one connection, as a test sees it.
pub struct Watch {
    pub handle: SocketHandle,
    pub address: Addr<Session>,
    reports: UnboundedReceiver<Report>,
    pub task: JoinHandle<CloseOutcome>,
    polls: Rc<Cell<usize>>,
}

impl Watch {
    /// The next report.
    pub async fn report(&mut self) -> Report {
        soon("a report", self.reports.recv()).await.expect("the session lives")
    }

    pub async fn expect(&mut self, report: Report) {
        assert_eq!(self.report().await, report);
    }

    /// The next report that is not a heartbeat.
    pub async fn next_but_heartbeats(&mut self) -> Report {
        loop {
            match self.report().await {
                Report::Event(Event::HeartbeatDue { .. }) => {}
                other => return other,
            }
        }
    }

    /// Polls the session often, and checks that the session reports nothing.
    pub async fn expect_nothing(&mut self) {
        for _ in 0..100 {
            self.act(|_, _| {}).await;
            // A yield lets the runtime poll its sockets.
            tokio::task::yield_now().await;
        }
        if let Ok(report) = self.reports.try_recv() {
            panic!("unexpected {report:?}");
        }
    }

    /// Runs something inside the session, and returns once it ran.
    pub async fn act(&self, action: impl FnOnce(&mut Session, &mut Ctx) + Send + 'static) {
        let sent = self.address.send(RunOnActor(Box::new(action)));
        soon("the mailbox", sent).await.expect("the session lives");
    }

    /// How the connection ended, after checking that the session stopped exactly once and
    /// reported nothing afterwards.
    pub async fn ending(mut self) -> CloseOutcome {
        let ending = soon("the end", &mut self.task).await.expect("no panic escapes");
        self.expect_stopped().await;
        ending
    }

    /// Reads the remaining reports: exactly one stop, and it is the last.
    pub async fn expect_stopped(&mut self) {
        let mut stops = 0;
        while let Some(report) = soon("the reports' end", self.reports.recv()).await {
            assert_eq!(stops, 0, "{report:?} after the stop");
            stops += usize::from(report == Report::Stopped);
        }
        assert_eq!(stops, 1, "stops");
    }

    pub fn polls(&self) -> usize {
        self.polls.get()
    }
}

/// A connection: the peer and the watch over its session.
pub async fn connect(limits: Limits) -> (Peer, Watch) {
    open(limits, Bytes::new(), None).await
}

/// The same with kernel buffers of about `buffers` bytes, so that a peer that does not read is
/// noticed soon.
pub async fn connect_narrow(limits: Limits, buffers: u32) -> (Peer, Watch) {
    open(limits, Bytes::new(), Some(buffers)).await
}

pub async fn open(limits: Limits, read_ahead: Bytes, buffers: Option<u32>) -> (Peer, Watch) {
    let (server, client) = (TcpSocket::new_v4().unwrap(), TcpSocket::new_v4().unwrap());
    if let Some(bytes) = buffers {
        server.set_send_buffer_size(bytes).unwrap();
        client.set_recv_buffer_size(bytes).unwrap();
    }
    server.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener: TcpListener = server.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let (stream, accepted) = tokio::join!(client.connect(address), listener.accept());
    let (stream, (accepted, _)) = (stream.unwrap(), accepted.unwrap());
    stream.set_nodelay(true).unwrap();
    accepted.set_nodelay(true).unwrap();

    if !tls::OVER_TLS {
        return watch(Stream::Plain(stream), accepted, limits, read_ahead).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    (settings.tls.certificate, settings.tls.key) = tls::Pair::new().write(directory.path());
    let server = Tls::start(&settings.tls, &Clock::still()).unwrap().unwrap();
    tls::note_relay(address, "127.0.0.1:0".parse().unwrap(), true);
    let (stream, accepted) =
        tokio::join!(Stream::open(stream, address), server.accept(accepted, Deadlines::from_now()));
    watch(stream, accepted.unwrap(), limits, read_ahead).await
}

async fn watch<Io: AsyncRead + AsyncWrite + Unpin + 'static>(
    stream: Stream,
    accepted: Io,
    limits: Limits,
    read_ahead: Bytes,
) -> (Peer, Watch) {
    let (report, reports) = unbounded_channel();
    let (started, start) = oneshot::channel();
    let polls = Rc::new(Cell::new(0));
    let future = connection(accepted, read_ahead, limits, |handle| Session {
        writer: WebSocketWriter::new(handle.clone()),
        handle,
        report,
        started: Some(started),
        panic_in_stopped: false,
        echo: true,
    });
    let task = actix_rt::spawn(counted(future, polls.clone()));
    let (address, handle) = soon("the session's start", start).await.unwrap();
    let watch = Watch { handle, address, reports, task, polls };
    (Peer { stream }, watch)
}

/// Counts how often a future is polled.
async fn counted<F: Future>(future: F, polls: Rc<Cell<usize>>) -> F::Output {
    let mut future = pin!(future);
    std::future::poll_fn(move |cx: &mut Context<'_>| -> Poll<F::Output> {
        polls.set(polls.get() + 1);
        Pin::as_mut(&mut future).poll(cx)
    })
    .await
}
