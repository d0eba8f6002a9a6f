//! A session: one WebSocket, an actor on its own socket.
//!
//! It decodes what its device says and encodes what the device hears. What it heard up to a lull travels to the
//! Registry as one batch; only one batch is on its way at a time, and while the Registry is behind the socket is not
//! read. What comes back is a [`Turn`]. The session owns nothing: what it has not delivered is the Registry's still.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorContext, Addr, AsyncContext, Handler, Message, SpawnHandle, StreamHandler,
};
use actix_http::ws::{Message as Frame, ProtocolError};
use actix_web_actors::ws::WebsocketContext;
use bytestring::ByteString;

use super::marks::Marks;
use super::rate_limiter::{Admit, RateLimiter, ResumeFailed};
use super::registry::{Arrive, Inbound, Lease, Leave, Marked, Registry};
use crate::protocol::client::Register;
use crate::protocol::id::DeviceId;
use crate::protocol::refusal::{Farewell, Refusal};
use crate::protocol::server::{self, About, ClientLimits, Extension, RegisterResponse, Token};
use crate::relay::conversation::{Registered, Said, Stranger, about_word};
use crate::relay::quota::{Class, Verdict};
use crate::relay::word::{ConnId, Post, Welcome, Word};
use crate::transport::{Event, Heard, Line, Wire};

/// Words that wait for the Registry before the socket is no longer read.
const BATCH: usize = 64;

/// Turns that can wait beyond the ones that the delivery window allows.
const SPARE_TURNS: usize = 64;

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
pub struct Turn {
    /// To be told, in order.
    pub posts: Vec<Post<Lease>>,
    /// Whether this answers the session's batch, so that the next one may go.
    pub answers: bool,
    /// Acks in that batch that confirmed nothing.
    pub strays: u32,
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
    pub marks: Marks,
}

/// See the module.
pub struct Session {
    /// The connection's number, for the Registry and for the log.
    number: u64,
    address: IpAddr,
    terms: Arc<Terms>,
    core: Arc<Core>,
    line: Line,
    wire: Wire,
    state: State,
    lease: Lease,
    strikes: u32,
    /// Decoded, not sent to the Registry yet.
    batch: Vec<Word>,
    /// A batch is with the Registry.
    awaits_turn: bool,
    /// Pongs that are due once the Registry has answered the batch that it has…
    pongs: u32,
    /// …or the one that is coming together.
    later_pongs: u32,
    deadline: Option<SpawnHandle>,
}

/// How far the connection has come.
enum State {
    /// It may only register.
    Stranger,
    /// It has asked to; what it says meanwhile waits.
    Registering { extended: bool, held: Vec<ByteString> },
    /// It is a device.
    Registered { me: Registered, conn: ConnId, extension: Option<Box<Extension>> },
}

impl Session {
    /// The session of a connection that has just been opened.
    pub fn new(
        number: u64,
        address: IpAddr,
        terms: Arc<Terms>,
        core: Arc<Core>,
        lease: Lease,
        line: Line,
    ) -> Self {
        Self {
            number,
            address,
            terms,
            core,
            wire: Wire::new(line.clone()),
            line,
            state: State::Stranger,
            lease,
            strikes: 0,
            batch: Vec::new(),
            awaits_turn: false,
            pongs: 0,
            later_pongs: 0,
            deadline: None,
        }
    }

