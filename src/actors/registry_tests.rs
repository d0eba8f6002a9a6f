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
use crate::protocol::envelope::{Envelope, Origin, Seq};
use crate::protocol::id::{DeviceId, MessageId};
use crate::relay::command::{Resume, SendCommand, TokenHash};
use crate::relay::rate_limit::RatePlan;
use crate::settings::Settings;
use crate::store::memory::Memory;
use crate::store::records::{CorrespondentRecord, DeviceRecord, Fingerprint, MessageRecord};
use crate::store::{PutOutcome, PutSeq};

/// Longer than any step of these tests takes.
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
        let settings = Arc::new(Settings::default());
        let registry =
            Registry::new(clock.clone(), settings.clone(), store, WriteWatermarks::default());
        let registry = abort_on_panic::start("registry", registry);
        Self { registry, plan: RatePlan::new(settings.rate_limit.clone(), clock.clone()), clock }
    }

    async fn connects(&self, number: u64, session: &Addr<TestSession>) {
        let connection = ConnectionId(number);
        self.sends(Connected { connection, session: session.clone().recipient() }).await;
    }

    /// Registers a device, resumable with `token`, or resumes the device with the token `resume`.
    async fn registers(&self, number: u64, token: Option<u8>, resume: Option<u8>) {
        let token_of = |n: u8| (Token(n.to_string()), TokenHash([n; 32]));
        let registration = Registration {
            origin: Origin::NONE,
            resumable: token.is_some(),
            receipts: false,
            access: None,
            accept: None,
            resume: resume.map(|number| {
                let (token, hash) = token_of(number);
                Resume { token, hash, renew: false, barred: None }
            }),
            fresh_id: DeviceId::random(),
            fresh_token: token_of(token.unwrap_or(0)),
        };
        let (connection, allowance) = (ConnectionId(number), Allowance::new(self.plan.clone()));
        self.sends(Register { connection, registration, allowance }).await;
    }

    async fn disconnects(&self, number: u64) {
        let connection = ConnectionId(number);
        self.sends(Disconnected { connection, commands: Vec::new() }).await;
    }

    async fn sends<M>(&self, message: M)
    where
        M: Message<Result = ()> + Send + 'static,
        Registry: Handler<M>,
    {
        self.registry.send(message).await.expect("the registry lives");
    }

    /// The number of connections, and of connected devices.
    async fn counts(&self) -> (usize, usize) {
        look(&self.registry, |registry| {
            (registry.connections.len(), registry.router.observe().connected)
        })
        .await
    }
}

/// Stands for a session.
struct TestSession {
    received: UnboundedSender<DeliveryBatch>,
    /// The session handles no batch until this resolves.
    unblock: Option<oneshot::Receiver<()>>,
}

impl Actor for TestSession {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(2);
        if let Some(unblock) = self.unblock.take() {
            let unblocked = async {
                let _ = unblock.await;
            };
            ctx.wait(unblocked.into_actor(self));
        }
    }
}

impl Handler<DeliveryBatch> for TestSession {
    type Result = ();

    fn handle(&mut self, batch: DeliveryBatch, _: &mut Self::Context) {
        let _ = self.received.send(batch);
    }
}

/// Stops the session without a `Disconnected`.
#[derive(Message)]
#[rtype(result = "()")]
struct Stop;

