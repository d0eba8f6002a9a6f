//! The transport: a WebSocket session on the raw upgraded socket.
//!
//! A session is an actix actor whose context is `actix_web_actors::ws::WebsocketContext`. Under it
//! lies not an HTTP response but this floor, which knows no message of the relay:
//!
//! * [`connection`] joins the two and is one future per connection (`driver`);
//! * on the way in, bytes are judged before they are believed (`input`, `guard`, `utf8`);
//! * on the way out, what the socket would not take waits within a bound (`output`);
//! * time is one lazy timer (`timer`) and a heartbeat that the actor cannot delay (`pulse`);
//! * the actor holds a [`SocketHandle`] to what lies below, and a [`WebSocketWriter`] to its peer; what it says through the
//!   context instead would come late, after everything that its wire has said in the same poll.
//!
//! Invariants: no frame is believed before its header is judged; memory per connection is bounded by
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

use std::{cell::RefCell, future::Future, rc::Rc, sync::Arc, time::Duration};

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

/// What one connection may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest message from the peer, bytes, its fragments joined. Over it: close 1009, as soon
    /// as a header declares it. Default 128 KiB.
    pub message_bytes: usize,
    /// The most frames of one message. Over it: close 1008. Default 1024.
    pub fragments: u32,
    /// How long a frame or a fragmented message may stay unfinished before it is closed with 1008.
    /// Default 10 s.
    pub frame_timeout: Duration,
    /// Between two [`Event::HeartbeatDue`]. Default 25 s.
    pub heartbeat_interval: Duration,
    /// Without a frame for this long comes [`Event::IdleTimeout`]. Default 75 s.
    pub idle_timeout: Duration,
    /// Unwritten output above which the peer's input is not read, bytes. Default 64 KiB.
    pub outbound_high_watermark: usize,
    /// Unwritten output above which the peer is dropped, bytes. Default 4 MiB.
    pub outbound_max: usize,
    /// How long a backlog may stay without the socket taking a byte, and how long the last words may
    /// take. Then the peer is dropped. Default 30 s.
    pub write_timeout: Duration,
    /// How long the peer's Close is awaited after sent_close. What else it sends is read and forgotten, up
    /// to 1 MiB. Default 2 s.
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            message_bytes: 128 * 1024,
            fragments: 1024,
            frame_timeout: Duration::from_secs(10),
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
    /// With a Close frame. The code is sent_close if we sent one, else the peer's; 1005 if it had none
    /// (RFC 6455 §7.1.5).
    Closed(u16),
    /// Without a Close frame: the peer vanished, or the actor stopped without a word.
    Gone,
    /// The peer did not read fast enough: over `outbound_max`, or `stall` without progress.
    Stalled,
    /// The actor panicked. The peer was told 1011.
    Panicked,
}

/// Runs one upgraded WebSocket until it has ended.
///
/// `read_ahead` is what was read from `io` behind the handshake's request. `actor` is called at once
/// with the connection's [`SocketHandle`]; in `started()` it adds [`SocketHandle::events`] to its context, and it
/// passes every message through one [`WebSocketWriter`]. The actor must not refuse to stop.
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
