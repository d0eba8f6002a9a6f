//! What devices send: messages, repeats, Acks, keys, authentications.

use sealpost::protocol::frame::AuthStep;
use sealpost::protocol::id::{DeviceId, MessageId};
use sealpost::relay::command::{Command, SendCommand};
use sealpost::relay::delivery::Delivery;

use super::World;
use crate::model::{Dev, Kind, Memory, Message};

impl World {
    pub(super) fn send(&mut self) {
        let Some(from) = self.connected() else { return self.register() };
        // Sometimes the recipient is unknown.
        let to = if self.chance.percent(1) { None } else { self.anyone() };
        let to = if self.chance.percent(5) { Some(from) } else { to };
        let to_id = to.map_or(DeviceId::from_u128(u128::MAX - 1), |to| self.model.devices[to].id);
        let mut id = u128::from(self.name());
        if self.chance.percent(15) {
            // An id that other senders use, too.
            id = 1_000_000_000 + self.chance.below(6) as u128;
        }
        let mut id = MessageId::from_u128(id);
        let content = self.chance.next();
        if to.is_some_and(|to| !self.is_new(from, to, id, content)) {
            id = MessageId::from_u128(u128::from(self.name()));
        }
        let ttl = match self.chance.below(12) {
            0 => Some(0),
            1 | 2 => Some(1),
            3..6 => Some(self.chance.within(2, 15)),
            6..9 => None,
            9 => Some(u64::MAX),
            _ => Some(self.chance.within(10, 200)),
        };
        let length = self.chance.within(20, 120) as usize;
        let body = format!("{:.<length$}", format!("message {} of {from}", self.names));
        self.send_message(from, Message { to, to_id, id, ttl, content, body });
    }

    /// Whether no message of that name is known or in flight.
    fn is_new(&self, from: Dev, to: Dev, id: MessageId, content: u64) -> bool {
        let known = self.model.memory(self.now, from, to, id, content);
        let mut unsettled = self.model.devices[to].queue.iter().map(|nr| &self.model.items[*nr]);
        known == Memory::New && !unsettled.any(|item| item.kind.is_message(id) && item.from == from)
    }

    /// A message is sent again, with the same content or with other.
    pub(super) fn repeat(&mut self) {
        let Some(from) = self.connected() else { return self.register() };
        let all = self.model.items.len();
        for _ in 0..20.min(all) {
            let back = self.chance.below(all.min(200));
            let item = &self.model.items[all - 1 - back];
            let Kind::Message(id) = item.kind else { continue };
            if item.from != from {
                continue;
            }
            let to = item.to;
            let content = match self.model.same_content(from, to, id) {
                Some(content) if self.chance.percent(85) => content,
                _ => self.chance.next(),
            };
            let memory = self.model.memory(self.now, from, to, id, content);
            let clear = match memory {
                Memory::Unsure => false,
                Memory::New => self.is_new(from, to, id, content),
                Memory::Same | Memory::Other => true,
            };
            if clear {
                let to_id = self.model.devices[to].id;
                let body = format!("again {} of {from}", self.name());
                let ttl = Some(self.chance.within(0, 20));
                return self
                    .send_message(from, Message { to: Some(to), to_id, id, ttl, content, body });
            }
        }
        self.send();
    }

    fn send_message(&mut self, from: Dev, message: Message) {
        self.look_closer(message.to);
        event!(self, "{from} sends {message:?}");
        let command = Command::Send(SendCommand {
            recipient: message.to_id.into(),
            id: message.id,
            ttl: message.ttl,
            content: message.content,
            body: message.body.clone().into(),
        });
        self.command(from, command);
        self.model.sent(self.now, from, &message, &mut self.store.borrow_mut());
    }

    pub(super) fn ack(&mut self) {
        let Some(dev) = self.connected() else { return self.register() };
        let queue = &self.model.devices[dev].queue;
        let (id, sender) = if queue.is_empty() || self.chance.percent(8) {
            // An unmatched Ack: of a message that was settled long ago, or never existed.
            let id = match self.model.items.last().map(|item| item.kind) {
                Some(Kind::Message(id)) => id,
                _ => MessageId::from_u128(u128::from(self.names)),
            };
            (id, self.anyone())
        } else {
            let near = queue.len().min(4);
            let item = &self.model.items[queue[self.chance.below(near)]];
            let (kind, from) = (item.kind, item.from);
            match kind {
                Kind::Message(id) => (id, Some(from)),
                Kind::Key(key) => return self.ack_key(dev, from, key),
                _ => return self.take_as(dev),
            }
        };
        let sender = sender.filter(|_| self.chance.percent(50));
        self.ack_as(dev, id, sender);
    }

