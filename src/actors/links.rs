//! Who is on which line: the connections as the Registry reaches them, and what each hears with its next turn.

use std::collections::HashMap;

use actix::Recipient;
use foldhash::fast::RandomState;
use slab::Slab;

use super::registry::Lease;
use super::session::Turn;
use crate::relay::word::{ConnId, Post};

/// Where a link is kept.
type Key = usize;

/// One connection.
#[derive(Debug)]
pub struct Link {
    /// Where it hears.
    pub session: Recipient<Turn>,
    /// Its number.
    pub line: u64,
    /// What it is registered as.
    pub conn: Option<ConnId>,
    /// It has been told to go.
    pub leaving: bool,
    turn: Turn,
    /// It has something to hear.
    touched: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Links {
    all: Slab<Link>,
    by_line: HashMap<u64, Key, RandomState>,
    /// The newest connection of each device, by the device's slot.
    by_slot: Vec<Option<(u64, Key)>>,
    /// Connections that a newer one of their device has replaced and that are not gone yet, by their epoch.
    replaced: HashMap<u64, Key, RandomState>,
    /// Who has something to hear.
    touched: Vec<Key>,
}

impl Links {
    /// A connection has been opened.
    pub fn open(&mut self, line: u64, session: Recipient<Turn>, leaving: bool) {
        let (turn, conn) = (Turn::default(), None);
        let link = Link { session, line, conn, leaving, turn, touched: false };
        let key = self.all.insert(link);
        self.by_line.insert(line, key);
    }

    /// The connection of that number.
    #[must_use]
    pub fn get(&self, line: u64) -> Option<&Link> {
        self.by_line.get(&line).map(|key| &self.all[*key])
    }

    /// A connection is a device now.
    pub fn register(&mut self, line: u64, conn: ConnId) {
        let Some(key) = self.by_line.get(&line).copied() else { return };
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
    pub fn close(&mut self, line: u64) -> Option<ConnId> {
        let link = self.all.remove(self.by_line.remove(&line)?);
        let conn = link.conn?;
        self.replaced.remove(&conn.epoch);
        // The slot may be a newer connection's, or another device's, by now.
        self.by_slot[conn.slot as usize].take_if(|(epoch, _)| *epoch == conn.epoch);
        Some(conn)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.all.iter().map(|(_, link)| link)
    }

    /// All of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        self.all.iter_mut().map(|(_, link)| link)
    }

    /// The connection of that number has something to hear.
    pub fn tell_line(&mut self, line: u64, post: Post<Lease>) {
        if let Some(key) = self.by_line.get(&line).copied() {
            self.touch(key).posts.push(post);
        }
    }

    /// A device's connection has something to hear.
    pub fn tell(&mut self, conn: ConnId, post: Post<Lease>) {
        if let Some(key) = self.find(conn) {
            self.touch(key).posts.push(post);
        }
    }

    /// A device's connection has its answer: its next batch may come.
    pub fn answer(&mut self, conn: ConnId, strays: u32) {
        if let Some(key) = self.find(conn) {
            let turn = self.touch(key);
            turn.answers = true;
            turn.strays += strays;
        }
    }

    /// Takes out the next connection that has something to hear, and what.
    pub fn next_turn(&mut self) -> Option<(&Link, Turn)> {
        while let Some(key) = self.touched.pop() {
            // It may be gone, and another in its place.
            if self.all.get(key).is_some_and(|link| link.touched) {
                let link = &mut self.all[key];
                link.touched = false;
                let turn = std::mem::take(&mut link.turn);
                return Some((link, turn));
            }
        }
        None
    }

    /// How many there are, and how many of them are devices.
    #[cfg(test)]
    pub fn count(&self) -> (usize, usize) {
        (self.all.len(), self.by_slot.iter().flatten().count() + self.replaced.len())
    }

    fn find(&self, conn: ConnId) -> Option<Key> {
        match self.by_slot.get(conn.slot as usize).copied().flatten() {
            Some((epoch, key)) if epoch == conn.epoch => Some(key),
            _ => self.replaced.get(&conn.epoch).copied(),
        }
    }

    fn touch(&mut self, key: Key) -> &mut Turn {
        let link = &mut self.all[key];
        if !std::mem::replace(&mut link.touched, true) {
            self.touched.push(key);
        }
        &mut link.turn
    }
}

#[cfg(test)]
mod tests {
    use actix::{Actor, Context, Handler};

    use super::*;
    use crate::protocol::refusal::Farewell;

    struct Ear;

    impl Actor for Ear {
        type Context = Context<Self>;
    }

    impl Handler<Turn> for Ear {
        type Result = ();

        fn handle(&mut self, _: Turn, _: &mut Self::Context) {}
    }

    fn links(lines: std::ops::Range<u64>) -> Links {
        let mut links = Links::default();
        for line in lines {
            links.open(line, Ear.start().recipient(), false);
        }
        links
    }

    fn conn(slot: u32, epoch: u64) -> ConnId {
        ConnId { slot, epoch }
    }

    fn post() -> Post<Lease> {
        Post::Close(Farewell::Draining)
    }

    /// Who hears something, in any order.
    fn hearers(links: &mut Links) -> Vec<u64> {
        let mut lines = Vec::new();
        while let Some((link, turn)) = links.next_turn() {
            assert_eq!(turn.posts.len(), 1);
            lines.push(link.line);
        }
        lines.sort_unstable();
        lines
    }

    #[actix::test]
    async fn a_replaced_connection_is_reached_until_it_is_closed_and_takes_nothing_along() {
        let mut links = links(1..3);
        links.register(1, conn(7, 10));
        links.register(2, conn(7, 11));
        links.tell(conn(7, 10), post());
        links.tell(conn(7, 11), post());
        assert_eq!(hearers(&mut links), [1, 2]);
        assert_eq!(links.close(1), Some(conn(7, 10)));
        links.tell(conn(7, 10), post());
        links.tell(conn(7, 11), post());
        assert_eq!(hearers(&mut links), [2]);
        assert_eq!(links.close(2), Some(conn(7, 11)));
        assert_eq!(links.close(2), None);
        assert_eq!(links.count(), (0, 0));
    }

    #[actix::test]
    async fn what_a_connection_should_have_heard_is_not_heard_by_the_one_in_its_place() {
        let mut links = links(1..2);
        links.register(1, conn(0, 1));
        links.tell(conn(0, 1), post());
        links.close(1);
        links.open(2, Ear.start().recipient(), false);
        links.register(2, conn(0, 2));
        links.tell(conn(0, 1), post());
        assert_eq!(hearers(&mut links), [0_u64; 0]);
        links.tell(conn(0, 2), post());
        links.answer(conn(0, 2), 3);
        let (_, turn) = links.next_turn().expect("a turn");
        assert!((turn.posts.len(), turn.answers, turn.strays) == (1, true, 3));
        assert!(links.next_turn().is_none());
    }
}
