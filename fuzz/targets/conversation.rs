//! Whole conversations of a few devices with the router: nothing panics, the counters agree after each step, every answer is
//! JSON, and nothing is left when all devices are gone.
//!
//! The input is text, a step in each line:
//!
//! * `0{"type":"Ping"}`: connection 0 sends a frame; there are connections 0 to 3, and one that is not open is opened;
//! * `x0`: connection 0 ends; `w0`: its socket has taken everything; `+60`: a minute passes; `s`: expired items are swept.
//!
//! The n-th new device has the id `00000000-0000-4000-8000-` and n in 12 hexadecimal digits, and the resume token `tn`.

use std::sync::Arc;
use std::time::Duration;

use sealpost::clock::{Clock, Moment, Now};
use sealpost::protocol::encode::{self, Token};
use sealpost::protocol::envelope::{Origin, Seq};
use sealpost::protocol::frame::Register;
use sealpost::protocol::id::DeviceId;
use sealpost::relay::command::{Command, ConnectionId, Registration, Resume, TokenHash};
use sealpost::relay::connection_state::{Registered, Request, Unregistered};
use sealpost::relay::delivery::{Delivery, Step};
use sealpost::relay::notice_queue::NoticeNumber;
use sealpost::relay::rate_limit::{Allowance, RatePlan};
use sealpost::relay::router::Router;
use sealpost::settings::Settings;
use sealpost::store::memory::Memory;
use serde::de::IgnoredAny;

const CONNECTIONS: usize = 4;

/// More steps only take longer.
const MAX_STEPS: usize = 256;

/// The first half of each new device's id.
const ID: u128 = 0x0000_0000_0000_4000_8000_0000_0000_0000;

/// Expired items that one sweep takes.
const SLICE: usize = 8;

/// Longer than anything waits.
const LONG: Duration = Duration::from_secs(1_000_000);

/// Returns the number of frames that were forwarded to a device.
pub fn run(data: &[u8]) -> usize {
    let Ok(text) = std::str::from_utf8(data) else { return 0 };
    let mut relay = Relay::new();
    for line in text.lines().take(MAX_STEPS) {
        relay.step(line);
        relay.router.audit().expect("the counters agree");
    }
    for number in 0..CONNECTIONS {
        relay.disconnect(number);
    }
    relay.pass(LONG);
    relay.sweep();
    relay.router.audit().expect("the counters agree");
    let left = relay.router.observe();
    let counts = left.counts;
    assert_eq!((left.devices, left.connected, left.exchanges), (0, 0, 0), "devices are left");
    assert_eq!((counts.queued, counts.in_flight, counts.queued_bytes), (0, 0, 0), "items are left");
    relay.forwarded
}

#[derive(Default)]
enum State {
    #[default]
    Closed,
    Unregistered(ConnectionId),
    Registered(ConnectionId, Registered),
}

struct Relay {
    router: Router,
    now: Step,
    settings: Arc<Settings>,
    allowance: Arc<Allowance>,
    states: [State; CONNECTIONS],
    connections: u64,
    devices: u128,
    forwarded: usize,
}

impl Relay {
    fn new() -> Self {
        let mut settings = Settings::default();
        // Small, so that a short conversation reaches every limit.
        settings.limits.message_bytes = 4096;
        settings.limits.devices = 6;
        settings.queue.messages = 6;
        settings.queue.bytes = 8192;
        settings.queue.total_bytes = 16_384;
        settings.delivery.window = 3;
        settings.delivery.bytes = 4096;
        let settings = Arc::new(settings);
        let plan = RatePlan::new(settings.rate_limit.clone(), Clock::still());
        Self {
            router: Router::new(settings.clone(), Box::new(Memory)),
            now: Step::at(Now { mono: Moment(0), wall_ms: 1_700_000_000_000 }),
            settings,
            allowance: Allowance::new(plan),
            states: Default::default(),
            connections: 0,
            devices: 0,
            forwarded: 0,
        }
    }

    fn step(&mut self, line: &str) {
        let Some(first) = line.chars().next() else { return };
        let rest = &line[first.len_utf8()..];
        let number = |text: &str| text.parse().ok().filter(|number| *number < CONNECTIONS);
        match first {
            '+' => self.pass(Duration::from_secs(rest.parse().unwrap_or(1)).min(LONG)),
            's' => self.sweep(),
            'x' => number(rest).map_or((), |number| self.disconnect(number)),
            'w' => {
                if let Some(connection) = number(rest).and_then(|number| self.connection(number)) {
                    self.router.on_written(&mut self.now, connection, Seq::MAX);
                    self.router.on_notices_written(&mut self.now, connection, NoticeNumber::MAX);
                }
            }
            _ => {
                if let Some(number) = first.to_digit(10).filter(|it| (*it as usize) < CONNECTIONS) {
                    self.receive(number as usize, rest);
                }
            }
        }
        self.deliver();
    }

