//! A session: one WebSocket, an actor on its own socket.
//!
//! It decodes what its device says and encodes what the device hears. What it heard up to a lull travels to the
//! Registry as one batch; only one batch is on its way at a time, and while the Registry is behind the socket is not
//! read. What comes back is a [`DeliveryBatch`]. The session owns nothing: what it has not delivered is the Registry's still.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorContext, Addr, AsyncContext, Handler, Message, SpawnHandle, StreamHandler,
};
use actix_http::ws::{Message as Frame, ProtocolError};
use actix_web_actors::ws::WebsocketContext;
use bytestring::ByteString;

use super::rate_limiter::{Admit, RateLimiter, ResumeFailed};
use super::registry::{CommandBatch, Connected, Disconnected, Lease, Registry, WriteProgress};
use super::write_watermarks::WriteWatermarks;
use crate::protocol::encode::{self, ClientLimits, Extension, Token};
use crate::protocol::frame::Register;
use crate::protocol::id::DeviceId;
use crate::protocol::refusal::{CloseReason, ErrorContext, Refusal};
use crate::relay::command::{Command, ConnectionId, Delivery, RegistrationAccepted};
use crate::relay::connection_state::{Registered, Request, Unregistered, error_context_of};
use crate::relay::rate_limit::{Class, Verdict};
use crate::transport::{Event, Incoming, SocketHandle, WebSocketWriter};

/// Words that wait for the Registry before the socket is no longer read.
const BATCH: usize = 64;

/// Turns that can wait beyond the ones that the delivery window allows.
const SPARE_BATCHES: usize = 64;

/// Turns that can wait in any case.
const MAILBOX_MAX: usize = 65_536;

/// Messages in the mailbox of a core actor. What bounds it is that a session asks again only when it was answered; this
/// many connections can all be waiting for an answer.
pub const CORE_MAILBOX: usize = 1024 * 1024;

/// When a full Registry is tried again.
const RETRY: Duration = Duration::from_millis(10);

type Ctx = WebsocketContext<Session>;

/// What the Registry has for a session, in order.
#[derive(Debug, Default, Message)]
#[rtype(result = "()")]
pub struct DeliveryBatch {
    /// To be told, in order.
    pub deliveries: Vec<Delivery<Lease>>,
    /// Whether this acknowledges the session's batch, so that the next one may go.
    pub acknowledges: bool,
    /// Acks in that batch that confirmed nothing.
    pub unmatched_acks: u32,
}

/// The terms under which a connection was opened; a reload does not change them.
#[derive(Debug, Clone)]
pub struct Terms {
    /// `limits.message_bytes`
    pub message_bytes: usize,
    /// `limits.strikes`
    pub strikes: u32,
    /// `limits.register_timeout`
    pub register_timeout: Duration,
    /// `session.ttl` or, for a plain device, `session.plain_ttl`: seconds.
    pub session_ttl: u64,
    /// See `session_ttl`.
    pub plain_ttl: u64,
    /// As the client is told.
    pub limits: ClientLimits,
}

/// How sessions reach the core. All share one, for an address of its own would cost each as much as its name.
pub struct Core {
    /// Presence and routing.
    pub registry: Addr<Registry>,
    /// Admission.
    pub limiter: Addr<RateLimiter>,
    /// What the sockets took.
    pub watermarks: WriteWatermarks,
}

/// See the module.
pub struct Session {
    /// The connection's number, for the Registry and for the log.
    number: u64,
    address: IpAddr,
    terms: Arc<Terms>,
    core: Arc<Core>,
    socket: SocketHandle,
    writer: WebSocketWriter,
    state: State,
    lease: Lease,
    strikes: u32,
    /// Decoded, not sent to the Registry yet.
    batch: Vec<Command>,
    /// A batch is with the Registry.
    batch_in_flight: bool,
    /// Pongs that are due once the Registry has answered the batch that it has…
    pongs: u32,
    /// …or the one that is coming together.
    later_pongs: u32,
    deadline: Option<SpawnHandle>,
}

/// How far the connection has come.
enum State {
    /// It may only register.
    Unregistered,
    /// It has asked to; what it says meanwhile waits.
    Registering { extended: bool, buffered: Vec<ByteString> },
    /// It is a device.
    Registered { me: Registered, conn: ConnectionId, extension: Option<Box<Extension>> },
}

