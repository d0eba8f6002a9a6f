use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use actix::{ActorContext as _, Addr};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{mpsc::UnboundedSender, oneshot};

use super::*;
use crate::actors::deed::{Deed, look};
use crate::actors::fuse;
use crate::actors::ttl_sweeper::TtlSweeper;
use crate::protocol::envelope::Seq;
use crate::protocol::id::{DeviceId, MessageId};
use crate::protocol::server::Token;
use crate::relay::quota::Plan;
use crate::relay::word::{Outgoing, TokenHash};
use crate::settings::Settings;
use crate::store::memory::Memory;
use crate::store::{Kept, Known, Record, Remember};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

struct House {
    registry: Addr<Registry>,
    plan: Arc<Plan>,
    clock: Clock,
}

impl House {
    fn new() -> Self {
        Self::with(Box::new(Memory))
    }

    fn with(store: Box<dyn Store>) -> Self {
        let clock = Clock::system();
        let settings = Settings::default();
        let rules = Rules::from(&settings);
        let registry = Registry::new(clock.clone(), rules, store, Marks::default());
        let registry = fuse::start("registry", registry);
        Self { registry, plan: Plan::new(settings.rate_limit, clock.clone()), clock }
    }

    async fn arrives(&self, line: u64, session: &Addr<Ear>) {
        self.says(Arrive { line, session: session.clone().recipient() }).await;
    }

    /// As the device of that number, or of any.
    async fn registers(&self, line: u64, token: Option<u8>, resume: Option<u8>) {
        let token_of = |n: u8| (Token(n.to_string()), TokenHash([n; 32]));
        let hello = Hello {
            resumable: token.is_some(),
            receipts: false,
            resume: resume.map(token_of),
            fresh_id: DeviceId::random(),
            fresh_token: token_of(token.unwrap_or(0)),
        };
        self.says(Register { line, hello, lease: Allowance::new(self.plan.clone()) }).await;
    }

    async fn leaves(&self, line: u64, conn: Option<ConnId>) {
        self.says(Leave { line, conn, words: Vec::new() }).await;
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
            let (links, devices) = registry.links.count();
            (links, devices, registry.router.observe().connected)
        })
        .await
    }
}

/// Stands for a session.
struct Ear {
    heard: UnboundedSender<Turn>,
    /// Hears nothing until this comes.
    deaf: Option<oneshot::Receiver<()>>,
}

impl Actor for Ear {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(2);
        if let Some(deaf) = self.deaf.take() {
            let hears = async {
                let _ = deaf.await;
            };
            ctx.wait(hears.into_actor(self));
        }
    }
}

impl Handler<Turn> for Ear {
    type Result = ();

    fn handle(&mut self, turn: Turn, _: &mut Self::Context) {
        let _ = self.heard.send(turn);
    }
}

/// Stops without a word to anybody.
#[derive(Message)]
#[rtype(result = "()")]
struct Stop;

