//! An envelope: an encoded frame on its way to a device, with the facts that the relay needs after decoding.

use bytestring::ByteString;

use super::id::{DeviceId, Letters, MessageId};
use super::kind::Outgoing;

/// Sequence number of an item in a mailbox: it increases with each arrival and is never used again.
pub type Seq = u64;

/// One frame on its way to one device.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// The sender; receives the receipts and the `Error` of an expired frame.
    pub from: DeviceId,
    /// The kind of frame, and its id.
    pub subject: Subject,
    /// Seconds that the frame may wait; also the number in the `Error` of an expired frame.
    pub ttl: u64,
    /// The whole text of the frame as the recipient receives it.
    pub body: ByteString,
    /// Whether the sender asked for receipts.
    pub receipts: bool,
    /// Hash of the content, by which the relay recognises a repeated `Send`; 0 for every other frame.
    pub content: u64,
    /// Who pays for the envelope in a shared pool; of a notice, the device that it waits for.
    pub origin: Origin,
    /// The access token by which the sender registered; of a notice, none.
    pub access: AccessKey,
    /// The recipient had never written to the sender when the envelope was accepted. (protocol: Unknown senders)
    pub from_unknown: bool,
    /// The letters in which the sender wrote the id of the recipient; an `Error` about the envelope repeats them.
    pub recipient_letters: Letters,
}

/// A keyed hash of the network from which a device registered. Devices of one origin share what they may take of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Origin(pub u64);

impl Origin {
    /// A device without an origin, from one of `limits.exempt_cidrs`: its share is not limited, and nobody treats the
    /// device as an unknown sender.
    pub const NONE: Self = Self(0);
}

/// An access token, as a number that the router gives to its name; never the same for two names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct AccessKey(pub u32);

impl AccessKey {
    /// Of a device that registered without a token.
    pub const NONE: Self = Self(0);
}

/// What an envelope costs beside its body and its key, bytes. (protocol: Limits)
pub const ENVELOPE_OVERHEAD: u64 = 256;

/// What an authentication message counts beside that, for the exchange that it belongs to, bytes. (protocol: Limits)
pub const EXCHANGE_OVERHEAD: u64 = 256;

impl Envelope {
    /// What the envelope counts in every byte limit. (protocol: Limits)
    pub fn bytes(&self) -> u64 {
        size(&self.subject, self.body.len())
    }
}

/// What an envelope with this subject and a body of `body` bytes counts in every byte limit.
pub fn size(subject: &Subject, body: usize) -> u64 {
    let more = match subject {
        Subject::KeyRotation(key) | Subject::KeyRotationAck(key) => key.len() as u64,
        Subject::Message(_) => 0,
        Subject::Auth => EXCHANGE_OVERHEAD,
        Subject::Notice { bytes, .. } => return *bytes,
    };
    (body as u64).saturating_add(more).saturating_add(ENVELOPE_OVERHEAD)
}

/// The kind of frame in an envelope, with the id that sender and recipient use for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A `Send`.
    Message(MessageId),
    /// A `KeyRotationUpdate`, with the raw JSON of its `key_id`.
    KeyRotation(Box<str>),
    /// A `KeyRotationAck`, with the raw JSON of its `key_id`.
    KeyRotationAck(Box<str>),
    /// One of the `Auth*` messages.
    Auth,
    /// A frame of the relay itself that waits for its device.
    Notice {
        /// What it says.
        kind: NoticeKind,
        /// What it counts in every byte limit: never more than the item that it reports has counted.
        bytes: u64,
    },
}

/// What a notice says of something that its device has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoticeKind {
    /// An `Error` 410: the item was not delivered.
    Error,
    /// An `Ack` with a status, for a device that asked for receipts.
    Receipt,
}

impl Subject {
    /// The type of the frame that leaves.
    pub fn outgoing(&self) -> Outgoing {
        match self {
            Self::Message(_) => Outgoing::Receive,
            Self::KeyRotation(_) => Outgoing::KeyRotation,
            Self::KeyRotationAck(_) => Outgoing::KeyRotationAck,
            Self::Auth => Outgoing::Auth,
            Self::Notice { kind: NoticeKind::Error, .. } => Outgoing::Error,
            Self::Notice { kind: NoticeKind::Receipt, .. } => Outgoing::Ack,
        }
    }

    /// Whether the counters include it: accepted = delivered + expired + queued + in flight.
    pub fn is_counted(&self) -> bool {
        !matches!(self, Self::Auth | Self::Notice { .. })
    }

    /// Whether it uses the quota of its recipient's mailbox: true for everything that a device sent.
    pub fn takes_room(&self) -> bool {
        !matches!(self, Self::Notice { .. })
    }
}
