//! One connection's side of the talk: a stranger that may only register, then a device that is believed to be itself.
//!
//! Here identity is checked, once, at the door: what leaves as a [`Command`] speaks for the connection's own device.

use super::command::{Command, SendCommand};
use super::dedup::digest;
use crate::protocol::decode;
use crate::protocol::encode::{Forwarded, splice};
use crate::protocol::frame::{ClientFrame, Register};
use crate::protocol::id::DeviceId;
use crate::protocol::refusal::{ErrorContext, Refusal};

/// What a frame asks of the session.
#[derive(Debug)]
pub enum Request<'a> {
    /// Wants in; for a device that is in, the same answer again.
    Register(Register<'a>),
    /// For the router.
    Command(Command),
    /// Wants a `Pong`.
    Ping,
    /// Is alive.
    Pong,
}

/// A frame that is refused, and what it was about.
pub type Refused = (Refusal, ErrorContext);

/// Nobody yet.
#[derive(Debug, Clone, Copy)]
pub struct Unregistered;

impl Unregistered {
    /// Hears one text message of at most `most` bytes.
    ///
    /// # Errors
    ///
    /// 400 for what is malformed, 413 for what is too large, 401 for everything but Register, Ping and Pong.
    pub fn parse(self, text: &str, most: usize) -> Result<Request<'_>, Refused> {
        let frame = decode(text, most)?;
        match frame {
            ClientFrame::Register(register) => Ok(Request::Register(register)),
            ClientFrame::Ping => Ok(Request::Ping),
            ClientFrame::Pong => Ok(Request::Pong),
            _ => Err((Refusal::NotRegistered, about(&frame))),
        }
    }
}

/// A connection whose device is known.
#[derive(Debug, Clone, Copy)]
pub struct Registered {
    /// The device.
    pub device: DeviceId,
}

impl Registered {
    /// Hears one text message of at most `most` bytes.
    ///
    /// # Errors
    ///
    /// 400 for what is malformed, 413 for what is too large, 403 for what speaks for another.
    pub fn parse(self, text: &str, most: usize) -> Result<Request<'_>, Refused> {
        let frame = decode(text, most)?;
        if let Some(refusal) = self.speaks_for_another(&frame) {
            return Err((refusal, about(&frame)));
        }
        Ok(match frame {
            ClientFrame::Register(register) => Request::Register(register),
            ClientFrame::Ping => Request::Ping,
            ClientFrame::Pong => Request::Pong,
            ClientFrame::Send(send) => Request::Command(Command::Send(SendCommand {
                recipient: send.recipient_id,
                id: send.message_id,
                ttl: send.ttl,
                content: digest(send.encrypted_data),
                body: splice(Forwarded::Receive, send.payload),
            })),
            ClientFrame::Ack(ack) => {
                Request::Command(Command::Ack { message_id: ack.message_id, sender: ack.sender_id })
            }
            ClientFrame::Auth(auth) => Request::Command(Command::Auth {
                step: auth.step,
                recipient: auth.recipient_id,
                body: splice(Forwarded::Auth(auth.step), auth.payload),
            }),
            ClientFrame::AuthSuccess(success) => Request::Command(Command::AuthSuccess {
                recipient: success.recipient_id.unwrap_or(success.device_id),
                body: splice(Forwarded::AuthSuccess, success.payload),
            }),
            ClientFrame::KeyRotation(update) => Request::Command(Command::KeyRotation {
                recipient: update.recipient_id,
                key_id: update.key_id.into(),
                body: splice(Forwarded::KeyRotationUpdate, update.payload),
            }),
            ClientFrame::KeyRotationAck(ack) => Request::Command(Command::KeyRotationAck {
                recipient: ack.recipient_id,
                key_id: ack.key_id.into(),
                body: splice(Forwarded::KeyRotationAck, ack.payload),
            }),
            ClientFrame::Status(status) => Request::Command(Command::Status(status.presence)),
        })
    }

    /// Whether a frame speaks for another device.
    fn speaks_for_another(self, frame: &ClientFrame<'_>) -> Option<Refusal> {
        let (claimed, refusal) = match frame {
            ClientFrame::Send(send) => (send.sender_id, Refusal::ForeignSender),
            ClientFrame::KeyRotation(rotation) | ClientFrame::KeyRotationAck(rotation) => {
                (rotation.sender_id, Refusal::ForeignSender)
            }
            ClientFrame::AuthSuccess(success) => {
                (success.sender_id.unwrap_or(self.device), Refusal::ForeignSender)
            }
            ClientFrame::Auth(auth) => (auth.device_id, Refusal::ForeignDevice),
            ClientFrame::Status(status) => (status.device_id, Refusal::ForeignDevice),
            ClientFrame::Register(_)
            | ClientFrame::Ack(_)
            | ClientFrame::Ping
            | ClientFrame::Pong => {
                return None;
            }
        };
        (claimed != self.device).then_some(refusal)
    }
}

/// Reads one text message of at most `most` bytes.
fn decode(text: &str, most: usize) -> Result<ClientFrame<'_>, Refused> {
    let frame =
        decode::decode(text).map_err(|refusal| (refusal, decode::error_context(text, refusal)))?;
    if text.len() > most {
        return Err((Refusal::TooLarge(most), about(&frame)));
    }
    Ok(frame)
}

