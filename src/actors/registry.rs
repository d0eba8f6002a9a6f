//! The Registry: the one actor that owns presence and routing.
//!
//! Its rules are the router's. It never waits for anybody: it hears what there is to hear, and what follows from all of
//! it goes out then, one [`DeliveryBatch`] for each session that it concerns.

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

use super::connection_table::ConnectionTable;
use super::session::{CORE_MAILBOX, DeliveryBatch};
use super::write_watermarks::{Watermark, WriteWatermarks};
use crate::clock::{Clock, Now};
use crate::protocol::refusal::{CloseReason, ErrorContext};
use crate::relay::command::{Command, ConnectionId, Deliveries, Delivery, Refused, Registration};
use crate::relay::rate_limit::{Allowance, RatePlan};
use crate::relay::router::{Expired, Router, Rules, Snapshot, Ticket};
use crate::store::writer::Outcome;
use crate::store::{Loaded, Store};

/// Messages, and commands in them, between two breaths.
const YIELD_EVERY: usize = 256;

/// A device's allowance as the Registry carries it.
pub type Lease = Arc<Allowance>;

/// A connection has been opened; it may never register.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Connected {
    /// The connection's number.
    pub number: u64,
    /// Where it hears.
    pub session: Recipient<DeliveryBatch>,
}

/// A connection wants to be a device.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Register {
    /// The connection's number.
    pub number: u64,
    /// What it asks for.
    pub registration: Registration,
    /// Its allowance, should it become a new device.
    pub lease: Lease,
}

/// Everything one session has decoded since its last turn; answered by one [`DeliveryBatch`].
#[derive(Message)]
#[rtype(result = "()")]
pub struct CommandBatch {
    /// From whom.
    pub conn: ConnectionId,
    /// In order.
    pub commands: Vec<Command>,
}

/// Sockets took something: there are [`WriteWatermarks`]. Not answered.
#[derive(Message)]
#[rtype(result = "()")]
pub struct WriteProgress;

/// A connection is over. Its last commands come first.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Disconnected {
    /// The connection's number.
    pub number: u64,
    /// What it was registered as.
    pub conn: Option<ConnectionId>,
    /// Decoded, not sent yet.
    pub commands: Vec<Command>,
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
struct MailboxDrained;

/// See the module.
pub struct Registry {
    clock: Clock,
    router: Router<Box<dyn Store>, Lease>,
    connections: ConnectionTable,
    /// Whose turn waits until the store has caught up.
    throttled: Vec<ConnectionId>,
    deliveries: Deliveries<Lease>,
    watermarks: WriteWatermarks,
    /// Room for marks, kept from step to step.
    written: Vec<Watermark>,
    /// Something was heard since the last [`MailboxDrained`].
    dirty: Rc<Cell<bool>>,
    /// Everybody is sent away, those too that come now.
    draining: bool,
    /// Work since the last work_since_yield.
    work_since_yield: usize,
}

impl Registry {
    /// A relay where nobody is connected.
    pub fn new(
        clock: Clock,
        rules: Rules,
        store: Box<dyn Store>,
        watermarks: WriteWatermarks,
    ) -> Self {
        Self {
            clock,
            router: Router::new(rules, store),
            connections: ConnectionTable::default(),
            throttled: Vec::new(),
            deliveries: Deliveries::default(),
            watermarks,
            written: Vec::new(),
            dirty: Rc::default(),
            draining: false,
            work_since_yield: 0,
        }
    }

    /// Takes up what a store has kept.
    pub fn restore(&mut self, loaded: Loaded, plan: &Arc<RatePlan>) {
        let now = self.clock.now();
        self.router.restore(now, loaded, || Allowance::new(plan.clone()));
    }

    /// Where a connection hears.
    #[cfg(test)]
    pub(super) fn session_of(&self, number: u64) -> Recipient<DeliveryBatch> {
        self.connections.get(number).expect("a connection").session.clone()
    }

