//! How a session learns that notices have arrived: by the answers to its pings. (protocol: Notices)

use std::time::Duration;

use actix::AsyncContext as _;
use bytestring::ByteString;

use super::{Ctx, Session};
use crate::metrics::worker;
use crate::protocol::encode;
use crate::protocol::kind::Outgoing;
use crate::protocol::refusal::ErrorContext;
use crate::relay::command::Command;
use crate::relay::rate_limit::Class;

/// The shortest time between two pings that prove which notices have arrived. (protocol: Notices)
const NOTICE_PING_INTERVAL: Duration = Duration::from_secs(1);

impl Session {
    /// The answer to the oldest unanswered JSON Ping; one without a Ping is charged.
    pub(super) fn on_json_pong(&mut self, ctx: &mut Ctx) {
        let is_answer = self.unanswered_pings > 0;
        self.unanswered_pings = self.unanswered_pings.saturating_sub(1);
        let proved = self.notice_pings.as_mut().filter(|_| is_answer);
        if let Some(through) = proved.and_then(|pings| pings.on_json_pong()) {
            self.enqueue_command(Command::NoticesReceived(through));
        } else if is_answer || self.allow(Class::Control, || ErrorContext::NOTHING, ctx) {
            self.note_alive();
        }
    }

    pub(super) fn on_pong(&mut self, payload: &[u8], ctx: &mut Ctx) {
        let proved = self.notice_pings.as_mut().and_then(|pings| pings.on_pong(payload));
        match proved {
            Some(through) => self.enqueue_command(Command::NoticesReceived(through)),
            None => self.on_control_frame(ctx),
        }
    }

    pub(super) fn on_control_frame(&mut self, ctx: &mut Ctx) {
        self.note_alive();
        self.allow(Class::Control, || ErrorContext::NOTHING, ctx);
    }

    /// A frame has come that is not for the router. It proves that what was sent long before has arrived.
    pub(super) fn note_alive(&mut self) {
        if self.notice_pings.as_ref().is_some_and(|pings| pings.awaits_proof()) {
            self.enqueue_command(Command::Alive);
        }
    }

    /// Sends the next pings that prove which notices have arrived, at most once in [`NOTICE_PING_INTERVAL`].
    pub(super) fn ping_for_notices(&mut self, ctx: &mut Ctx) {
        let Some(pings) = &mut self.notice_pings else { return };
        let turn = pings.turn(self.unanswered_pings);
        if let Some(mark) = turn.marked {
            self.writer.ping(&mark.to_be_bytes());
        }
        if turn.json {
            self.json_ping();
        }
        if turn.again {
            ctx.run_later(NOTICE_PING_INTERVAL, Self::ping_for_notices);
        }
    }

    /// Sends a JSON Ping, unless the client has left [`u8::MAX`] of them unanswered.
    pub(super) fn json_ping(&mut self) {
        if let Some(unanswered) = self.unanswered_pings.checked_add(1) {
            self.unanswered_pings = unanswered;
            self.writer.text(ByteString::from_static(encode::PING));
            worker::count(|metrics| metrics.sent(Outgoing::Ping));
        }
    }
}