/// What a frame is about, as far as an `Error` can say.
fn about(frame: &ClientFrame<'_>) -> ErrorContext {
    match frame {
        ClientFrame::Send(send) => ErrorContext::message(send.message_id, send.recipient_id),
        ClientFrame::KeyRotation(rotation) | ClientFrame::KeyRotationAck(rotation) => {
            ErrorContext::key(rotation.key_id, rotation.recipient_id)
        }
        ClientFrame::Auth(auth) => {
            auth.recipient_id.map_or(ErrorContext::NOTHING, ErrorContext::recipient)
        }
        ClientFrame::AuthSuccess(success) => {
            ErrorContext::recipient(success.recipient_id.unwrap_or(success.device_id))
        }
        _ => ErrorContext::NOTHING,
    }
}

/// What the relay says of a frame that it would refuse for a limit: see [`Registered::parse`].
#[must_use]
pub fn error_context_of(word: &Command) -> ErrorContext {
    match word {
        Command::Send(send) => ErrorContext::message(send.id, send.recipient),
        Command::KeyRotation { recipient, key_id, .. }
        | Command::KeyRotationAck { recipient, key_id, .. } => {
            ErrorContext::key(key_id, *recipient)
        }
        Command::Auth { recipient, .. } => {
            recipient.map_or(ErrorContext::NOTHING, ErrorContext::recipient)
        }
        Command::AuthSuccess { recipient, .. } => ErrorContext::recipient(*recipient),
        _ => ErrorContext::NOTHING,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: &str = "d8f8a9b0-f6e1-4a2b-8d7c-1e9f0a1b2c3d";
    const OTHER: &str = "a1b2c3d4-e5f6-7890-1234-567890abcdef";

    fn me() -> Registered {
        Registered { device: DeviceId::parse(ME).unwrap() }
    }

    fn refused(text: &str) -> Refusal {
        me().parse(text, 65_536).unwrap_err().0
    }

    #[test]
    fn a_stranger_may_only_register_and_ping() {
        assert!(matches!(
            Unregistered.parse(r#"{"type":"Register"}"#, 99),
            Ok(Request::Register(_))
        ));
        assert!(matches!(Unregistered.parse(r#"{"type":"Ping"}"#, 99), Ok(Request::Ping)));
        let ack = format!(r#"{{"type":"Ack","payload":{{"message_id":"{OTHER}"}}}}"#);
        assert_eq!(Unregistered.parse(&ack, 99).unwrap_err().0, Refusal::NotRegistered);
    }

    #[test]
    fn nobody_speaks_for_another_in_any_message() {
        for (text, refusal) in [
            (
                format!(
                    r#"{{"type":"Send","payload":{{"sender_id":"{OTHER}","recipient_id":"{ME}","message_id":"{ME}","encrypted_data":""}}}}"#
                ),
                Refusal::ForeignSender,
            ),
            (
                format!(
                    r#"{{"type":"KeyRotationUpdate","payload":{{"sender_id":"{OTHER}","recipient_id":"{ME}","key_id":1,"encrypted_key_package":""}}}}"#
                ),
                Refusal::ForeignSender,
            ),
            (
                format!(
                    r#"{{"type":"KeyRotationAck","payload":{{"sender_id":"{OTHER}","recipient_id":"{ME}","key_id":1,"success":true}}}}"#
                ),
                Refusal::ForeignSender,
            ),
            (
                format!(
                    r#"{{"type":"AuthSuccess","payload":{{"device_id":"{OTHER}","sender_id":"{OTHER}","trusted":true}}}}"#
                ),
                Refusal::ForeignSender,
            ),
            (
                format!(
                    r#"{{"type":"AuthRequest","payload":{{"device_id":"{OTHER}","public_key":"","challenge":""}}}}"#
                ),
                Refusal::ForeignDevice,
            ),
            (
                format!(
                    r#"{{"type":"AuthResponse","payload":{{"device_id":"{OTHER}","challenge_response":"","challenge":""}}}}"#
                ),
                Refusal::ForeignDevice,
            ),
            (
                format!(
                    r#"{{"type":"AuthVerify","payload":{{"device_id":"{OTHER}","challenge_response":""}}}}"#
                ),
                Refusal::ForeignDevice,
            ),
            (
                format!(
                    r#"{{"type":"Status","payload":{{"device_id":"{OTHER}","status":"Online"}}}}"#
                ),
                Refusal::ForeignDevice,
            ),
        ] {
            assert_eq!(refused(&text), refusal, "{text}");
        }
    }

    #[test]
    fn a_message_is_as_large_as_the_limit_and_no_larger() {
        let text = format!(
            r#"{{"type":"Send","payload":{{"sender_id":"{ME}","recipient_id":"{OTHER}","message_id":"{OTHER}","encrypted_data":"e"}}}}"#
        );
        assert!(me().parse(&text, text.len()).is_ok());
        let (refusal, about) = me().parse(&text, text.len() - 1).unwrap_err();
        assert_eq!(refusal, Refusal::TooLarge(text.len() - 1));
        assert_eq!(about.message_id.unwrap().to_string(), OTHER);
    }
}