impl Handler<Stop> for Ear {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

fn ear(deaf: Option<oneshot::Receiver<()>>) -> (Addr<Ear>, UnboundedReceiver<Turn>) {
    let (heard, turns) = unbounded_channel();
    (Ear { heard, deaf }.start(), turns)
}

async fn turn(turns: &mut UnboundedReceiver<Turn>) -> Turn {
    let next = tokio::time::timeout(PATIENCE, turns.recv()).await;
    next.expect("a turn in time").expect("the ear lives")
}

async fn welcome(turns: &mut UnboundedReceiver<Turn>) -> ConnId {
    welcomed(turns).await.0
}

async fn welcomed(turns: &mut UnboundedReceiver<Turn>) -> (ConnId, DeviceId) {
    match turn(turns).await.posts.first() {
        Some(Post::Welcome(welcome)) => (welcome.conn, welcome.device),
        other => panic!("{other:?}"),
    }
}

#[actix::test]
async fn a_session_that_stops_while_its_registration_is_under_way_leaves_no_link() {
    let house = House::new();
    let (session, _turns) = ear(None);
    // The goodbye overtakes the registration, which took the way through the limiter…
    house.arrives(1, &session).await;
    house.leaves(1, None).await;
    house.registers(1, None, None).await;
    assert_eq!(house.held().await, (0, 0, 0));
    // …or comes before the session has heard of it.
    house.arrives(2, &session).await;
    house.registers(2, None, None).await;
    house.leaves(2, None).await;
    assert_eq!(house.held().await, (0, 0, 0));
}

#[actix::test]
async fn a_session_that_is_gone_without_a_goodbye_is_found_out() {
    let house = House::new();
    let (session, turns) = ear(None);
    house.arrives(1, &session).await;
    session.send(Stop).await.expect("it stops");
    house.registers(1, None, None).await;
    assert_eq!(house.held().await, (0, 0, 0));
    drop(turns);
}

#[actix::test]
async fn a_late_goodbye_of_a_replaced_connection_takes_only_its_own_links() {
    let house = House::new();
    let ((older, mut of_older), (newer, mut of_newer)) = (ear(None), ear(None));
    house.arrives(1, &older).await;
    house.registers(1, Some(7), None).await;
    let old = welcome(&mut of_older).await;
    house.arrives(2, &newer).await;
    house.registers(2, None, Some(7)).await;
    let new = welcome(&mut of_newer).await;
    assert_ne!(old.epoch, new.epoch);
    let posts = turn(&mut of_older).await.posts;
    assert!(matches!(posts.last(), Some(Post::Close(Farewell::Replaced))), "{posts:?}");
    assert_eq!(house.held().await, (2, 2, 1));
    house.leaves(1, Some(old)).await;
    assert_eq!(house.held().await, (1, 1, 1));
    house.leaves(2, Some(new)).await;
    house.leaves(2, Some(new)).await;
    assert_eq!(house.held().await, (0, 0, 0));
}

#[actix::test]
async fn a_session_that_does_not_take_its_turns_is_sent_away_and_bounded() {
    let house = House::new();
    let (hear, deaf) = oneshot::channel();
    let (session, mut turns) = ear(Some(deaf));
    house.arrives(1, &session).await;
    house.registers(1, None, None).await;
    let conn = look(&house.registry, |registry| registry.links.get(1).expect("a link").conn)
        .await
        .expect("a conn");
    for _ in 0..100 {
        // Each is answered by a turn.
        house.says(Inbound { conn, words: Vec::new() }).await;
    }
    assert_eq!(house.held().await, (0, 0, 0));
    hear.send(()).expect("it lives");
    let mut taken = 0;
    while !matches!(turn(&mut turns).await.posts[..], [Post::Close(Farewell::SlowConsumer)]) {
        taken += 1;
    }
    assert!(taken <= 4, "{taken} turns in a mailbox of 2");
    house.leaves(1, Some(conn)).await;
}

#[actix::test]
async fn whoever_arrives_while_all_are_sent_away_is_sent_away_too() {
    let house = House::new();
    let ((early, mut of_early), (late, mut of_late)) = (ear(None), ear(None));
    house.arrives(1, &early).await;
    let left = house.registry.send(Drain { slice: 64 }).await.expect("the registry lives");
    assert_eq!(left, 0);
    house.arrives(2, &late).await;
    for turns in [&mut of_early, &mut of_late] {
        assert!(matches!(turn(turns).await.posts[..], [Post::Close(Farewell::Draining)]));
    }
    let left = house.registry.send(Drain { slice: 64 }).await.expect("the registry lives");
    assert_eq!(left, 0, "nobody is told twice");
}

/// A store whose disk is slow for as long as a test says so.
struct Slow(Arc<AtomicBool>);

impl Store for Slow {
    fn put(&mut self, _: Record<'_>) -> Kept {
        Kept::Pending
    }

    fn remove(&mut self, _: Seq, _: Option<Remember>) {}

