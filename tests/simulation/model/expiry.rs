//! The items that a sweep must find, and the effects of their drop.

use sealpost::clock::Now;
use sealpost::protocol::envelope::Subject;
use sealpost::protocol::refusal::ErrorContext;
use sealpost::protocol::refusal::{ExpiredKind as What, Refusal};
use sealpost::relay::router::{ExpiryNotice, Ticket};

use super::{Kind, Model, Nr, State};
use crate::store::Notebook;

impl Model {
    /// Checks the items that a sweep found.
    pub fn swept(&mut self, now: Now, found: &[ExpiryNotice], limit: usize) {
        assert!(found.len() <= limit, "a sweep takes more than asked for");
        for (place, expired) in found.iter().enumerate() {
            assert_eq!(expired.ticket, self.first_ticket + place as u64, "tickets have gaps");
            let nr = match self.tickets.get(place) {
                Some(nr) => *nr,
                None => {
                    let nr = self.find_expired(now, expired);
                    let item = &mut self.items[nr];
                    item.ticket = true;
                    item.state = State::Aside;
                    self.tickets.push_back(nr);
                    nr
                }
            };
            assert!(self.describes(expired, nr), "{expired:?} came back as another");
        }
        assert!(found.len() >= self.tickets.len().min(limit), "what is not dropped comes back");
        if found.len() == limit {
            return;
        }
        // The sweep has found all expired items.
        self.exchanges.retain(|exchange| exchange.deadline > now.mono.0);
        for dev in self.live.clone() {
            let device = &mut self.devices[dev];
            let gone = device.ends.is_some_and(|ends| ends <= now.mono.0);
            device.forgotten |= gone;
            for nr in device.queue.iter().chain(&device.notices) {
                let item = &self.items[*nr];
                let aside = matches!(item.state, State::Aside | State::Dropped);
                let missed = !item.ticket && (aside || gone || item.is_over(now));
                assert!(!missed, "a sweep has missed {item:?}");
            }
        }
    }

    /// The sweeper has dropped everything before `end`, with these notices for the senders.
    pub fn dropped(
        &mut self,
        now: Now,
        end: Ticket,
        notices: &[(Ticket, String)],
        store: &mut Notebook,
    ) {
        let mut notices = notices.iter().peekable();
        while self.first_ticket < end {
            let nr = self.tickets.pop_front().expect("only what was found is dropped");
            let (from, to, kind) = (self.items[nr].from, self.items[nr].to, self.items[nr].kind);
            if let Some((_, text)) = notices.next_if(|(ticket, _)| *ticket == self.first_ticket) {
                let waits = self.items[nr].is_kept() || self.items[nr].lost_aside;
                self.notify(now, from, (false, text), (nr, waits), store);
            }
            self.first_ticket += 1;
            if let Kind::Message(id) = kind {
                self.devices[from].sent.remove(&(to, id));
            }
            self.leaves(nr, State::Expired);
            if let Some(conn) = &mut self.devices[to].conn {
                conn.stale = false;
            }
        }
    }

    fn find_expired(&self, now: Now, expired: &ExpiryNotice) -> Nr {
        let devices = self.live.iter().map(|dev| &self.devices[*dev]);
        let all = devices.flat_map(|device| device.queue.iter().chain(&device.notices).copied());
        let fitting = all.filter(|nr| {
            let item = &self.items[*nr];
            let gone = self.devices[item.to].ends.is_some_and(|ends| ends <= now.mono.0);
            let aside = matches!(item.state, State::Aside | State::Dropped);
            let over = aside || gone || item.is_over(now);
            !item.ticket && over && self.describes(expired, *nr)
        });
        let first = fitting.min_by_key(|nr| {
            let item = &self.items[*nr];
            let aside = matches!(item.state, State::Aside | State::Dropped);
            // Of two notices the one that left first: errors, then receipts, each in their order.
            match item.kind {
                Kind::Notice(notice) => (!aside, item.deadline, usize::from(notice.is_receipt)),
                _ => (!aside, item.deadline, *nr),
            }
        });
        first.unwrap_or_else(|| panic!("{expired:?} is not over, or was never here"))
    }

    fn describes(&self, expired: &ExpiryNotice, nr: Nr) -> bool {
        let item = &self.items[nr];
        let to = self.devices[item.to].id;
        let (what, about) = match item.kind {
            Kind::Message(id) => (
                What::Message(id),
                ErrorContext::about(Some(&Subject::Message(id)), Some(to.into())),
            ),
            Kind::Key(key) | Kind::KeyAck(key) => (
                What::KeyRotation,
                ErrorContext::about(
                    Some(&Subject::KeyRotation(key.to_string().into())),
                    Some(to.into()),
                ),
            ),
            Kind::Auth => (What::Auth, ErrorContext::about(None, Some(to.into()))),
            Kind::Notice(_) => {
                return expired.error.is_none() && expired.sender == self.devices[item.from].id;
            }
        };
        expired.sender == self.devices[item.from].id
            && expired.error == Some((Refusal::Expired(what, item.ttl), about))
    }
}
