//! The rules of docs/protocol.md, told with Alice, Bob and Carol. What the simulation checks everywhere at once stands
//! here one by one.

use std::collections::HashMap;

use super::*;
use crate::protocol::encode::Token;
use crate::protocol::frame::{AuthStep, Presence};
use crate::protocol::refusal::Refusal;
use crate::relay::command::{Command, Registration, SendCommand};
use crate::relay::dedup::digest;
use crate::store::records::DeviceRecord;

const UNIX: u64 = 1_000;

/// Keeps at once, or when it is told to.
#[derive(Debug, Default)]
struct Disk {
    slow: bool,
    last: PutSeq,
    /// Records that were put and not removed.
    stored: usize,
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

    fn put_device(&mut self, _: DeviceRecord) {}

    fn remove_device(&mut self, _: DeviceId) {}
}

/// One device, however often it connects.
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
    router: Router<Disk, ()>,
    now: Now,
    out: Deliveries<()>,
    conns: HashMap<u128, ConnectionId>,
    /// What each connection was told and nobody looked at.
    received: HashMap<ConnectionId, Vec<String>>,
    written: HashMap<ConnectionId, Seq>,
    names: HashMap<MessageId, String>,
}

const RULES: Rules = Rules {
    credit: Credit { window: 3, bytes: 1_000 },
    quota: MailboxQuota { messages: 6, bytes: 1_000, sender_share: 0.5 },
    total_bytes: 2_000,
    default_ttl: 60,
    max_ttl: 600,
    key_rotation_ttl: 120,
    dedup_window: Duration::from_secs(100),
    session_ttl: Duration::from_secs(3_600),
    plain_ttl: Duration::from_secs(300),
    exchange_ttl: 30,
    devices: 5,
};

fn relay() -> Relay {
    Relay {
        router: Router::new(RULES, Disk::default()),
        now: Now { mono: Moment(0), wall_ms: UNIX * 1_000 },
        out: Deliveries::default(),
        conns: HashMap::new(),
        received: HashMap::new(),
        written: HashMap::new(),
        names: HashMap::new(),
    }
}

impl Relay {
    fn rules(&mut self, change: impl FnOnce(&mut Rules)) {
        let mut rules = RULES;
        change(&mut rules);
        self.router.set_rules(rules);
    }

    // Coming and going.

