//! A device's connection that is used frame by frame and reads everything the protocol has, for roles that react to more than
//! messages and Acks. It is slower than [`crate::connection::Reader`], and refusals are values, since they are part of the plan.

use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use serde::Deserialize;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;

use crate::connection::{
    Frames, HandshakeRefused, Route, Writer, close_frame, handshake, open_from,
};
use crate::frame::{self, CLOSE, PING, PONG, TEXT};
use crate::messages;

/// How long an answer of the relay is waited for.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The wait after a refusal that names none.
const PAUSE: Duration = Duration::from_secs(1);

/// A frame of the relay.
#[derive(Debug, Deserialize)]
pub struct Frame {
    /// The type.
    pub r#type: String,
    /// The payload.
    #[serde(default)]
    pub payload: Fields,
}

/// The fields of payloads that the roles use; each frame has some of them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    /// The device that the frame is about.
    pub device_id: Option<String>,
    /// The device that sent the message.
    pub sender_id: Option<String>,
    /// The message.
    pub message_id: Option<String>,
    /// The key.
    pub key_id: Option<serde_json::Value>,
    /// The token with which to resume.
    pub resume_token: Option<String>,
    /// The code of an Error.
    pub code: Option<u16>,
    /// When to repeat a refused frame.
    pub retry_after_ms: Option<u64>,
}

impl Fields {
    /// The time to wait before the refused frame is repeated.
    pub fn wait(&self) -> Duration {
        self.retry_after_ms.map_or(PAUSE, Duration::from_millis)
    }
}

/// A device that was not let in.
#[derive(Debug)]
pub struct Refused {
    /// The status of the handshake, or the code of the answer to `Register`; 0: the connection broke.
    pub code: u16,
    /// The refusal was the answer to `Register`.
    pub is_registration: bool,
    /// The time to wait before the next attempt.
    pub wait: Duration,
    /// The reason, for people.
    pub reason: String,
}

impl From<io::Error> for Refused {
    fn from(failed: io::Error) -> Self {
        let refused = failed.get_ref().and_then(|inner| inner.downcast_ref::<HandshakeRefused>());
        Self {
            code: refused.map_or(0, |refused| refused.status),
            is_registration: false,
            wait: refused
                .and_then(|refused| refused.retry_after)
                .map_or(PAUSE, Duration::from_secs),
            reason: failed.to_string(),
        }
    }
}

/// A connection.
pub struct Line {
    /// The sending half.
    pub writer: Rc<Writer>,
    frames: Frames,
    /// Read and not yet taken.
    unread: VecDeque<Vec<u8>>,
    /// How the connection ended.
    end: Option<String>,
    pusher: JoinHandle<()>,
}

impl Line {
    /// Connects from this address and registers with this payload.
    ///
    /// # Errors
    ///
    /// When the relay refuses either.
    pub async fn enter(
        route: &Route,
        source: Ipv4Addr,
        payload: &str,
    ) -> Result<(Self, Fields), Refused> {
        let entering = timeout(PATIENCE, async {
            let mut stream = open_from(route, source).await?;
            handshake(&mut stream, route).await?;
            let (read, write) = stream.into_split();
            // The device's id is not known yet, and nothing here reads it from the writer.
            let writer = Writer::new(write, messages::numbered_id(0));
            let pusher = spawn_local(writer.clone().push());
            let frames = Frames::new(read);
            let mut line = Self { writer, frames, unread: VecDeque::new(), end: None, pusher };
            line.say(&format!(r#"{{"type":"Register","payload":{payload}}}"#));
            let Frame { r#type, payload } = line.next().await?;
            if r#type == "RegisterResponse" {
                return Ok((line, payload));
            }
            Err(Refused {
                code: payload.code.unwrap_or(0),
                is_registration: true,
                wait: payload.wait(),
                reason: format!("Register was answered by {type}"),
            })
        });
        entering.await.unwrap_or_else(|_| Err(io::Error::other("no answer to Register").into()))
    }

    /// Sends a frame.
    pub fn say(&self, text: &str) {
        self.writer.with(|out| frame::write(out, TEXT, text.as_bytes()));
    }

    /// The next frame; the relay's pings are answered meanwhile. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn next(&mut self) -> io::Result<Frame> {
        loop {
            if let Some(text) = self.unread.pop_front() {
                let frame: Frame = serde_json::from_slice(&text).map_err(io::Error::other)?;
                if frame.r#type == "Ping" {
                    self.writer.with(|out| frame::write(out, TEXT, messages::PONG));
                    continue;
                }
                return Ok(frame);
            }
            if let Some(end) = &self.end {
                return Err(io::Error::other(end.clone()));
            }
            let Self { writer, frames, unread, .. } = self;
            let take = |first: u8, payload: &[u8]| match first {
                TEXT => {
                    unread.push_back(payload.to_vec());
                    Ok(())
                }
                PING => {
                    writer.with(|out| frame::write(out, PONG, payload));
                    Ok(())
                }
                PONG => Ok(()),
                CLOSE => {
                    let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                    Err(format!("close {code}"))
                }
                other => Err(format!("a frame that begins with {other:#x}")),
            };
            if let Err(end) = frames.read(take).await {
                self.end = Some(end);
            }
        }
    }

    /// Closes, and waits until the relay has closed, so that it has read everything that was sent before. What it sends meanwhile is
    /// thrown away.
    pub async fn leave(mut self) {
        self.writer.with(close_frame);
        let _ = timeout(PATIENCE, async {
            while self.end.is_none() {
                self.unread.clear();
                let _ = self.next().await;
            }
            // Whoever closes first keeps the port for a minute; that is to be the relay.
            let _ = self.frames.read(|_, _| Ok(())).await;
        })
        .await;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.pusher.abort();
    }
}
