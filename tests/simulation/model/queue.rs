//! The queue of a device: what is accepted, what may be sent at once, how an item leaves.

use sealpost::clock::Now;
use sealpost::protocol::encode::{Status, ack};
use sealpost::protocol::refusal::Refusal;
use sealpost::relay::mailbox::Credit;
use sealpost::store::PutOutcome;

use super::correspondents::has_share;
use super::{Care, Dev, Item, Kind, Model, Nr, State};
use crate::store::Notebook;

impl Model {
    /// Whether it is undefined if the next item is delivered at once: an expired item may or may not be noticed yet.
    pub fn is_unclear(&self, now: Now, to: Dev) -> bool {
        let device = &self.devices[to];
        device.conn.as_ref().is_some_and(|conn| !conn.holding)
            && device.queue.iter().any(|nr| self.items[*nr].is_over(now))
    }

    pub(super) fn can_take(&self, to: Dev, bytes: u64) -> bool {
        let device = &self.devices[to];
        let waits = device.queue.iter().any(|nr| self.items[*nr].state == State::Waiting);
        device.conn.as_ref().is_some_and(|conn| !conn.holding)
            && !waits
            && self.has_credit(to, bytes, |item| item.state == State::Flying)
    }

    pub(super) fn has_credit(&self, dev: Dev, bytes: u64, counts: impl Fn(&Item) -> bool) -> bool {
        let flying = self.devices[dev].queue.iter().map(|nr| &self.items[*nr]);
        let (mut number, mut sum) = (0, 0);
        for item in flying.filter(|item| counts(item)) {
            number += 1;
            sum += item.bytes();
        }
        let Credit { window, bytes: most } = self.rules.credit;
        number == 0 || (number < window && sum + bytes <= most)
    }

    pub(super) fn no_room(
        &self,
        now: Now,
        from: Dev,
        to: Dev,
        bytes: u64,
        adds_key: bool,
    ) -> Option<Refusal> {
        if !self.devices[to].resumable && self.can_take(to, bytes) {
            return None;
        }
        let (flies, origin) = (self.can_take(to, bytes), self.devices[from].origin);
        if self.refusing && !flies || !self.total_admits(now, origin, bytes, flies) {
            return Some(Refusal::Full);
        }
        let (mut all, mut own) = ((0, 0), (0, 0));
        let (mut unknown, mut of_origin) = ((0, 0), (0, 0));
        let (mut keys, mut own_keys) = (0, 0);
        for nr in &self.devices[to].queue {
            let item = &self.items[*nr];
            if !item.is_held() || item.is_over(now) {
                continue;
            }
            all = (all.0 + 1, all.1 + item.bytes());
            if item.from == from {
                own = (own.0 + 1, own.1 + item.bytes());
            }
            if item.unknown {
                unknown = (unknown.0 + 1, unknown.1 + item.bytes());
                if item.origin == origin {
                    of_origin = (of_origin.0 + 1, of_origin.1 + item.bytes());
                }
                let is_key = matches!(item.kind, Kind::Key(_));
                keys += usize::from(is_key);
                own_keys += usize::from(is_key && item.from == from);
            }
        }
        let quota = self.rules.quota;
        let messages = ((quota.messages as f64 * quota.sender_share) as usize).max(1);
        let most = (quota.bytes as f64 * quota.sender_share) as u64;
        let full = all.0 >= quota.messages
            || all.1 + bytes > quota.bytes
            || own.0 > 0 && (own.0 >= messages || own.1 + bytes > most);
        let most_unknown = ((quota.messages as f64 * quota.unknown_share) as u64).max(1);
        let most_unknown_bytes = (quota.bytes as f64 * quota.unknown_share) as u64;
        let share = quota.origin_share;
        let no_place = unknown.0 >= most_unknown
            || unknown.1 + bytes > most_unknown_bytes
            || !has_share(most_unknown, unknown.0, of_origin.0, 1, share)
            || !has_share(most_unknown_bytes, unknown.1, of_origin.1, bytes, share)
            || adds_key && (own_keys >= 4 || keys >= (quota.window / 4).max(1));
        (full || self.is_unknown(from, to) && no_place).then_some(Refusal::QueueFull)
    }

