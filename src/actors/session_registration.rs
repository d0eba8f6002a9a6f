//! What follows when a registration is answered. (protocol: Register)

use actix::AsyncContext as _;

use super::{Ctx, Session, State};
use crate::actors::registry::WriteProgress;
use crate::actors::write_watermarks::Written;
use crate::metrics::worker;
use crate::protocol::encode::{self, ClientLimits, Extension};
use crate::protocol::kind::Outgoing;
use crate::relay::connection_state::Registered;
use crate::relay::delivery::RegistrationAccepted;
use crate::relay::rate_limit::Allowance;
use crate::settings::Settings;

impl Session {
    pub(super) fn on_registered(&mut self, accepted: RegistrationAccepted, ctx: &mut Ctx) {
        let RegistrationAccepted { device, allowance, resumed, queued, token } = accepted;
        self.allowance = allowance;
        self.access = None;
        let session = &self.settings.session;
        let ttl = if token.is_some() { session.ttl } else { session.plain_ttl };
        let extended = matches!(self.state, State::Registering { extended: true, .. });
        let extension = extended.then(|| {
            let limits = client_limits(&self.settings, &self.allowance);
            let session_ttl = ttl.as_secs();
            Box::new(Extension {
                protocol: encode::PROTOCOL,
                resumable: token.is_some(),
                resume_token: token,
                resumed,
                queued,
                session_ttl,
                limits,
            })
        });
        self.writer.text(encode::register_response(device, extension.as_deref()));
        worker::count(|metrics| {
            metrics.sent(Outgoing::RegisterResponse);
            metrics.registrations.increase(usize::from(resumed));
        });
        let (core, id) = (self.core.clone(), self.id);
        self.socket.on_written(move |[items, notices]| {
            if core.watermarks.record(Written { connection: id, items, notices }) {
                // A Registry with a full mailbox reads the watermarks before each of its other messages.
                let _ = core.registry.try_send(WriteProgress);
            }
        });
        if let Some(deadline) = self.register_deadline.take() {
            ctx.cancel_future(deadline);
        }
        log::debug!("registered connection={} device={device:?} resumed={resumed}", self.id.0);
        self.replay_buffered(State::Registered { me: Registered { device }, extension }, ctx);
    }

    /// The registration is accepted or refused: handles what the client sent meanwhile.
    pub(super) fn replay_buffered(&mut self, state: State, ctx: &mut Ctx) {
        let former = std::mem::replace(&mut self.state, state);
        self.socket.pause(false);
        if let State::Registering { buffered, .. } = former {
            for text in buffered {
                self.on_text(text, ctx);
            }
        }
    }
}

/// The limits in a `RegisterResponse`. (protocol: Register)
fn client_limits(settings: &Settings, allowance: &Allowance) -> ClientLimits {
    // A device with an access token may have a rate of its own.
    let (messages_per_minute, burst) = allowance.message_rate();
    ClientLimits {
        message_bytes: settings.limits.message_bytes,
        messages_per_minute,
        burst,
        control_per_minute: settings.rate_limit.control_per_minute.get(),
        queue_messages: settings.queue.messages,
        queue_bytes: settings.queue.bytes as u64,
        max_ttl: settings.queue.max_ttl.as_secs(),
        default_ttl: settings.queue.default_ttl.as_secs(),
        window: settings.delivery.window,
    }
}
