//! The connections as the Registry reaches them, and what the next batch for each of them holds.

use std::collections::{BTreeSet, HashMap};

use actix::{Message, Recipient};
use foldhash::fast::FixedState;

use crate::relay::command::ConnectionId;
use crate::relay::delivery::Delivery;

/// Everything that one round of the Registry has for one session, in order.
#[derive(Debug, Default, Message)]
#[rtype(result = "()")]
pub struct DeliveryBatch {
    pub deliveries: Vec<Delivery>,
    /// The Registry has handled the session's command batch: the session may send the next one.
    pub acknowledges: bool,
}

#[derive(Debug)]
struct Connection {
    session: Recipient<DeliveryBatch>,
    batch: DeliveryBatch,
    is_ready: bool,
}

#[derive(Debug, Default)]
pub struct ConnectionTable {
    connections: HashMap<ConnectionId, Connection, FixedState>,
    /// Connections whose sessions were not asked to close.
    staying: BTreeSet<ConnectionId>,
    /// Connections with a batch to send.
    ready: Vec<ConnectionId>,
}

impl ConnectionTable {
    pub fn insert(&mut self, id: ConnectionId, session: Recipient<DeliveryBatch>, closing: bool) {
        let batch = DeliveryBatch::default();
        self.connections.insert(id, Connection { session, batch, is_ready: false });
        if !closing {
            self.staying.insert(id);
        }
    }

    pub fn remove(&mut self, id: ConnectionId) {
        self.connections.remove(&id);
        self.staying.remove(&id);
    }

    pub fn contains(&self, id: ConnectionId) -> bool {
        self.connections.contains_key(&id)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Adds a delivery to the connection's next batch. A connection that has ended needs none.
    pub fn push(&mut self, id: ConnectionId, delivery: Delivery) {
        if let Some(batch) = self.batch_of(id) {
            batch.deliveries.push(delivery);
        }
    }

    /// Acknowledges the connection's command batch: the session may send the next one.
    pub fn acknowledge(&mut self, id: ConnectionId) {
        if let Some(batch) = self.batch_of(id) {
            batch.acknowledges = true;
        }
    }

    pub fn next_batch(
        &mut self,
    ) -> Option<(ConnectionId, &Recipient<DeliveryBatch>, DeliveryBatch)> {
        let id = loop {
            let id = self.ready.pop()?;
            // A connection may have ended since its batch became ready.
            if self.connections.contains_key(&id) {
                break id;
            }
        };
        let connection = self.connections.get_mut(&id)?;
        connection.is_ready = false;
        Some((id, &connection.session, std::mem::take(&mut connection.batch)))
    }

    /// Marks at most `limit` connections as closing and hands out their sessions.
    pub fn close_some(&mut self, limit: usize) -> impl Iterator<Item = &Recipient<DeliveryBatch>> {
        let Self { connections, staying, .. } = self;
        let closing = std::iter::from_fn(|| staying.pop_first()).take(limit);
        closing.filter_map(|id| Some(&connections.get(&id)?.session))
    }

    /// Connections that were not asked to close.
    pub fn staying(&self) -> usize {
        self.staying.len()
    }

    #[cfg(test)]
    pub fn session(&self, id: ConnectionId) -> Recipient<DeliveryBatch> {
        self.connections[&id].session.clone()
    }

    fn batch_of(&mut self, id: ConnectionId) -> Option<&mut DeliveryBatch> {
        let connection = self.connections.get_mut(&id)?;
        if !std::mem::replace(&mut connection.is_ready, true) {
            self.ready.push(id);
        }
        Some(&mut connection.batch)
    }
}

#[cfg(test)]
mod tests {
    use actix::{Actor, Context, Handler};

    use super::*;

    struct TestSession;

    impl Actor for TestSession {
        type Context = Context<Self>;
    }

    impl Handler<DeliveryBatch> for TestSession {
        type Result = ();

        fn handle(&mut self, _: DeliveryBatch, _: &mut Self::Context) {}
    }

    fn table(ids: std::ops::Range<u64>) -> ConnectionTable {
        let mut table = ConnectionTable::default();
        for id in ids {
            table.insert(ConnectionId(id), TestSession.start().recipient(), false);
        }
        table
    }

    /// The connections with a batch, in any order.
    fn ready(table: &mut ConnectionTable) -> Vec<u64> {
        let mut ids = Vec::new();
        while let Some((id, _, batch)) = table.next_batch() {
            assert_eq!(batch.deliveries.len(), 1);
            ids.push(id.0);
        }
        ids.sort_unstable();
        ids
    }

    #[actix::test]
    async fn a_connection_that_has_ended_gets_no_batch_and_the_others_get_theirs() {
        let mut table = table(1..3);
        table.push(ConnectionId(1), Delivery::Pong);
        table.push(ConnectionId(2), Delivery::Pong);
        table.remove(ConnectionId(1));
        table.push(ConnectionId(1), Delivery::Pong);
        assert_eq!(ready(&mut table), [2]);
        table.remove(ConnectionId(2));
        assert!(table.is_empty());
    }

    #[actix::test]
    async fn the_deliveries_of_one_round_are_one_batch() {
        let mut table = table(1..2);
        table.push(ConnectionId(1), Delivery::Pong);
        table.push(ConnectionId(1), Delivery::UnmatchedAck);
        table.acknowledge(ConnectionId(1));
        let (_, _, batch) = table.next_batch().expect("a batch");
        assert!((batch.deliveries.len(), batch.acknowledges) == (2, true));
        assert!(table.next_batch().is_none());
    }

    #[actix::test]
    async fn connections_are_closed_in_slices_and_each_once() {
        let mut table = table(0..5);
        assert_eq!(table.close_some(2).count(), 2);
        assert_eq!((table.staying(), table.close_some(9).count(), table.staying()), (3, 3, 0));
    }
}