    /// Begins a step: what sockets took before it comes first. Now and then the others on this thread have their turn:
    /// actix polls an actor for as long as its mailbox holds anything, and with sessions on other threads it may always
    /// hold something.
    fn start_step(&mut self, work: usize, ctx: &mut Context<Self>) -> Now {
        let now = self.clock.now();
        self.dirty.set(true);
        self.watermarks.exchange(&mut self.written);
        self.work_since_yield += 1 + work + self.written.len();
        for (conn, seq) in self.written.drain(..) {
            self.router.on_written(now, conn, seq, &mut self.deliveries);
        }
        self.written.shrink_to(YIELD_EVERY);
        self.stage();
        if self.work_since_yield >= YIELD_EVERY {
            self.work_since_yield = 0;
            ctx.wait(tokio::task::yield_now().into_actor(self));
        }
        now
    }

    /// What followed from a step waits for the next turn of whom it concerns.
    fn stage(&mut self) {
        for (conn, delivery) in self.deliveries.items.drain(..) {
            self.connections.push(conn, delivery);
        }
    }

    /// The same, and whoever said the commands of this step is answered.
    fn acknowledge_batch(&mut self, speaker: ConnectionId) {
        self.stage();
        self.connections.acknowledge(speaker, std::mem::take(&mut self.deliveries.unmatched_acks));
    }

    /// Ends a step: what the store was told is one unit, and everybody hears what there is to hear.
    fn send_batches(&mut self) {
        self.router.store_mut().flush();
        while let Some((connection, batch)) = self.connections.next_batch() {
            let Err(failed) = connection.session.try_send(batch) else { continue };
            if matches!(failed, actix::dev::SendError::Full(_)) {
                close_session(&connection.session, CloseReason::SlowConsumer);
            }
            // It hears nothing any more, so it is gone, and that may concern others.
            let number = connection.number;
            self.forget(number, None);
            self.router.store_mut().flush();
        }
    }

    /// A session that is over. What it borrowed goes back.
    fn forget(&mut self, number: u64, conn: Option<ConnectionId>) {
        // Registered while its session was leaving, a connection is known by its connection alone.
        if let Some(conn) = self.connections.close(number).or(conn) {
            self.router.leave(self.clock.now(), conn, &mut self.deliveries);
            self.stage();
        }
    }
}

impl Actor for Registry {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(CORE_MAILBOX);
        ctx.add_stream(WhenDrained(self.dirty.clone()));
    }
}

/// An actor polls its streams when its mailbox is empty, or when it rests.
struct WhenDrained(Rc<Cell<bool>>);

impl Stream for WhenDrained {
    type Item = MailboxDrained;

    fn poll_next(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> Poll<Option<MailboxDrained>> {
        if self.0.take() { Poll::Ready(Some(MailboxDrained)) } else { Poll::Pending }
    }
}

impl StreamHandler<MailboxDrained> for Registry {
    fn handle(&mut self, _: MailboxDrained, _: &mut Self::Context) {
        self.send_batches();
    }
}

/// A goodbye must arrive even where a mailbox is full: it is the last thing the session hears.
#[allow(clippy::disallowed_methods)]
fn close_session(session: &Recipient<DeliveryBatch>, reason: CloseReason) {
    session.do_send(DeliveryBatch {
        deliveries: vec![Delivery::Close(reason)],
        ..DeliveryBatch::default()
    });
}

impl Handler<Connected> for Registry {
    type Result = ();

    fn handle(&mut self, Connected { number, session }: Connected, ctx: &mut Self::Context) {
        self.start_step(0, ctx);
        if self.draining {
            // It was let in just before nobody was.
            close_session(&session, CloseReason::Draining);
        }
        self.connections.open(number, session, self.draining);
    }
}

impl Handler<Register> for Registry {
    type Result = ();