impl Session {
    /// The session of a connection that has just been opened.
    pub fn new(
        number: u64,
        address: IpAddr,
        terms: Arc<Terms>,
        core: Arc<Core>,
        lease: Lease,
        socket: SocketHandle,
    ) -> Self {
        Self {
            number,
            address,
            terms,
            core,
            writer: WebSocketWriter::new(socket.clone()),
            socket,
            state: State::Unregistered,
            lease,
            strikes: 0,
            batch: Vec::new(),
            batch_in_flight: false,
            pongs: 0,
            later_pongs: 0,
            deadline: None,
        }
    }

    /// One text message of the device.
    fn on_text(&mut self, text: ByteString, ctx: &mut Ctx) {
        if !self.writer.is_open() {
            return;
        }
        #[cfg(test)]
        assert_ne!(text, "panic", "told to");
        let parsed = match &mut self.state {
            State::Registering { buffered, .. } => {
                buffered.push(text);
                return;
            }
            State::Unregistered => Unregistered.parse(&text, self.terms.message_bytes),
            State::Registered { me, .. } => me.parse(&text, self.terms.message_bytes),
        };
        match parsed {
            Ok(said) => {
                self.strikes = 0;
                self.serve(said, ctx);
            }
            Err((refusal, about)) if refusal.is_malformed() => {
                self.strikes += 1;
                if self.strikes >= self.terms.strikes {
                    self.refuse(refusal, &about);
                    self.close(CloseReason::Strikes, ctx);
                } else if self.allow(Class::Control, about.clone(), ctx) {
                    self.refuse(refusal, &about);
                }
            }
            Err((refusal, about)) => {
                self.strikes = 0;
                if self.allow(Class::Message, about.clone(), ctx) {
                    self.refuse(refusal, &about);
                }
            }
        }
    }

    fn serve(&mut self, said: Request<'_>, ctx: &mut Ctx) {
        match said {
            // Confirmations are as many as the messages that they confirm; stray ones are counted when they are known.
            Request::Command(command @ Command::Ack { .. }) => self.enqueue_command(command),
            Request::Command(command) => {
                if self.allow(Class::Message, error_context_of(&command), ctx) {
                    self.enqueue_command(command);
                }
            }
            Request::Register(register) => {
                if self.allow(Class::Control, ErrorContext::NOTHING, ctx) {
                    self.register(register, ctx);
                }
            }
            Request::Ping => {
                if self.allow(Class::Control, ErrorContext::NOTHING, ctx) {
                    self.pong();
                }
            }
            Request::Pong => {
                self.allow(Class::Control, ErrorContext::NOTHING, ctx);
            }
        }
    }

    /// Answers a Ping, after everything that was said before it: whoever hears the Pong knows that the relay has come
    /// so far.
    fn pong(&mut self) {
        if !self.batch.is_empty() {
            self.later_pongs += 1;
        } else if self.batch_in_flight {
            self.pongs += 1;
        } else {
            self.writer.text(ByteString::from_static(encode::PONG));
        }
    }

    /// Whether the allowance covers one more; says so if it does not.
    fn allow(&mut self, class: Class, about: ErrorContext, ctx: &mut Ctx) -> bool {
        match self.lease.check(class) {
            Verdict::Allowed => true,
            Verdict::Limited { limit, retry_after_ms } => {
                let about = ErrorContext { retry_after_ms: Some(retry_after_ms), ..about };
                self.refuse(Refusal::RateLimited(limit), &about);
                false
            }
            Verdict::Flooding => {
                self.close(CloseReason::Flooding, ctx);
                false
            }
        }
    }

    fn register(&mut self, register: Register<'_>, ctx: &mut Ctx) {
        if let State::Registered { me, extension, .. } = &self.state {
            return self.send_register_response(me.device, extension.as_deref());
        }
        let token = register.resume_token.map(|token| Token(token.into_owned()));
        self.state = State::Registering { extended: register.extended, buffered: Vec::new() };
        self.socket.pause(true);
        let admit = Admit {
            number: self.number,
            address: self.address,
            session: ctx.address().recipient(),
            lease: self.lease.clone(),
            resumable: register.resumable,
            receipts: register.receipts,
            token,
        };
        if self.core.limiter.try_send(admit).is_err() {
            self.not_registered(Refusal::Full, &ErrorContext::NOTHING, ctx);
        }
    }

