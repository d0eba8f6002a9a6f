//! The rules of docs/protocol.md, with Alice, Bob and Carol. The simulation checks the rules together; these tests check
//! them one by one.

mod access;
mod auth;
mod bounded;
mod dedup;
mod keys;
mod limits;
mod notices;
mod presence;
mod receipts;
mod send;
mod store;

use std::cell::{RefCell, RefMut};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::clock::{Clock, Now};
use crate::protocol::encode::Token;
use crate::protocol::frame::{Accept, AuthStep, Presence};
use crate::protocol::refusal::Refusal;
use crate::relay::command::{Command, Registration, Resume, SendCommand, TokenHash};
use crate::relay::dedup::digest;
use crate::relay::delivery::Delivery;
use crate::relay::notice_queue::NoticeNumber;
use crate::relay::rate_limit::{Allowance, RatePlan};
use crate::settings::RateLimit;
use crate::store::Loaded;
use crate::store::history::History;
use crate::store::records::{CorrespondentRecord, DeviceRecord, MessageRecord};

const UNIX: u64 = 1_000;

/// Reports a put as durable at once or, if slow, when the test commits it.
#[derive(Debug, Default)]
struct Disk {
    slow: bool,
    last: PutSeq,
    /// Every record of a device that was put.
    devices: Vec<DeviceRecord>,
    /// Records that were put and not removed.
    stored: usize,
    /// Records that were replaced.
    replaced: Vec<Seq>,
    /// Fingerprints of messages that were never put.
    fingerprints: usize,
}

impl Store for Disk {
    fn put(&mut self, _: MessageRecord<&Envelope>, put_seq: PutSeq) -> PutOutcome {
        self.last = put_seq;
        self.stored += 1;
        if self.slow { PutOutcome::Pending } else { PutOutcome::Durable }
    }

    fn remove(&mut self, _: Seq, _: Option<Fingerprint>) {
        self.stored -= 1;
    }

    fn replace(&mut self, record: MessageRecord<&Envelope>) {
        self.replaced.push(record.seq);
    }

    fn put_fingerprint(&mut self, _: Fingerprint) {
        self.fingerprints += 1;
    }

    fn put_device(&mut self, device: DeviceRecord) {
        self.devices.push(device);
    }

    fn remove_device(&mut self, _: DeviceId) {}

    fn report_commit(&mut self, put_seq: PutSeq) -> PutOutcome {
        self.last = put_seq;
        if self.slow { PutOutcome::Pending } else { PutOutcome::Durable }
    }

    fn put_correspondent(&mut self, _: CorrespondentRecord) {}
}

/// The disk as the router owns it; the test looks at the same one.
struct SharedDisk(Rc<RefCell<Disk>>);

impl Store for SharedDisk {
    fn put(&mut self, record: MessageRecord<&Envelope>, put_seq: PutSeq) -> PutOutcome {
        self.0.borrow_mut().put(record, put_seq)
    }

    fn remove(&mut self, seq: Seq, fingerprint: Option<Fingerprint>) {
        self.0.borrow_mut().remove(seq, fingerprint);
    }

    fn replace(&mut self, record: MessageRecord<&Envelope>) {
        self.0.borrow_mut().replace(record);
    }

    fn put_fingerprint(&mut self, fingerprint: Fingerprint) {
        self.0.borrow_mut().put_fingerprint(fingerprint);
    }

    fn put_device(&mut self, device: DeviceRecord) {
        self.0.borrow_mut().put_device(device);
    }

    fn remove_device(&mut self, _: DeviceId) {}

    fn report_commit(&mut self, put_seq: PutSeq) -> PutOutcome {
        self.0.borrow_mut().report_commit(put_seq)
    }

    fn put_correspondent(&mut self, _: CorrespondentRecord) {}
}

/// One device, on any of its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Who(u128);

impl Who {
    fn id(self) -> DeviceId {
        DeviceId::from_u128(self.0)
    }

    fn token(self) -> (Token, TokenHash) {
        (Token(self.0.to_string()), TokenHash([self.0 as u8; 32]))
    }
}

struct Relay {
    router: Router,
    disk: Rc<RefCell<Disk>>,
    step: Step,
    allowance: Arc<Allowance>,
    connections: u64,
    /// Of the devices that register next.
    origin: Origin,
    accept: Option<Accept>,
    access: Option<Arc<str>>,
    conns: HashMap<u128, ConnectionId>,
    /// The deliveries of each connection that the test has not read.
    received: HashMap<ConnectionId, Vec<String>>,
    written: HashMap<ConnectionId, Seq>,
    /// The newest notice of each connection.
    noticed: HashMap<ConnectionId, NoticeNumber>,
    names: HashMap<MessageId, String>,
}

