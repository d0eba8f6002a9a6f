//! What operators ask the Registry, and make it do. A request that may visit many devices or messages comes in slices.

use actix::{Context, Handler, Message, MessageResult};

use super::{Registry, YIELD_EVERY};
use crate::protocol::id::DeviceId;
use crate::relay::delivery::{Delivery, ReportTo};
use crate::relay::router::{Cursor, DeviceReport, HolderSlice, Listed};
use crate::store::holder::Holder;

/// Asks for all that is known of a device; its session, if it has one, reports to `session`.
#[derive(Message)]
#[rtype(result = "Option<DeviceReport>")]
pub struct Describe {
    pub device: DeviceId,
    pub session: ReportTo,
}

/// Which devices to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    All,
    Queued,
    Connected,
    Blocked,
}

/// Asks for the next devices of a list, from the place `from` on.
#[derive(Message)]
#[rtype(result = "Listed")]
pub struct List {
    pub filter: Filter,
    /// What the id begins with, in small letters.
    pub prefix: String,
    pub from: u32,
    pub limit: usize,
}

/// What to do to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Close its connection.
    Kick,
    /// End it, as its own `Unregister` would.
    Forget,
    Block,
    Unblock,
}

/// Does something to a device; `None` if it is unknown, else whether anything has changed.
#[derive(Message)]
#[rtype(result = "Option<bool>")]
pub struct Act {
    pub device: DeviceId,
    pub action: Action,
}

/// Asks who holds what of the next messages.
#[derive(Message)]
#[rtype(result = "HolderSlice")]
pub struct Holders(pub Cursor);

/// Lets what one holder has of the next messages expire; returns how many, and where the next slice begins.
#[derive(Message)]
#[rtype(result = "(usize, Option<Cursor>)")]
pub struct DropHeld {
    pub from: Cursor,
    pub holder: Holder,
}

impl Handler<Describe> for Registry {
    type Result = MessageResult<Describe>;

    fn handle(&mut self, message: Describe, ctx: &mut Context<Self>) -> Self::Result {
        let Describe { device, session } = message;
        MessageResult(self.step(0, ctx, |router, step| {
            let report = router.describe(step.now, device)?;
            if let Some(connection) = &report.connection {
                step.deliver(connection.id, Delivery::Describe(session));
            }
            Some(report)
        }))
    }
}

impl Handler<List> for Registry {
    type Result = MessageResult<List>;

    fn handle(&mut self, message: List, ctx: &mut Context<Self>) -> Self::Result {
        let List { filter, prefix, from, limit } = message;
        MessageResult(self.step(YIELD_EVERY, ctx, |router, step| {
            router.list(step.now, from, limit, |device| {
                let fits = match filter {
                    Filter::All => true,
                    Filter::Queued => device.messages > 0,
                    Filter::Connected => device.connected,
                    Filter::Blocked => device.blocked,
                };
                fits && (prefix.is_empty() || device.id.to_string().starts_with(&prefix))
            })
        }))
    }
}

impl Handler<Act> for Registry {
    type Result = Option<bool>;

    fn handle(&mut self, Act { device, action }: Act, ctx: &mut Context<Self>) -> Self::Result {
        let changed = self.step(0, ctx, |router, step| match action {
            Action::Kick => router.kick(step, device),
            Action::Forget => router.end_device(step, device).map(|()| true),
            Action::Block => router.set_blocked(step, device, true),
            Action::Unblock => router.set_blocked(step, device, false),
        });
        // Here, because the operator may be gone before the answer.
        if let Some(changed) = changed {
            log::info!(action:?, device:?, changed; "operator");
        }
        changed
    }
}

impl Handler<Holders> for Registry {
    type Result = MessageResult<Holders>;

    fn handle(&mut self, Holders(from): Holders, ctx: &mut Context<Self>) -> Self::Result {
        MessageResult(self.step(YIELD_EVERY, ctx, |router, _| router.holders(from)))
    }
}

impl Handler<DropHeld> for Registry {
    type Result = MessageResult<DropHeld>;

    fn handle(&mut self, message: DropHeld, ctx: &mut Context<Self>) -> Self::Result {
        let DropHeld { from, holder } = message;
        MessageResult(self.step(YIELD_EVERY, ctx, |router, _| router.drop_held(from, &holder)))
    }
}
