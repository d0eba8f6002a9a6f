use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use actix::{ActorContext as _, Addr};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{mpsc::UnboundedSender, oneshot};

use super::*;
use crate::actors::abort_on_panic;
use crate::actors::test_probe::{RunOnActor, look};
use crate::actors::ttl_sweeper::TtlSweeper;
use crate::protocol::encode::Token;
use crate::protocol::envelope::{Envelope, Seq};
use crate::protocol::id::{DeviceId, MessageId};
use crate::relay::command::{SendCommand, TokenHash};
use crate::relay::rate_limit::RatePlan;
use crate::settings::Settings;
use crate::store::memory::Memory;
use crate::store::records::{DeviceRecord, Fingerprint, MessageRecord};
use crate::store::{PutOutcome, PutSeq};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

struct TestRelay {
    registry: Addr<Registry>,
    plan: Arc<RatePlan>,
    clock: Clock,
}

impl TestRelay {
    fn new() -> Self {
        Self::with(Box::new(Memory))
    }

    fn with(store: Box<dyn Store>) -> Self {
        let clock = Clock::system();
        let settings = Settings::default();
        let rules = Rules::from(&settings);
        let registry = Registry::new(clock.clone(), rules, store, WriteWatermarks::default());
        let registry = abort_on_panic::start("registry", registry);
        Self { registry, plan: RatePlan::new(settings.rate_limit, clock.clone()), clock }
    }

    async fn arrives(&self, number: u64, session: &Addr<TestSession>) {
        self.says(Connected { number, session: session.clone().recipient() }).await;
    }

    /// As the device of that number, or of any.
    async fn registers(&self, number: u64, token: Option<u8>, resume: Option<u8>) {
        let token_of = |n: u8| (Token(n.to_string()), TokenHash([n; 32]));
        let registration = Registration {
            resumable: token.is_some(),
            receipts: false,
            resume: resume.map(token_of),
            fresh_id: DeviceId::random(),
            fresh_token: token_of(token.unwrap_or(0)),
        };
        self.says(Register { number, registration, lease: Allowance::new(self.plan.clone()) })
            .await;
    }

    async fn leaves(&self, number: u64, conn: Option<ConnectionId>) {
        self.says(Disconnected { number, conn, commands: Vec::new() }).await;
    }

    async fn says<M>(&self, message: M)
    where
        M: Message<Result = ()> + Send + 'static,
        Registry: Handler<M>,
    {
        self.registry.send(message).await.expect("the registry lives");
    }

    /// How many links and lines there are, and how many devices are connected.
    async fn held(&self) -> (usize, usize, usize) {
        look(&self.registry, |registry| {
            let (links, devices) = registry.connections.count();
            (links, devices, registry.router.observe().connected)
        })
        .await
    }
}

/// Stands for a session.
struct TestSession {
    received: UnboundedSender<DeliveryBatch>,
    /// Hears nothing until this comes.
    unblock: Option<oneshot::Receiver<()>>,
}

impl Actor for TestSession {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(2);
        if let Some(unblock) = self.unblock.take() {
            let hears = async {
                let _ = unblock.await;
            };
            ctx.wait(hears.into_actor(self));
        }
    }
}

impl Handler<DeliveryBatch> for TestSession {
    type Result = ();

    fn handle(&mut self, batch: DeliveryBatch, _: &mut Self::Context) {
        let _ = self.received.send(batch);
    }
}

/// Stops without a word to anybody.
#[derive(Message)]
#[rtype(result = "()")]
struct Stop;