    fn hello(
        &mut self,
        who: Who,
        resumable: bool,
        receipts: bool,
        resume: bool,
    ) -> Result<(), Refusal> {
        let resume = resume.then(|| who.token());
        let fresh_token = who.token();
        let hello = Registration { resumable, receipts, resume, fresh_id: who.id(), fresh_token };
        let conn = self.router.register(self.now, hello, (), &mut self.out)?;
        self.conns.insert(who.0, conn);
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

    fn leaves(&mut self, who: Who) {
        let conn = self.conns[&who.0];
        self.router.leave(self.now, conn, &mut self.out);
        self.collect();
    }

    fn status(&mut self, who: Who, presence: Presence) {
        self.send(who, Command::Status(presence));
    }

    // Saying.

    fn send(&mut self, who: Who, word: Command) {
        self.router.handle(self.now, self.conns[&who.0], word, &mut self.out);
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
        self.send(from, Command::Send(SendCommand { recipient: to.id(), id, ttl, content, body }));
    }

    fn confirms(&mut self, who: Who, name: &str) {
        let message_id = self.name(name);
        self.send(who, Command::Ack { message_id, sender: None });
    }

    fn auth(&mut self, who: Who, step: AuthStep, recipient: Option<Who>) {
        let body = format!("{step:?}").into();
        self.send(who, Command::Auth { step, recipient: recipient.map(Who::id), body });
    }

    fn trusts(&mut self, who: Who, other: Who) {
        self.send(who, Command::AuthSuccess { recipient: other.id(), body: "Success".into() });
    }

    fn rotates(&mut self, who: Who, key: &str, other: Who) {
        let body = format!("key {key}").into();
        self.send(who, Command::KeyRotation { recipient: other.id(), key_id: key.into(), body });
    }

    fn confirms_key(&mut self, who: Who, key: &str, other: Who) {
        let body = format!("key {key} confirmed").into();
        self.send(who, Command::KeyRotationAck { recipient: other.id(), key_id: key.into(), body });
    }

    // What happens.

    fn takes(&mut self, who: Who) {
        let conn = self.conns[&who.0];
        let through = self.written.get(&conn).copied().unwrap_or_default();
        self.router.on_written(self.now, conn, through, &mut self.out);
        self.collect();
    }

    fn pass(&mut self, seconds: u64) {
        let mono = self.now.mono + Duration::from_secs(seconds);
        self.now = Now { mono, wall_ms: self.now.wall_ms + seconds * 1_000 };
    }

    fn sweeps(&mut self) {
        let found = self.router.next_expired(self.now, 1_000);
        let Some(end) = found.last().map(|last| last.ticket + 1) else { return };
        let notices = found.iter().filter_map(|found| {
            let (refusal, about) = found.error.as_ref()?;
            Some((found.ticket, encode::error(*refusal, about)))
        });
        let notices: Vec<_> = notices.collect();
        self.router.drop_expired(self.now, end, notices, &mut self.out);
        self.collect();
    }

    fn commits(&mut self, through: PutSeq) {
        self.router.committed(self.now, through, &mut self.out);
        self.collect();
    }

    fn disk(&mut self) -> &mut Disk {
        self.router.store_mut()
    }

    // Looking.

    /// What a device's connection was told since somebody looked.
    fn received(&mut self, who: Who) -> Vec<String> {
        self.received.remove(&self.conns[&who.0]).unwrap_or_default()
    }

    fn books(&self) -> Counts {
        self.router.observe().counts
    }

    fn name(&mut self, name: &str) -> MessageId {
        let id = MessageId::from_u128(u128::from(digest(name)));
        self.names.insert(id, name.to_owned());
        id
    }

    fn collect(&mut self) {
        self.router.audit().unwrap();
        for (conn, delivery) in std::mem::take(&mut self.out.items) {
            let text = match delivery {
                Delivery::Registered(welcome) if welcome.resumed => {
                    format!("resumed {}", welcome.queued)
                }
                Delivery::Registered(_) => "welcome".into(),
                Delivery::Frame { seq, body } => {
                    self.written.insert(conn, seq);
                    let text = String::from_utf8(AsRef::<[u8]>::as_ref(&body).to_vec()).unwrap();
                    self.plainly(text)
                }
                Delivery::Ack { id, status } => self.plainly(encode::ack(id, status)),
                Delivery::Refused(refused) => {
                    self.plainly(encode::error(refused.refusal, &refused.about))
                }
                Delivery::Close(reason) => format!("closed {}", reason.code()),
            };
            self.received.entry(conn).or_default().push(text);
        }
    }

    /// The relay's own words in short; a device's as they are.
    fn plainly(&self, text: String) -> String {
        let frame = serde_json::from_str::<serde_json::Value>(&text).ok();
        let Some(frame) = frame.filter(|frame| frame.is_object()) else { return text };
        let payload = &frame["payload"];
        let id = payload["message_id"].as_str().and_then(MessageId::parse);
        let mut words: Vec<String> = match payload["code"].as_u64() {
            Some(code) => vec![code.to_string()],
            None => vec!["ack".into()],
        };
        words.extend(id.map(|id| self.names[&id].clone()));
        words.extend(payload["key_id"].as_u64().map(|key| format!("key {key}")));
        words.extend(payload["status"].as_str().map(str::to_owned));
        words.extend(payload["expires_at"].as_u64().map(|unix| format!("until {}", unix - UNIX)));
        words.join(" ")
    }
}

const NOTHING: [&str; 0] = [];

mod send {
    use super::*;