/// Small limits, so that a few messages meet them.
fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.delivery.window = 3;
    settings.delivery.bytes = 10_000;
    settings.queue.messages = 6;
    settings.queue.bytes = 10_000;
    settings.queue.sender_share = 0.5;
    settings.queue.total_bytes = 100_000;
    settings.queue.default_ttl = Duration::from_secs(60);
    settings.queue.max_ttl = Duration::from_secs(600);
    settings.queue.key_rotation_ttl = Duration::from_secs(120);
    settings.queue.dedup_window = Duration::from_secs(100);
    settings.session.ttl = Duration::from_secs(3_600);
    settings.session.plain_ttl = Duration::from_secs(300);
    settings.auth.exchange_ttl = Duration::from_secs(30);
    settings.limits.devices = 5;
    settings
}

fn relay() -> Relay {
    let disk = Rc::new(RefCell::new(Disk::default()));
    Relay {
        router: Router::new(Arc::new(settings()), Box::new(SharedDisk(disk.clone()))),
        disk,
        step: Step::at(Now { mono: Moment(0), wall_ms: UNIX * 1_000 }),
        allowance: Allowance::new(RatePlan::new(RateLimit::default(), Clock::still())),
        connections: 0,
        origin: Origin::NONE,
        accept: None,
        access: None,
        conns: HashMap::new(),
        received: HashMap::new(),
        written: HashMap::new(),
        noticed: HashMap::new(),
        names: HashMap::new(),
    }
}

impl Relay {
    fn settings(&mut self, change: impl FnOnce(&mut Settings)) {
        let mut settings = settings();
        change(&mut settings);
        self.router.set_settings(Arc::new(settings));
    }

    // Connections.

    fn hello(
        &mut self,
        who: Who,
        resumable: bool,
        receipts: bool,
        resume: bool,
    ) -> Result<(), Refusal> {
        let resume = resume.then(|| {
            let (token, hash) = who.token();
            Resume { token, hash, renew: false, barred: None }
        });
        let fresh_token = who.token();
        let (origin, fresh_id) = (self.origin, who.id());
        let hello = Registration {
            resumable,
            receipts,
            origin,
            access: self.access.clone(),
            accept: self.accept,
            resume,
            fresh_id,
            fresh_token,
        };
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        self.router
            .register(&mut self.step, connection, hello, self.allowance.clone())
            .map_err(|it| it.refusal)?;
        self.conns.insert(who.0, connection);
        self.collect();
        Ok(())
    }

    fn joins(&mut self, number: u128, resumable: bool, receipts: bool) -> Who {
        let who = Who(number);
        self.hello(who, resumable, receipts, false).unwrap();
        assert_eq!(self.received(who), ["welcome"]);
        who
    }

    fn plain(&mut self, number: u128) -> Who {
        self.joins(number, false, false)
    }

    fn resumable(&mut self, number: u128) -> Who {
        self.joins(number, true, false)
    }

    fn plain_with_receipts(&mut self, number: u128) -> Who {
        self.joins(number, false, true)
    }

    fn resumable_with_receipts(&mut self, number: u128) -> Who {
        self.joins(number, true, true)
    }

    fn resumes(&mut self, who: Who) {
        self.hello(who, false, false, true).unwrap();
    }

    fn resumes_with_receipts(&mut self, who: Who) {
        self.hello(who, false, true, true).unwrap();
    }

    fn leaves(&mut self, who: Who) {
        let conn = self.conns[&who.0];
        self.router.disconnect(&mut self.step, conn, 1000);
        self.collect();
    }

    fn status(&mut self, who: Who, presence: Presence) {
        self.send(who, Command::Status(presence));
    }

    // Commands.

    fn send(&mut self, who: Who, command: Command) {
        self.router.handle(&mut self.step, self.conns[&who.0], [command]);
        self.collect();
    }

    fn sends(&mut self, from: Who, name: &str, to: Who) {
        self.sends_for(from, name, to, None);
    }

    fn sends_for(&mut self, from: Who, name: &str, to: Who, ttl: Option<u64>) {
        self.sends_content(from, name, name, to, ttl);
    }

    fn sends_content(&mut self, from: Who, name: &str, content: &str, to: Who, ttl: Option<u64>) {
        let id = self.name(name);
        let content = digest(content);
        let body = name.to_owned().into();
        self.send(
            from,
            Command::Send(SendCommand { recipient: to.id().into(), id, ttl, content, body }),
        );
    }

    fn confirms(&mut self, who: Who, name: &str) {
        let message_id = self.name(name);
        self.send(who, Command::Ack { message_id, sender: None });
    }

    fn auth(&mut self, who: Who, step: AuthStep, recipient: Option<Who>) {
        let body = format!("{step:?}").into();
        self.send(
            who,
            Command::Auth { step, recipient: recipient.map(|who| who.id().into()), body },
        );
    }

    fn trusts(&mut self, who: Who, other: Who) {
        self.send(
            who,
            Command::AuthSuccess { recipient: other.id().into(), body: "Success".into() },
        );
    }

    fn rotates(&mut self, who: Who, key: &str, other: Who) {
        let body = format!("key {key}").into();
        self.send(
            who,
            Command::KeyRotation { recipient: other.id().into(), key_id: key.into(), body },
        );
    }

