//! `kill -9` under load, with a ledger of every Ack and every delivery.
//!
//! Two terms:
//!
//! * *Promised*: the sender has the Ack. Every promised message must be delivered.
//! * *Processed* confirmation: the recipient confirmed, and on the same connection then sent a durable message and has its
//!   Ack. Commands of one connection are handled in order, and changes are committed in order, so that Ack proves that the
//!   confirmation is on disk. A message whose confirmation was processed must never come again. A confirmation without
//!   that proof may be lost with the process.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::LocalSet;

use crate::setup::{Setup, Started};
use crate::support::{Device, Gone, confirmation, message_id};

/// Sends of one sender that wait for their Acks.
const OUTSTANDING: usize = 32;

/// Confirmations between two proofs.
const PROOF: usize = 8;

struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// One message.
#[derive(Default)]
struct Entry {
    from: String,
    to: String,
    acked: bool,
    deliveries: u64,
    /// The connection of its last delivery.
    on: u64,
    processed: bool,
}

#[derive(Default)]
struct Figures {
    acked: u64,
    delivered: u64,
    again: u64,
    repeated: u64,
    slowest: Duration,
}

/// All messages, and the moment of the next kill.
struct Ledger {
    dice: Dice,
    entries: BTreeMap<u64, Entry>,
    /// For each pair of devices, the newest message of all first deliveries.
    newest: HashMap<(String, String), u64>,
    next: u64,
    connections: u64,
    seen: u64,
    /// Number of frames after which the relay is killed.
    kill_at: u64,
    relay: Option<Started>,
    figures: Figures,
}

type Shared = Rc<RefCell<Ledger>>;

impl Ledger {
    /// Counts a frame, and kills the relay if its time has come.
    fn sees(&mut self) {
        self.seen += 1;
        if self.seen == self.kill_at
            && let Some(mut relay) = self.relay.take()
        {
            relay.kill();
        }
    }

    fn new_message(&mut self, from: &str, to: &str) -> u64 {
        self.next += 1;
        let entry = Entry { from: from.to_owned(), to: to.to_owned(), ..Entry::default() };
        self.entries.insert(self.next, entry);
        self.next
    }

    fn acked(&mut self, number: u64) {
        let entry = self.entries.get_mut(&number).expect("it was sent");
        self.figures.acked += u64::from(!entry.acked);
        entry.acked = true;
    }

    fn delivered(&mut self, payload: &Value, to: &str, connection: u64) -> u64 {
        let number = number_of(payload);
        let entry = self.entries.get_mut(&number).expect("it was sent");
        let body = format!("{} to {to}, {number}", entry.from);
        assert_eq!((&*entry.to, &payload["encrypted_data"]), (to, &json!(body)));
        assert_eq!(payload["sender_id"], entry.from);
        assert!(!entry.processed, "{number} came again although its confirmation was processed");
        assert!(entry.on != connection, "{number} came twice on one connection");
        entry.on = connection;
        entry.deliveries += 1;
        if entry.deliveries == 1 {
            self.figures.delivered += 1;
            let pair = (entry.from.clone(), to.to_owned());
            let newest = self.newest.insert(pair, number).unwrap_or_default();
            assert!(newest < number, "{number} came first after {newest}");
        } else {
            self.figures.again += 1;
        }
        number
    }

    fn connection(&mut self) -> u64 {
        self.connections += 1;
        self.connections
    }
}

/// A `Send` whose data names sender, recipient and number.
fn message(from: &Device, to: &str, number: u64) -> Value {
    let data = format!("{} to {to}, {number}", from.id);
    from.message_to(to, number, json!({"encrypted_data": data}))
}

fn number_of(payload: &Value) -> u64 {
    let id = payload["message_id"].as_str().expect("an id");
    u64::from_str_radix(&id[..8], 16).expect("a number of ours")
}

/// Repeats all sends without Ack, then sends as fast as Acks come, until the relay is gone.
async fn sender(ledger: Shared, mut me: Device, to: Vec<String>) -> Result<(), Gone> {
    let mut outstanding = repeats(&ledger, &mut me).await?;
    loop {
        while outstanding < OUTSTANDING {
            let (number, to) = {
                let mut ledger = ledger.borrow_mut();
                let to = &to[ledger.dice.below(to.len() as u64) as usize];
                (ledger.new_message(&me.id, to), to)
            };
            me.try_send(message(&me, to, number)).await?;
            outstanding += 1;
        }
        let frame = me.try_receive().await?;
        assert_eq!(frame["type"], "Ack", "{frame}");
        let mut ledger = ledger.borrow_mut();
        ledger.acked(number_of(&frame["payload"]));
        outstanding -= 1;
        ledger.sees();
    }
}