impl Handler<Stop> for TestSession {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

fn test_session(
    unblock: Option<oneshot::Receiver<()>>,
) -> (Addr<TestSession>, UnboundedReceiver<DeliveryBatch>) {
    let (received, batches) = unbounded_channel();
    (TestSession { received, unblock }.start(), batches)
}

async fn next_batch(batches: &mut UnboundedReceiver<DeliveryBatch>) -> DeliveryBatch {
    let next = tokio::time::timeout(PATIENCE, batches.recv()).await;
    next.expect("a batch in time").expect("the session lives")
}

/// The device that the first delivery names.
async fn registered(batches: &mut UnboundedReceiver<DeliveryBatch>) -> DeviceId {
    match next_batch(batches).await.deliveries.first() {
        Some(Delivery::Registered(accepted)) => accepted.device,
        other => panic!("{other:?}"),
    }
}

#[actix::test]
async fn a_session_that_stops_during_its_registration_leaves_no_connection() {
    let relay = TestRelay::new();
    let (session, _turns) = test_session(None);
    // The `Disconnected` overtakes the registration, which passes through the limiter…
    relay.connects(1, &session).await;
    relay.disconnects(1).await;
    relay.registers(1, None, None).await;
    assert_eq!(relay.counts().await, (0, 0));
    // …or comes before the session has the accepted registration.
    relay.connects(2, &session).await;
    relay.registers(2, None, None).await;
    relay.disconnects(2).await;
    assert_eq!(relay.counts().await, (0, 0));
}

#[actix::test]
async fn a_session_that_stopped_without_a_disconnect_is_detected() {
    let relay = TestRelay::new();
    let (session, batches) = test_session(None);
    relay.connects(1, &session).await;
    session.send(Stop).await.expect("it stops");
    relay.registers(1, None, None).await;
    assert_eq!(relay.counts().await, (0, 0));
    drop(batches);
}

#[actix::test]
async fn a_late_disconnect_of_a_replaced_connection_removes_only_that_connection() {
    let relay = TestRelay::new();
    let ((older, mut of_older), (newer, mut of_newer)) = (test_session(None), test_session(None));
    relay.connects(1, &older).await;
    relay.registers(1, Some(7), None).await;
    let old = registered(&mut of_older).await;
    relay.connects(2, &newer).await;
    relay.registers(2, None, Some(7)).await;
    assert_eq!(registered(&mut of_newer).await, old);
    let deliveries = next_batch(&mut of_older).await.deliveries;
    assert!(
        matches!(deliveries.last(), Some(Delivery::Close(CloseReason::Replaced))),
        "{deliveries:?}"
    );
    assert_eq!(relay.counts().await, (2, 1));
    relay.disconnects(1).await;
    assert_eq!(relay.counts().await, (1, 1));
    relay.disconnects(2).await;
    relay.disconnects(2).await;
    assert_eq!(relay.counts().await, (0, 0));
}

#[actix::test]
async fn a_session_that_takes_no_delivery_batch_is_closed_and_its_mailbox_is_bounded() {
    let relay = TestRelay::new();
    let (unblocked, unblock) = oneshot::channel();
    let (session, mut batches) = test_session(Some(unblock));
    relay.connects(1, &session).await;
    relay.registers(1, None, None).await;
    for _ in 0..100 {
        // Each is answered by a batch.
        relay.sends(CommandBatch { connection: ConnectionId(1), commands: Vec::new() }).await;
    }
    assert_eq!(relay.counts().await, (0, 0));
    unblocked.send(()).expect("it lives");
    let mut taken = 0;
    while !matches!(
        next_batch(&mut batches).await.deliveries[..],
        [Delivery::Close(CloseReason::SlowConsumer)]
    ) {
        taken += 1;
    }
    assert!(taken <= 4, "{taken} batches in a mailbox of 2");
    relay.disconnects(1).await;
}

#[actix::test]
async fn a_connection_that_arrives_during_the_drain_is_closed_too() {
    let relay = TestRelay::new();
    let ((early, mut of_early), (late, mut of_late)) = (test_session(None), test_session(None));
    relay.connects(1, &early).await;
    let left = relay.registry.send(Drain { slice: 64 }).await.expect("the registry lives");
    assert_eq!(left, 0);
    relay.connects(2, &late).await;
    for batches in [&mut of_early, &mut of_late] {
        assert!(matches!(
            next_batch(batches).await.deliveries[..],
            [Delivery::Close(CloseReason::Draining)]
        ));
    }
    let left = relay.registry.send(Drain { slice: 64 }).await.expect("the registry lives");
    assert_eq!(left, 0, "no session is closed twice");
}

/// A store whose disk is slow until a test ends that.
struct Slow(Arc<AtomicBool>);

impl Store for Slow {
    fn put(&mut self, _: MessageRecord<&Envelope>, _: PutSeq) -> PutOutcome {
        PutOutcome::Pending
    }

    fn remove(&mut self, _: Seq, _: Option<Fingerprint>) {}

    fn replace(&mut self, _: MessageRecord<&Envelope>) {}

    fn put_fingerprint(&mut self, _: Fingerprint) {}

    fn put_device(&mut self, _: DeviceRecord) {}