    #[test]
    fn a_message_is_acked_once_when_it_is_handed_over() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain(1), relay.plain(2));
        relay.sends(alice, "hi", bob);
        assert_eq!(relay.received(bob), ["hi"]);
        assert_eq!(relay.received(alice), ["ack hi"]);
        relay.takes(bob);
        assert_eq!(relay.received(alice), NOTHING);
        assert_eq!(relay.books().delivered, 1);
    }

    #[test]
    fn a_message_for_one_that_is_away_is_acked_once_when_it_is_queued() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain(1), relay.resumable(2));
        relay.leaves(bob);
        relay.sends(alice, "hi", bob);
        assert_eq!(relay.received(alice), ["ack hi"]);
        relay.resumes(bob);
        assert_eq!(relay.received(bob), ["resumed 1", "hi"]);
        relay.confirms(bob, "hi");
        assert_eq!(relay.received(alice), NOTHING);
    }

    #[test]
    fn one_may_send_to_oneself() {
        let mut relay = relay();
        let alice = relay.resumable(1);
        relay.sends(alice, "note", alice);
        assert_eq!(relay.received(alice), ["note", "ack note"]);
        relay.confirms(alice, "note");
        assert_eq!(relay.books().delivered, 1);
    }

    #[test]
    fn nobody_knows_who_was_never_here() {
        let mut relay = relay();
        let alice = relay.plain(1);
        relay.sends(alice, "hi", Who(9));
        assert_eq!(relay.received(alice), ["404 hi"]);
    }

    #[test]
    fn a_ttl_of_zero_means_now_or_never() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain(1), relay.resumable(2));
        relay.sends_for(alice, "now", bob, Some(0));
        assert_eq!(relay.received(bob), ["now"]);
        assert_eq!(relay.received(alice), ["ack now"]);
        relay.status(bob, Presence::Offline);
        relay.sends_for(alice, "never", bob, Some(0));
        assert_eq!(relay.received(alice), ["410 never"]);
        assert_eq!(relay.books().accepted, 1);
    }

    #[test]
    fn a_ttl_of_zero_finds_no_place_behind_others() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain(1), relay.resumable(2));
        for name in ["one", "two", "three"] {
            relay.sends(alice, name, bob);
        }
        relay.received(alice);
        relay.sends_for(alice, "four", bob, Some(0));
        assert_eq!(relay.received(alice), ["410 four"]);
    }

    #[test]
    fn a_ttl_of_zero_is_lost_with_its_connection_and_its_sender_is_told() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain(1), relay.resumable(2));
        relay.sends_for(alice, "now", bob, Some(0));
        relay.leaves(bob);
        relay.sweeps();
        assert_eq!(relay.received(alice), ["ack now", "410 now"]);
    }

    #[test]
    fn no_ttl_is_the_default_and_a_huge_one_the_most() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain_with_receipts(1), relay.plain(2));
        relay.leaves(bob);
        relay.sends(alice, "a", bob);
        relay.sends_for(alice, "b", bob, Some(u64::MAX));
        assert_eq!(relay.received(alice), ["ack a queued until 60", "ack b queued until 600"]);
    }

    #[test]
    fn what_expires_is_told_once_and_never_delivered() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain(1), relay.resumable(2));
        relay.leaves(bob);
        relay.sends_for(alice, "late", bob, Some(5));
        relay.pass(5);
        relay.resumes(bob);
        assert_eq!(relay.received(bob)[1..], NOTHING);
        relay.sweeps();
        relay.sweeps();
        assert_eq!(relay.received(alice), ["ack late", "410 late"]);
        assert_eq!(relay.books().expired, 1);
    }

    #[test]
    fn what_expires_leaves_in_the_order_of_its_deadlines_whomever_it_was_for() {
        let mut relay = relay();
        let (alice, bob, carol) = (relay.plain(1), relay.resumable(2), relay.resumable(3));
        relay.leaves(bob);
        relay.leaves(carol);
        for (name, recipient) in [("a", bob), ("b", carol), ("c", bob)] {
            relay.sends_for(alice, name, recipient, Some(10));
            relay.pass(1);
        }
        relay.received(alice);
        relay.pass(10);
        relay.sweeps();
        assert_eq!(relay.received(alice), ["410 a", "410 b", "410 c"]);
    }

    #[test]
    fn what_is_unconfirmed_expires_too_and_does_not_come_again() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain(1), relay.resumable(2));
        relay.sends_for(alice, "hi", bob, Some(5));
        relay.takes(bob);
        relay.pass(5);
        relay.sweeps();
        assert_eq!(relay.received(alice), ["ack hi", "410 hi"]);
        relay.resumes(bob);
        assert_eq!(relay.received(bob), ["resumed 0"]);
    }

    /// Once the whole window had expired unconfirmed, what waited behind it stayed there until something else came.
    #[test]
    fn what_expires_unconfirmed_makes_place_for_what_waits() {
        let mut relay = relay();
        let (alice, bob) = (relay.resumable(1), relay.resumable(2));
        relay.rules(|rules| rules.quota.sender_share = 1.0);
        for name in ["one", "two", "three"] {
            relay.sends_for(alice, name, bob, Some(5));
        }
        relay.sends_for(alice, "four", bob, Some(50));
        assert_eq!(relay.received(bob), ["one", "two", "three"]);
        relay.pass(5);
        relay.sweeps();
        assert_eq!(relay.received(bob), ["four"]);
    }
}

