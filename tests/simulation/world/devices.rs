//! How devices connect and leave, and what their sockets take.

use sealpost::protocol::encode::Token;
use sealpost::protocol::envelope::Origin;
use sealpost::protocol::frame::Presence;
use sealpost::protocol::id::DeviceId;
use sealpost::protocol::refusal::{AccessBound, Refusal};
use sealpost::relay::command::{Command, Registration, Resume, TokenHash};

use sealpost::relay::delivery::Refused;

use super::World;
use crate::access::{GUESTS, NAMES};
use crate::model::{Dev, Item, Kind, State, has_share};

impl World {
    pub(super) fn register(&mut self) {
        let alive =
            self.model.live.iter().filter(|dev| self.model.devices[**dev].is_present(self.now));
        if alive.count() >= self.most_devices {
            return self.pass_time();
        }
        let resumable = self.chance.percent(60);
        let receipts = self.chance.percent(40);
        let id = DeviceId::from_u128(self.model.devices.len() as u128 + 1);
        let origin = Origin(self.chance.below(4) as u64);
        let name = id.to_u128() - 1;
        let access = NAMES[self.chance.below(3)];
        let guests = self.model.devices.iter().filter(|it| it.is_alive_guest()).count();
        let has_all_guests = access == Some("guests") && guests >= GUESTS;
        event!(self, "{name} registers, resumable {resumable}, receipts {receipts}, {origin:?}");
        let before = self.router.observe().devices;
        let full = before >= self.model.rules.devices;
        let registration = Registration {
            resumable,
            receipts,
            origin,
            access: access.map(Into::into),
            accept: None,
            resume: None,
            fresh_id: id,
            fresh_token: token(id),
        };
        let conn = self.new_connection();
        match self.router.register(&mut self.step, conn, registration, self.allowance.clone()) {
            Ok(()) => {
                assert!(!has_all_guests, "one guest more than the token may have");
                if full {
                    self.forgotten_for_another();
                }
                let dev = self.model.new_device(id, resumable, origin, (self.now, access));
                self.model.registered(self.now, dev, conn, receipts, &mut self.store.borrow_mut());
            }
            Err(Refused { refusal: Refusal::AccessLimit(AccessBound::Devices), .. }) => {
                assert!(has_all_guests, "refused without a reason");
            }
            Err(Refused { refusal, .. }) => {
                let held =
                    self.model.devices.iter().filter(|it| it.origin == origin && !it.forgotten);
                let (most, share) = (self.model.rules.devices, self.model.rules.quota.origin_share);
                let (most, before, held) = (most as u64, before as u64, held.count() as u64);
                let has_share = has_share(most, before, held, 1, share);
                assert!(full || origin != Origin::NONE && !has_share, "refused without a reason");
                assert_eq!(refusal, Refusal::Full);
            }
        }
    }

    /// The table was full: a device that was never used has made room.
    fn forgotten_for_another(&mut self) {
        let gone = self.some(|world, dev| {
            let device = &world.model.devices[dev];
            !device.forgotten && !world.router.knows(device.id)
        });
        let device = &mut self.model.devices[gone.expect("more devices than allowed")];
        assert!(device.conn.is_none() && !device.used && device.origin != Origin::NONE);
        event!(self, "{gone:?} is forgotten");
        self.model.devices[gone.unwrap()].forgotten = true;
    }

    /// A device resumes, with or without an open older connection; or a connection tries an unknown token.
    pub(super) fn resume(&mut self) {
        // Sometimes a connection tries to resume a plain device.
        let plain = self.chance.percent(3);
        let Some(dev) = self.some(|world, dev| {
            let device = &world.model.devices[dev];
            device.resumable != plain && (device.conn.is_none() || world.events.is_multiple_of(3))
        }) else {
            return self.register();
        };
        self.resume_as(dev);
    }

    pub(super) fn resume_as(&mut self, dev: Dev) {
        let receipts = self.chance.percent(40);
        let device = &self.model.devices[dev];
        let present = device.resumable && device.is_present(self.now);
        let older = device.conn.as_ref().map(|conn| (conn.id, conn.marks.back().copied()));
        let (old, hash) = token(device.id);
        let resume = Some(Resume { token: old, hash, renew: false, barred: None });
        let fresh_id = DeviceId::from_u128(u128::MAX);
        event!(self, "{dev} resumes, receipts {receipts}");
        let registration = Registration {
            resumable: false,
            receipts,
            origin: Origin::NONE,
            access: None,
            accept: None,
            resume,
            fresh_id,
            fresh_token: token(fresh_id),
        };
        let conn = self.new_connection();
        match self.router.register(&mut self.step, conn, registration, self.allowance.clone()) {
            Ok(()) => {
                assert!(present, "a session that is over is resumed");
                self.model.devices[dev].used = true;
                self.stale.extend(older.map(|(conn, mark)| (conn, mark.unwrap_or(u64::MAX))));
                self.model.registered(self.now, dev, conn, receipts, &mut self.store.borrow_mut());
            }
            Err(Refused { refusal, .. }) => {
                assert!(!present && refusal == Refusal::BadToken, "{refusal:?}")
            }
        }
    }

