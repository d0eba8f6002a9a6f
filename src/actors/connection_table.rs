//! Who is on which line: the connections as the Registry reaches them, and what each is sent with its next batch.

use std::collections::HashMap;

use actix::Recipient;
use foldhash::fast::RandomState;
use slab::Slab;

use super::registry::Lease;
use super::session::DeliveryBatch;
use crate::relay::command::{ConnectionId, Delivery};

/// Where a connection is kept.
type Key = usize;

/// One connection.
#[derive(Debug)]
pub struct Connection {
    /// Where it is sent.
    pub session: Recipient<DeliveryBatch>,
    /// Its number.
    pub number: u64,
    /// What it is registered as.
    pub conn: Option<ConnectionId>,
    /// It has been told to go.
    pub leaving: bool,
    batch: DeliveryBatch,
    /// It has something to hear.
    has_batch: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct ConnectionTable {
    all: Slab<Connection>,
    by_number: HashMap<u64, Key, RandomState>,
    /// The newest connection of each device, by the device's slot.
    by_slot: Vec<Option<(u64, Key)>>,
    /// Connections that a newer one of their device has replaced and that are not gone yet, by their epoch.
    replaced: HashMap<u64, Key, RandomState>,
    /// Who has something to hear.
    has_batch: Vec<Key>,
}

impl ConnectionTable {
    /// A connection has been opened.
    pub fn open(&mut self, number: u64, session: Recipient<DeliveryBatch>, leaving: bool) {
        let (batch, conn) = (DeliveryBatch::default(), None);
        let connection = Connection { session, number, conn, leaving, batch, has_batch: false };
        let key = self.all.insert(connection);
        self.by_number.insert(number, key);
    }

    /// The connection of that number.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<&Connection> {
        self.by_number.get(&number).map(|key| &self.all[*key])
    }

    /// A connection is a device now.
    pub fn register(&mut self, number: u64, conn: ConnectionId) {
        let Some(key) = self.by_number.get(&number).copied() else { return };
        debug_assert!(self.all[key].conn.is_none(), "a connection is registered once");
        self.all[key].conn = Some(conn);
        let slot = conn.slot as usize;
        if self.by_slot.len() <= slot {
            self.by_slot.resize(slot + 1, None);
        }
        if let Some((epoch, older)) = self.by_slot[slot].replace((conn.epoch, key)) {
            self.replaced.insert(epoch, older);
        }
    }

    /// A connection is over. Answers what it was registered as.
    pub fn close(&mut self, number: u64) -> Option<ConnectionId> {
        let connection = self.all.remove(self.by_number.remove(&number)?);
        let conn = connection.conn?;
        self.replaced.remove(&conn.epoch);
        // The slot may be a newer connection's, or another device's, by now.
        self.by_slot[conn.slot as usize].take_if(|(epoch, _)| *epoch == conn.epoch);
        Some(conn)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.all.iter().map(|(_, connection)| connection)
    }