mod repeats {
    use super::*;

    #[test]
    fn a_repeat_is_acked_again_and_delivered_once() {
        let mut relay = relay();
        let (alice, bob) = (relay.resumable(1), relay.plain(2));
        relay.sends(alice, "hi", bob);
        relay.resumes(alice);
        relay.received(alice);
        relay.sends(alice, "hi", bob);
        assert_eq!(relay.received(alice), ["ack hi"]);
        assert_eq!(relay.received(bob), ["hi"]);
        relay.takes(bob);
        relay.sends(alice, "hi", bob);
        assert_eq!(relay.received(alice), ["ack hi"]);
        assert_eq!(relay.received(bob), NOTHING);
        assert_eq!(relay.books().accepted, 1);
    }

    #[test]
    fn other_content_under_the_same_id_is_refused() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain(1), relay.plain(2));
        relay.sends(alice, "hi", bob);
        relay.sends_content(alice, "hi", "something else", bob, None);
        assert_eq!(relay.received(alice), ["ack hi", "409 hi"]);
    }

    #[test]
    fn an_id_belongs_to_sender_and_recipient() {
        let mut relay = relay();
        let (alice, bob, carol) = (relay.plain(1), relay.plain(2), relay.plain(3));
        relay.sends(alice, "hi", bob);
        relay.sends(alice, "hi", carol);
        relay.sends(bob, "hi", alice);
        assert_eq!(relay.received(carol), ["hi"]);
        assert_eq!(relay.received(alice), ["ack hi", "ack hi", "hi"]);
    }

    #[test]
    fn what_expired_may_be_sent_again_once_that_is_told() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain_with_receipts(1), relay.resumable(2));
        relay.leaves(bob);
        relay.sends_for(alice, "hi", bob, Some(5));
        relay.pass(5);
        relay.router.next_expired(relay.now, 10);
        relay.received(alice);
        relay.sends_for(alice, "hi", bob, Some(5));
        assert_eq!(relay.received(alice), NOTHING, "its 410 is on its way");
        relay.sweeps();
        relay.sends_for(alice, "hi", bob, Some(5));
        assert_eq!(relay.received(alice), ["410 hi", "ack hi queued until 10"]);
    }

    #[test]
    fn a_repeat_is_forgotten_after_the_window_at_the_earliest() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain(1), relay.plain(2));
        relay.sends(alice, "hi", bob);
        relay.takes(bob);
        relay.pass(99);
        relay.sweeps();
        relay.sends(alice, "hi", bob);
        relay.pass(300);
        relay.sweeps();
        relay.sends(alice, "hi", bob);
        assert_eq!(relay.received(bob), ["hi", "hi"]);
    }
}

mod receipts {
    use super::*;

