//! A session: one WebSocket, an actor on its own socket.
//!
//! The session decodes what its device sends and encodes what the device gets. The commands that one read of the socket
//! yields go to the Registry as one batch. Only one batch is on its way at a time, and while the Registry is behind, the
//! socket is not read. What follows comes back as a [`DeliveryBatch`]. The session owns no message: what the socket has not
//! taken still belongs to the mailbox.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::dev::SendError;
use actix::{Actor, ActorContext, Addr, AsyncContext, Handler, SpawnHandle, StreamHandler};
use actix_http::ws::{Message as Frame, ProtocolError};
use actix_web_actors::ws::WebsocketContext;
use bytestring::ByteString;

use super::connection_table::DeliveryBatch;
use super::rate_limiter::{Admit, RateLimiter, ResumeFailed};
use super::registry::{CommandBatch, Connected, Disconnected, Registry};
use super::write_watermarks::WriteWatermarks;
use crate::access::{Presented, SecretHash};
use crate::metrics::worker;
use crate::protocol::encode::{self, Extension, Token};
use crate::protocol::frame::Register;
use crate::protocol::kind::Outgoing;
use crate::protocol::refusal::{CloseReason, ErrorContext, Refusal};
use crate::relay::command::{Command, ConnectionId};
use crate::relay::connection_state::{Registered, Request, Unregistered};
use crate::relay::delivery::{Delivery, ReportTo, SessionReport};
use crate::relay::notice_pings::NoticePings;
use crate::relay::rate_limit::{Allowance, Class, Verdict};
use crate::settings::Settings;
use crate::transport::{Event, Incoming, SocketHandle, Watermark, WebSocketWriter};

/// Commands that wait for the Registry before the socket is no longer read.
const PAUSE_READ_AT: usize = 64;
/// Delivery batches that can wait in the mailbox beyond those that the delivery window allows.
const SPARE_BATCHES: usize = 64;
/// Maximum of delivery batches that can wait in the mailbox.
const MAILBOX_MAX: usize = 65_536;
/// Stands for a connection that ended without a Close frame (RFC 6455, 7.1.5).
const NO_CLOSE_FRAME: u16 = 1006;
/// The pause before a full Registry is tried again.
const RETRY: Duration = Duration::from_millis(10);

type Ctx = WebsocketContext<Session>;

/// How sessions reach the core actors. Shared by all sessions: one actix `Addr` per session would cost more memory than the
/// rest of a [`Session`].
pub struct CoreHandles {
    pub registry: Addr<Registry>,
    pub limiter: Addr<RateLimiter>,
    pub watermarks: WriteWatermarks,
}

pub struct Session {
    id: ConnectionId,
    address: IpAddr,
    /// As they were when the connection was opened; a reload does not change them.
    settings: Arc<Settings>,
    core: Arc<CoreHandles>,
    socket: SocketHandle,
    writer: WebSocketWriter,
    state: State,
    allowance: Arc<Allowance>,
    /// The access token in the head of the upgrade, until the connection is registered.
    access: Option<Box<SecretHash>>,
    /// Malformed frames in a row.
    strikes: u32,
    /// Decoded, not sent to the Registry yet.
    batch: Vec<Command>,
    /// The Registry has not acknowledged the last batch.
    batch_in_flight: bool,
    register_deadline: Option<SpawnHandle>,
    /// Key rotations that were delivered and not answered yet; the `KeyRotationAck` of each is free.
    free_key_acks: u32,
    /// The newest item and the newest notice that were written.
    watermark: Watermark,
    /// From the first notice that must be proved to have arrived.
    notice_pings: Option<Box<NoticePings>>,
    /// JSON Pings that the client has not answered.
    unanswered_pings: u8,
}

enum State {
    Unregistered,
    /// What the client sends before the answer is buffered.
    Registering {
        extended: bool,
        /// A resume token was presented.
        resuming: bool,
        buffered: Vec<ByteString>,
    },
    Registered {
        me: Registered,
        extension: Option<Box<Extension>>,
    },
}