    pub(super) fn ack_as(&mut self, dev: Dev, id: MessageId, sender: Option<Dev>) {
        let candidates = self.model.confirmable(dev, id, sender);
        let over = candidates.iter().any(|nr| self.model.items[*nr].is_over(self.now));
        if candidates.len() > 1 && over {
            return self.pass_time();
        }
        event!(self, "{dev} confirms {} of {sender:?}", id.to_u128());
        let before = self.router.observe().counts.delivered;
        let named = sender.map(|sender| self.model.devices[sender].id);
        let command = Command::Ack { message_id: id, sender: named };
        self.command(dev, command);
        let delivered = self.router.observe().counts.delivered > before;
        let out = &mut self.step.out;
        let before = out.len();
        out.retain(|(_, delivery)| !matches!(delivery, Delivery::UnmatchedAck));
        let (unmatched, mut store) = ((before - out.len()) as u32, self.store.borrow_mut());
        self.model.acked(self.now, dev, &candidates, delivered, unmatched, &mut store);
    }

    pub(super) fn key(&mut self) {
        let Some(from) = self.connected() else { return self.register() };
        let Some(to) = self.anyone() else { return };
        if to == from {
            // A key and its confirmation could not be distinguished when they expire.
            return self.pass_time();
        }
        let key = self.name();
        if self.chance.percent(10) {
            // Confirms a key that nobody sent.
            return self.ack_key(from, to, key);
        }
        self.look_closer(Some(to));
        event!(self, "{from} sends key {key} to {to}");
        let body = format!("key {key} from {from} to {to}");
        let recipient = self.model.devices[to].id.into();
        let key_id = key.to_string().into();
        let command = Command::KeyRotation { recipient, key_id, body: body.clone().into() };
        self.command(from, command);
        let mut store = self.store.borrow_mut();
        self.model.key_rotated(self.now, from, to, key, &body, &mut store);
    }

    pub(super) fn ack_key(&mut self, dev: Dev, to: Dev, key: u64) {
        let same = |nr: &usize| {
            let item = &self.model.items[*nr];
            matches!(item.kind, Kind::KeyAck(known) if known == key) && item.from == dev
        };
        if self.model.devices[to].queue.iter().any(same) {
            return self.pass_time();
        }
        self.look_closer(Some(to));
        let before = self.router.observe();
        event!(self, "{dev} confirms key {key} of {to}");
        let candidates = self.model.confirmable_keys(dev, to, key);
        let body = format!("key {key} confirmed from {dev} to {to}");
        let recipient = self.model.devices[to].id.into();
        let key_id = key.to_string().into();
        let command = Command::KeyRotationAck { recipient, key_id, body: body.clone().into() };
        self.command(dev, command);
        let delivered = self.router.observe().counts.delivered > before.counts.delivered;
        let mut store = self.store.borrow_mut();
        self.model.key_acked(self.now, dev, to, key, &body, &candidates, delivered, &mut store);
    }

    pub(super) fn auth(&mut self) {
        let Some(from) = self.connected() else { return self.register() };
        let other = self.anyone();
        let named = other.filter(|_| self.chance.percent(40));
        let body = format!("auth {} of {from}", self.name());
        let step = match self.chance.below(4) {
            0 => AuthStep::Request,
            1 => AuthStep::Response,
            2 => AuthStep::Verify,
            _ => {
                let Some(to) = other else { return };
                self.look_closer(Some(to));
                event!(self, "{from} trusts {to}");
                let recipient = self.model.devices[to].id.into();
                let command = Command::AuthSuccess { recipient, body: body.clone().into() };
                self.command(from, command);
                let mut store = self.store.borrow_mut();
                return self.model.auth_success_sent(self.now, from, to, &body, &mut store);
            }
        };
        self.look_closer(self.model.auth_target(self.now, from, step, named).ok());
        event!(self, "{from} sends {step:?} to {named:?}");
        let recipient = named.map(|named| self.model.devices[named].id.into());
        let command = Command::Auth { step, recipient, body: body.clone().into() };
        self.command(from, command);
        let mut store = self.store.borrow_mut();
        self.model.auth_step_sent(self.now, from, step, named, &body, &mut store);
    }
}