    #[test]
    fn a_plain_device_that_is_here_has_it_when_its_connection_took_it() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain_with_receipts(1), relay.plain(2));
        relay.sends(alice, "hi", bob);
        assert_eq!(relay.received(alice), NOTHING);
        relay.takes(bob);
        assert_eq!(relay.received(alice), ["ack hi delivered"]);
    }

    #[test]
    fn a_message_whose_connection_dies_first_is_queued_instead() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain_with_receipts(1), relay.plain(2));
        relay.sends(alice, "hi", bob);
        relay.leaves(bob);
        assert_eq!(relay.received(alice), ["ack hi queued until 60"]);
        relay.pass(60);
        relay.sweeps();
        assert_eq!(relay.received(alice), ["410 hi"]);
    }

    #[test]
    fn a_plain_device_that_holds_is_queued_for_and_delivered_to() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain_with_receipts(1), relay.plain(2));
        relay.status(bob, Presence::Offline);
        relay.sends(alice, "hi", bob);
        assert_eq!(relay.received(alice), ["ack hi queued until 60"]);
        relay.status(bob, Presence::Online);
        relay.takes(bob);
        assert_eq!(relay.received(alice), ["ack hi delivered"]);
    }

    #[test]
    fn a_resumable_device_is_queued_for_and_has_it_when_it_confirms() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain_with_receipts(1), relay.resumable(2));
        relay.sends(alice, "hi", bob);
        relay.takes(bob);
        assert_eq!(relay.received(alice), ["ack hi queued until 60"]);
        relay.confirms(bob, "hi");
        assert_eq!(relay.received(alice), ["ack hi processed"]);
    }

    #[test]
    fn a_plain_device_may_ack_what_it_received_and_no_more() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain(1), relay.plain(2));
        relay.sends(alice, "one", bob);
        relay.sends(alice, "two", bob);
        relay.confirms(bob, "one");
        relay.confirms(bob, "two");
        assert_eq!(relay.out.unmatched_acks, 0);
        relay.confirms(bob, "two");
        assert_eq!(relay.out.unmatched_acks, 1);
    }

    #[test]
    fn an_ack_of_what_is_not_here_is_counted_and_nothing_else() {
        let mut relay = relay();
        let (alice, bob, carol) =
            (relay.plain_with_receipts(1), relay.resumable(2), relay.resumable(3));
        relay.sends(alice, "hi", bob);
        relay.received(alice);
        relay.confirms(carol, "hi");
        relay.confirms(bob, "other");
        assert_eq!(relay.received(alice), NOTHING);
        assert_eq!((relay.books().stray_acks, relay.books().delivered), (2, 0));
    }

    #[test]
    fn a_resumable_sender_that_is_away_finds_its_receipts_and_errors_when_it_is_back() {
        let mut relay = relay();
        let alice = relay.resumable_with_receipts(1);
        let (bob, carol) = (relay.resumable(2), relay.plain(3));
        relay.leaves(carol);
        relay.sends(alice, "hi", bob);
        relay.sends_for(alice, "gone", carol, Some(5));
        relay.leaves(alice);
        relay.confirms(bob, "hi");
        relay.pass(5);
        relay.sweeps();
        relay.resumes(alice);
        assert_eq!(relay.received(alice), ["resumed 0", "ack hi processed", "410 gone"]);
    }

    #[test]
    fn a_plain_sender_that_is_gone_is_told_nothing() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain_with_receipts(1), relay.resumable(2));
        relay.leaves(bob);
        relay.sends_for(alice, "hi", bob, Some(5));
        relay.leaves(alice);
        relay.pass(5);
        relay.sweeps();
        let books = relay.books();
        assert_eq!((books.expired, books.queued_bytes), (1, 0));
    }
}

mod presence {
    use super::*;

    #[test]
    fn what_is_unconfirmed_comes_first_then_what_waited_then_what_is_new() {
        let mut relay = relay();
        let (alice, bob, carol) = (relay.plain(1), relay.resumable(2), relay.plain(3));
        for name in ["one", "two", "three"] {
            relay.sends(alice, name, bob);
        }
        relay.sends(carol, "four", bob);
        assert_eq!(relay.received(bob), ["one", "two", "three"]);
        relay.confirms(bob, "two");
        assert_eq!(relay.received(bob), ["four"]);
        relay.leaves(bob);
        relay.sends(carol, "five", bob);
        relay.resumes(bob);
        assert_eq!(relay.received(bob), ["resumed 4", "one", "three", "four"]);
        relay.sends(carol, "six", bob);
        relay.confirms(bob, "one");
        relay.confirms(bob, "three");
        assert_eq!(relay.received(bob), ["five", "six"]);
    }