    /// One text message of the device.
    fn hear(&mut self, text: ByteString, ctx: &mut Ctx) {
        if !self.wire.is_open() {
            return;
        }
        #[cfg(test)]
        assert_ne!(text, "panic", "told to");
        let heard = match &mut self.state {
            State::Registering { held, .. } => {
                held.push(text);
                return;
            }
            State::Stranger => Stranger.hear(&text, self.terms.message_bytes),
            State::Registered { me, .. } => me.hear(&text, self.terms.message_bytes),
        };
        match heard {
            Ok(said) => {
                self.strikes = 0;
                self.serve(said, ctx);
            }
            Err((refusal, about)) if refusal.is_malformed() => {
                self.strikes += 1;
                if self.strikes >= self.terms.strikes {
                    self.refuse(refusal, &about);
                    self.farewell(Farewell::Strikes, ctx);
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

    fn serve(&mut self, said: Said<'_>, ctx: &mut Ctx) {
        match said {
            // Confirmations are as many as the messages that they confirm; stray ones are counted when they are known.
            Said::Word(word @ Word::Ack { .. }) => self.gather(word),
            Said::Word(word) => {
                if self.allow(Class::Message, about_word(&word), ctx) {
                    self.gather(word);
                }
            }
            Said::Register(register) => {
                if self.allow(Class::Control, About::NOTHING, ctx) {
                    self.register(register, ctx);
                }
            }
            Said::Ping => {
                if self.allow(Class::Control, About::NOTHING, ctx) {
                    self.pong();
                }
            }
            Said::Pong => {
                self.allow(Class::Control, About::NOTHING, ctx);
            }
        }
    }

    /// Answers a Ping, after everything that was said before it: whoever hears the Pong knows that the relay has come
    /// so far.
    fn pong(&mut self) {
        if !self.batch.is_empty() {
            self.later_pongs += 1;
        } else if self.awaits_turn {
            self.pongs += 1;
        } else {
            self.wire.text(ByteString::from_static(server::PONG));
        }
    }

    /// Whether the allowance covers one more; says so if it does not.
    fn allow(&mut self, class: Class, about: About, ctx: &mut Ctx) -> bool {
        match self.lease.check(class) {
            Verdict::Within => true,
            Verdict::Over { limit, retry_after_ms } => {
                let about = About { retry_after_ms: Some(retry_after_ms), ..about };
                self.refuse(Refusal::RateLimited(limit), &about);
                false
            }
            Verdict::Flooding => {
                self.farewell(Farewell::Flooding, ctx);
                false
            }
        }
    }

    fn register(&mut self, register: Register<'_>, ctx: &mut Ctx) {
        if let State::Registered { me, extension, .. } = &self.state {
            return self.welcome(me.device, extension.as_deref());
        }
        let token = register.resume_token.map(|token| Token(token.into_owned()));
        self.state = State::Registering { extended: register.extended, held: Vec::new() };
        self.line.pause(true);
        let admit = Admit {
            line: self.number,
            address: self.address,
            session: ctx.address().recipient(),
            lease: self.lease.clone(),
            resumable: register.resumable,
            receipts: register.receipts,
            token,
        };
        if self.core.limiter.try_send(admit).is_err() {
            self.not_registered(Refusal::Full, &About::NOTHING, ctx);
        }
    }

    fn not_registered(&mut self, refusal: Refusal, about: &About, ctx: &mut Ctx) {
        let former = std::mem::replace(&mut self.state, State::Stranger);
        self.refuse(refusal, about);
        if refusal == Refusal::BadToken {
            // Only a count: lost if the limiter is that busy.
            let _ = self.core.limiter.try_send(ResumeFailed { address: self.address });
        }
        if let State::Registering { held, .. } = former {
            self.go_on(held, ctx);
        }
    }

    fn registered(&mut self, welcome: Welcome<Lease>, ctx: &mut Ctx) {
        let Welcome { conn, device, lease, resumed, queued, token } = welcome;
        let ttl = if token.is_some() { self.terms.session_ttl } else { self.terms.plain_ttl };
        let (extended, held) = match std::mem::replace(&mut self.state, State::Stranger) {
            State::Registering { extended, held, .. } => (extended, held),
            State::Stranger | State::Registered { .. } => (false, Vec::new()),
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
        self.welcome(device, extension.as_deref());
        self.lease = lease;
        let core = self.core.clone();
        self.line.on_taken(move |mark| {
            if core.marks.leave((conn, mark)) {
                // A full Registry has something to hear, and sees the marks before it.
                let _ = core.registry.try_send(Marked);
            }
        });
        self.state = State::Registered { me: Registered { device }, conn, extension };
        if let Some(deadline) = self.deadline.take() {
            ctx.cancel_future(deadline);
        }
        log::debug!("registered connection={} device={device:?} resumed={resumed}", self.number);
        self.go_on(held, ctx);
    }

    fn welcome(&self, device_id: DeviceId, extension: Option<&Extension>) {
        self.wire.text(RegisterResponse { device_id, extension }.encode());
    }

    /// What was said while the registration was under way has its turn.
    fn go_on(&mut self, held: Vec<ByteString>, ctx: &mut Ctx) {
        self.line.pause(false);
        for text in held {
            self.hear(text, ctx);
        }
    }

    /// A word joins the batch, which leaves once everything is heard that can be heard now.
    fn gather(&mut self, word: Word) {
        self.batch.push(word);
        if self.awaits_turn {
            self.mind_the_socket();
        }
    }

    /// Nothing is read while the Registry is behind.
    fn mind_the_socket(&self) {
        self.line.pause(self.awaits_turn && self.batch.len() >= BATCH);
    }

    /// Sends the batch that has come together, unless the Registry still has the last one.
    fn flush(&mut self, ctx: &mut Ctx) {
        let State::Registered { conn, .. } = self.state else { return };
        if self.batch.is_empty() || self.awaits_turn {
            return;
        }
        self.awaits_turn = true;
        let words = std::mem::take(&mut self.batch);
        match self.core.registry.try_send(Inbound { conn, words }) {
            Ok(()) => self.pongs = std::mem::take(&mut self.later_pongs),
            Err(actix::dev::SendError::Full(inbound)) => {
                self.batch = inbound.words;
                ctx.run_later(RETRY, |session, ctx| {
                    session.awaits_turn = false;
                    session.flush(ctx);
                });
            }
            Err(actix::dev::SendError::Closed(_)) => {}
        }
        self.mind_the_socket();
    }

    fn turn(&mut self, turn: Turn, ctx: &mut Ctx) {
        let mut mark = None;
        for post in turn.posts {
            match post {
                Post::Welcome(welcome) => self.registered(*welcome, ctx),
                Post::Mail { mark: seq, body } => {
                    self.wire.text(body);
                    mark = Some(seq);
                }
                Post::Ack { id, status } => {
                    self.wire.compose(|text| server::write_ack(text, id, status));
                }
                Post::Refused(refused) => match self.state {
                    State::Registering { .. } => {
                        self.not_registered(refused.refusal, &refused.about, ctx);
                    }
                    _ => self.refuse(refused.refusal, &refused.about),
                },
                Post::Close(farewell) => self.farewell(farewell, ctx),
            }
        }
        if let Some(mark) = mark.filter(|_| self.wire.is_open()) {
            self.line.mark(mark);
        }
        for _ in 0..turn.strays {
            // An Error never answers an Ack; only a flood of them has a consequence.
            if self.lease.check(Class::Control) == Verdict::Flooding {
                return self.farewell(Farewell::Flooding, ctx);
            }
        }
        if turn.answers {
            self.awaits_turn = false;
            self.mind_the_socket();
            for _ in 0..std::mem::take(&mut self.pongs) {
                self.wire.text(ByteString::from_static(server::PONG));
            }
        }
        self.flush(ctx);
    }

    fn refuse(&self, refusal: Refusal, about: &About) {
        self.wire.text(server::error(refusal, about));
    }

    fn farewell(&mut self, farewell: Farewell, ctx: &mut Ctx) {
        if self.wire.is_open() {
            log::debug!("closing connection={} code={}", self.number, farewell.code());
        }
        self.wire.close(farewell.code(), farewell.reason(), ctx);
    }
}

impl Actor for Session {
    type Context = Ctx;

    fn started(&mut self, ctx: &mut Self::Context) {
        // At most a turn for each message in the window, and one for what becomes of each that was sent in one go.
        let ClientLimits { window, burst, .. } = self.terms.limits;
        let turns = window.saturating_add(burst as usize).saturating_add(SPARE_TURNS);
        ctx.set_mailbox_capacity(turns.min(MAILBOX_MAX));
        ctx.add_stream(self.line.events());
        let session = ctx.address().recipient();
        if self.core.registry.try_send(Arrive { line: self.number, session }).is_err() {
            ctx.stop();
            return;
        }
        let deadline = ctx.run_later(self.terms.register_timeout, |session, ctx| {
            session.deadline = None;
            session.farewell(Farewell::NotRegistered, ctx);
        });
        self.deadline = Some(deadline);
    }

    /// The goodbye, with what was said last. It must arrive even where the mailbox is full; there is one per session.
    #[allow(clippy::disallowed_methods)]
    fn stopped(&mut self, _: &mut Self::Context) {
        let conn = match self.state {
            State::Registered { conn, .. } => Some(conn),
            State::Stranger | State::Registering { .. } => None,
        };
        self.core.registry.do_send(Leave {
            line: self.number,
            conn,
            words: std::mem::take(&mut self.batch),
        });
    }
}

impl StreamHandler<Result<Frame, ProtocolError>> for Session {
    fn handle(&mut self, item: Result<Frame, ProtocolError>, ctx: &mut Self::Context) {
        match self.wire.hear(item, ctx) {
            Some(Heard::Text(text)) => self.hear(text, ctx),
            Some(Heard::Binary(_)) => self.farewell(Farewell::Binary, ctx),
            Some(Heard::Ping | Heard::Pong) => {
                self.allow(Class::Control, About::NOTHING, ctx);
            }
            None => {}
        }
    }
}

impl StreamHandler<Event> for Session {
    fn handle(&mut self, event: Event, ctx: &mut Self::Context) {
        match event {
            Event::Lull => self.flush(ctx),
            Event::Beat { quiet } => {
                self.wire.ping();
                if quiet {
                    // A second chance for a client whose library does not answer WebSocket pings.
                    self.wire.text(ByteString::from_static(server::PING));
                }
            }
            Event::Silent => self.farewell(Farewell::Idle, ctx),
        }
    }
}

impl Handler<Turn> for Session {
    type Result = ();

    fn handle(&mut self, turn: Turn, ctx: &mut Self::Context) {
        self.turn(turn, ctx);
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
