//! The Registry: the one actor that owns presence and routing.
//!
//! Its rules are the router's. It never waits for another actor: it handles all messages in its mailbox, and then sends one
//! [`DeliveryBatch`] to each session for which something follows.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use actix::{
    Actor, AsyncContext as _, Context, Handler, Message, MessageResult, Recipient, StreamHandler,
    WrapFuture as _,
};
use futures_util::stream;

pub use self::observe::{CoreMetrics, Measure, Observe, ObserveStore, StoreHealth};
use super::connection_table::{ConnectionTable, DeliveryBatch};
use super::write_watermarks::{WriteWatermarks, Written};
use crate::access::Policy;
use crate::client_log::{ClientLog, Details, Incident};
use crate::clock::Clock;
use crate::protocol::refusal::CloseReason;
use crate::relay::access_rates::AccessRates;
use crate::relay::command::{Command, ConnectionId, Registration};
use crate::relay::delivery::{Delivery, Step};
use crate::relay::rate_limit::{Allowance, RatePlan};
use crate::relay::router::{Router, Stuck, Sweep, Ticket};
use crate::settings::Settings;
use crate::store::writer::Outcome;
use crate::store::{Loaded, Store};

/// Capacity of a core actor's mailbox, messages. A session sends its next batch only after an answer, so the number of
/// connections bounds what is in the mailbox; this many connections can all be waiting for an answer.
pub const CORE_MAILBOX: usize = 1024 * 1024;

/// Messages, and commands in them, after which the Registry yields to the other tasks of its thread.
const YIELD_EVERY: usize = 256;

/// A connection has been opened; it may never register.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Connected {
    pub connection: ConnectionId,
    pub session: Recipient<DeliveryBatch>,
}

#[derive(Message)]
#[rtype(result = "()")]
pub struct Register {
    pub connection: ConnectionId,
    pub registration: Registration,
    /// For a new device.
    pub allowance: Arc<Allowance>,
}

/// Everything that one session has decoded since its last batch. The Registry acknowledges it in a [`DeliveryBatch`].
#[derive(Message)]
#[rtype(result = "()")]
pub struct CommandBatch {
    pub connection: ConnectionId,
    pub commands: Vec<Command>,
}

/// There are new [`WriteWatermarks`].
#[derive(Message)]
#[rtype(result = "()")]
pub struct WriteProgress;

#[derive(Message)]
#[rtype(result = "()")]
pub struct Disconnected {
    pub connection: ConnectionId,
    /// Decoded before the end and not sent yet.
    pub commands: Vec<Command>,
    /// The code of the Close frame; 1006 without one (RFC 6455, 7.1.5).
    pub code: u16,
}

#[derive(Message)]
#[rtype(result = "Sweep")]
pub struct NextExpired {
    pub limit: usize,
}

/// Drops expired items, each after its notice is left for its sender.
#[derive(Message)]
#[rtype(result = "()")]
pub struct DropExpired {
    /// Everything before this ticket.
    pub end: Ticket,
    /// The `Error` frames for the senders.
    pub notices: Vec<(Ticket, String)>,
}

/// Closes at most `slice` sessions; returns how many are left.
#[derive(Message)]
#[rtype(result = "usize")]
pub struct Drain {
    pub slice: usize,
}

#[derive(Message)]
#[rtype(result = "()")]
pub struct Stored(pub Outcome);

/// Does the next part of work that is too long for one step.
#[derive(Message)]
#[rtype(result = "()")]
struct ContinueWork;

/// Writes what is still staged; nothing is stored after that.
#[derive(Message)]
#[rtype(result = "()")]
pub struct CloseStore;

#[derive(Message)]
#[rtype(result = "()")]
pub struct Reload(pub Arc<Settings>);

/// Other access tokens.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ReloadAccess(pub Arc<Policy>);

/// Ends all devices of the access token with this name; returns how many were alive.
#[derive(Message)]
#[rtype(result = "u32")]
pub struct EndDevicesOf(pub Arc<str>);

pub struct Registry {
    clock: Clock,
    router: Router,
    connections: ConnectionTable,
    /// Connections whose command batch is acknowledged when the store has caught up.
    throttled: Vec<ConnectionId>,
    step: Step,
    watermarks: WriteWatermarks,
    /// Memory for watermarks, kept from step to step.
    written: Vec<Written>,
    /// There was a message since the mailbox was last empty.
    dirty: Rc<Cell<bool>>,
    /// All sessions are asked to close, new ones too.
    draining: bool,
    /// A [`ContinueWork`] is on its way.
    continues: bool,
    work_since_yield: usize,
    /// Messages of this round, and of the longest one since the last [`Measure`].
    round: u64,
    longest_round: u64,
    log: Arc<ClientLog>,
}

