//! The Registry: the one actor that owns presence and routing.
//!
//! Its rules are the router's. It never waits for anybody: it hears what there is to hear, and what follows from all of
//! it goes out then, one [`Turn`] for each session that it concerns.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use actix::{
    Actor, AsyncContext as _, Context, Handler, Message, MessageResult, Recipient, StreamHandler,
    WrapFuture as _,
};
use futures_core::Stream;

use super::links::Links;
use super::marks::{Mark, Marks};
use super::session::{CORE_MAILBOX, Turn};
use crate::clock::{Clock, Now};
use crate::protocol::refusal::Farewell;
use crate::protocol::server::About;
use crate::relay::quota::{Allowance, Plan};
use crate::relay::router::{Expired, Router, Rules, Snapshot, Ticket};
use crate::relay::word::{ConnId, Hello, Outbox, Post, Refused, Word};
use crate::store::durable::Outcome;
use crate::store::{Loaded, Store};

/// Messages, and words in them, between two breaths.
const BREATH: usize = 256;

/// A device's allowance as the Registry carries it.
pub type Lease = Arc<Allowance>;

/// A connection has been opened; it may never register.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Arrive {
    /// The connection's number.
    pub line: u64,
    /// Where it hears.
    pub session: Recipient<Turn>,
}

/// A connection wants to be a device.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Register {
    /// The connection's number.
    pub line: u64,
    /// What it asks for.
    pub hello: Hello,
    /// Its allowance, should it become a new device.
    pub lease: Lease,
}

/// Everything one session has decoded since its last turn; answered by one [`Turn`].
#[derive(Message)]
#[rtype(result = "()")]
pub struct Inbound {
    /// From whom.
    pub conn: ConnId,
    /// In order.
    pub words: Vec<Word>,
}

/// Sockets took something: there are [`Marks`]. Not answered.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Marked;

/// A connection is over. Its last words come first.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Leave {
    /// The connection's number.
    pub line: u64,
    /// What it was registered as.
    pub conn: Option<ConnId>,
    /// Decoded, not sent yet.
    pub words: Vec<Word>,
}

/// Asks for what has expired.
#[derive(Message)]
#[rtype(result = "Vec<Expired>")]
pub struct NextExpired {
    /// At most so many.
    pub limit: usize,
}

/// Drops what has expired, each after its sender has been told.
#[derive(Message)]
#[rtype(result = "()")]
pub struct DropExpired {
    /// Everything before this ticket.
    pub end: Ticket,
    /// The `Error` frames for the senders.
    pub notices: Vec<(Ticket, String)>,
}

/// Sends some sessions away; answers how many are left.
#[derive(Message)]
#[rtype(result = "usize")]
pub struct Drain {
    /// At most so many.
    pub slice: usize,
}

/// The store reports.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Stored(pub Outcome);

/// Writes what still waits for the disk; nothing is kept after that.
#[derive(Message)]
#[rtype(result = "()")]
pub struct CloseStore;

/// Other rules from now on.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Reload(pub Rules);

/// Asks what can be seen from outside.
#[derive(Message)]
#[rtype(result = "Snapshot")]
pub struct Observe;

/// Everything that could be heard has been heard: what follows from it goes out.
struct Lull;

/// See the module.
pub struct Registry {
    clock: Clock,
    router: Router<Box<dyn Store>, Lease>,
    links: Links,
    /// Whose turn waits until the store has caught up.
    throttled: Vec<ConnId>,
    outbox: Outbox<Lease>,
    marks: Marks,
    /// Room for marks, kept from step to step.
    taken: Vec<Mark>,
    /// Something was heard since the last [`Lull`].
    lively: Rc<Cell<bool>>,
    /// Everybody is sent away, those too that come now.
    draining: bool,
    /// Work since the last breath.
    breath: usize,
}

impl Registry {
    /// A relay where nobody is connected.
    pub fn new(clock: Clock, rules: Rules, store: Box<dyn Store>, marks: Marks) -> Self {
        Self {
            clock,
            router: Router::new(rules, store),
            links: Links::default(),
            throttled: Vec::new(),
            outbox: Outbox::default(),
            marks,
            taken: Vec::new(),
            lively: Rc::default(),
            draining: false,
            breath: 0,
        }
    }

