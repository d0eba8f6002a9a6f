//! The Registry: the one actor that owns presence and routing.
//!
//! Its rules are the router's; here is only who is on which line. It never waits for anybody: what follows from a
//! message goes out at once, one [`Turn`] for each session that it concerns.

use std::collections::HashMap;
use std::sync::Arc;

use actix::{
    Actor, AsyncContext as _, Context, Handler, Message, MessageResult, Recipient, WrapFuture as _,
};
use foldhash::fast::RandomState;

use super::session::Turn;
use crate::clock::Clock;
use crate::protocol::envelope::Seq;
use crate::protocol::refusal::Farewell;
use crate::protocol::server::About;
use crate::relay::quota::{Allowance, Plan};
use crate::relay::router::{Expired, Router, Rules, Snapshot, Ticket};
use crate::relay::word::{ConnId, Hello, Outbox, Post, Refused, Word};
use crate::store::durable::Outcome;
use crate::store::{Loaded, Store};

/// Messages in its mailbox beyond the one place that every session has for itself.
const MAILBOX: usize = 4096;

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
    /// What the socket took meanwhile.
    pub taken: Option<Seq>,
}

/// The session's socket took everything through a mark; not answered.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Taken {
    /// Whose.
    pub conn: ConnId,
    /// Through which mark.
    pub mark: Seq,
}

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
    /// What the socket took, not reported yet.
    pub taken: Option<Seq>,
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

/// A connection as the Registry reaches it.
struct Link {
    session: Recipient<Turn>,
    conn: Option<ConnId>,
    /// It has been told to go.
    leaving: bool,
    /// What it gets with its next turn.
    posts: Vec<Post<Lease>>,
}

/// See the module.
pub struct Registry {
    clock: Clock,
    router: Router<Box<dyn Store>, Lease>,
    links: HashMap<u64, Link, RandomState>,
    /// The connection's number, by its epoch as a device's connection.
    lines: HashMap<u64, u64, RandomState>,
    /// Whose turn waits until the store has caught up.
    throttled: Vec<ConnId>,
    outbox: Outbox<Lease>,
    /// Whose posts are not sent yet.
    touched: Vec<u64>,
    /// Found to hear nothing any more.
    gone: Vec<(u64, Option<ConnId>)>,
    /// Everybody is sent away, those too that come now.
    draining: bool,
    /// Work since the last breath.
    breath: usize,
}

impl Registry {
    /// A relay where nobody is connected.
    pub fn new(clock: Clock, rules: Rules, store: Box<dyn Store>) -> Self {
        Self {
            clock,
            router: Router::new(rules, store),
            links: HashMap::default(),
            lines: HashMap::default(),
            throttled: Vec::new(),
            outbox: Outbox::default(),
            touched: Vec::new(),
            gone: Vec::new(),
            draining: false,
            breath: 0,
        }
    }

    /// Takes up what a store has kept.
    pub fn restore(&mut self, loaded: Loaded, plan: &Arc<Plan>) {
        let now = self.clock.now();
        self.router.restore(now, loaded, || Allowance::new(plan.clone()));
    }

    /// Posts what followed from a step. The session that said the words, if any, gets a turn in any case.
    fn post(&mut self, turn_of: Option<ConnId>) {
        let strays = std::mem::take(&mut self.outbox.strays);
        let speaker = turn_of.and_then(|conn| self.lines.get(&conn.epoch).copied());
        self.distribute();
        if let Some(line) = speaker
            && self.links.get(&line).is_some_and(|link| link.posts.is_empty())
        {
            self.touched.push(line);
        }
        self.send_turns(speaker, strays);
        // Whoever heard nothing any more is gone, and that may concern others.
        while let Some((line, conn)) = self.gone.pop() {
            self.forget(line, conn);
            self.distribute();
            self.send_turns(None, 0);
        }
    }

    /// Where a connection hears.
    #[cfg(test)]
    pub(super) fn session_of(&self, line: u64) -> Recipient<Turn> {
        self.links[&line].session.clone()
    }

    fn send_turns(&mut self, speaker: Option<u64>, strays: u32) {
        for line in self.touched.drain(..) {
            let Some(link) = self.links.get_mut(&line) else { continue };
            let turn = Turn {
                posts: std::mem::take(&mut link.posts),
                answers: speaker == Some(line),
                strays: if speaker == Some(line) { strays } else { 0 },
            };
            if let Err(failed) = link.session.try_send(turn) {
                if matches!(failed, actix::dev::SendError::Full(_)) {
                    send_away(&link.session, Farewell::SlowConsumer);
                }
                self.gone.push((line, link.conn));
            }
        }
    }

    fn distribute(&mut self) {
        for (conn, post) in self.outbox.posts.drain(..) {
            let Some(line) = self.lines.get(&conn.epoch) else { continue };
            let Some(link) = self.links.get_mut(line) else { continue };
            if link.posts.is_empty() {
                self.touched.push(*line);
            }
            link.posts.push(post);
        }
    }

    /// A session that is over. What it borrowed goes back.
    fn forget(&mut self, line: u64, conn: Option<ConnId>) {
        self.links.remove(&line);
        if let Some(conn) = conn {
            self.lines.remove(&conn.epoch);
            self.router.leave(self.clock.now(), conn, &mut self.outbox);
        }
    }