    /// All of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.all.iter_mut().map(|(_, connection)| connection)
    }

    /// The connection of that number has something to hear.
    pub fn push_unregistered(&mut self, number: u64, delivery: Delivery<Lease>) {
        if let Some(key) = self.by_number.get(&number).copied() {
            self.batch_of(key).deliveries.push(delivery);
        }
    }

    /// A device's connection has something to hear.
    pub fn push(&mut self, conn: ConnectionId, delivery: Delivery<Lease>) {
        if let Some(key) = self.find(conn) {
            self.batch_of(key).deliveries.push(delivery);
        }
    }

    /// A device's connection has its acknowledge: its next batch may come.
    pub fn acknowledge(&mut self, conn: ConnectionId, unmatched_acks: u32) {
        if let Some(key) = self.find(conn) {
            let batch = self.batch_of(key);
            batch.acknowledges = true;
            batch.unmatched_acks += unmatched_acks;
        }
    }

    /// Takes out the next connection that has something to hear, and what.
    pub fn next_batch(&mut self) -> Option<(&Connection, DeliveryBatch)> {
        while let Some(key) = self.has_batch.pop() {
            // It may be gone, and another in its place.
            if self.all.get(key).is_some_and(|connection| connection.has_batch) {
                let connection = &mut self.all[key];
                connection.has_batch = false;
                let batch = std::mem::take(&mut connection.batch);
                return Some((connection, batch));
            }
        }
        None
    }

    /// How many there are, and how many of them are devices.
    #[cfg(test)]
    pub fn count(&self) -> (usize, usize) {
        (self.all.len(), self.by_slot.iter().flatten().count() + self.replaced.len())
    }

    fn find(&self, conn: ConnectionId) -> Option<Key> {
        match self.by_slot.get(conn.slot as usize).copied().flatten() {
            Some((epoch, key)) if epoch == conn.epoch => Some(key),
            _ => self.replaced.get(&conn.epoch).copied(),
        }
    }

    fn batch_of(&mut self, key: Key) -> &mut DeliveryBatch {
        let connection = &mut self.all[key];
        if !std::mem::replace(&mut connection.has_batch, true) {
            self.has_batch.push(key);
        }
        &mut connection.batch
    }
}

#[cfg(test)]
mod tests {
    use actix::{Actor, Context, Handler};

    use super::*;
    use crate::protocol::refusal::CloseReason;

    struct Receiver;

    impl Actor for Receiver {
        type Context = Context<Self>;
    }

    impl Handler<DeliveryBatch> for Receiver {
        type Result = ();

        fn handle(&mut self, _: DeliveryBatch, _: &mut Self::Context) {}
    }

    fn table(numbers: std::ops::Range<u64>) -> ConnectionTable {
        let mut table = ConnectionTable::default();
        for number in numbers {
            table.open(number, Receiver.start().recipient(), false);
        }
        table
    }

    fn conn(slot: u32, epoch: u64) -> ConnectionId {
        ConnectionId { slot, epoch }
    }

    fn delivery() -> Delivery<Lease> {
        Delivery::Close(CloseReason::Draining)
    }

    /// Who is sent something, in any order.
    fn receivers(table: &mut ConnectionTable) -> Vec<u64> {
        let mut numbers = Vec::new();
        while let Some((connection, batch)) = table.next_batch() {
            assert_eq!(batch.deliveries.len(), 1);
            numbers.push(connection.number);
        }
        numbers.sort_unstable();
        numbers
    }

    #[actix::test]
    async fn a_replaced_connection_is_reached_until_it_is_closed_and_takes_nothing_along() {
        let mut table = table(1..3);
        table.register(1, conn(7, 10));
        table.register(2, conn(7, 11));
        table.push(conn(7, 10), delivery());
        table.push(conn(7, 11), delivery());
        assert_eq!(receivers(&mut table), [1, 2]);
        assert_eq!(table.close(1), Some(conn(7, 10)));
        table.push(conn(7, 10), delivery());
        table.push(conn(7, 11), delivery());
        assert_eq!(receivers(&mut table), [2]);
        assert_eq!(table.close(2), Some(conn(7, 11)));
        assert_eq!(table.close(2), None);
        assert_eq!(table.count(), (0, 0));
    }

    #[actix::test]
    async fn what_a_connection_should_have_heard_is_not_heard_by_the_one_in_its_place() {
        let mut table = table(1..2);
        table.register(1, conn(0, 1));
        table.push(conn(0, 1), delivery());
        table.close(1);
        table.open(2, Receiver.start().recipient(), false);
        table.register(2, conn(0, 2));
        table.push(conn(0, 1), delivery());
        assert_eq!(receivers(&mut table), [0_u64; 0]);
        table.push(conn(0, 2), delivery());
        table.acknowledge(conn(0, 2), 3);
        let (_, batch) = table.next_batch().expect("a turn");
        assert!((batch.deliveries.len(), batch.acknowledges, batch.unmatched_acks) == (1, true, 3));
        assert!(table.next_batch().is_none());
    }
}