impl Session {
    pub fn new(
        id: ConnectionId,
        address: IpAddr,
        settings: Arc<Settings>,
        core: Arc<CoreHandles>,
        allowance: Arc<Allowance>,
        access: Option<SecretHash>,
        socket: SocketHandle,
    ) -> Self {
        Self {
            id,
            address,
            settings,
            core,
            writer: WebSocketWriter::new(socket.clone()),
            socket,
            state: State::Unregistered,
            allowance,
            access: access.map(Box::new),
            strikes: 0,
            batch: Vec::new(),
            batch_in_flight: false,
            register_deadline: None,
            free_key_acks: 0,
            watermark: [0; 2],
            notice_pings: None,
            unanswered_pings: 0,
        }
    }

    fn on_text(&mut self, text: ByteString, ctx: &mut Ctx) {
        if !self.writer.is_open() {
            return;
        }
        #[cfg(test)]
        assert_ne!(text, "panic", "injected panic");
        let max_bytes = self.settings.limits.message_bytes;
        let parsed = match &mut self.state {
            State::Registering { buffered, .. } => {
                buffered.push(text);
                return;
            }
            State::Unregistered => Unregistered.parse(&text, max_bytes),
            State::Registered { me, .. } => me.parse(&text, max_bytes),
        };
        let is_malformed = parsed.as_ref().is_err_and(|(refusal, _)| refusal.is_malformed());
        worker::count(|metrics| match &parsed {
            Ok(request) => metrics.received(request.kind()),
            Err(_) => metrics.received_refused(is_malformed),
        });
        self.strikes = if is_malformed { self.strikes + 1 } else { 0 };
        if parsed.is_err() {
            self.note_alive();
        }
        match parsed {
            Ok(request) => self.serve(request, ctx),
            Err((refusal, context))
                if is_malformed && self.strikes >= self.settings.limits.strikes =>
            {
                self.refuse(refusal, &context);
                self.close(CloseReason::Strikes, ctx);
            }
            Err((refusal, context)) => {
                let class = if is_malformed { Class::Control } else { Class::Message };
                if self.allow(class, || context.clone(), ctx) {
                    self.refuse(refusal, &context);
                }
            }
        }
    }

    fn serve(&mut self, request: Request<'_>, ctx: &mut Ctx) {
        match request {
            // There are as many Acks as delivered messages. Only an unmatched one is charged, when the router has found it.
            Request::Command(command @ Command::Ack { .. }) => self.enqueue_command(command),
            Request::Command(Command::Ping) => {
                if self.allow(Class::Control, || ErrorContext::NOTHING, ctx) {
                    self.note_alive();
                    // A Pong follows everything that the device sent before.
                    if self.batch.is_empty() && !self.batch_in_flight {
                        self.pong();
                    } else {
                        self.enqueue_command(Command::Ping);
                    }
                }
            }
            Request::Command(command @ Command::KeyRotationAck { .. })
                if self.free_key_acks > 0 =>
            {
                // Only its answer frees a key rotation's place in the window, so the rate must not hold the answer back.
                self.free_key_acks -= 1;
                self.enqueue_command(command);
            }
            Request::Command(command) => {
                if self.allow(Class::Message, || command.error_context(), ctx) {
                    self.enqueue_command(command);
                }
            }
            Request::Register(register) => {
                if self.allow(Class::Control, || ErrorContext::NOTHING, ctx) {
                    self.register(register, ctx);
                }
            }
            Request::Pong => self.on_json_pong(ctx),
        }
    }

    /// Whether the allowance covers one more frame of `class`; if not, sends the refusal or closes the connection.
    fn allow(
        &mut self,
        class: Class,
        context: impl FnOnce() -> ErrorContext,
        ctx: &mut Ctx,
    ) -> bool {
        match self.allowance.check(class) {
            Verdict::Allowed => true,
            Verdict::Limited { limit, retry_after_ms } => {
                worker::count(|metrics| metrics.limited.increase(class as usize));
                let context = ErrorContext { retry_after_ms: Some(retry_after_ms), ..context() };
                self.refuse(Refusal::RateLimited(limit), &context);
                false
            }
            Verdict::Flooding => {
                self.close(CloseReason::Flooding, ctx);
                false
            }
        }
    }