    pub(super) fn accept(
        &mut self,
        kind: Kind,
        from: Dev,
        to: Dev,
        ttl: u64,
        deadline: u64,
        body: &[u8],
        receipts: bool,
        store: &mut Notebook,
    ) -> Nr {
        let confirms = matches!(kind, Kind::Message(_) | Kind::Key(_)) && ttl > 0;
        let by_confirm = confirms && self.devices[to].resumable;
        let unknown = self.is_unknown(from, to);
        let origin = self.devices[from].origin;
        let nr = self.arrives(kind, from, to, ttl, deadline, body);
        self.items[nr].unknown = unknown;
        self.items[nr].origin = origin;
        self.devices[to].queue.pop();
        let passes = !by_confirm && self.can_take(to, self.items[nr].bytes());
        self.devices[to].queue.push(nr);
        let item = &mut self.items[nr];
        item.receipts = receipts;
        item.by_confirm = by_confirm;
        let mut owes = receipts || self.is_remembered(nr);
        if kind.is_counted() {
            self.accepted += 1;
            if !passes {
                owes = self.put(nr, store) != PutOutcome::Durable;
            }
        }
        self.items[nr].owed = u32::from(owes && kind.is_counted());
        if passes {
            self.fresh = Some(nr);
        }
        nr
    }

    /// Whether the fingerprint of a message for this moment is stored at its delivery.
    pub(super) fn is_remembered(&self, nr: Nr) -> bool {
        let item = &self.items[nr];
        matches!(item.kind, Kind::Message(_))
            && item.ttl == 0
            && self.devices[item.to].resumable
            && self.devices[item.from].resumable
            && !self.devices[item.from].forgotten
    }

    /// Appends an item to the queue.
    pub(super) fn arrives(
        &mut self,
        kind: Kind,
        from: Dev,
        to: Dev,
        ttl: u64,
        deadline: u64,
        body: &[u8],
    ) -> Nr {
        let (nr, mark) = (self.items.len(), self.next_seq);
        self.next_seq += 1;
        self.items.push(Item {
            kind,
            from,
            to,
            ttl,
            deadline,
            body: body.into(),
            receipts: false,
            by_confirm: false,
            state: State::Waiting,
            seen: false,
            care: Care::None,
            owed: 0,
            mark,
            ticket: false,
            content: 0,
            origin: self.devices[to].origin,
            unknown: false,
            ends: None,
            reports: None,
            is_over_for_good: false,
            lost_aside: false,
            receipts_since: None,
            counted_bytes: 0,
        });
        self.items[nr].counted_bytes = self.items[nr].bytes();
        self.devices[to].used = true;
        self.devices[to].queue.push(nr);
        nr
    }

    pub(super) fn settle(&mut self, now: Now, nr: Nr, status: Status, store: &mut Notebook) {
        self.leaves(nr, State::Delivered);
        self.report_status(now, nr, status, store);
    }

    /// Reports the end of a message to its sender, if the sender still waits for it.
    pub(super) fn report_status(&mut self, now: Now, nr: Nr, status: Status, store: &mut Notebook) {
        let is_remembered = self.is_remembered(nr);
        let item = &self.items[nr];
        let (from, mut acks) = (item.from, item.owed);
        let Kind::Message(id) = item.kind else { return };
        if is_remembered {
            let print = store.fingerprints.pop_front().expect("the fingerprint is stored");
            let named = self.prints.get(&(from, print.key, print.content & !1));
            assert_eq!(named, Some(&nr), "another fingerprint is stored");
        }
        let sender = &self.devices[from];
        let receipts = item.receipts && sender.receipts && !sender.forgotten;
        let stored = item.is_kept() || is_remembered;
        if receipts {
            let text = ack(id, Some(status));
            self.notify(now, from, (true, &text), (nr, stored), store);
            acks = acks.saturating_sub(1);
        }
        if acks > 0 {
            let waits = is_remembered || stored && receipts;
            let status = receipts.then_some(status);
            self.ack_left((from, id, status), acks, (nr, waits), store);
        }
    }

    pub(super) fn leaves(&mut self, nr: Nr, state: State) {
        let item = &mut self.items[nr];
        item.state = state;
        item.body = Box::default();
        let counted = u64::from(item.kind.is_counted());
        *(if state == State::Delivered { &mut self.delivered } else { &mut self.expired }) +=
            counted;
        let is_notice = matches!(item.kind, Kind::Notice(_));
        let device = &mut self.devices[item.to];
        let list = if is_notice { &mut device.notices } else { &mut device.queue };
        list.retain(|other| *other != nr);
    }
}