impl Registry {
    pub fn new(
        clock: Clock,
        settings: Arc<Settings>,
        store: Box<dyn Store>,
        watermarks: WriteWatermarks,
    ) -> Self {
        Self {
            router: Router::new(settings, store),
            connections: ConnectionTable::default(),
            throttled: Vec::new(),
            step: Step::at(clock.now()),
            log: Arc::new(ClientLog::new(clock.clone())),
            clock,
            watermarks,
            written: Vec::new(),
            dirty: Rc::default(),
            draining: false,
            continues: false,
            work_since_yield: 0,
            round: 0,
            longest_round: 0,
        }
    }

    /// Restores what the store has kept. `rates` are those of devices with an access token.
    pub fn restore(
        &mut self,
        loaded: Loaded,
        policy: &Policy,
        plan: &Arc<RatePlan>,
        rates: &mut AccessRates,
    ) {
        self.router.set_access(policy);
        self.router.restore(self.clock.now(), loaded, |access| match access {
            Some(name) => rates.allowance(name),
            None => Allowance::new(plan.clone()),
        });
        self.router.store_mut().flush();
    }

    /// Incidents go to the log that all parts of the relay share.
    pub fn log_to(&mut self, log: Arc<ClientLog>) {
        self.log = log;
    }

    #[cfg(test)]
    pub(super) fn session_of(&self, connection: ConnectionId) -> Recipient<DeliveryBatch> {
        self.connections.session(connection)
    }

    /// One step of `work` commands: write progress, then `rules`; what follows goes to the next batch of each connection. From
    /// time to time the other tasks of this thread get their turn: actix polls an actor for as long as its mailbox holds
    /// anything, and with sessions on other threads it may always hold something.
    fn step<T>(
        &mut self,
        work: usize,
        ctx: &mut Context<Self>,
        rules: impl FnOnce(&mut Router, &mut Step) -> T,
    ) -> T {
        self.step.now = self.clock.now();
        self.dirty.set(true);
        self.round += 1;
        self.watermarks.exchange(&mut self.written);
        self.work_since_yield += 1 + work + self.written.len();
        for Written { connection, items, notices } in self.written.drain(..) {
            if items > 0 {
                self.router.on_written(&mut self.step, connection, items);
            }
            if notices > 0 {
                self.router.on_notices_written(&mut self.step, connection, notices);
            }
        }
        self.written.shrink_to(YIELD_EVERY);
        if self.work_since_yield >= YIELD_EVERY {
            self.work_since_yield = 0;
            ctx.wait(tokio::task::yield_now().into_actor(self));
        }
        let result = rules(&mut self.router, &mut self.step);
        if self.router.is_unfinished() && !self.continues {
            self.continues = true;
            ctx.notify(ContinueWork);
        }
        self.stage();
        result
    }

    /// Adds what follows from a step to the next batch of each connection.
    fn stage(&mut self) {
        for (connection, delivery) in self.step.out.drain(..) {
            self.connections.push(connection, delivery);
        }
    }

    /// Ends a round: the store's changes are one unit, and each session gets its batch.
    fn send_batches(&mut self) {
        self.longest_round = self.longest_round.max(std::mem::take(&mut self.round));
        self.router.store_mut().flush();
        while let Some((connection, session, batch)) = self.connections.next_batch() {
            let Err(failed) = session.try_send(batch) else { continue };
            if matches!(failed, actix::dev::SendError::Full(_)) {
                close_session(session, CloseReason::SlowConsumer);
            }
            // The session takes no more batches, so its connection has ended. What waits again may expire or be delivered
            // elsewhere, which fills batches of other sessions.
            self.forget(connection, CloseReason::SlowConsumer.code());
            self.router.store_mut().flush();
        }
    }

    /// A connection has ended: what was in flight to it waits again.
    fn forget(&mut self, connection: ConnectionId, code: u16) {
        self.connections.remove(connection);
        self.router.disconnect(&mut self.step, connection, code);
        self.stage();
    }
}

impl Actor for Registry {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(CORE_MAILBOX);
        // An actor polls its streams when its mailbox is empty, or when it yields.
        let dirty = self.dirty.clone();
        ctx.add_stream(stream::poll_fn(move |_| {
            if dirty.take() { Poll::Ready(Some(())) } else { Poll::Pending }
        }));
    }
}

/// The mailbox is empty: what follows from its messages is sent.
impl StreamHandler<()> for Registry {
    fn handle(&mut self, (): (), _: &mut Self::Context) {
        self.send_batches();
    }
}

/// A close must arrive even where a mailbox is full: it is the last delivery of a session.
#[allow(clippy::disallowed_methods)]
fn close_session(session: &Recipient<DeliveryBatch>, reason: CloseReason) {
    let deliveries = vec![Delivery::Close(reason)];
    session.do_send(DeliveryBatch { deliveries, ..DeliveryBatch::default() });
}

impl Handler<Connected> for Registry {
    type Result = ();

    fn handle(&mut self, message: Connected, ctx: &mut Self::Context) {
        self.step(0, ctx, |_, _| ());
        if self.draining {
            // The connection was accepted just before the drain began.
            close_session(&message.session, CloseReason::Draining);
        }
        self.connections.insert(message.connection, message.session, self.draining);
    }
}

