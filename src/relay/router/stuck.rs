//! Devices that are there and take nothing: the window stays full for `delivery.stuck_after`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::directory::{Connection, Slot};
use super::{Directory, Router};
use crate::clock::Moment;
use crate::protocol::id::DeviceId;

/// A device that takes nothing, for one log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stuck {
    pub device: DeviceId,
    /// How long nothing was confirmed.
    pub since: Duration,
    pub waiting: usize,
}

/// When to look at the connections whose window is full.
#[derive(Debug, Default)]
pub(super) struct StuckConnections {
    /// One entry for each connection whose window was full, not later than the time at which it is stuck. An entry may outlive
    /// its connection.
    due: BinaryHeap<Reverse<(Moment, Slot)>>,
    stuck: usize,
}

impl StuckConnections {
    pub fn len(&self) -> usize {
        self.stuck
    }

    /// Messages wait for a connection: its window is full since `now`, if something has moved.
    pub fn window_is_full(
        &mut self,
        slot: Slot,
        connection: &mut Connection,
        now: Moment,
        moved: bool,
        stuck_after: Duration,
    ) {
        if moved || connection.full_since.is_none() {
            self.moves(connection);
            connection.full_since = Some(now);
        }
        if !std::mem::replace(&mut connection.is_watched, true) {
            self.due.push(Reverse((now + stuck_after, slot)));
        }
    }

    /// Nothing waits for a connection, or the device holds its messages back.
    pub fn window_is_open(&mut self, connection: &mut Connection) {
        if connection.full_since.take().is_some() {
            self.moves(connection);
        }
    }

    /// A connection has ended.
    pub fn ended(&mut self, connection: &Connection) {
        self.stuck -= usize::from(connection.is_stuck);
    }

    fn moves(&mut self, connection: &mut Connection) {
        self.stuck -= usize::from(std::mem::take(&mut connection.is_stuck));
    }

    /// At most `limit` of the connections that have become stuck.
    fn find(
        &mut self,
        directory: &mut Directory,
        now: Moment,
        stuck_after: Duration,
        limit: usize,
    ) -> Vec<Stuck> {
        let mut found = Vec::new();
        for _ in 0..limit {
            let Some(Reverse((_, slot))) =
                self.due.peek().copied().filter(|Reverse((due, _))| *due <= now)
            else {
                break;
            };
            self.due.pop();
            let Some(device) = directory.get_mut(slot) else { continue };
            let (id, waiting) = (device.id, device.mailbox.waiting());
            let Some(connection) = &mut device.connection else { continue };
            connection.is_watched = false;
            let Some(since) = connection.full_since.filter(|_| !connection.is_stuck) else {
                continue;
            };
            if since + stuck_after > now {
                connection.is_watched = true;
                self.due.push(Reverse((since + stuck_after, slot)));
                continue;
            }
            connection.is_stuck = true;
            self.stuck += 1;
            found.push(Stuck { device: id, since: now - since, waiting });
        }
        found
    }
}

impl Router {
    /// The devices that have become stuck since the last call.
    pub fn find_stuck(&mut self, now: Moment, limit: usize) -> Vec<Stuck> {
        let stuck_after = self.settings.delivery.stuck_after;
        self.stuck.find(&mut self.directory, now, stuck_after, limit)
    }
}
