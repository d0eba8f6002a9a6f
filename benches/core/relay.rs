//! A relay that is nothing but its rules, with a store that keeps nothing and limits that nobody reaches.

use std::time::Duration;

use bytestring::ByteString;
use sealpost::clock::{Moment, Now};
use sealpost::protocol::encode::{self, Token};
use sealpost::protocol::envelope::Seq;
use sealpost::protocol::id::{DeviceId, MessageId};
use sealpost::relay::command::{
    Command, ConnectionId, Deliveries, Registration, SendCommand, TokenHash,
};
use sealpost::relay::mailbox::Credit;
use sealpost::relay::mailbox_quota::MailboxQuota;
use sealpost::relay::router::{Expired, Router, Rules};
use sealpost::store::memory::Memory;

/// What every message carries; all share one body, so that a million of them measure the relay and not the allocator.
pub const BODY: &str = "a body that is carried and not looked at";

const RULES: Rules = Rules {
    credit: Credit { window: 256, bytes: 256 * 1024 },
    quota: MailboxQuota { messages: usize::MAX, bytes: u64::MAX, sender_share: 1.0 },
    total_bytes: u64::MAX,
    default_ttl: 300,
    max_ttl: u64::MAX,
    key_rotation_ttl: 300,
    dedup_window: Duration::from_secs(600),
    session_ttl: Duration::MAX,
    plain_ttl: Duration::MAX,
    exchange_ttl: 30,
    devices: usize::MAX,
};

/// The rules, and the time.
pub struct Relay {
    pub router: Router<Memory, ()>,
    pub now: Now,
    out: Deliveries<()>,
    names: u128,
}

/// Somebody that has registered.
#[derive(Clone, Copy)]
pub struct Device {
    pub id: DeviceId,
    conn: ConnectionId,
}

/// What a sweep found, and what its senders are to be told.
pub struct Found {
    expired: Vec<Expired>,
    notices: Vec<(u64, String)>,
}

impl Relay {
    pub fn new() -> Self {
        Self {
            router: Router::new(RULES, Memory),
            now: Now { mono: Moment(0), wall_ms: 1_678_886_400_000 },
            out: Deliveries::default(),
            names: 0,
        }
    }

    pub fn join(&mut self, resumable: bool) -> Device {
        let id = DeviceId::random();
        let mut hash = [0; 32];
        hash[..16].copy_from_slice(&id.to_u128().to_le_bytes());
        let fresh_token = (Token(id.to_string()), TokenHash(hash));
        let hello =
            Registration { resumable, receipts: false, resume: None, fresh_id: id, fresh_token };
        let conn = self.router.register(self.now, hello, (), &mut self.out);
        self.out.items.clear();
        Device { id, conn: conn.expect("there is room for everybody") }
    }

    pub fn leave(&mut self, device: Device) {
        self.router.leave(self.now, device.conn, &mut self.out);
        self.out.items.clear();
    }

    pub fn send(&mut self, from: Device, to: Device, ttl: u64) -> MessageId {
        self.names += 1;
        let (id, body) = (MessageId::from_u128(self.names), ByteString::from_static(BODY));
        let message = SendCommand { recipient: to.id, id, ttl: Some(ttl), content: 1, body };
        self.router.handle(self.now, from.conn, Command::Send(message), &mut self.out);
        self.post();
        id
    }

    pub fn confirm(&mut self, by: Device, message_id: MessageId) {
        let word = Command::Ack { message_id, sender: None };
        self.router.handle(self.now, by.conn, word, &mut self.out);
        self.post();
    }

    /// The socket took all that its device was handed.
    pub fn take(&mut self, by: Device) {
        self.router.on_written(self.now, by.conn, Seq::MAX, &mut self.out);
        self.post();
    }

    pub fn pass(&mut self, seconds: u64) {
        self.now.mono = self.now.mono + Duration::from_secs(seconds);
        self.now.wall_ms += seconds * 1_000;
    }

    /// The first step of a sweep.
    pub fn find(&mut self, limit: usize) -> Vec<Expired> {
        self.router.next_expired(self.now, limit)
    }

    /// The second.
    pub fn drop(&mut self, found: Found) {
        let end = found.expired.last().map_or(0, |last| last.ticket + 1);
        self.router.drop_expired(self.now, end, found.notices, &mut self.out);
        self.post();
    }

    /// Hands the posts to nobody, as the registry hands them to sessions after each step.
    fn post(&mut self) {
        std::hint::black_box(&self.out.items);
        self.out.items.clear();
    }
}

impl Found {
    /// What a sweeper does between its two steps.
    pub fn told(expired: Vec<Expired>) -> Self {
        let error = |found: &Expired| {
            found.error.as_ref().map(|(why, about)| (found.ticket, encode::error(*why, about)))
        };
        let notices = expired.iter().filter_map(error).collect();
        Self { expired, notices }
    }

    pub fn len(&self) -> usize {
        self.expired.len()
    }
}