impl Handler<Stop> for TestSession {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

fn ear(
    unblock: Option<oneshot::Receiver<()>>,
) -> (Addr<TestSession>, UnboundedReceiver<DeliveryBatch>) {
    let (received, batches) = unbounded_channel();
    (TestSession { received, unblock }.start(), batches)
}

async fn next_batch(batches: &mut UnboundedReceiver<DeliveryBatch>) -> DeliveryBatch {
    let next = tokio::time::timeout(PATIENCE, batches.recv()).await;
    next.expect("a batch in time").expect("the session lives")
}

async fn welcome(batches: &mut UnboundedReceiver<DeliveryBatch>) -> ConnectionId {
    welcomed(batches).await.0
}

async fn welcomed(batches: &mut UnboundedReceiver<DeliveryBatch>) -> (ConnectionId, DeviceId) {
    match next_batch(batches).await.deliveries.first() {
        Some(Delivery::Registered(welcome)) => (welcome.conn, welcome.device),
        other => panic!("{other:?}"),
    }
}

#[actix::test]
async fn a_session_that_stops_while_its_registration_is_under_way_leaves_no_link() {
    let relay = TestRelay::new();
    let (session, _turns) = ear(None);
    // The goodbye overtakes the registration, which took the way through the limiter…
    relay.arrives(1, &session).await;
    relay.leaves(1, None).await;
    relay.registers(1, None, None).await;
    assert_eq!(relay.held().await, (0, 0, 0));
    // …or comes before the session has heard of it.
    relay.arrives(2, &session).await;
    relay.registers(2, None, None).await;
    relay.leaves(2, None).await;
    assert_eq!(relay.held().await, (0, 0, 0));
}

#[actix::test]
async fn a_session_that_is_gone_without_a_goodbye_is_found_out() {
    let relay = TestRelay::new();
    let (session, batches) = ear(None);
    relay.arrives(1, &session).await;
    session.send(Stop).await.expect("it stops");
    relay.registers(1, None, None).await;
    assert_eq!(relay.held().await, (0, 0, 0));
    drop(batches);
}

#[actix::test]
async fn a_late_goodbye_of_a_replaced_connection_takes_only_its_own_links() {
    let relay = TestRelay::new();
    let ((older, mut of_older), (newer, mut of_newer)) = (ear(None), ear(None));
    relay.arrives(1, &older).await;
    relay.registers(1, Some(7), None).await;
    let old = welcome(&mut of_older).await;
    relay.arrives(2, &newer).await;
    relay.registers(2, None, Some(7)).await;
    let new = welcome(&mut of_newer).await;
    assert_ne!(old.epoch, new.epoch);
    let deliveries = next_batch(&mut of_older).await.deliveries;
    assert!(
        matches!(deliveries.last(), Some(Delivery::Close(CloseReason::Replaced))),
        "{deliveries:?}"
    );
    assert_eq!(relay.held().await, (2, 2, 1));
    relay.leaves(1, Some(old)).await;
    assert_eq!(relay.held().await, (1, 1, 1));
    relay.leaves(2, Some(new)).await;
    relay.leaves(2, Some(new)).await;
    assert_eq!(relay.held().await, (0, 0, 0));
}

#[actix::test]
async fn a_session_that_does_not_take_its_turns_is_sent_away_and_bounded() {
    let relay = TestRelay::new();
    let (unblocked, unblock) = oneshot::channel();
    let (session, mut batches) = ear(Some(unblock));
    relay.arrives(1, &session).await;
    relay.registers(1, None, None).await;
    let conn = look(&relay.registry, |registry| registry.connections.get(1).expect("a link").conn)
        .await
        .expect("a conn");
    for _ in 0..100 {
        // Each is answered by a batch.
        relay.says(CommandBatch { conn, commands: Vec::new() }).await;
    }
    assert_eq!(relay.held().await, (0, 0, 0));
    unblocked.send(()).expect("it lives");
    let mut taken = 0;
    while !matches!(
        next_batch(&mut batches).await.deliveries[..],
        [Delivery::Close(CloseReason::SlowConsumer)]
    ) {
        taken += 1;
    }
    assert!(taken <= 4, "{taken} batches in a mailbox of 2");
    relay.leaves(1, Some(conn)).await;
}

#[actix::test]
async fn whoever_arrives_while_all_are_sent_away_is_sent_away_too() {
    let relay = TestRelay::new();
    let ((early, mut of_early), (late, mut of_late)) = (ear(None), ear(None));
    relay.arrives(1, &early).await;
    let left = relay.registry.send(Drain { slice: 64 }).await.expect("the registry lives");
    assert_eq!(left, 0);
    relay.arrives(2, &late).await;
    for batches in [&mut of_early, &mut of_late] {
        assert!(matches!(
            next_batch(batches).await.deliveries[..],
            [Delivery::Close(CloseReason::Draining)]
        ));
    }
    let left = relay.registry.send(Drain { slice: 64 }).await.expect("the registry lives");
    assert_eq!(left, 0, "nobody is told twice");
}

/// A store whose disk is slow for as long as a test says so.
struct Slow(Arc<AtomicBool>);

impl Store for Slow {
    fn put(&mut self, _: MessageRecord<&Envelope>, _: PutSeq) -> PutOutcome {
        PutOutcome::Pending
    }