    /// Now and then lets the others on this thread have their turn. actix polls an actor for as long as its mailbox holds
    /// anything, and with sessions on other threads it may always hold something.
    fn breathe(&mut self, work: usize, ctx: &mut Context<Self>) {
        self.breath += 1 + work;
        if self.breath >= BREATH {
            self.breath = 0;
            ctx.wait(tokio::task::yield_now().into_actor(self));
        }
    }
}

impl Actor for Registry {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

/// A goodbye must arrive even where a mailbox is full: it is the last thing the session hears.
#[allow(clippy::disallowed_methods)]
fn send_away(session: &Recipient<Turn>, farewell: Farewell) {
    session.do_send(Turn { posts: vec![Post::Close(farewell)], answers: false, strays: 0 });
}

impl Handler<Arrive> for Registry {
    type Result = ();

    fn handle(&mut self, Arrive { line, session }: Arrive, ctx: &mut Self::Context) {
        self.breathe(0, ctx);
        if self.draining {
            // It was let in just before nobody was.
            send_away(&session, Farewell::Draining);
        }
        let link = Link { session, conn: None, leaving: self.draining, posts: Vec::new() };
        self.links.insert(line, link);
    }
}

impl Handler<Register> for Registry {
    type Result = ();

    fn handle(&mut self, Register { line, hello, lease }: Register, ctx: &mut Self::Context) {
        self.breathe(0, ctx);
        let Some(link) = self.links.get_mut(&line) else { return };
        match self.router.register(self.clock.now(), hello, lease, &mut self.outbox) {
            Ok(conn) => {
                link.conn = Some(conn);
                self.lines.insert(conn.epoch, line);
            }
            Err(refusal) => {
                let about = About::NOTHING;
                link.posts.push(Post::Refused(Box::new(Refused { refusal, about })));
                self.touched.push(line);
            }
        }
        self.post(None);
    }
}

impl Handler<Inbound> for Registry {
    type Result = ();

    fn handle(&mut self, Inbound { conn, words, taken }: Inbound, ctx: &mut Self::Context) {
        self.breathe(words.len(), ctx);
        let now = self.clock.now();
        if let Some(mark) = taken {
            self.router.taken(now, conn, mark, &mut self.outbox);
        }
        let before = self.router.handed_over();
        for word in words {
            self.router.hear(now, conn, word, &mut self.outbox);
        }
        if self.router.handed_over() > before && self.router.store_mut().is_behind() {
            // It gave the disk more to do: its next batch waits, and so its socket, until the disk has caught up. What
            // passes through, and what confirms, goes on.
            self.post(None);
            self.throttled.push(conn);
        } else {
            self.post(Some(conn));
        }
    }
}

impl Handler<Taken> for Registry {
    type Result = ();

    fn handle(&mut self, Taken { conn, mark }: Taken, ctx: &mut Self::Context) {
        self.breathe(0, ctx);
        self.router.taken(self.clock.now(), conn, mark, &mut self.outbox);
        self.post(None);
    }
}

impl Handler<Leave> for Registry {
    type Result = ();

    fn handle(&mut self, Leave { line, conn, words, taken }: Leave, ctx: &mut Self::Context) {
        self.breathe(words.len(), ctx);
        if let Some(conn) = conn {
            let now = self.clock.now();
            if let Some(mark) = taken {
                self.router.taken(now, conn, mark, &mut self.outbox);
            }
            for word in words {
                self.router.hear(now, conn, word, &mut self.outbox);
            }
        }
        self.outbox.strays = 0;
        // Registered while its session was leaving, a connection is known by its link alone.
        let conn = conn.or_else(|| self.links.get(&line).and_then(|link| link.conn));
        self.forget(line, conn);
        self.post(None);
    }
}

impl Handler<NextExpired> for Registry {
    type Result = MessageResult<NextExpired>;

    fn handle(
        &mut self,
        NextExpired { limit }: NextExpired,
        _: &mut Self::Context,
    ) -> Self::Result {
        MessageResult(self.router.next_expired(self.clock.now(), limit))
    }
}

impl Handler<DropExpired> for Registry {
    type Result = ();

    fn handle(&mut self, DropExpired { end, notices }: DropExpired, _: &mut Self::Context) {
        self.router.drop_expired(self.clock.now(), end, notices, &mut self.outbox);
        self.post(None);
    }
}

impl Handler<Drain> for Registry {
    type Result = usize;

    /// The map's own order is as good as random: its hasher is seeded anew in every process.
    fn handle(&mut self, Drain { slice }: Drain, _: &mut Self::Context) -> usize {
        self.draining = true;
        let mut left = slice;
        for link in self.links.values_mut().filter(|link| !link.leaving) {
            if left == 0 {
                return self.links.values().filter(|link| !link.leaving).count();
            }
            left -= 1;
            link.leaving = true;
            send_away(&link.session, Farewell::Draining);
        }
        0
    }
}

impl Handler<Stored> for Registry {
    type Result = ();

    fn handle(&mut self, Stored(outcome): Stored, _: &mut Self::Context) {
        let now = self.clock.now();
        match outcome {
            Outcome::Committed(through) => self.router.committed(now, through, &mut self.outbox),
            Outcome::Failed(through) => self.router.failed(now, through, &mut self.outbox),
            Outcome::Recovered => self.router.recovered(now, &mut self.outbox),
        }
        self.post(None);
        if !self.router.store_mut().is_behind() {
            for conn in std::mem::take(&mut self.throttled) {
                self.post(Some(conn));
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

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.router.observe())
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