    fn not_registered(&mut self, refusal: Refusal, about: &ErrorContext, ctx: &mut Ctx) {
        let former = std::mem::replace(&mut self.state, State::Unregistered);
        self.refuse(refusal, about);
        if refusal == Refusal::BadToken {
            // Only a count: lost if the limiter is that busy.
            let _ = self.core.limiter.try_send(ResumeFailed { address: self.address });
        }
        if let State::Registering { buffered, .. } = former {
            self.replay_buffered(buffered, ctx);
        }
    }

    fn registered(&mut self, welcome: RegistrationAccepted<Lease>, ctx: &mut Ctx) {
        let RegistrationAccepted { conn, device, lease, resumed, queued, token } = welcome;
        let ttl = if token.is_some() { self.terms.session_ttl } else { self.terms.plain_ttl };
        let (extended, buffered) = match std::mem::replace(&mut self.state, State::Unregistered) {
            State::Registering { extended, buffered, .. } => (extended, buffered),
            State::Unregistered | State::Registered { .. } => (false, Vec::new()),
        };
        let extension = extended.then(|| {
            Box::new(Extension {
                resume_token: token,
                resumed,
                queued,
                session_ttl: ttl,
                limits: self.terms.limits,
            })
        });
        self.send_register_response(device, extension.as_deref());
        self.lease = lease;
        let core = self.core.clone();
        self.socket.on_written(move |seq| {
            if core.watermarks.record((conn, seq)) {
                // A full Registry has something to hear, and sees the marks before it.
                let _ = core.registry.try_send(WriteProgress);
            }
        });
        self.state = State::Registered { me: Registered { device }, conn, extension };
        if let Some(deadline) = self.deadline.take() {
            ctx.cancel_future(deadline);
        }
        log::debug!("registered connection={} device={device:?} resumed={resumed}", self.number);
        self.replay_buffered(buffered, ctx);
    }

    fn send_register_response(&self, device_id: DeviceId, extension: Option<&Extension>) {
        self.writer.text(encode::register_response(device_id, extension));
    }

    /// What was said while the registration was under way has its batch.
    fn replay_buffered(&mut self, buffered: Vec<ByteString>, ctx: &mut Ctx) {
        self.socket.pause(false);
        for text in buffered {
            self.on_text(text, ctx);
        }
    }

    /// A word joins the batch, which leaves once everything is heard that can be heard now.
    fn enqueue_command(&mut self, command: Command) {
        self.batch.push(command);
        if self.batch_in_flight {
            self.update_read_pause();
        }
    }

    /// Nothing is read while the Registry is behind.
    fn update_read_pause(&self) {
        self.socket.pause(self.batch_in_flight && self.batch.len() >= BATCH);
    }

    /// Sends the batch that has come together, unless the Registry still has the last one.
    fn flush(&mut self, ctx: &mut Ctx) {
        let State::Registered { conn, .. } = self.state else { return };
        if self.batch.is_empty() || self.batch_in_flight {
            return;
        }
        self.batch_in_flight = true;
        let commands = std::mem::take(&mut self.batch);
        match self.core.registry.try_send(CommandBatch { conn, commands }) {
            Ok(()) => self.pongs = std::mem::take(&mut self.later_pongs),
            Err(actix::dev::SendError::Full(unsent)) => {
                self.batch = unsent.commands;
                ctx.run_later(RETRY, |session, ctx| {
                    session.batch_in_flight = false;
                    session.flush(ctx);
                });
            }
            Err(actix::dev::SendError::Closed(_)) => {}
        }
        self.update_read_pause();
    }

