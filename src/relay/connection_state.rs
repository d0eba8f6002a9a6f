//! What a connection may send: before it is registered only `Register`, `Ping` and `Pong`, after that as its own device.
//!
//! Identity is checked here, once: a [`Command`] speaks for the device of its connection.

use super::command::{Command, SendCommand};
use super::dedup::digest;
use crate::protocol::decode;
use crate::protocol::encode::{Forwarded, splice};
use crate::protocol::frame::{ClientFrame, Register};
use crate::protocol::id::DeviceId;
use crate::protocol::kind::Kind;
use crate::protocol::refusal::{ErrorContext, Refusal};

#[derive(Debug)]
pub enum Request<'a> {
    Register(Register<'a>),
    /// For the router.
    Command(Command),
    Pong,
}

pub type Refused = (Refusal, ErrorContext);

#[derive(Debug, Clone, Copy)]
pub struct Unregistered;

#[derive(Debug, Clone, Copy)]
pub struct Registered {
    pub device: DeviceId,
}

impl Unregistered {
    /// Parses one text message. 400 malformed, 413 longer than `max_bytes`, 401 all but `Register`, `Ping` and `Pong`.
    pub fn parse(self, text: &str, max_bytes: usize) -> Result<Request<'_>, Refused> {
        let request = Request::from(decode(text, max_bytes)?);
        match request {
            Request::Register(_) | Request::Pong | Request::Command(Command::Ping) => Ok(request),
            Request::Command(command) => Err((Refusal::NotRegistered, command.error_context())),
        }
    }
}

impl Registered {
    /// Parses one text message. 400 malformed, 413 longer than `max_bytes`, 403 where the frame names another device as its
    /// sender.
    pub fn parse(self, text: &str, max_bytes: usize) -> Result<Request<'_>, Refused> {
        let frame = decode(text, max_bytes)?;
        match self.speaks_for_another(&frame) {
            None => Ok(frame.into()),
            Some(refusal) => Err((refusal, Request::from(frame).error_context())),
        }
    }

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
            | ClientFrame::Unregister
            | ClientFrame::Ack(_)
            | ClientFrame::Ping
            | ClientFrame::Pong => return None,
        };
        (claimed != self.device).then_some(refusal)
    }
}

impl Request<'_> {
    /// The type of the frame.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Register(_) => Kind::Register,
            Self::Pong => Kind::Pong,
            Self::Command(command) => command.kind(),
        }
    }

    fn error_context(&self) -> ErrorContext {
        match self {
            Self::Command(command) => command.error_context(),
            Self::Register(_) | Self::Pong => ErrorContext::NOTHING,
        }
    }
}

impl<'a> From<ClientFrame<'a>> for Request<'a> {
    fn from(frame: ClientFrame<'a>) -> Self {
        Self::Command(match frame {
            ClientFrame::Register(register) => return Self::Register(register),
            ClientFrame::Pong => return Self::Pong,
            ClientFrame::Unregister => Command::Unregister,
            ClientFrame::Ping => Command::Ping,
            ClientFrame::Send(send) => Command::Send(SendCommand {
                recipient: send.recipient_id,
                id: send.message_id,
                ttl: send.ttl,
                content: digest(send.encrypted_data),
                body: splice(Forwarded::Receive, send.payload),
            }),
            ClientFrame::Ack(ack) => {
                Command::Ack { message_id: ack.message_id, sender: ack.sender_id }
            }
            ClientFrame::Auth(auth) => Command::Auth {
                step: auth.step,
                recipient: auth.recipient_id,
                body: splice(Forwarded::Auth(auth.step), auth.payload),
            },
            ClientFrame::AuthSuccess(success) => Command::AuthSuccess {
                recipient: success.recipient_id.unwrap_or(success.device_id),
                body: splice(Forwarded::AuthSuccess, success.payload),
            },
            ClientFrame::KeyRotation(update) => Command::KeyRotation {
                recipient: update.recipient_id,
                key_id: update.key_id.into(),
                body: splice(Forwarded::KeyRotationUpdate, update.payload),
            },
            ClientFrame::KeyRotationAck(ack) => Command::KeyRotationAck {
                recipient: ack.recipient_id,
                key_id: ack.key_id.into(),
                body: splice(Forwarded::KeyRotationAck, ack.payload),
            },
            ClientFrame::Status(status) => Command::Status(status.presence),
        })
    }
}

fn decode(text: &str, max_bytes: usize) -> Result<ClientFrame<'_>, Refused> {
    let frame =
        decode::decode(text).map_err(|refusal| (refusal, decode::error_context(text, refusal)))?;
    if text.len() > max_bytes {
        return Err((Refusal::TooLarge(max_bytes), Request::from(frame).error_context()));
    }
    Ok(frame)
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
    fn an_unregistered_connection_may_only_register_and_ping() {
        assert!(matches!(
            Unregistered.parse(r#"{"type":"Register"}"#, 99),
            Ok(Request::Register(_))
        ));
        assert!(matches!(
            Unregistered.parse(r#"{"type":"Ping"}"#, 99),
            Ok(Request::Command(Command::Ping))
        ));
        let ack = format!(r#"{{"type":"Ack","payload":{{"message_id":"{OTHER}"}}}}"#);
        assert_eq!(Unregistered.parse(&ack, 99).unwrap_err().0, Refusal::NotRegistered);
    }

    #[test]
    fn no_frame_can_name_another_device_as_its_sender() {
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
