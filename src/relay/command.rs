//! What connections ask of the router.

use std::sync::Arc;

use bytestring::ByteString;

use crate::protocol::encode::Token;
use crate::protocol::envelope::{Origin, Subject};
use crate::protocol::frame::{Accept, AuthStep, Presence};
use crate::protocol::id::{DeviceId, MessageId, Recipient};
use crate::protocol::refusal::ErrorContext;
use crate::relay::delivery::Refused;
use crate::relay::notice_queue::NoticeNumber;

/// One WebSocket, from its upgrade to its end. No two connections of a process have the same id, and a later connection
/// has a higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// SHA-256 of a resume token; the token itself is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

/// A connection that wants to be a device, with the random values that the rules must not draw themselves.
#[derive(Debug)]
pub struct Registration {
    pub resumable: bool,
    pub receipts: bool,
    /// Where a new device comes from.
    pub origin: Origin,
    pub accept: Option<Accept>,
    /// The name of the access token by which a new device registers.
    pub access: Option<Arc<str>>,
    /// The token of the device that the connection wants to be again.
    pub resume: Option<Resume>,
    /// For a new device.
    pub fresh_id: DeviceId,
    /// For a new resumable device, or a device that renews its token.
    pub fresh_token: (Token, TokenHash),
}

#[derive(Debug)]
pub struct Resume {
    pub token: Token,
    pub hash: TokenHash,
    /// The device wants a new token.
    pub renew: bool,
    /// The address has tried too many wrong tokens: one more is answered with this instead of 401.
    pub barred: Option<Refused>,
}

/// What a registered device asks for; the session has checked that the device speaks for itself. A `body` is the whole frame
/// to forward, a `key_id` is raw JSON; a client need not name the sender of a message or the other side of an exchange.
#[derive(Debug)]
pub enum Command {
    Send(SendCommand),
    Ack {
        message_id: MessageId,
        sender: Option<DeviceId>,
    },
    Auth {
        step: AuthStep,
        recipient: Option<Recipient>,
        body: ByteString,
    },
    AuthSuccess {
        recipient: Recipient,
        body: ByteString,
    },
    KeyRotation {
        recipient: Recipient,
        key_id: Box<str>,
        body: ByteString,
    },
    /// `recipient` is the device that sent the key.
    KeyRotationAck {
        recipient: Recipient,
        key_id: Box<str>,
        body: ByteString,
    },
    Status(Presence),
    /// The device ends.
    Unregister,
    /// The device has everything of the relay itself through this notice.
    NoticesReceived(NoticeNumber),
    /// A frame of which nothing else follows: what left long before has arrived.
    Alive,
    /// Takes the router's way behind other commands, so that the Pong follows everything that the device sent before.
    Ping,
}

#[derive(Debug)]
pub struct SendCommand {
    pub recipient: Recipient,
    pub id: MessageId,
    /// Seconds, as the client wrote it.
    pub ttl: Option<u64>,
    /// Digest of the content, by which a repeat is recognised.
    pub content: u64,
    pub body: ByteString,
}

impl Command {
    /// What an `Error` that answers this command refers to.
    pub fn error_context(&self) -> ErrorContext {
        ErrorContext::about(self.subject().as_ref(), self.recipient())
    }

    /// What the command is about, if a client knows the subject by an id.
    pub fn subject(&self) -> Option<Subject> {
        match self {
            Self::Send(send) => Some(Subject::Message(send.id)),
            Self::KeyRotation { key_id, .. } | Self::KeyRotationAck { key_id, .. } => {
                Some(Subject::KeyRotation(key_id.clone()))
            }
            Self::Auth { .. }
            | Self::AuthSuccess { .. }
            | Self::Ack { .. }
            | Self::Status(_)
            | Self::Unregister
            | Self::NoticesReceived(_)
            | Self::Alive
            | Self::Ping => None,
        }
    }

    /// The device that the command is for, if the client named it.
    pub fn recipient(&self) -> Option<Recipient> {
        match self {
            Self::Send(send) => Some(send.recipient),
            Self::KeyRotation { recipient, .. }
            | Self::KeyRotationAck { recipient, .. }
            | Self::AuthSuccess { recipient, .. } => Some(*recipient),
            Self::Auth { recipient, .. } => *recipient,
            Self::Ack { .. }
            | Self::Status(_)
            | Self::Unregister
            | Self::NoticesReceived(_)
            | Self::Alive
            | Self::Ping => None,
        }
    }
}