    fn confirms_key(&mut self, who: Who, key: &str, other: Who) {
        let body = format!("key {key} confirmed").into();
        self.send(
            who,
            Command::KeyRotationAck { recipient: other.id().into(), key_id: key.into(), body },
        );
    }

    // Events.

    fn takes(&mut self, who: Who) {
        let conn = self.conns[&who.0];
        let through = self.written.get(&conn).copied().unwrap_or_default();
        self.router.on_written(&mut self.step, conn, through);
        let through = self.noticed.get(&conn).copied().unwrap_or_default();
        self.router.on_notices_written(&mut self.step, conn, through);
        self.collect();
    }

    fn pass(&mut self, seconds: u64) {
        let now = &mut self.step.now;
        now.mono = now.mono + Duration::from_secs(seconds);
        now.wall_ms += seconds * 1_000;
    }

    fn sweeps(&mut self) {
        let found = self.router.next_expired(self.step.now, 1_000).expired;
        let Some(end) = found.last().map(|last| last.ticket + 1) else { return };
        let notices = found.iter().filter_map(|found| {
            let (refusal, about) = found.error.as_ref()?;
            Some((found.ticket, encode::error(*refusal, about)))
        });
        let notices: Vec<_> = notices.collect();
        self.router.drop_expired(&mut self.step, end, notices);
        self.collect();
    }

    fn commits(&mut self, through: PutSeq) {
        self.router.committed(&mut self.step, through);
        self.collect();
    }

    fn disk(&self) -> RefMut<'_, Disk> {
        self.disk.borrow_mut()
    }

    // Results.

    /// The deliveries to a device's connection since the last call.
    fn received(&mut self, who: Who) -> Vec<String> {
        self.received.remove(&self.conns[&who.0]).unwrap_or_default()
    }

    fn counts(&self) -> Counts {
        self.router.observe().counts
    }

    fn name(&mut self, name: &str) -> MessageId {
        let id = MessageId::from_u128(u128::from(digest(name)));
        self.names.insert(id, name.to_owned());
        id
    }

    fn collect(&mut self) {
        self.router.audit().unwrap();
        for (conn, delivery) in std::mem::take(&mut self.step.out) {
            let text = match delivery {
                Delivery::Registered(welcome) if welcome.resumed => {
                    format!("resumed {}", welcome.queued)
                }
                Delivery::Registered(_) => "welcome".into(),
                Delivery::Frame { seq, body, .. } => {
                    self.written.insert(conn, seq);
                    let text = String::from_utf8(AsRef::<[u8]>::as_ref(&body).to_vec()).unwrap();
                    self.plainly(text)
                }
                Delivery::Notice { number, body, .. } => {
                    self.noticed.insert(conn, number);
                    self.plainly(body.to_string())
                }
                Delivery::Ack { id, status } => self.plainly(encode::ack(id, status)),
                Delivery::Refused(refused) => {
                    self.plainly(encode::error(refused.refusal, &refused.context))
                }
                Delivery::Close(reason) => format!("closed {}", reason.code()),
                Delivery::Pong => "pong".into(),
                Delivery::UnmatchedAck => "unmatched ack".into(),
                Delivery::Describe(_) => "describe".into(),
            };
            self.received.entry(conn).or_default().push(text);
        }
    }

    /// A frame of the relay in short; the text of a device unchanged.
    fn plainly(&self, text: String) -> String {
        let frame = serde_json::from_str::<serde_json::Value>(&text).ok();
        let Some(frame) = frame.filter(|frame| frame.is_object()) else { return text };
        let payload = &frame["payload"];
        let id = payload["message_id"].as_str().and_then(MessageId::parse);
        let mut parts: Vec<String> = match payload["code"].as_u64() {
            Some(code) => vec![code.to_string()],
            None => vec!["ack".into()],
        };
        parts.extend(id.map(|id| self.names[&id].clone()));
        parts.extend(payload["key_id"].as_u64().map(|key| format!("key {key}")));
        parts.extend(payload["status"].as_str().map(str::to_owned));
        parts.extend(payload["expires_at"].as_u64().map(|unix| format!("until {}", unix - UNIX)));
        parts.join(" ")
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn the_next_expiry_is_known() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain(1), relay.plain(2));
    assert_eq!(relay.router.next_deadline(), None);
    relay.leaves(bob);
    let seconds = |due: Option<Moment>| due.map(|due| (due - Moment(0)).as_secs());
    assert_eq!(seconds(relay.router.next_deadline()), Some(300));
    relay.sends(alice, "hi", bob);
    assert_eq!(seconds(relay.router.next_deadline()), Some(60));
    relay.auth(alice, AuthStep::Request, Some(bob));
    assert_eq!(seconds(relay.router.next_deadline()), Some(30));
    relay.pass(60);
    relay.router.next_expired(relay.step.now, 10);
    assert!(
        relay.router.next_deadline() <= Some(relay.step.now.mono),
        "an item without its notice is due"
    );
}
