//! What the router has for connections.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;

use super::command::ConnectionId;
use super::notice_queue::NoticeNumber;
use super::rate_limit::{Allowance, whole_ms};
use crate::clock::Now;
use crate::protocol::encode::{Status, Token};
use crate::protocol::envelope::Seq;
use crate::protocol::id::{DeviceId, MessageId};
use crate::protocol::kind::Outgoing;
use crate::protocol::refusal::{CloseReason, ErrorContext, Refusal};

/// One thing for one connection.
#[derive(Debug)]
pub enum Delivery {
    /// Always the first delivery of a connection that registers.
    Registered(Box<RegistrationAccepted>),
    /// A frame of another device. The session reports the `seq` when the socket has taken the frame.
    Frame {
        seq: Seq,
        body: ByteString,
        /// A `KeyRotationUpdate` makes one `KeyRotationAck` free.
        kind: Outgoing,
    },
    /// A receipt or an `Error` about a frame of this device. The session reports the `number` when the socket has taken the
    /// frame, and of a resumable device when the device has proved that it has the frame.
    Notice {
        number: NoticeNumber,
        body: ByteString,
        kind: Outgoing,
        needs_proof: bool,
    },
    /// A message of this device was accepted, delivered or processed; `status` only if the device asked for receipts.
    Ack {
        id: MessageId,
        status: Option<Status>,
    },
    Pong,
    Refused(Box<Refused>),
    /// The device acked a message that does not await an Ack. Nothing is sent; the session charges the allowance.
    UnmatchedAck,
    Close(CloseReason),
    /// An operator wants to know how the session does.
    Describe(ReportTo),
}

/// How a session does.
#[derive(Debug, Clone, Copy)]
pub struct SessionReport {
    pub address: IpAddr,
    /// Since the last byte of the client; `None` if there was none after its handshake.
    pub silence: Option<Duration>,
    /// Bytes that the socket has not taken.
    pub unwritten_bytes: usize,
}

/// Where a [`SessionReport`] goes.
pub struct ReportTo(pub Box<dyn FnOnce(SessionReport) + Send>);

impl fmt::Debug for ReportTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReportTo")
    }
}

#[derive(Debug)]
pub struct Refused {
    pub refusal: Refusal,
    pub context: ErrorContext,
}

#[derive(Debug)]
pub struct RegistrationAccepted {
    pub device: DeviceId,
    /// Shared by all connections that the device has over time.
    pub allowance: Arc<Allowance>,
    pub resumed: bool,
    pub queued: usize,
    pub token: Option<Token>,
}

/// One step of the router: its time, and what follows from it, in order.
#[derive(Debug)]
pub struct Step {
    pub now: Now,
    pub out: Vec<(ConnectionId, Delivery)>,
}

impl Refused {
    /// 429: more than `limit` in a minute; the client may try again after `wait`.
    pub fn rate_limited(limit: u32, wait: Duration) -> Self {
        let retry_after_ms = Some(whole_ms(wait));
        let context = ErrorContext { retry_after_ms, ..ErrorContext::NOTHING };
        Self { refusal: Refusal::RateLimited(limit), context }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, context: ErrorContext::NOTHING }
    }
}

impl Step {
    pub fn at(now: Now) -> Self {
        Self { now, out: Vec::new() }
    }

    pub fn deliver(&mut self, to: ConnectionId, delivery: Delivery) {
        self.out.push((to, delivery));
    }

    /// Refuses with everything that is known already.
    pub fn send_refused(&mut self, to: ConnectionId, refused: Refused) {
        self.deliver(to, Delivery::Refused(Box::new(refused)));
    }

    pub fn refuse(&mut self, to: ConnectionId, refusal: Refusal, context: ErrorContext) {
        self.deliver(to, Delivery::Refused(Box::new(Refused { refusal, context })));
    }
}