    fn remove_device(&mut self, _: DeviceId) {}

    fn report_commit(&mut self, _: PutSeq) -> PutOutcome {
        PutOutcome::Durable
    }

    fn put_correspondent(&mut self, _: CorrespondentRecord) {}

    fn is_backlogged(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[actix::test]
async fn a_backlogged_disk_delays_only_the_senders_of_stored_messages() {
    let behind = Arc::new(AtomicBool::new(false));
    let relay = TestRelay::with(Box::new(Slow(behind.clone())));
    let ((away, mut of_away), (writer, mut of_writer)) = (test_session(None), test_session(None));
    relay.connects(1, &away).await;
    relay.registers(1, Some(1), None).await;
    let away_id = registered(&mut of_away).await;
    relay.disconnects(1).await;
    relay.connects(2, &writer).await;
    relay.registers(2, None, None).await;
    let writer_id = registered(&mut of_writer).await;
    let (talker, mut of_talker) = test_session(None);
    relay.connects(3, &talker).await;
    relay.registers(3, None, None).await;
    registered(&mut of_talker).await;

    behind.store(true, Ordering::Relaxed);
    let send = |recipient: DeviceId| {
        let recipient = recipient.into();
        let (id, body) = (MessageId::from_u128(1), "{}".into());
        vec![Command::Send(SendCommand { recipient, id, ttl: Some(9), content: 1, body })]
    };
    relay.sends(CommandBatch { connection: ConnectionId(2), commands: send(away_id) }).await;
    // Messages that need no store go on: the batch of the talker is acknowledged, the batch of the writer is not.
    relay.sends(CommandBatch { connection: ConnectionId(3), commands: send(writer_id) }).await;
    assert!(next_batch(&mut of_talker).await.acknowledges);
    let batch = next_batch(&mut of_writer).await;
    assert!(matches!(batch.deliveries[..], [Delivery::Frame { .. }]) && !batch.acknowledges);
    // A commit with a remaining backlog changes nothing; a commit that ends the backlog acknowledges the writer's batch.
    relay.sends(Stored(Outcome::Committed(PutSeq(0)))).await;
    behind.store(false, Ordering::Relaxed);
    relay.sends(Stored(Outcome::Committed(PutSeq(1)))).await;
    let batch = next_batch(&mut of_writer).await;
    assert!(matches!(batch.deliveries[..], [Delivery::Ack { .. }]) && batch.acknowledges);
}

/// More messages than the Registry handles during the test, unless the flood starves all others.
const ENDLESS: u64 = 3_000_000;

/// Keeps the Registry's mailbox from ever being empty, as sessions on other threads may.
#[allow(clippy::disallowed_methods, reason = "the flood is the test")]
fn flood(registry: Addr<Registry>, handled: Arc<AtomicU64>) {
    let connection = ConnectionId(u64::MAX);
    registry.do_send(CommandBatch { connection, commands: Vec::new() });
    registry.clone().do_send(RunOnActor::new(move |_: &mut Registry| {
        if handled.fetch_add(1, Ordering::Relaxed) < ENDLESS {
            flood(registry, handled);
        }
    }));
}

#[actix::test]
async fn a_flooded_registry_starves_no_other_actor_on_its_thread() {
    let relay = TestRelay::new();
    let (session, mut batches) = test_session(None);
    relay.connects(1, &session).await;
    relay.registers(1, Some(1), None).await;
    registered(&mut batches).await;
    let (find, forget) = (relay.registry.clone().recipient(), relay.registry.clone().recipient());
    TtlSweeper::new(Duration::from_millis(10), find, forget).start();

    let handled = Arc::new(AtomicU64::new(0));
    flood(relay.registry.clone(), handled.clone());
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    for _ in 0..10 {
        ticks.tick().await;
    }
    // The device's time is over, and the sweeper finds it.
    relay.disconnects(1).await;
    relay.clock.advance(Duration::from_secs(8 * 24 * 3600));
    while look(&relay.registry, |registry| registry.router.observe().devices).await > 0 {
        tokio::task::yield_now().await;
    }
    let passed = handled.swap(ENDLESS, Ordering::Relaxed);
    assert!((1..ENDLESS).contains(&passed), "{passed} messages");
}