impl Handler<Register> for Registry {
    type Result = ();

    fn handle(&mut self, message: Register, ctx: &mut Self::Context) {
        let Register { connection, registration, allowance } = message;
        let is_open = self.connections.contains(connection);
        self.step(0, ctx, |router, step| {
            if is_open
                && let Err(refused) = router.register(step, connection, registration, allowance)
            {
                step.send_refused(connection, refused);
            }
        });
    }
}

impl Handler<CommandBatch> for Registry {
    type Result = ();

    fn handle(&mut self, batch: CommandBatch, ctx: &mut Self::Context) {
        let CommandBatch { connection, commands } = batch;
        let put = self.step(commands.len(), ctx, |router, step| {
            let before = router.last_put();
            router.handle(step, connection, commands);
            router.last_put() > before
        });
        if put && self.router.store_mut().is_backlogged() {
            // The batch gave the disk more to do: the next one waits, and with it the socket, until the disk has caught up.
            // Batches of messages that pass through, and of Acks, go on.
            // The backlog may end without a commit, when what waits is removed: the store reports all the same.
            self.router.request_report();
            self.throttled.push(connection);
        } else {
            self.connections.acknowledge(connection);
        }
    }
}

impl Handler<WriteProgress> for Registry {
    type Result = ();

    fn handle(&mut self, _: WriteProgress, ctx: &mut Self::Context) {
        self.step(0, ctx, |_, _| ());
    }
}

impl Handler<Disconnected> for Registry {
    type Result = ();

    fn handle(&mut self, message: Disconnected, ctx: &mut Self::Context) {
        let Disconnected { connection, commands, code } = message;
        self.step(commands.len(), ctx, |router, step| router.handle(step, connection, commands));
        self.forget(connection, code);
    }
}

impl Handler<NextExpired> for Registry {
    type Result = MessageResult<NextExpired>;

    fn handle(&mut self, message: NextExpired, ctx: &mut Self::Context) -> Self::Result {
        let (sweep, stuck) = self.step(0, ctx, |router, step| {
            let stuck = router.find_stuck(step.now.mono);
            (router.next_expired(step.now, message.limit), stuck)
        });
        for Stuck { device, since, waiting } in stuck {
            self.log.report(Incident::Stuck, || {
                let device = Some(format!("{device:?}"));
                let since = since.as_secs();
                Details { device, ..Details::default() }.because(format_args!(
                    "nothing confirmed for {since} s, {waiting} messages wait"
                ))
            });
        }
        MessageResult(sweep)
    }
}

impl Handler<DropExpired> for Registry {
    type Result = ();

    fn handle(&mut self, message: DropExpired, ctx: &mut Self::Context) {
        let DropExpired { end, notices } = message;
        self.step(notices.len(), ctx, |router, step| router.drop_expired(step, end, notices));
    }
}

impl Handler<Drain> for Registry {
    type Result = usize;

    fn handle(&mut self, Drain { slice }: Drain, _: &mut Self::Context) -> usize {
        // Not a step of the router: no rule applies, only sessions close.
        self.draining = true;
        self.step.now = self.clock.now();
        // A close overtakes nothing.
        self.send_batches();
        for session in self.connections.close_some(slice) {
            close_session(session, CloseReason::Draining);
        }
        self.connections.staying()
    }
}

impl Handler<Stored> for Registry {
    type Result = ();

    fn handle(&mut self, Stored(outcome): Stored, ctx: &mut Self::Context) {
        self.step(0, ctx, |router, step| match outcome {
            Outcome::Committed(through) => router.committed(step, through),
            Outcome::Failed(through) => router.failed(step, through),
            Outcome::Recovered => router.recovered(step),
        });
        if !self.router.store_mut().is_backlogged() {
            for connection in std::mem::take(&mut self.throttled) {
                self.connections.acknowledge(connection);
            }
        }
    }
}

impl Handler<ContinueWork> for Registry {
    type Result = ();

    fn handle(&mut self, _: ContinueWork, ctx: &mut Self::Context) {
        self.continues = false;
        self.step(YIELD_EVERY, ctx, Router::continue_work);
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

    fn handle(&mut self, Reload(settings): Reload, _: &mut Self::Context) {
        self.router.set_settings(settings);
    }
}

impl Handler<ReloadAccess> for Registry {
    type Result = ();

    fn handle(&mut self, ReloadAccess(policy): ReloadAccess, _: &mut Self::Context) {
        self.router.set_access(&policy);
    }
}

impl Handler<EndDevicesOf> for Registry {
    type Result = u32;

    fn handle(&mut self, EndDevicesOf(name): EndDevicesOf, ctx: &mut Self::Context) -> u32 {
        self.step(YIELD_EVERY, ctx, |router, step| router.end_devices_of(step, &name))
    }
}

#[path = "registry_observe.rs"]
mod observe;
#[path = "registry_operator.rs"]
pub mod operator;
#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