    #[test]
    fn the_newest_connection_wins_and_a_late_goodbye_changes_nothing() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain(1), relay.resumable(2));
        let older = relay.conns[&bob.0];
        relay.resumes(bob);
        assert_eq!(relay.received.remove(&older).unwrap(), ["409", "closed 4409"]);
        relay.router.leave(relay.now, older, &mut relay.out);
        relay.sends(alice, "hi", bob);
        assert_eq!(relay.received(bob), ["resumed 0", "hi"]);
        assert_eq!(relay.router.observe().connected, 2);
    }

    #[test]
    fn offline_holds_away_and_online_deliver() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain(1), relay.plain(2));
        relay.status(bob, Presence::Offline);
        relay.sends(alice, "one", bob);
        assert_eq!(relay.received(bob), NOTHING);
        assert_eq!(relay.received(alice), ["ack one"]);
        relay.status(bob, Presence::Away);
        relay.sends(alice, "two", bob);
        assert_eq!(relay.received(bob), ["one", "two"]);
    }

    #[test]
    fn what_waits_for_a_plain_device_expires_when_it_is_forgotten() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain(1), relay.plain(2));
        relay.leaves(bob);
        relay.sends_for(alice, "hi", bob, Some(600));
        relay.received(alice);
        relay.pass(299);
        relay.sweeps();
        assert_eq!(relay.received(alice), NOTHING);
        relay.pass(1);
        relay.sweeps();
        relay.sends(alice, "again", bob);
        assert_eq!(relay.received(alice), ["410 hi", "404 again"]);
        assert_eq!(relay.router.observe().devices, 1);
    }

    #[test]
    fn a_session_that_is_over_is_unknown_even_before_the_sweep() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain(1), relay.resumable(2));
        relay.leaves(bob);
        relay.pass(3_600);
        relay.sends(alice, "hi", bob);
        relay.rotates(alice, "7", bob);
        assert_eq!(relay.received(alice), ["404 hi", "404 key 7"]);
        assert_eq!(relay.hello(bob, false, false, true), Err(Refusal::BadToken));
    }

    #[test]
    fn a_token_of_nobodys_is_refused_and_a_plain_device_has_none() {
        let mut relay = relay();
        let alice = relay.plain(1);
        assert_eq!(relay.hello(Who(9), false, false, true), Err(Refusal::BadToken));
        assert_eq!(relay.hello(alice, false, false, true), Err(Refusal::BadToken));
    }

    #[test]
    fn so_many_devices_are_known_and_no_more() {
        let mut relay = relay();
        for number in 1..=5 {
            relay.resumable(number);
        }
        assert_eq!(relay.hello(Who(6), false, false, false), Err(Refusal::Full));
        relay.leaves(Who(1));
        relay.pass(3_600);
        relay.sweeps();
        relay.plain(6);
    }
}

mod limits {
    use super::*;

    #[test]
    fn a_full_queue_refuses_and_loses_nothing() {
        let mut relay = relay();
        let (alice, bob, carol) = (relay.plain(1), relay.resumable(2), relay.plain(3));
        let dave = relay.plain(4);
        relay.leaves(bob);
        for name in ["1", "2", "3"] {
            relay.sends(alice, name, bob);
            relay.sends(carol, name, bob);
        }
        relay.received(carol);
        relay.sends(dave, "4", bob);
        assert_eq!(relay.received(dave), ["507 4"]);
        relay.resumes(bob);
        assert_eq!(relay.received(bob), ["resumed 6", "1", "1", "2"]);
    }

    #[test]
    fn one_sender_fills_its_share_and_the_others_get_through() {
        let mut relay = relay();
        let (alice, bob, carol) = (relay.plain(1), relay.resumable(2), relay.plain(3));
        relay.leaves(bob);
        for name in ["1", "2", "3", "4"] {
            relay.sends(alice, name, bob);
        }
        relay.sends(carol, "5", bob);
        assert_eq!(relay.received(alice), ["ack 1", "ack 2", "ack 3", "507 4"]);
        assert_eq!(relay.received(carol), ["ack 5"]);
    }

    #[test]
    fn what_expired_makes_place_before_a_queue_is_called_full() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain(1), relay.resumable(2));
        relay.leaves(bob);
        for name in ["1", "2", "3"] {
            relay.sends_for(alice, name, bob, Some(5));
        }
        relay.pass(5);
        relay.sends(alice, "4", bob);
        relay.sweeps();
        let received = relay.received(alice);
        assert_eq!(received[3..], ["ack 4", "410 1", "410 2", "410 3"]);
    }

    #[test]
    fn a_queue_has_a_limit_in_bytes() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain(1), relay.resumable(2));
        relay.leaves(bob);
        relay.sends(alice, &"a".repeat(300), bob);
        relay.sends(alice, &"b".repeat(201), bob);
        relay.sends(alice, &"c".repeat(200), bob);
        let codes = relay.received(alice).into_iter().map(|text| text[..3].to_owned());
        assert!(codes.eq(["ack", "507", "ack"]));
    }

    #[test]
    fn all_queues_have_a_limit_together() {
        let mut relay = relay();
        relay.rules(|rules| rules.total_bytes = 10);
        let (alice, bob, carol) = (relay.plain(1), relay.resumable(2), relay.plain(3));
        relay.leaves(bob);
        relay.sends(alice, "123456", bob);
        relay.sends(alice, "12345", bob);
        assert_eq!(relay.received(alice), ["ack 123456", "503 12345"]);
        relay.sends(alice, "straight through", carol);
        assert_eq!(relay.received(carol), ["straight through"]);
    }

    /// Auth messages were outside every byte limit, and a step that found no room had moved its exchange on.
    #[test]
    fn auth_takes_room_too_and_a_step_without_room_can_be_said_again() {
        let mut relay = relay();
        let (alice, bob, carol) = (relay.plain(1), relay.resumable(2), relay.plain(3));
        relay.rules(|rules| rules.quota.messages = 1);
        relay.auth(bob, AuthStep::Request, Some(alice));
        relay.leaves(bob);
        relay.sends(carol, "first", bob);
        relay.auth(alice, AuthStep::Response, None);
        assert_eq!(relay.received(alice), ["Request", "507"]);
        relay.resumes(bob);
        relay.confirms(bob, "first");
        relay.auth(alice, AuthStep::Response, None);
        assert_eq!(relay.received(bob), ["resumed 1", "first", "Response"]);
    }
}

