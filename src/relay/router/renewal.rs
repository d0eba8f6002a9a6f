//! What a client may hold to be true only after a commit: a new resume token, and the end of its device.

use super::directory::Connection;
use super::pending::Pending;
use super::routing::Sender;
use super::{Router, Slot};
use crate::protocol::encode::Token;
use crate::protocol::id::DeviceId;
use crate::protocol::refusal::{CloseReason, ErrorContext, Refusal};
use crate::relay::command::{ConnectionId, TokenHash};
use crate::relay::delivery::{Delivery, Step};
use crate::store::PutOutcome;

/// A connection that resumes after the commit of its device's tokens.
#[derive(Debug)]
pub(super) struct Renewal {
    device: DeviceId,
    connection: Box<Connection>,
    /// The token with which the connection resumes.
    token: Token,
    /// The one that it gets.
    fresh: Option<Token>,
}

impl Router {
    /// The device gets a new token, or uses one for the first time: the connection resumes after the commit of that. The old
    /// token is good until the new one is used. (protocol: Register, `renew_token`)
    pub(super) fn resume_after_commit(
        &mut self,
        step: &mut Step,
        slot: Slot,
        connection: Box<Connection>,
        token: Token,
        fresh: Option<(Token, TokenHash)>,
    ) {
        let (fresh, hash) = fresh.unzip();
        if hash.is_some() {
            self.directory.set_next_token(slot, hash);
        }
        self.store_device(slot);
        let id = connection.id;
        let device = self.directory[slot].id;
        self.renewals.insert(id, Renewal { device, connection, token, fresh });
        match self.store.report_commit(self.pending.next()) {
            PutOutcome::Pending => self.pending.push(Pending::Renewal(id)),
            outcome => self.resume_renewed(step, id, outcome == PutOutcome::Durable),
        }
    }

    /// The change of a token is committed, or could not be; then the connection gets no new one.
    pub(super) fn resume_renewed(&mut self, step: &mut Step, id: ConnectionId, committed: bool) {
        // The connection may have ended meanwhile.
        let Some(renewal) = self.renewals.remove(&id) else { return };
        let Some(slot) = self.directory.find_alive(step.now, renewal.device) else {
            return step.refuse(id, Refusal::BadToken, ErrorContext::NOTHING);
        };
        if self.directory[slot].connection.as_ref().is_some_and(|newer| newer.id > id) {
            return replace(step, id);
        }
        if self.directory[slot].blocked {
            return step.refuse(id, Refusal::Blocked, ErrorContext::NOTHING);
        }
        if !committed && renewal.fresh.is_some() {
            self.directory.set_next_token(slot, None);
        }
        let token = renewal.fresh.filter(|_| committed).unwrap_or(renewal.token);
        self.attach(step, slot, renewal.connection, true, Some(token));
    }

    /// The device ends; its connection is closed after the commit. (protocol: Unregister)
    pub(super) fn unregister(&mut self, step: &mut Step, from: Sender) {
        self.forget(from.slot);
        self.close_unregistered(step, from.connection);
    }

    pub(super) fn close_unregistered(&mut self, step: &mut Step, connection: ConnectionId) {
        match self.store.report_commit(self.pending.next()) {
            PutOutcome::Durable => {
                step.deliver(connection, Delivery::Close(CloseReason::Unregistered));
            }
            PutOutcome::Pending => self.pending.push(Pending::Unregistration(connection)),
            // Removals are tried again until they succeed.
            PutOutcome::Rejected => self.unregistered.push(connection),
        }
    }
}

/// A newer connection of the device has replaced this one.
pub(super) fn replace(step: &mut Step, older: ConnectionId) {
    step.refuse(older, Refusal::Replaced, ErrorContext::NOTHING);
    step.deliver(older, Delivery::Close(CloseReason::Replaced));
}