    fn register(&mut self, register: Register<'_>, ctx: &mut Ctx) {
        if let State::Registered { me, extension } = &self.state {
            self.writer.text(encode::register_response(me.device, extension.as_deref()));
            worker::count(|metrics| metrics.sent(Outgoing::RegisterResponse));
            return;
        }
        self.state = State::Registering {
            extended: register.extended,
            resuming: register.resume_token.is_some(),
            buffered: Vec::new(),
        };
        self.socket.pause(true);
        let access = Presented {
            in_head: self.access.as_deref().copied(),
            in_payload: register.access_token.map(|secret| SecretHash::of(&secret.0)),
        };
        let admit = Admit {
            connection: self.id,
            address: self.address,
            session: ctx.address().recipient(),
            allowance: self.allowance.clone(),
            resumable: register.resumable,
            receipts: register.receipts,
            accept: register.accept,
            token: register.resume_token.map(|token| Token(token.into_owned())),
            renew_token: register.renew_token,
            access,
        };
        if self.core.limiter.try_send(admit).is_err() {
            self.on_refused(Refusal::Full, &ErrorContext::NOTHING, ctx);
        }
    }

    fn on_refused(&mut self, refusal: Refusal, context: &ErrorContext, ctx: &mut Ctx) {
        self.refuse(refusal, context);
        let State::Registering { resuming, .. } = self.state else { return };
        worker::count(|metrics| {
            metrics.registrations.increase_of("refused");
            if matches!(refusal, Refusal::RateLimited(_)) {
                metrics.limited.increase_of(if resuming { "resume" } else { "registration" });
            }
        });
        if refusal == Refusal::BadToken {
            // Only a count: one may be lost while the limiter's mailbox is full.
            let _ = self.core.limiter.try_send(ResumeFailed(self.address));
        }
        self.replay_buffered(State::Unregistered, ctx);
    }

    /// Adds a command to the batch, which is sent when no more input can be read now.
    fn enqueue_command(&mut self, command: Command) {
        self.batch.push(command);
        if self.batch_in_flight {
            self.update_read_pause();
        }
    }

    /// Stops reading the socket while the Registry has not acknowledged the last batch and a next one is full.
    fn update_read_pause(&self) {
        self.socket.pause(self.batch_in_flight && self.batch.len() >= PAUSE_READ_AT);
    }

    /// Sends the batch, unless the Registry has not acknowledged the last one.
    fn flush(&mut self, ctx: &mut Ctx) {
        if self.batch.is_empty() || self.batch_in_flight {
            return;
        }
        self.batch_in_flight = true;
        let commands = std::mem::take(&mut self.batch);
        let sent = self.core.registry.try_send(CommandBatch { connection: self.id, commands });
        if let Err(SendError::Full(unsent)) = sent {
            self.batch = unsent.commands;
            // Only a full mailbox is retried. A Registry that is gone takes the process with it.
            ctx.run_later(RETRY, |session, ctx| {
                session.batch_in_flight = false;
                session.flush(ctx);
            });
        }
        self.update_read_pause();
    }

    fn pong(&self) {
        self.writer.text(ByteString::from_static(encode::PONG));
        worker::count(|metrics| metrics.sent(Outgoing::Pong));
    }

    fn refuse(&self, refusal: Refusal, context: &ErrorContext) {
        worker::count(|metrics| {
            metrics.sent(Outgoing::Error);
            metrics.rejected.increase_of(refusal.code_name());
        });
        self.writer.text(encode::error(refusal, context));
    }

    fn close(&mut self, reason: CloseReason, ctx: &mut Ctx) {
        if self.writer.is_open() {
            log::debug!("closing connection={} code={}", self.id.0, reason.code());
        }
        self.writer.close(reason.code(), reason.reason(), ctx);
    }
}

impl Actor for Session {
    type Context = Ctx;

    fn started(&mut self, ctx: &mut Self::Context) {
        // At most a batch for each message and each notice in a window, and one for the Ack of each message that was sent in one
        // burst.
        let (window, burst) = (self.settings.delivery.window, self.settings.rate_limit.burst.get());
        let batches =
            window.saturating_mul(2).saturating_add(burst as usize).saturating_add(SPARE_BATCHES);
        ctx.set_mailbox_capacity(batches.min(MAILBOX_MAX));
        let session = ctx.address().recipient();
        if self.core.registry.try_send(Connected { connection: self.id, session }).is_err() {
            ctx.stop();
            return;
        }
        let timeout = self.settings.limits.register_timeout;
        self.register_deadline = Some(ctx.run_later(timeout, |session, ctx| {
            session.register_deadline = None;
            session.close(CloseReason::NotRegistered, ctx);
        }));
    }