    fn know(&mut self, _: Known) {}

    fn forget(&mut self, _: DeviceId) {}

    fn is_behind(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[actix::test]
async fn while_the_disk_is_behind_only_those_wait_who_give_it_more_to_do() {
    let behind = Arc::new(AtomicBool::new(false));
    let house = House::with(Box::new(Slow(behind.clone())));
    let ((away, mut of_away), (writer, mut of_writer)) = (ear(None), ear(None));
    house.arrives(1, &away).await;
    house.registers(1, Some(1), None).await;
    let (away, away_id) = welcomed(&mut of_away).await;
    house.leaves(1, Some(away)).await;
    house.arrives(2, &writer).await;
    house.registers(2, None, None).await;
    let (writer, writer_id) = welcomed(&mut of_writer).await;
    let (talker, mut of_talker) = ear(None);
    house.arrives(3, &talker).await;
    house.registers(3, None, None).await;
    let talker = welcome(&mut of_talker).await;

    behind.store(true, Ordering::Relaxed);
    let send = |recipient| {
        let (id, body) = (MessageId::from_u128(1), "{}".into());
        vec![Word::Send(Outgoing { recipient, id, ttl: Some(9), content: 1, body })]
    };
    house.says(Inbound { conn: writer, words: send(away_id) }).await;
    // What passes through goes on: the talker has its turn, the writer hears, but not that it may go on.
    house.says(Inbound { conn: talker, words: send(writer_id) }).await;
    assert!(turn(&mut of_talker).await.answers);
    let heard = turn(&mut of_writer).await;
    assert!(matches!(heard.posts[..], [Post::Mail { .. }]) && !heard.answers);
    // A commit that does not catch up changes nothing; one that does lets the writer go on.
    house.says(Stored(Outcome::Committed(crate::store::Turn(0)))).await;
    behind.store(false, Ordering::Relaxed);
    house.says(Stored(Outcome::Committed(crate::store::Turn(1)))).await;
    let heard = turn(&mut of_writer).await;
    assert!(matches!(heard.posts[..], [Post::Ack { .. }]) && heard.answers);
}

/// More than passes while the test lasts, unless nothing else does.
const ENDLESS: u64 = 3_000_000;

/// Keeps the Registry's mailbox from ever being empty, as sessions on other threads may.
#[allow(clippy::disallowed_methods, reason = "the flood is the test")]
fn flood(registry: Addr<Registry>, heard: Arc<AtomicU64>) {
    let nobody = ConnId { slot: 0, epoch: u64::MAX };
    registry.do_send(Inbound { conn: nobody, words: Vec::new() });
    registry.clone().do_send(Deed::new(move |_: &mut Registry| {
        if heard.fetch_add(1, Ordering::Relaxed) < ENDLESS {
            flood(registry, heard);
        }
    }));
}

#[actix::test]
async fn a_flooded_registry_starves_nobody_on_its_thread() {
    let house = House::new();
    let (session, mut turns) = ear(None);
    house.arrives(1, &session).await;
    house.registers(1, Some(1), None).await;
    let conn = welcome(&mut turns).await;
    let (find, forget) = (house.registry.clone().recipient(), house.registry.clone().recipient());
    TtlSweeper::new(Duration::from_millis(10), find, forget).start();

    let heard = Arc::new(AtomicU64::new(0));
    flood(house.registry.clone(), heard.clone());
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    for _ in 0..10 {
        ticks.tick().await;
    }
    // The device's time is over, and the sweeper finds it.
    house.leaves(1, Some(conn)).await;
    house.clock.advance(Duration::from_secs(8 * 24 * 3600));
    while look(&house.registry, |registry| registry.router.observe().devices).await > 0 {
        tokio::task::yield_now().await;
    }
    let passed = heard.swap(ENDLESS, Ordering::Relaxed);
    assert!((1..ENDLESS).contains(&passed), "{passed} messages");
}
