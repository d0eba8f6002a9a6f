//! What travels from one device to another, as the relay holds it.

use bytestring::ByteString;

use super::id::{DeviceId, MessageId};

/// The place of an envelope in the order of arrival; it grows for as long as the queue lives.
pub type Seq = u64;

/// A frame on its way, with what is needed to say what became of it.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// Who is told how it ended.
    pub from: DeviceId,
    /// What it is.
    pub subject: Subject,
    /// Seconds it may wait, as the sender will be told.
    pub ttl: u64,
    /// The whole frame as the recipient gets it.
    pub body: ByteString,
    /// Whether the sender wants to know what becomes of it.
    pub receipts: bool,
    /// Digest of the content, by which a repeat is told from another message; 0 where nothing is repeated.
    pub content: u64,
}

/// What an envelope is, and by which name its sender and its recipient speak of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A `Send`.
    Message(MessageId),
    /// A `KeyRotationUpdate`, by the raw JSON of its `key_id`.
    KeyRotation(Box<str>),
    /// A `KeyRotationAck`, likewise.
    KeyRotationAck(Box<str>),
    /// One of the `Auth*` messages.
    Auth,
    /// The relay's own word to a device, an `Error` or a receipt, that must wait for it.
    Notice,
}

impl Subject {
    /// Whether the law of conservation counts it: accepted = delivered + expired + queued + in flight.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        !matches!(self, Self::Auth | Self::Notice)
    }

    /// Whether it takes room in its recipient's quota: everything that another device sent.
    #[must_use]
    pub fn takes_room(&self) -> bool {
        *self != Self::Notice
    }
}