    fn connection(&self, number: usize) -> Option<ConnectionId> {
        match self.states[number] {
            State::Closed => None,
            State::Unregistered(connection) | State::Registered(connection, _) => Some(connection),
        }
    }

    fn receive(&mut self, number: usize, text: &str) {
        let max_bytes = self.settings.limits.message_bytes;
        let parsed = match self.states[number] {
            State::Registered(connection, me) => (connection, me.parse(text, max_bytes)),
            State::Unregistered(connection) => (connection, Unregistered.parse(text, max_bytes)),
            State::Closed => {
                self.connections += 1;
                let connection = ConnectionId(self.connections);
                self.states[number] = State::Unregistered(connection);
                (connection, Unregistered.parse(text, max_bytes))
            }
        };
        match parsed {
            (connection, Ok(Request::Command(command))) => {
                self.router.handle(&mut self.now, connection, [command]);
            }
            (connection, Ok(Request::Register(register))) => {
                if matches!(self.states[number], State::Unregistered(_)) {
                    self.register(number, connection, register);
                }
            }
            (connection, Ok(Request::Pong)) => {
                // As if the relay had sent a Ping.
                let command = Command::NoticesReceived(NoticeNumber::MAX);
                self.router.handle(&mut self.now, connection, [command]);
            }
            (_, Err((refusal, context))) => expect_json(&encode::error(refusal, &context)),
        }
    }

    fn register(&mut self, number: usize, connection: ConnectionId, register: Register<'_>) {
        let token = |text: &str| (Token(text.to_owned()), hash(text));
        self.devices += 1;
        let resume = register.resume_token.as_deref().map(|text| {
            let (token, hash) = token(text);
            Resume { token, hash, renew: register.renew_token, barred: None }
        });
        let registration = Registration {
            resumable: register.resumable,
            receipts: register.receipts,
            // Two connections share a network.
            origin: Origin(number as u64 / 2),
            access: None,
            accept: register.accept,
            resume,
            fresh_id: DeviceId::from_u128(ID | self.devices),
            fresh_token: token(&format!("t{}", self.devices)),
        };
        let allowance = self.allowance.clone();
        if self.router.register(&mut self.now, connection, registration, allowance).is_err() {
            self.devices -= 1;
        }
    }

    /// What the sessions would do with the deliveries. Each must reach a connection that is open, or was in this step.
    fn deliver(&mut self) {
        for (to, delivery) in std::mem::take(&mut self.now.out) {
            let Some(number) = (0..CONNECTIONS).find(|it| self.connection(*it) == Some(to)) else {
                continue;
            };
            match delivery {
                Delivery::Registered(accepted) => {
                    let me = Registered { device: accepted.device };
                    self.states[number] = State::Registered(to, me);
                }
                Delivery::Frame { body, .. } => {
                    assert!(matches!(self.states[number], State::Registered(..)));
                    expect_json(&body);
                    self.forwarded += 1;
                }
                Delivery::Notice { body, .. } => {
                    expect_json(&body);
                    self.forwarded += 1;
                }
                Delivery::Ack { id, status } => expect_json(&encode::ack(id, status)),
                Delivery::Refused(refused) => {
                    expect_json(&encode::error(refused.refusal, &refused.context));
                }
                Delivery::Close(_) => self.disconnect(number),
                Delivery::Pong | Delivery::UnmatchedAck => {}
            }
        }
    }

    fn disconnect(&mut self, number: usize) {
        if let Some(connection) = self.connection(number) {
            self.states[number] = State::Closed;
            self.router.disconnect(&mut self.now, connection);
        }
    }

    fn pass(&mut self, time: Duration) {
        let now = &mut self.now.now;
        now.mono = now.mono + time;
        now.wall_ms += time.as_millis() as u64;
    }

    fn sweep(&mut self) {
        loop {
            let expired = self.router.next_expired(self.now.now, SLICE).expired;
            let Some(last) = expired.last() else { return };
            let (end, mut notices) = (last.ticket + 1, Vec::new());
            for notice in &expired {
                if let Some((refusal, context)) = &notice.error {
                    notices.push((notice.ticket, encode::error(*refusal, context)));
                }
            }
            self.router.drop_expired(&mut self.now, end, notices);
        }
    }
}

/// Stands for SHA-256: different short tokens have different hashes.
fn hash(token: &str) -> TokenHash {
    let mut hash = [0; 32];
    for (to, from) in hash.iter_mut().zip(token.bytes()) {
        *to = from;
    }
    TokenHash(hash)
}

fn expect_json(text: &str) {
    let parsed = serde_json::from_str::<IgnoredAny>(text);
    assert!(parsed.is_ok(), "{text}");
}