    fn on_batch(&mut self, batch: DeliveryBatch, ctx: &mut Ctx) {
        let mut watermark = None;
        for delivery in batch.deliveries {
            match delivery {
                Delivery::Registered(welcome) => self.registered(*welcome, ctx),
                Delivery::Frame { seq, body } => {
                    self.writer.text(body);
                    watermark = Some(seq);
                }
                Delivery::Ack { id, status } => {
                    self.writer.compose(|text| encode::write_ack(text, id, status));
                }
                Delivery::Refused(refused) => match self.state {
                    State::Registering { .. } => {
                        self.not_registered(refused.refusal, &refused.about, ctx);
                    }
                    _ => self.refuse(refused.refusal, &refused.about),
                },
                Delivery::Close(reason) => self.close(reason, ctx),
            }
        }
        if let Some(watermark) = watermark.filter(|_| self.writer.is_open()) {
            self.socket.watermark(watermark);
        }
        for _ in 0..batch.unmatched_acks {
            // An Error never acknowledges an Ack; only a flood of them has a consequence.
            if self.lease.check(Class::Control) == Verdict::Flooding {
                return self.close(CloseReason::Flooding, ctx);
            }
        }
        if batch.acknowledges {
            self.batch_in_flight = false;
            self.update_read_pause();
            for _ in 0..std::mem::take(&mut self.pongs) {
                self.writer.text(ByteString::from_static(encode::PONG));
            }
        }
        self.flush(ctx);
    }

    fn refuse(&self, refusal: Refusal, about: &ErrorContext) {
        self.writer.text(encode::error(refusal, about));
    }

    fn close(&mut self, reason: CloseReason, ctx: &mut Ctx) {
        if self.writer.is_open() {
            log::debug!("closing connection={} code={}", self.number, reason.code());
        }
        self.writer.close(reason.code(), reason.reason(), ctx);
    }
}

impl Actor for Session {
    type Context = Ctx;

    fn started(&mut self, ctx: &mut Self::Context) {
        // At most a turn for each message in the window, and one for what becomes of each that was sent in one go.
        let ClientLimits { window, burst, .. } = self.terms.limits;
        let turns = window.saturating_add(burst as usize).saturating_add(SPARE_BATCHES);
        ctx.set_mailbox_capacity(turns.min(MAILBOX_MAX));
        ctx.add_stream(self.socket.events());
        let session = ctx.address().recipient();
        if self.core.registry.try_send(Connected { number: self.number, session }).is_err() {
            ctx.stop();
            return;
        }
        let deadline = ctx.run_later(self.terms.register_timeout, |session, ctx| {
            session.deadline = None;
            session.close(CloseReason::NotRegistered, ctx);
        });
        self.deadline = Some(deadline);
    }

    /// The goodbye, with what was said last. It must arrive even where the mailbox is full; there is one per session.
    #[allow(clippy::disallowed_methods)]
    fn stopped(&mut self, _: &mut Self::Context) {
        let conn = match self.state {
            State::Registered { conn, .. } => Some(conn),
            State::Unregistered | State::Registering { .. } => None,
        };
        self.core.registry.do_send(Disconnected {
            number: self.number,
            conn,
            commands: std::mem::take(&mut self.batch),
        });
    }
}

impl StreamHandler<Result<Frame, ProtocolError>> for Session {
    fn handle(&mut self, item: Result<Frame, ProtocolError>, ctx: &mut Self::Context) {
        match self.writer.receive(item, ctx) {
            Some(Incoming::Text(text)) => self.on_text(text, ctx),
            Some(Incoming::Binary(_)) => self.close(CloseReason::Binary, ctx),
            Some(Incoming::Ping | Incoming::Pong) => {
                self.allow(Class::Control, ErrorContext::NOTHING, ctx);
            }
            None => {}
        }
    }
}

impl StreamHandler<Event> for Session {
    fn handle(&mut self, event: Event, ctx: &mut Self::Context) {
        match event {
            Event::ReadComplete => self.flush(ctx),
            Event::HeartbeatDue { quiet } => {
                self.writer.ping();
                if quiet {
                    // A second chance for a client whose library does not answer WebSocket pings.
                    self.writer.text(ByteString::from_static(encode::PING));
                }
            }
            Event::IdleTimeout => self.close(CloseReason::Idle, ctx),
        }
    }
}

impl Handler<DeliveryBatch> for Session {
    type Result = ();

    fn handle(&mut self, batch: DeliveryBatch, ctx: &mut Self::Context) {
        self.on_batch(batch, ctx);
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