    pub(super) fn leave(&mut self) {
        let Some(dev) = self.connected() else { return self.register() };
        self.leave_as(dev);
    }

    pub(super) fn leave_as(&mut self, dev: Dev) {
        event!(self, "{dev} leaves");
        let conn = self.model.conn(dev);
        let (id, mark) = (conn.id, conn.marks.back().copied().unwrap_or(u64::MAX));
        self.router.disconnect(&mut self.step, id, 1000);
        self.model.left(self.now, dev, &mut self.store.borrow_mut());
        self.stale.push((id, mark));
        if self.stale.len() > 32 {
            self.stale.swap_remove(0);
        }
    }

    /// A connection that has ended sends a late command: the command has no effect.
    pub(super) fn stale(&mut self) {
        if self.stale.is_empty() {
            return self.leave();
        }
        let (conn, mark) = self.stale[self.chance.below(self.stale.len())];
        event!(self, "{conn:?} is late");
        match self.chance.below(3) {
            0 => self.router.disconnect(&mut self.step, conn, 1000),
            1 => self.router.on_written(&mut self.step, conn, mark),
            _ => {
                let command = Command::Status(Presence::Offline);
                self.router.handle(&mut self.step, conn, [command]);
            }
        }
    }

    pub(super) fn status(&mut self) {
        let Some(dev) = self.connected() else { return self.register() };
        let holding = self.model.conn(dev).holding;
        let presence = match self.chance.below(4) {
            0 if !holding => Presence::Offline,
            1 | 2 => Presence::Away,
            _ => Presence::Online,
        };
        self.status_as(dev, presence);
    }

    pub(super) fn status_as(&mut self, dev: Dev, presence: Presence) {
        event!(self, "{dev} is {presence:?}");
        let command = Command::Status(presence);
        self.command(dev, command);
        self.model.status(dev, presence == Presence::Offline);
    }

    pub(super) fn take(&mut self) {
        let Some(dev) = self.some(|world, dev| {
            world.model.devices[dev].conn.as_ref().is_some_and(|conn| !conn.marks.is_empty())
        }) else {
            return self.send();
        };
        self.take_as(dev);
    }

    pub(super) fn take_as(&mut self, dev: Dev) {
        let marks = &self.model.conn(dev).marks;
        if marks.is_empty() {
            return;
        }
        // Often all items, sometimes a part.
        let all = self.chance.percent(60);
        let place = if all { marks.len() - 1 } else { self.chance.below(marks.len()) };
        let mark = marks[place];
        event!(self, "the socket of {dev} takes {mark}");
        let connection = self.conn(dev);
        self.router.on_written(&mut self.step, connection, mark);
        self.model.on_written(self.now, dev, mark, &mut self.store.borrow_mut());
    }
}

impl World {
    /// The socket of a device takes notices.
    pub(super) fn take_notices(&mut self) {
        let with_notices = self.some(|world, dev| {
            world.model.devices[dev].conn.as_ref().is_some_and(|conn| !conn.notices.is_empty())
        });
        let Some(dev) = with_notices else { return self.send() };
        let notices = &self.model.conn(dev).notices;
        let place = self.chance.below(notices.len());
        let number = notices[place];
        self.take_notices_as(dev, number);
    }

    pub(super) fn take_notices_as(&mut self, dev: Dev, number: u64) {
        event!(self, "the socket of {dev} takes notice {number}");
        let connection = self.conn(dev);
        self.router.on_notices_written(&mut self.step, connection, number);
        self.model.notices_written(dev, number);
    }

    /// A resumable device proves that it has notices.
    pub(super) fn prove(&mut self) {
        let with_notices = self.some(|world, dev| {
            let device = &world.model.devices[dev];
            let mut notices = device.notices.iter().map(|nr| &world.model.items[*nr]);
            device.resumable
                && device.conn.is_some()
                && notices.any(|item| item.state == State::Flying)
        });
        let Some(dev) = with_notices else { return self.send() };
        let notices = self.model.devices[dev].notices.iter();
        let numbers = notices.filter_map(|nr| match &self.model.items[*nr] {
            Item { kind: Kind::Notice(notice), state: State::Flying, .. } => Some(notice.number),
            _ => None,
        });
        let numbers: Vec<u64> = numbers.collect();
        let number = numbers[self.chance.below(numbers.len())];
        // Sometimes a proof of more than was delivered.
        let number = if self.chance.percent(10) { u64::MAX } else { number };
        self.prove_as(dev, number);
    }

    pub(super) fn prove_as(&mut self, dev: Dev, number: u64) {
        event!(self, "{dev} has notice {number}");
        self.command(dev, Command::NoticesReceived(number));
        self.model.notices_received(dev, number);
    }
}

fn token(id: DeviceId) -> (Token, TokenHash) {
    let mut hash = [7; 32];
    hash[..16].copy_from_slice(&id.to_u128().to_le_bytes());
    (Token(id.to_string()), TokenHash(hash))
}