/// Repeats every send without Ack, in order.
async fn repeats(ledger: &Shared, me: &mut Device) -> Result<usize, Gone> {
    let open: Vec<(u64, String)> = {
        let ledger = ledger.borrow();
        let mine = ledger.entries.iter().filter(|(_, it)| it.from == me.id && !it.acked);
        mine.map(|(number, entry)| (*number, entry.to.clone())).collect()
    };
    for (number, to) in &open {
        me.try_send(message(me, to, *number)).await?;
        ledger.borrow_mut().figures.repeated += 1;
    }
    Ok(open.len())
}

/// Reads, confirms `confirms` percent of the messages and proves the confirmations, until the relay is gone.
async fn recipient(
    ledger: Shared,
    mut me: Device,
    away: String,
    confirms: u64,
) -> Result<(), Gone> {
    let connection = ledger.borrow_mut().connection();
    let (mut confirmed, mut proofs) = (Vec::new(), HashMap::new());
    repeats(&ledger, &mut me).await?;
    loop {
        let frame = me.try_receive().await?;
        let payload = &frame["payload"];
        if frame["type"] == "Ack" {
            let number = number_of(payload);
            // The Ack of a repeat proves nothing about this connection.
            let proved: Vec<u64> = proofs.remove(&number).unwrap_or_default();
            let mut ledger = ledger.borrow_mut();
            ledger.acked(number);
            for number in proved {
                ledger.entries.get_mut(&number).expect("it came").processed = true;
            }
            ledger.sees();
            continue;
        }
        assert_eq!(frame["type"], "Receive", "{frame}");
        let (number, confirm) = {
            let mut ledger = ledger.borrow_mut();
            let number = ledger.delivered(payload, &me.id, connection);
            ledger.sees();
            (number, ledger.dice.below(100) < confirms)
        };
        if !confirm {
            continue;
        }
        me.try_send(confirmation(payload)).await?;
        confirmed.push(number);
        if confirmed.len() >= PROOF {
            let proof = ledger.borrow_mut().new_message(&me.id, &away);
            me.try_send(message(&me, &away, proof)).await?;
            proofs.insert(proof, std::mem::take(&mut confirmed));
        }
    }
}

/// Every device reads and confirms everything that waits for it.
async fn settles(ledger: &Shared, relay: &Started, senders: &[Value], recipients: &[Value]) {
    for token in senders.iter().chain(recipients) {
        let mut me = Device::resume(relay, token).await;
        // A sender repeats its messages, a recipient its proofs.
        let connection = ledger.borrow_mut().connection();
        let mut open = repeats(ledger, &mut me).await.expect("the relay is there");
        let mut waiting = me.queued();
        while open > 0 || waiting > 0 {
            let frame = me.try_receive().await.expect("the relay is there");
            match frame["type"].as_str() {
                Some("Ack") => {
                    ledger.borrow_mut().acked(number_of(&frame["payload"]));
                    open -= 1;
                }
                Some("Receive") => {
                    ledger.borrow_mut().delivered(&frame["payload"], &me.id, connection);
                    me.send(confirmation(&frame["payload"])).await;
                    waiting -= 1;
                }
                _ => panic!("{frame}"),
            }
        }
        me.expect_nothing().await;
        me.leave(relay).await;
    }
}

/// Nothing waits any more, and every acked message was delivered.
async fn audit(ledger: &Shared, relay: &Started, seed: u64, round: u64) {
    relay.wait_for("queued", 0).await;
    relay.wait_for("in_flight", 0).await;
    let ledger = ledger.borrow();
    let lost: Vec<u64> = ledger
        .entries
        .iter()
        .filter(|(_, entry)| entry.acked && entry.deliveries == 0)
        .map(|(number, _)| *number)
        .collect();
    assert!(lost.is_empty(), "seed {seed} round {round}: acked and lost: {lost:?}");
}

fn count(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|count| count.parse().ok()).unwrap_or(default)
}

