//! The transport: a WebSocket session on the raw upgraded socket.
//!
//! A session is an actix actor whose context is `actix_web_actors::ws::WebsocketContext`. Under it
//! lies, in place of an HTTP response, this module, which knows no message of the relay:
//!
//! * [`connection`] joins the two and is one future per connection (`connection_task`);
//! * on the way in, bytes are checked, decoded and joined to messages (`input`, `frame_decoder`, `utf8`);
//! * on the way out, bytes that the socket does not take wait within a bound (`outbound`);
//! * time is one lazy timer (`timer`) and a heartbeat that the actor cannot delay (`heartbeat`);
//! * the actor controls its connection by a [`SocketHandle`] and writes by a [`WebSocketWriter`].
//!
//! Invariants: no payload is kept before its frame's header is checked; memory per connection is bounded by
//! [`Limits`]; an idle connection holds no buffer; `Actor::stopped` runs exactly once for every
//! connection that began, however it ended, unless the actor panics in `stopping` or refuses to stop.

mod connection_task;
mod frame_decoder;
mod heartbeat;
mod input;
mod outbound;
mod socket_handle;
mod timer;
mod utf8;
mod websocket_writer;

use std::{cell::RefCell, future::Future, num::NonZeroU32, rc::Rc, sync::Arc, time::Duration};

use actix::{Actor, AsyncContext as _, StreamHandler};
use actix_http::ws::{Message, ProtocolError};
use actix_web_actors::ws::WebsocketContext;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

pub use self::{
    frame_decoder::ProtocolViolation,
    input::{Event, Incoming},
    socket_handle::SocketHandle,
    websocket_writer::WebSocketWriter,
};

/// Two numbers of the session's that grow apart from each other, see [`SocketHandle::watermark`].
pub type Watermark = [u64; 2];

/// The resources that one connection may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest message from the peer, bytes, its fragments joined. Over it: close 1009, as soon
    /// as a header declares it. Default 128 KiB.
    pub message_bytes: usize,
    /// The most frames of one message. Over it: close 1008. Default 1024.
    pub fragments: u32,
    /// How long a frame or a fragmented message may stay unfinished, however slowly it comes. Default 10 s.
    pub frame_timeout: Duration,
    /// After `frame_timeout`: the payload bytes a second at which an unfinished message must have come, on
    /// average since its first byte. Below it: close 1013. Default 2 KiB.
    pub frame_rate: NonZeroU32,
    /// Between two [`Event::HeartbeatDue`]. Default 25 s.
    pub heartbeat_interval: Duration,
    /// Without a frame for this long comes [`Event::IdleTimeout`]. Default 75 s.
    pub idle_timeout: Duration,
    /// Unwritten output above which the peer's input is not read, bytes. Default 64 KiB.
    pub outbound_high_watermark: usize,
    /// Unwritten output above which the peer is dropped, bytes. Default 4 MiB.
    pub outbound_max: usize,
    /// How long unwritten output may stay without the socket accepting a byte, and how long the last
    /// flush may take. Then the peer is dropped. Default 30 s.
    pub write_timeout: Duration,
    /// How long the peer's Close is awaited after ours. Other input is read and dropped, up to 1 MiB.
    /// Default 2 s.
    pub linger: Duration,
}

impl Limits {
    /// How long a message may stay unfinished of which `received` bytes have come.
    fn time_for(&self, received: usize) -> Duration {
        self.frame_timeout.max(Duration::from_secs(received as u64) / self.frame_rate.get())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            message_bytes: 128 * 1024,
            fragments: 1024,
            frame_timeout: Duration::from_secs(10),
            frame_rate: const { NonZeroU32::new(2 * 1024).unwrap() },
            heartbeat_interval: Duration::from_secs(25),
            idle_timeout: Duration::from_secs(75),
            outbound_high_watermark: 64 * 1024,
            outbound_max: 4 * 1024 * 1024,
            write_timeout: Duration::from_secs(30),
            linger: Duration::from_secs(2),
        }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseOutcome {
    /// With a Close frame. The code is ours if we sent one, else the peer's; 1005 if the frame had none
    /// (RFC 6455 §7.1.5).
    Closed(u16),
    /// Without a Close frame: the peer vanished, or the actor stopped without closing.
    Gone,
    /// The peer did not read fast enough: over `outbound_max`, or `write_timeout` without progress.
    Stalled,
    /// The actor panicked. The peer was closed with 1011.
    Panicked,
}

/// Runs one upgraded WebSocket until it has ended.
///
/// `read_ahead` holds the bytes that were read from `io` behind the handshake's request. `actor` is
/// called at once with the connection's [`SocketHandle`]. The actor handles [`Event`]s and writes by a
/// [`WebSocketWriter`]; it must not refuse to stop. The handler of `Result<Message, ProtocolError>`,
/// which `WebsocketContext` requires, is never called.
///
/// The future must be polled on one thread of a tokio runtime with I/O and time; dropping it stops
/// the actor and closes the socket.
pub fn connection<A, Io>(
    io: Io,
    read_ahead: Bytes,
    limits: impl Into<Arc<Limits>>,
    actor: impl FnOnce(SocketHandle) -> A,
) -> impl Future<Output = CloseOutcome>
where
    Io: AsyncRead + AsyncWrite + Unpin + 'static,
    A: Actor<Context = WebsocketContext<A>>
        + StreamHandler<Result<Message, ProtocolError>>
        + StreamHandler<Event>,
{
    let handle = SocketHandle::new(limits.into());
    let socket = Rc::new(RefCell::new(input::Socket::new(io, &read_ahead, &handle)));
    let events = input::Events::new(socket.clone(), handle.clone());
    let actor = actor(handle.clone());
    // Added before `started`, and therefore polled before each stream and future of the actor's own.
    let context = WebsocketContext::with_factory(futures_util::stream::pending(), |context| {
        context.add_stream(events);
        actor
    });
    connection_task::ConnectionTask::new(handle, socket, context)
}
