//! A router with a store that keeps nothing and limits that nothing here reaches.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use sealpost::clock::{Clock, Moment, Now};
use sealpost::protocol::encode::{self, Token};
use sealpost::protocol::envelope::{Origin, Seq};
use sealpost::protocol::id::{DeviceId, MessageId};
use sealpost::relay::command::{Command, ConnectionId, Registration, SendCommand, TokenHash};
use sealpost::relay::delivery::Step;
use sealpost::relay::rate_limit::{Allowance, RatePlan};
use sealpost::relay::router::{ExpiryNotice, Router};
use sealpost::settings::{RateLimit, Settings};
use sealpost::store::memory::Memory;

/// The body of every message; all share one, so that a million messages measure the router and not the allocator.
pub const BODY: &str = "a body that is carried and not looked at";

/// Limits that nothing here reaches.
fn settings() -> Arc<Settings> {
    let mut settings = Settings::default();
    settings.delivery.window = 256;
    settings.delivery.bytes = 256 * 1024;
    settings.queue.messages = usize::MAX;
    settings.queue.bytes = usize::MAX;
    settings.queue.sender_share = 1.0;
    settings.queue.total_bytes = usize::MAX;
    settings.queue.max_ttl = Duration::MAX;
    settings.session.ttl = Duration::MAX;
    settings.session.plain_ttl = Duration::MAX;
    settings.limits.devices = usize::MAX;
    Arc::new(settings)
}

/// The router and the time.
pub struct Relay {
    pub router: Router,
    pub step: Step,
    /// Of the devices that join.
    pub origin: Origin,
    allowance: Arc<Allowance>,
    connections: u64,
    names: u128,
}

/// A registered device.
#[derive(Clone, Copy)]
pub struct Device {
    pub id: DeviceId,
    conn: ConnectionId,
}

/// The expired items that a sweep found, and the notices for their senders.
pub struct Found {
    expired: Vec<ExpiryNotice>,
    notices: Vec<(u64, String)>,
}

impl Relay {
    pub fn new() -> Self {
        Self {
            router: Router::new(settings(), Box::new(Memory)),
            step: Step::at(Now { mono: Moment(0), wall_ms: 1_678_886_400_000 }),
            origin: Origin(1),
            allowance: Allowance::new(RatePlan::new(RateLimit::default(), Clock::still())),
            connections: 0,
            names: 0,
        }
    }

    pub fn join(&mut self, resumable: bool) -> Device {
        let id = DeviceId::random();
        let mut hash = [0; 32];
        hash[..16].copy_from_slice(&id.to_u128().to_le_bytes());
        let fresh_token = (Token(id.to_string()), TokenHash(hash));
        let hello = Registration {
            resumable,
            receipts: false,
            origin: self.origin,
            access: None,
            accept: None,
            resume: None,
            fresh_id: id,
            fresh_token,
        };
        self.connections += 1;
        let conn = ConnectionId(self.connections);
        let registered = self.router.register(&mut self.step, conn, hello, self.allowance.clone());
        registered.expect("there is room for everybody");
        self.step.out.clear();
        Device { id, conn }
    }

    pub fn leave(&mut self, device: Device) {
        self.router.disconnect(&mut self.step, device.conn);
        self.step.out.clear();
    }

    pub fn send(&mut self, from: Device, to: Device, ttl: u64) -> MessageId {
        self.names += 1;
        let (id, body) = (MessageId::from_u128(self.names), ByteString::from_static(BODY));
        let message = SendCommand { recipient: to.id.into(), id, ttl: Some(ttl), content: 1, body };
        self.handle(from, Command::Send(message));
        id
    }

    pub fn confirm(&mut self, by: Device, message_id: MessageId) {
        self.handle(by, Command::Ack { message_id, sender: None });
    }

    pub fn handle(&mut self, from: Device, command: Command) {
        self.router.handle(&mut self.step, from.conn, [command]);
        self.discard();
    }

    /// The device's socket took all frames.
    pub fn take(&mut self, by: Device) {
        self.router.on_written(&mut self.step, by.conn, Seq::MAX);
        self.discard();
    }

    pub fn pass(&mut self, seconds: u64) {
        let now = &mut self.step.now;
        now.mono = now.mono + Duration::from_secs(seconds);
        now.wall_ms += seconds * 1_000;
    }

    /// The first step of a sweep: finds expired items.
    pub fn find(&mut self, limit: usize) -> Vec<ExpiryNotice> {
        self.router.next_expired(self.step.now, limit).expired
    }

    /// The second step of a sweep: drops the items after their notices.
    pub fn drop(&mut self, found: Found) {
        let end = found.expired.last().map_or(0, |last| last.ticket + 1);
        self.router.drop_expired(&mut self.step, end, found.notices);
        self.discard();
    }

    /// Discards the deliveries, where the Registry would hand them to sessions.
    fn discard(&mut self) {
        std::hint::black_box(&self.step.out);
        self.step.out.clear();
    }
}

impl Found {
    /// Encodes the notices, as the sweeper does between its two steps.
    pub fn told(expired: Vec<ExpiryNotice>) -> Self {
        let error = |found: &ExpiryNotice| {
            found.error.as_ref().map(|(why, about)| (found.ticket, encode::error(*why, about)))
        };
        let notices = expired.iter().filter_map(error).collect();
        Self { expired, notices }
    }

    pub fn len(&self) -> usize {
        self.expired.len()
    }
}