    fn remove(&mut self, _: Seq, _: Option<Fingerprint>) {}

    fn put_device(&mut self, _: DeviceRecord) {}

    fn remove_device(&mut self, _: DeviceId) {}

    fn is_backlogged(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[actix::test]
async fn while_the_disk_is_behind_only_those_wait_who_give_it_more_to_do() {
    let behind = Arc::new(AtomicBool::new(false));
    let relay = TestRelay::with(Box::new(Slow(behind.clone())));
    let ((away, mut of_away), (writer, mut of_writer)) = (ear(None), ear(None));
    relay.arrives(1, &away).await;
    relay.registers(1, Some(1), None).await;
    let (away, away_id) = welcomed(&mut of_away).await;
    relay.leaves(1, Some(away)).await;
    relay.arrives(2, &writer).await;
    relay.registers(2, None, None).await;
    let (writer, writer_id) = welcomed(&mut of_writer).await;
    let (talker, mut of_talker) = ear(None);
    relay.arrives(3, &talker).await;
    relay.registers(3, None, None).await;
    let talker = welcome(&mut of_talker).await;

    behind.store(true, Ordering::Relaxed);
    let send = |recipient| {
        let (id, body) = (MessageId::from_u128(1), "{}".into());
        vec![Command::Send(SendCommand { recipient, id, ttl: Some(9), content: 1, body })]
    };
    relay.says(CommandBatch { conn: writer, commands: send(away_id) }).await;
    // What passes through goes on: the talker has its batch, the writer hears, but not that it may go on.
    relay.says(CommandBatch { conn: talker, commands: send(writer_id) }).await;
    assert!(next_batch(&mut of_talker).await.acknowledges);
    let batch = next_batch(&mut of_writer).await;
    assert!(matches!(batch.deliveries[..], [Delivery::Frame { .. }]) && !batch.acknowledges);
    // A commit that does not catch up changes nothing; one that does lets the writer go on.
    relay.says(Stored(Outcome::Committed(PutSeq(0)))).await;
    behind.store(false, Ordering::Relaxed);
    relay.says(Stored(Outcome::Committed(PutSeq(1)))).await;
    let batch = next_batch(&mut of_writer).await;
    assert!(matches!(batch.deliveries[..], [Delivery::Ack { .. }]) && batch.acknowledges);
}

/// More than passes while the test lasts, unless nothing else does.
const ENDLESS: u64 = 3_000_000;

/// Keeps the Registry's mailbox from ever being empty, as sessions on other threads may.
#[allow(clippy::disallowed_methods, reason = "the flood is the test")]
fn flood(registry: Addr<Registry>, heard: Arc<AtomicU64>) {
    let nobody = ConnectionId { slot: 0, epoch: u64::MAX };
    registry.do_send(CommandBatch { conn: nobody, commands: Vec::new() });
    registry.clone().do_send(RunOnActor::new(move |_: &mut Registry| {
        if heard.fetch_add(1, Ordering::Relaxed) < ENDLESS {
            flood(registry, heard);
        }
    }));
}

#[actix::test]
async fn a_flooded_registry_starves_nobody_on_its_thread() {
    let relay = TestRelay::new();
    let (session, mut batches) = ear(None);
    relay.arrives(1, &session).await;
    relay.registers(1, Some(1), None).await;
    let conn = welcome(&mut batches).await;
    let (find, forget) = (relay.registry.clone().recipient(), relay.registry.clone().recipient());
    TtlSweeper::new(Duration::from_millis(10), find, forget).start();

    let heard = Arc::new(AtomicU64::new(0));
    flood(relay.registry.clone(), heard.clone());
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    for _ in 0..10 {
        ticks.tick().await;
    }
    // The device's time is over, and the sweeper finds it.
    relay.leaves(1, Some(conn)).await;
    relay.clock.advance(Duration::from_secs(8 * 24 * 3600));
    while look(&relay.registry, |registry| registry.router.observe().devices).await > 0 {
        tokio::task::yield_now().await;
    }
    let passed = heard.swap(ENDLESS, Ordering::Relaxed);
    assert!((1..ENDLESS).contains(&passed), "{passed} messages");
}
