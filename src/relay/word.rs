//! What the router hears and what it answers.

use bytestring::ByteString;

use crate::protocol::client::{AuthStep, Presence};
use crate::protocol::envelope::Seq;
use crate::protocol::id::{DeviceId, MessageId};
use crate::protocol::refusal::{Farewell, Refusal};
use crate::protocol::server::{About, Status, Token};

/// One connection of a device. A newer one of the same device has a higher epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnId {
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
pub struct Hello {
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
pub enum Word {
    /// A message.
    Send(Outgoing),
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
pub struct Outgoing {
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
pub enum Post<L> {
    /// It is registered; always the first.
    Welcome(Box<Welcome<L>>),
    /// A frame for the device. Once the socket took it, the mark comes back.
    Mail {
        /// The envelope's place in the order of arrival.
        mark: Seq,
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
    Close(Farewell),
}

/// A refusal, and what it is about.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// Of what.
    pub about: About,
}

/// A registration that came about.
#[derive(Debug)]
pub struct Welcome<L> {
    /// This connection.
    pub conn: ConnId,
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

/// What follows from a step: posts in order, each for one connection.
#[derive(Debug)]
pub struct Outbox<L> {
    /// For whom, and what.
    pub posts: Vec<(ConnId, Post<L>)>,
    /// Acks that confirmed nothing.
    pub strays: u32,
}

impl<L> Default for Outbox<L> {
    fn default() -> Self {
        Self { posts: Vec::new(), strays: 0 }
    }
}

impl<L> Outbox<L> {
    pub(super) fn push(&mut self, to: ConnId, post: Post<L>) {
        self.posts.push((to, post));
    }

    pub(super) fn refuse(&mut self, to: ConnId, refusal: Refusal, about: About) {
        self.push(to, Post::Refused(Box::new(Refused { refusal, about })));
    }
}