    fn handle(
        &mut self,
        Register { number, registration, lease }: Register,
        ctx: &mut Self::Context,
    ) {
        let now = self.start_step(0, ctx);
        if self.connections.get(number).is_none() {
            return;
        }
        match self.router.register(now, registration, lease, &mut self.deliveries) {
            Ok(conn) => self.connections.register(number, conn),
            Err(refusal) => {
                let about = ErrorContext::NOTHING;
                self.connections.push_unregistered(
                    number,
                    Delivery::Refused(Box::new(Refused { refusal, about })),
                );
            }
        }
        self.stage();
    }
}

impl Handler<CommandBatch> for Registry {
    type Result = ();

    fn handle(&mut self, CommandBatch { conn, commands }: CommandBatch, ctx: &mut Self::Context) {
        let now = self.start_step(commands.len(), ctx);
        let before = self.router.last_put();
        for command in commands {
            self.router.handle(now, conn, command, &mut self.deliveries);
        }
        if self.router.last_put() > before && self.router.store_mut().is_backlogged() {
            // It gave the disk more to do: its next batch waits, and so its socket, until the disk has caught up. What
            // passes through, and what confirms, goes on.
            self.deliveries.unmatched_acks = 0;
            self.stage();
            self.throttled.push(conn);
        } else {
            self.acknowledge_batch(conn);
        }
    }
}

impl Handler<WriteProgress> for Registry {
    type Result = ();

    fn handle(&mut self, _: WriteProgress, ctx: &mut Self::Context) {
        self.start_step(0, ctx);
    }
}

impl Handler<Disconnected> for Registry {
    type Result = ();

    fn handle(
        &mut self,
        Disconnected { number, conn, commands }: Disconnected,
        ctx: &mut Self::Context,
    ) {
        let now = self.start_step(commands.len(), ctx);
        if let Some(conn) = conn {
            for command in commands {
                self.router.handle(now, conn, command, &mut self.deliveries);
            }
        }
        self.deliveries.unmatched_acks = 0;
        self.stage();
        self.forget(number, conn);
    }
}

impl Handler<NextExpired> for Registry {
    type Result = MessageResult<NextExpired>;

    fn handle(
        &mut self,
        NextExpired { limit }: NextExpired,
        ctx: &mut Self::Context,
    ) -> Self::Result {
        let now = self.start_step(0, ctx);
        MessageResult(self.router.next_expired(now, limit))
    }
}

impl Handler<DropExpired> for Registry {
    type Result = ();

    fn handle(&mut self, DropExpired { end, notices }: DropExpired, ctx: &mut Self::Context) {
        let now = self.start_step(notices.len(), ctx);
        self.router.drop_expired(now, end, notices, &mut self.deliveries);
        self.stage();
    }
}

impl Handler<Drain> for Registry {
    type Result = usize;

    fn handle(&mut self, Drain { slice }: Drain, _: &mut Self::Context) -> usize {
        self.draining = true;
        // A goodbye overtakes nothing.
        self.send_batches();
        let staying = self.connections.iter_mut().filter(|connection| !connection.leaving);
        for connection in staying.take(slice) {
            connection.leaving = true;
            close_session(&connection.session, CloseReason::Draining);
        }
        self.connections.iter().filter(|connection| !connection.leaving).count()
    }
}

impl Handler<Stored> for Registry {
    type Result = ();

    fn handle(&mut self, Stored(outcome): Stored, ctx: &mut Self::Context) {
        let now = self.start_step(0, ctx);
        match outcome {
            Outcome::Committed(through) => {
                self.router.committed(now, through, &mut self.deliveries)
            }
            Outcome::Failed(through) => self.router.failed(now, through, &mut self.deliveries),
            Outcome::Recovered => self.router.recovered(now, &mut self.deliveries),
        }
        self.stage();
        if !self.router.store_mut().is_backlogged() {
            for conn in std::mem::take(&mut self.throttled) {
                self.connections.acknowledge(conn, 0);
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
        self.start_step(0, ctx);
        MessageResult(self.router.observe())
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