#[tokio::test]
async fn no_acked_message_is_lost_by_kill_9_order_holds_and_no_confirmed_message_comes_again() {
    let (kills, seed) = (count("KILLS", 15), count("SEED", 1));
    let data = tempfile::tempdir().expect("a place");
    let setup = Setup::on(data.path());
    let ledger: Shared = Rc::new(RefCell::new(Ledger {
        dice: Dice(seed),
        entries: BTreeMap::new(),
        newest: HashMap::new(),
        next: 0,
        connections: 0,
        seen: 0,
        kill_at: 0,
        relay: None,
        figures: Figures::default(),
    }));
    let (mut senders, mut recipients, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    {
        let mut relay = setup.start().await;
        for _ in 0..2 {
            senders.push(Device::resumable(&relay).await.token());
        }
        for _ in 0..5 {
            let device = Device::resumable(&relay).await;
            ids.push(device.id.clone());
            recipients.push(device.token());
        }
        // An Ack that waited for a commit proves that all devices before it are on disk.
        let mut proof = Device::plain(&relay).await;
        let number = ledger.borrow_mut().new_message(&proof.id, &ids[4]);
        proof.send(message(&proof, &ids[4], number)).await;
        proof.expect_ack(number).await;
        ledger.borrow_mut().acked(number);
        relay.kill();
    }
    for round in 1..=kills {
        let relay = setup.start().await;
        let queued = relay.figure("queued").await;
        {
            let mut ledger = ledger.borrow_mut();
            ledger.figures.slowest = ledger.figures.slowest.max(relay.ready);
        }
        // Before half of the rounds everything that waits is read.
        if ledger.borrow_mut().dice.below(2) == 0 {
            settles(&ledger, &relay, &senders, &recipients).await;
            audit(&ledger, &relay, seed, round).await;
        }
        let local = LocalSet::new();
        // Two recipients are away; two confirm every message, one confirms some.
        for (place, confirms) in [(0, 100), (1, 100), (2, 60)] {
            let me = Device::resume(&relay, &recipients[place]).await;
            local.spawn_local(recipient(ledger.clone(), me, ids[4].clone(), confirms));
        }
        for place in 0..4 {
            let me = match senders.get(place) {
                Some(token) => Device::resume(&relay, token).await,
                None => Device::plain(&relay).await,
            };
            local.spawn_local(sender(ledger.clone(), me, ids.clone()));
        }
        {
            let mut ledger = ledger.borrow_mut();
            ledger.kill_at = ledger.seen + 1 + ledger.dice.below(1500);
            ledger.relay = Some(relay);
        }
        local.await;
        assert!(ledger.borrow().relay.is_none(), "seed {seed} round {round} ({queued} waited)");
    }
    let mut relay = setup.start().await;
    settles(&ledger, &relay, &senders, &recipients).await;
    // The last devices may have repeated messages to the first ones.
    settles(&ledger, &relay, &senders, &recipients).await;
    audit(&ledger, &relay, seed, kills).await;
    relay.stop().await;
    setup.expect_sound();
    let ledger = ledger.borrow();
    let Figures { acked, delivered, again, repeated, slowest } = ledger.figures;
    eprintln!(
        "{kills} kills: {} sent, {acked} acked, 0 lost, {delivered} delivered, {again} came again unconfirmed, \
         {repeated} repeats, slowest start {slowest:?}",
        ledger.next
    );
}

#[tokio::test]
async fn a_hundred_thousand_messages_survive_kill_9_and_the_relay_is_ready_soon() {
    const MESSAGES: u64 = 100_000;
    const RECIPIENTS: u64 = 10;
    let data = tempfile::tempdir().expect("a place");
    let setup = Setup::on(data.path());
    let mut relay = setup.start().await;
    let mut away = Vec::new();
    for _ in 0..RECIPIENTS {
        let device = Device::resumable(&relay).await;
        away.push((device.id.clone(), device.token()));
        device.leave(&relay).await;
    }
    let mut sender = Device::plain(&relay).await;
    let began = Instant::now();
    const AT_ONCE: u64 = 500;
    for batch in 0..MESSAGES / AT_ONCE {
        let numbers = batch * AT_ONCE + 1..=(batch + 1) * AT_ONCE;
        let mut frames = Vec::new();
        for number in numbers.clone() {
            let to = &away[(number % RECIPIENTS) as usize].0;
            let message = sender.message_to(to, number, json!({"signature": "s".repeat(400)}));
            frames.push(message);
        }
        sender.send_all(frames).await;
        for _ in numbers {
            sender.expect_frame("Ack").await;
        }
    }
    let took = began.elapsed();
    assert_eq!(relay.figure("queued").await, MESSAGES);
    relay.kill();
    let relay = setup.start().await;
    eprintln!("{MESSAGES} messages queued in {took:?}, ready {:?} after the restart", relay.ready);
    assert!(relay.ready < Duration::from_secs(30));
    assert_eq!(relay.figure("queued").await, MESSAGES);
    for (place, (_, token)) in away.iter().enumerate() {
        let mut device = Device::resume(&relay, token).await;
        assert_eq!(device.queued(), MESSAGES / RECIPIENTS);
        for nth in 0..200 {
            let first = if place == 0 { RECIPIENTS } else { place as u64 };
            let received = device.receive_and_ack(first + nth * RECIPIENTS).await;
            assert_eq!(received["signature"].as_str().map(str::len), Some(400));
        }
    }
    assert_eq!(message_id(1).len(), 36);
}