mod auth {
    use super::*;

    #[test]
    fn the_four_steps_go_between_the_two_that_have_talked() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain(1), relay.plain(2));
        relay.sends(alice, "hi", bob);
        relay.received(alice);
        relay.auth(bob, AuthStep::Request, None);
        relay.auth(alice, AuthStep::Response, None);
        relay.auth(bob, AuthStep::Verify, None);
        relay.trusts(alice, bob);
        relay.trusts(bob, alice);
        assert_eq!(relay.received(alice), ["Request", "Verify", "Success"]);
        assert_eq!(relay.received(bob), ["hi", "Response", "Success"]);
    }

    #[test]
    fn nobody_is_guessed() {
        let mut relay = relay();
        let (alice, bob, carol) = (relay.plain(1), relay.plain(2), relay.plain(3));
        relay.auth(alice, AuthStep::Request, None);
        relay.sends(alice, "hi", bob);
        relay.sends(carol, "ho", alice);
        relay.auth(alice, AuthStep::Request, None);
        assert_eq!(relay.received(alice), ["400", "ack hi", "ho", "409"]);
        relay.auth(alice, AuthStep::Request, Some(carol));
        assert_eq!(relay.received(carol), ["ack ho", "Request"]);
        assert_eq!(relay.received(bob), ["hi"]);
        relay.auth(alice, AuthStep::Request, Some(Who(9)));
        assert_eq!(relay.received(alice), ["404"]);
    }

    #[test]
    fn a_step_without_an_exchange_that_waits_for_it_goes_nowhere() {
        let mut relay = relay();
        let (alice, bob, carol) = (relay.plain(1), relay.plain(2), relay.plain(3));
        relay.auth(bob, AuthStep::Response, Some(alice));
        relay.auth(alice, AuthStep::Request, Some(bob));
        relay.auth(bob, AuthStep::Verify, None);
        relay.auth(carol, AuthStep::Response, Some(alice));
        relay.trusts(bob, alice);
        relay.trusts(carol, alice);
        assert_eq!(relay.received(bob), ["404", "Request", "404", "403"]);
        assert_eq!(relay.received(carol), ["404", "403"]);
        assert_eq!(relay.received(alice), NOTHING);
    }

    #[test]
    fn a_step_waits_for_as_long_as_its_exchange_lasts() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain(1), relay.resumable(2));
        relay.leaves(bob);
        relay.auth(alice, AuthStep::Request, Some(bob));
        relay.pass(30);
        relay.sweeps();
        assert_eq!(relay.received(alice), ["410"]);
        relay.resumes(bob);
        relay.auth(bob, AuthStep::Response, None);
        assert_eq!(relay.received(bob), ["resumed 0", "404"]);
        assert_eq!(relay.router.observe().exchanges, 0);
    }

    #[test]
    fn a_request_that_is_said_often_is_one_exchange() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain(1), relay.plain(2));
        for _ in 0..100 {
            relay.auth(alice, AuthStep::Request, Some(bob));
            relay.takes(bob);
            relay.pass(1);
        }
        assert_eq!(relay.router.observe().exchanges, 1);
        assert!(relay.router.residue() < 20);
    }
}

mod keys {
    use super::*;