    /// Takes up what a store has kept.
    pub fn restore(&mut self, loaded: Loaded, plan: &Arc<Plan>) {
        let now = self.clock.now();
        self.router.restore(now, loaded, || Allowance::new(plan.clone()));
    }

    /// Where a connection hears.
    #[cfg(test)]
    pub(super) fn session_of(&self, line: u64) -> Recipient<Turn> {
        self.links.get(line).expect("a link").session.clone()
    }

    /// Begins a step: what sockets took before it comes first. Now and then the others on this thread have their turn:
    /// actix polls an actor for as long as its mailbox holds anything, and with sessions on other threads it may always
    /// hold something.
    fn begin(&mut self, work: usize, ctx: &mut Context<Self>) -> Now {
        let now = self.clock.now();
        self.lively.set(true);
        self.marks.exchange(&mut self.taken);
        self.breath += 1 + work + self.taken.len();
        for (conn, mark) in self.taken.drain(..) {
            self.router.taken(now, conn, mark, &mut self.outbox);
        }
        self.taken.shrink_to(BREATH);
        self.post();
        if self.breath >= BREATH {
            self.breath = 0;
            ctx.wait(tokio::task::yield_now().into_actor(self));
        }
        now
    }

    /// What followed from a step waits for the next turn of whom it concerns.
    fn post(&mut self) {
        for (conn, post) in self.outbox.posts.drain(..) {
            self.links.tell(conn, post);
        }
    }

    /// The same, and whoever said the words of this step is answered.
    fn answer(&mut self, speaker: ConnId) {
        self.post();
        self.links.answer(speaker, std::mem::take(&mut self.outbox.strays));
    }

    /// Ends a step: what the store was told is one unit, and everybody hears what there is to hear.
    fn send_turns(&mut self) {
        self.router.store_mut().flush();
        while let Some((link, turn)) = self.links.next_turn() {
            let Err(failed) = link.session.try_send(turn) else { continue };
            if matches!(failed, actix::dev::SendError::Full(_)) {
                send_away(&link.session, Farewell::SlowConsumer);
            }
            // It hears nothing any more, so it is gone, and that may concern others.
            let line = link.line;
            self.forget(line, None);
            self.router.store_mut().flush();
        }
    }

    /// A session that is over. What it borrowed goes back.
    fn forget(&mut self, line: u64, conn: Option<ConnId>) {
        // Registered while its session was leaving, a connection is known by its link alone.
        if let Some(conn) = self.links.close(line).or(conn) {
            self.router.leave(self.clock.now(), conn, &mut self.outbox);
            self.post();
        }
    }
}

impl Actor for Registry {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(CORE_MAILBOX);
        ctx.add_stream(Lulls(self.lively.clone()));
    }
}

/// An actor polls its streams when its mailbox is empty, or when it rests.
struct Lulls(Rc<Cell<bool>>);

impl Stream for Lulls {
    type Item = Lull;

    fn poll_next(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<Option<Lull>> {
        if self.0.take() { Poll::Ready(Some(Lull)) } else { Poll::Pending }
    }
}

impl StreamHandler<Lull> for Registry {
    fn handle(&mut self, _: Lull, _: &mut Self::Context) {
        self.send_turns();
    }
}

/// A goodbye must arrive even where a mailbox is full: it is the last thing the session hears.
#[allow(clippy::disallowed_methods)]
fn send_away(session: &Recipient<Turn>, farewell: Farewell) {
    session.do_send(Turn { posts: vec![Post::Close(farewell)], ..Turn::default() });
}

impl Handler<Arrive> for Registry {
    type Result = ();

    fn handle(&mut self, Arrive { line, session }: Arrive, ctx: &mut Self::Context) {
        self.begin(0, ctx);
        if self.draining {
            // It was let in just before nobody was.
            send_away(&session, Farewell::Draining);
        }
        self.links.open(line, session, self.draining);
    }
}

impl Handler<Register> for Registry {
    type Result = ();