    /// The Registry must learn of the end even where its mailbox is full; there is one such message per session.
    #[allow(clippy::disallowed_methods)]
    fn stopped(&mut self, _: &mut Self::Context) {
        let commands = std::mem::take(&mut self.batch);
        let code = self.socket.close_code().unwrap_or(NO_CLOSE_FRAME);
        self.core.registry.do_send(Disconnected { connection: self.id, commands, code });
    }
}

/// `WebsocketContext` requires it, for a stream of its own that never yields: `transport` decodes.
impl StreamHandler<Result<Frame, ProtocolError>> for Session {
    fn handle(&mut self, _: Result<Frame, ProtocolError>, _: &mut Self::Context) {}
}

impl StreamHandler<Event> for Session {
    fn handle(&mut self, event: Event, ctx: &mut Self::Context) {
        match event {
            Event::Incoming(Incoming::Text(text)) => self.on_text(text, ctx),
            Event::Incoming(Incoming::Binary(_)) => self.close(CloseReason::Binary, ctx),
            Event::Incoming(Incoming::Ping) => self.on_control_frame(ctx),
            Event::Incoming(Incoming::Pong(payload)) => self.on_pong(&payload, ctx),
            Event::ReadComplete => self.flush(ctx),
            Event::HeartbeatDue { quiet } => {
                self.writer.ping(b"");
                if quiet {
                    // A second chance for a client whose library does not answer WebSocket pings.
                    self.json_ping();
                }
            }
            Event::IdleTimeout => self.close(CloseReason::Idle, ctx),
        }
    }
}

impl Handler<DeliveryBatch> for Session {
    type Result = ();

    fn handle(&mut self, batch: DeliveryBatch, ctx: &mut Self::Context) {
        let before = self.watermark;
        let mut starts_pings = false;
        for delivery in batch.deliveries {
            match delivery {
                Delivery::Registered(accepted) => self.on_registered(*accepted, ctx),
                Delivery::Frame { seq, body, kind } => {
                    self.writer.text(body);
                    worker::count(|metrics| metrics.sent(kind));
                    let is_key = kind == Outgoing::KeyRotation;
                    self.free_key_acks = self.free_key_acks.saturating_add(u32::from(is_key));
                    self.watermark[0] = seq;
                }
                Delivery::Notice { number, body, kind, needs_proof } => {
                    self.writer.text(body);
                    worker::count(|metrics| metrics.sent(kind));
                    self.watermark[1] = number;
                    if needs_proof {
                        let pings = self.notice_pings.get_or_insert_default();
                        starts_pings = pings.on_sent(number);
                    }
                }
                Delivery::Ack { id, status } => {
                    self.writer.compose(|text| encode::write_ack(text, id, status));
                    worker::count(|metrics| metrics.sent(Outgoing::Ack));
                }
                Delivery::Pong => self.pong(),
                Delivery::Refused(refused) => {
                    self.on_refused(refused.refusal, &refused.context, ctx);
                }
                Delivery::UnmatchedAck => {
                    // An Error never answers an Ack; only a flood of them has a consequence.
                    if self.allowance.check(Class::Control) == Verdict::Flooding {
                        self.close(CloseReason::Flooding, ctx);
                    }
                }
                Delivery::Close(reason) => self.close(reason, ctx),
                Delivery::Describe(ReportTo(report)) => report(SessionReport {
                    address: self.address,
                    silence: self.socket.silence(),
                    unwritten_bytes: self.socket.backlog(),
                }),
            }
        }
        if self.watermark != before && self.writer.is_open() {
            self.socket.watermark(self.watermark);
        }
        if starts_pings {
            self.ping_for_notices(ctx);
        }
        if batch.acknowledges {
            self.batch_in_flight = false;
            self.update_read_pause();
        }
        self.flush(ctx);
    }
}

#[path = "session_proof.rs"]
mod proof;
#[path = "session_registration.rs"]
mod registration;
#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
