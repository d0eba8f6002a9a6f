//! What the router hears and what it answers.

use bytestring::ByteString;

use crate::protocol::encode::{Status, Token};
use crate::protocol::envelope::Seq;
use crate::protocol::frame::{AuthStep, Presence};
use crate::protocol::id::{DeviceId, MessageId};
use crate::protocol::refusal::{CloseReason, ErrorContext, Refusal};

/// One connection of a device. A newer one of the same device has a higher epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// Where the router keeps the device.
    pub slot: u32,
    /// Tells this connection from every other one there ever was.
    pub epoch: u64,
}

/// The hash of a resume token, all that is kept of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

/// A stranger that wants in, with the randomness that the rules must not draw themselves.
#[derive(Debug)]
pub struct Registration {
    /// Wants an identity that outlives the connection.
    pub resumable: bool,
    /// Wants to know what becomes of each message.
    pub receipts: bool,
    /// Wants its former identity back: the token, and its hash.
    pub resume: Option<(Token, TokenHash)>,
    /// The id, should this become a new device.
    pub fresh_id: DeviceId,
    /// The token, should this become a new resumable device.
    pub fresh_token: (Token, TokenHash),
}

/// What a registered device says; who says it is known and checked.
#[derive(Debug)]
pub enum Command {
    /// A message.
    Send(SendCommand),
    /// Confirms a message.
    Ack {
        /// Which.
        message_id: MessageId,
        /// Whose, if it is said.
        sender: Option<DeviceId>,
    },
    /// A step of an authentication.
    Auth {
        /// Which.
        step: AuthStep,
        /// For whom, if it is said.
        recipient: Option<DeviceId>,
        /// The frame to carry on.
        body: ByteString,
    },
    /// Another device is trusted.
    AuthSuccess {
        /// For whom.
        recipient: DeviceId,
        /// The frame to carry on.
        body: ByteString,
    },
    /// New key material.
    KeyRotation {
        /// For whom.
        recipient: DeviceId,
        /// Its name, raw JSON.
        key_id: Box<str>,
        /// The frame to carry on.
        body: ByteString,
    },
    /// Confirms key material.
    KeyRotationAck {
        /// For whom: the one that sent the key.
        recipient: DeviceId,
        /// Its name, raw JSON.
        key_id: Box<str>,
        /// The frame to carry on.
        body: ByteString,
    },
    /// Whether messages are welcome.
    Status(Presence),
}

/// A message on its way in.
#[derive(Debug)]
pub struct SendCommand {
    /// For whom.
    pub recipient: DeviceId,
    /// Its name.
    pub id: MessageId,
    /// Seconds, as the client said.
    pub ttl: Option<u64>,
    /// Digest of the content, to tell a repeat.
    pub content: u64,
    /// The `Receive` frame.
    pub body: ByteString,
}

/// What a session is told, in order.
#[derive(Debug)]
pub enum Delivery<L> {
    /// It is registered; always the first.
    Registered(Box<RegistrationAccepted<L>>),
    /// A frame for the device. Once the socket took it, the mark comes back.
    Frame {
        /// The envelope's place in the order of arrival.
        seq: Seq,
        /// The frame.
        body: ByteString,
    },
    /// A message was accepted, delivered or processed.
    Ack {
        /// Which.
        id: MessageId,
        /// What became of it, if the device asked for receipts.
        status: Option<Status>,
    },
    /// Something was refused.
    Refused(Box<Refused>),
    /// Goodbye.
    Close(CloseReason),
}

/// A refusal, and what it is about.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// Of what.
    pub about: ErrorContext,
}

/// A registration that came about.
#[derive(Debug)]
pub struct RegistrationAccepted<L> {
    /// This connection.
    pub conn: ConnectionId,
    /// Its device.
    pub device: DeviceId,
    /// The device's allowance, shared by all its connections over time.
    pub lease: L,
    /// Whether this is a former identity.
    pub resumed: bool,
    /// Messages that wait for it.
    pub queued: usize,
    /// The token, for a resumable device.
    pub token: Option<Token>,
}

/// What follows from a step: items in order, each for one connection.
#[derive(Debug)]
pub struct Deliveries<L> {
    /// For whom, and what.
    pub items: Vec<(ConnectionId, Delivery<L>)>,
    /// Acks that confirmed nothing.
    pub unmatched_acks: u32,
}

impl<L> Default for Deliveries<L> {
    fn default() -> Self {
        Self { items: Vec::new(), unmatched_acks: 0 }
    }
}

impl<L> Deliveries<L> {
    pub(super) fn push(&mut self, to: ConnectionId, delivery: Delivery<L>) {
        self.items.push((to, delivery));
    }

    pub(super) fn refuse(&mut self, to: ConnectionId, refusal: Refusal, about: ErrorContext) {
        self.push(to, Delivery::Refused(Box::new(Refused { refusal, about })));
    }
}