    fn handle(&mut self, Register { line, hello, lease }: Register, ctx: &mut Self::Context) {
        let now = self.begin(0, ctx);
        if self.links.get(line).is_none() {
            return;
        }
        match self.router.register(now, hello, lease, &mut self.outbox) {
            Ok(conn) => self.links.register(line, conn),
            Err(refusal) => {
                let about = About::NOTHING;
                self.links.tell_line(line, Post::Refused(Box::new(Refused { refusal, about })));
            }
        }
        self.post();
    }
}

impl Handler<Inbound> for Registry {
    type Result = ();

    fn handle(&mut self, Inbound { conn, words }: Inbound, ctx: &mut Self::Context) {
        let now = self.begin(words.len(), ctx);
        let before = self.router.handed_over();
        for word in words {
            self.router.hear(now, conn, word, &mut self.outbox);
        }
        if self.router.handed_over() > before && self.router.store_mut().is_behind() {
            // It gave the disk more to do: its next batch waits, and so its socket, until the disk has caught up. What
            // passes through, and what confirms, goes on.
            self.outbox.strays = 0;
            self.post();
            self.throttled.push(conn);
        } else {
            self.answer(conn);
        }
    }
}

impl Handler<Marked> for Registry {
    type Result = ();

    fn handle(&mut self, _: Marked, ctx: &mut Self::Context) {
        self.begin(0, ctx);
    }
}

impl Handler<Leave> for Registry {
    type Result = ();

    fn handle(&mut self, Leave { line, conn, words }: Leave, ctx: &mut Self::Context) {
        let now = self.begin(words.len(), ctx);
        if let Some(conn) = conn {
            for word in words {
                self.router.hear(now, conn, word, &mut self.outbox);
            }
        }
        self.outbox.strays = 0;
        self.post();
        self.forget(line, conn);
    }
}

impl Handler<NextExpired> for Registry {
    type Result = MessageResult<NextExpired>;

    fn handle(
        &mut self,
        NextExpired { limit }: NextExpired,
        ctx: &mut Self::Context,
    ) -> Self::Result {
        let now = self.begin(0, ctx);
        MessageResult(self.router.next_expired(now, limit))
    }
}

impl Handler<DropExpired> for Registry {
    type Result = ();

    fn handle(&mut self, DropExpired { end, notices }: DropExpired, ctx: &mut Self::Context) {
        let now = self.begin(notices.len(), ctx);
        self.router.drop_expired(now, end, notices, &mut self.outbox);
        self.post();
    }
}

impl Handler<Drain> for Registry {
    type Result = usize;

    fn handle(&mut self, Drain { slice }: Drain, _: &mut Self::Context) -> usize {
        self.draining = true;
        // A goodbye overtakes nothing.
        self.send_turns();
        let staying = self.links.iter_mut().filter(|link| !link.leaving);
        for link in staying.take(slice) {
            link.leaving = true;
            send_away(&link.session, Farewell::Draining);
        }
        self.links.iter().filter(|link| !link.leaving).count()
    }
}

impl Handler<Stored> for Registry {
    type Result = ();

    fn handle(&mut self, Stored(outcome): Stored, ctx: &mut Self::Context) {
        let now = self.begin(0, ctx);
        match outcome {
            Outcome::Committed(through) => self.router.committed(now, through, &mut self.outbox),
            Outcome::Failed(through) => self.router.failed(now, through, &mut self.outbox),
            Outcome::Recovered => self.router.recovered(now, &mut self.outbox),
        }
        self.post();
        if !self.router.store_mut().is_behind() {
            for conn in std::mem::take(&mut self.throttled) {
                self.links.answer(conn, 0);
            }
        }
    }
}

impl Handler<CloseStore> for Registry {
    type Result = ();

    fn handle(&mut self, _: CloseStore, _: &mut Self::Context) {
        self.router.store_mut().close();
    }
}

impl Handler<Reload> for Registry {
    type Result = ();

    fn handle(&mut self, Reload(rules): Reload, _: &mut Self::Context) {
        self.router.set_rules(rules);
    }
}

impl Handler<Observe> for Registry {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, ctx: &mut Self::Context) -> Self::Result {
        self.begin(0, ctx);
        MessageResult(self.router.observe())
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