    #[test]
    fn an_update_is_delivered_when_its_confirmation_passes_back() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain(1), relay.resumable(2));
        relay.rotates(alice, "7", bob);
        relay.takes(bob);
        assert_eq!(relay.books().delivered, 0);
        relay.resumes(bob);
        assert_eq!(relay.received(bob), ["resumed 1", "key 7"]);
        relay.confirms_key(bob, "7", alice);
        assert_eq!(relay.received(alice), ["key 7 confirmed"]);
        assert_eq!(relay.books().delivered, 1);
        relay.takes(alice);
        assert_eq!(relay.books().delivered, 2);
        assert_eq!(relay.received(alice), NOTHING, "there is no Ack for a key");
    }

    #[test]
    fn keys_and_messages_of_a_pair_keep_their_order() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain(1), relay.resumable(2));
        relay.leaves(bob);
        relay.sends(alice, "before", bob);
        relay.rotates(alice, "7", bob);
        relay.sends(alice, "after", bob);
        relay.resumes(bob);
        assert_eq!(relay.received(bob), ["resumed 3", "before", "key 7", "after"]);
    }

    #[test]
    fn what_becomes_of_a_key_is_told_with_its_id() {
        let mut relay = relay();
        let (alice, bob) = (relay.plain(1), relay.resumable(2));
        relay.leaves(bob);
        relay.rotates(alice, "7", Who(9));
        relay.rotates(alice, "8", bob);
        relay.pass(120);
        relay.sweeps();
        assert_eq!(relay.received(alice), ["404 key 7", "410 key 8"]);
    }
}

mod store {
    use super::*;

    #[test]
    fn nothing_is_acked_before_it_is_safe_or_delivered() {
        let mut relay = relay();
        relay.disk().slow = true;
        let (alice, bob, carol) = (relay.plain(1), relay.resumable(2), relay.resumable(3));
        relay.leaves(carol);
        relay.sends(alice, "one", bob);
        relay.sends(alice, "two", carol);
        relay.sends(alice, "two", carol);
        assert_eq!(relay.received(alice), NOTHING);
        relay.confirms(bob, "one");
        assert_eq!(relay.received(alice), ["ack one"]);
        let last = relay.disk().last;
        relay.commits(last);
        relay.commits(last);
        assert_eq!(relay.received(alice), ["ack two"]);
    }

    /// A commit through a newer message acked an older one that was handed to the store later, when its connection died.
    #[test]
    fn what_came_to_the_store_late_is_acked_late() {
        let mut relay = relay();
        relay.disk().slow = true;
        let (alice, bob, carol) =
            (relay.plain_with_receipts(1), relay.plain(2), relay.resumable(3));
        relay.leaves(carol);
        relay.sends(alice, "older", bob);
        relay.sends(alice, "newer", carol);
        let first = relay.disk().last;
        relay.leaves(bob);
        relay.commits(first);
        assert_eq!(relay.received(alice), ["ack newer queued until 60"]);
        let last = relay.disk().last;
        relay.commits(last);
        assert_eq!(relay.received(alice), ["ack older queued until 60"]);
    }

    /// The end of a message was written before its sender's socket took the word of it; a crash between the two, and the
    /// sender never learned.
    #[test]
    fn what_the_relay_says_is_kept_until_the_socket_took_it() {
        let mut relay = relay();
        let (alice, bob) = (relay.resumable(1), relay.resumable(2));
        relay.leaves(bob);
        relay.sends_for(alice, "gone", bob, Some(5));
        relay.pass(5);
        relay.sweeps();
        assert_eq!(relay.received(alice), ["ack gone", "410 gone"]);
        assert_eq!(relay.disk().stored, 1);
        relay.takes(alice);
        assert_eq!(relay.disk().stored, 0);
    }

    #[test]
    fn a_sender_that_was_away_at_the_commit_repeats_itself_and_is_acked() {
        let mut relay = relay();
        relay.disk().slow = true;
        let (alice, bob) = (relay.resumable(1), relay.resumable(2));
        relay.sends(alice, "hi", bob);
        relay.leaves(alice);
        let last = relay.disk().last;
        relay.commits(last);
        relay.resumes(alice);
        relay.sends(alice, "hi", bob);
        assert_eq!(relay.received(alice), ["resumed 0", "ack hi"]);
        assert_eq!(relay.received(bob), ["hi"]);
    }
}

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
    relay.router.next_expired(relay.now, 10);
    assert!(relay.router.next_deadline() <= Some(relay.now.mono), "what is not told yet is due");
}
