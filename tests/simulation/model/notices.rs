//! The notices of devices: when each leaves, and when it has arrived.

use sealpost::clock::Now;
use sealpost::protocol::encode::Status;
use sealpost::protocol::envelope::ENVELOPE_OVERHEAD;
use sealpost::protocol::id::MessageId;
use sealpost::store::PutOutcome;

use super::{Care, Dev, Item, Kind, Model, NEVER, Nr, Reply, State};
use crate::store::Notebook;
use crate::tally::Place;

/// What is known of a notice beside its item.
#[derive(Debug, Clone, Copy)]
pub struct Notice {
    pub is_receipt: bool,
    /// What it counts in every byte limit.
    pub bytes: u64,
    /// Its number, once it was delivered since the last restart.
    pub number: u64,
    /// When it was delivered on the current connection, and the newest item that was delivered before.
    at: u64,
    behind: u64,
}

/// What follows from a report of the store.
#[derive(Debug)]
pub enum Pending {
    Item(Nr),
    /// The notice leaves then.
    Notice(Nr),
    /// The notice has left.
    Left(Nr),
    /// The Acks of an item.
    Acks(Dev, MessageId, Option<Status>, u32, Nr),
}

impl Model {
    /// The relay leaves a notice for a device, about the end of item `about`. `waits` if the store had that item.
    pub(super) fn notify(
        &mut self,
        now: Now,
        to: Dev,
        (is_receipt, text): (bool, &str),
        (about, waits): (Nr, bool),
        store: &mut Notebook,
    ) {
        let device = &self.devices[to];
        if !device.is_present(now) || device.conn.is_none() && !device.resumable {
            return;
        }
        let resumable = device.resumable;
        let bytes = (text.len() as u64 + ENVELOPE_OVERHEAD).min(self.items[about].counted_bytes);
        let kind = Kind::Notice(Notice { is_receipt, bytes, number: 0, at: 0, behind: 0 });
        let nr = self.arrives(kind, to, to, 0, NEVER, text.as_bytes());
        self.devices[to].queue.pop();
        self.items[nr].state = State::Held;
        let (mut put_seq, mut outcome) = (None, PutOutcome::Durable);
        if resumable {
            let put = store.log.pop_front().expect("a notice is stored");
            (put_seq, outcome) = (Some(put.put_seq), self.fits(store.boot(), nr, &put));
            self.items[nr].ends = (outcome != PutOutcome::Rejected).then_some(about);
        } else if waits {
            let (asked, kept) = store.asked.pop_front().expect("the store is asked for a report");
            (put_seq, outcome) = (Some(asked), kept);
            self.items[nr].reports = Some(about);
        }
        match (put_seq, outcome) {
            (Some(put_seq), PutOutcome::Pending) if waits => {
                self.pending.push_back((put_seq, Pending::Notice(nr)));
            }
            (Some(put_seq), PutOutcome::Pending) => {
                self.pending.push_back((put_seq, Pending::Left(nr)));
                self.leaves_for_its_device(nr);
            }
            _ => self.leaves_for_its_device(nr),
        }
    }

    fn leaves_for_its_device(&mut self, nr: Nr) {
        let item = &mut self.items[nr];
        item.state = State::Waiting;
        let device = &mut self.devices[item.to];
        device.notices.push(nr);
        if let Some(conn) = &mut device.conn {
            conn.notices_stale = false;
        }
    }

    /// The store has reported on a notice that was held for the report.
    pub(super) fn released(&mut self, nr: Nr, is_committed: bool) {
        let item = &mut self.items[nr];
        if matches!(item.care, Care::Asked(_)) {
            item.care = if is_committed { Care::Safe } else { Care::Refused };
        }
        let Kind::Notice(notice) = item.kind else { panic!("no notice") };
        if !is_committed {
            self.tally.reach(Place::NoticeAtOnce);
            item.ends = None;
            item.reports = None;
        } else if let Some(about) = item.reports {
            self.items[about].is_over_for_good = true;
        }
        let device = &self.devices[self.items[nr].to];
        let is_gone = device.forgotten || device.conn.is_none() && !device.resumable;
        if is_gone || notice.is_receipt && !device.receipts {
            self.items[nr].state = State::Lost;
            return;
        }
        self.tally.reach(Place::NoticeAfterCommit);
        self.leaves_for_its_device(nr);
    }

    /// The store has lost a notice that has left already.
    pub(super) fn unstored(&mut self, nr: Nr, is_committed: bool) {
        let item = &mut self.items[nr];
        if matches!(item.care, Care::Asked(_)) {
            item.care = if is_committed { Care::Safe } else { Care::Refused };
        }
    }

    /// A connection gets the next notice.
    pub(super) fn check_notice(&mut self, now: Now, dev: Dev, number: u64, body: &[u8]) {
        let text = String::from_utf8_lossy(body);
        let mut notices = self.devices[dev].notices.iter().copied();
        let Some(nr) = notices.find(|nr| self.items[*nr].state == State::Waiting) else {
            panic!("no notice is due, but {text} is delivered");
        };
        let window = self.rules.credit.window;
        assert!(*self.items[nr].body == *body, "{text} is delivered, another notice is due");
        assert!(!self.items[nr].seen || self.devices[dev].resumable, "{text} is delivered twice");
        let conn = self.conn_mut(dev);
        assert!(!conn.holding, "{text} is delivered to a device that is offline");
        assert!(conn.notices.len() < window, "{text} goes over the window");
        assert!(number > conn.last_notice, "numbers do not grow");
        conn.last_notice = number;
        conn.notices.push_back(number);
        let behind = conn.last_mark;
        let item = &mut self.items[nr];
        item.seen = true;
        item.state = State::Flying;
        let Kind::Notice(notice) = &mut item.kind else { panic!("no notice") };
        (notice.number, notice.at, notice.behind) = (number, now.mono.0, behind);
    }

    /// The socket has taken the notices through `number`.
    pub fn notices_written(&mut self, dev: Dev, number: u64) {
        let here = self.devices[dev].notices.iter().filter_map(|nr| match self.items[*nr] {
            Item { kind: Kind::Notice(notice), state: State::Flying, .. } => Some(notice.number),
            _ => None,
        });
        // What is proved to have arrived was taken.
        let here: Vec<u64> = here.collect();
        let conn = self.conn_mut(dev);
        conn.notices_stale = false;
        conn.notices.retain(|known| *known > number && here.contains(known));
        if !self.devices[dev].resumable {
            self.settle_notices(dev, |notice| notice.number <= number);
        }
    }

    /// The device has proved that it has the notices through `number`.
    pub fn notices_received(&mut self, dev: Dev, number: u64) {
        self.tally.reach(Place::Proved);
        self.settle_notices(dev, |notice| notice.number <= number);
    }

    /// A frame has come from a device.
    pub fn frame_came(&mut self, now: Now, dev: Dev) {
        let than = now.mono.0.saturating_sub(self.rules.heartbeat_timeout.as_nanos() as u64);
        if self.settle_notices(dev, |notice| notice.at < than) > 0 {
            self.tally.reach(Place::ProvedByTime);
        }
    }

    /// The device has acked an item that was delivered on its connection.
    pub(super) fn proves_earlier(&mut self, dev: Dev, nr: Nr) {
        let mark = self.items[nr].mark;
        if self.items[nr].state == State::Flying
            && self.settle_notices(dev, |notice| notice.behind < mark) > 0
        {
            self.tally.reach(Place::ProvedByAck);
        }
    }

    fn settle_notices(&mut self, dev: Dev, fits: impl Fn(Notice) -> bool) -> usize {
        let Self { devices, items, .. } = self;
        let before = devices[dev].notices.len();
        devices[dev].notices.retain(|nr| {
            let item = &mut items[*nr];
            let Kind::Notice(notice) = item.kind else { panic!("no notice") };
            let settled = item.state == State::Flying && fits(notice);
            if settled {
                item.state = State::Delivered;
            }
            !settled
        });
        before - devices[dev].notices.len()
    }

    /// The connection has ended: what is not proved comes again.
    pub(super) fn detach_notices(&mut self, dev: Dev) {
        let resumable = self.devices[dev].resumable;
        for nr in self.devices[dev].notices.clone() {
            let item = &mut self.items[nr];
            if !resumable {
                item.state = State::Dropped;
            } else if item.state == State::Flying {
                self.tally.reach(Place::NoticeAgain);
                item.state = State::Waiting;
            }
        }
    }

    /// A device resumes without receipts.
    pub(super) fn drop_receipts(&mut self, dev: Dev) {
        for nr in &self.devices[dev].notices {
            let item = &mut self.items[*nr];
            if matches!(item.kind, Kind::Notice(Notice { is_receipt: true, .. })) {
                self.tally.reach(Place::ReceiptsDropped);
                item.state = State::Dropped;
            }
        }
    }

    /// The answers to a message that has left.
    pub(super) fn ack_left(
        &mut self,
        (to, id, status): (Dev, MessageId, Option<Status>),
        acks: u32,
        (nr, waits): (Nr, bool),
        store: &mut Notebook,
    ) {
        if waits {
            let (asked, outcome) = store.asked.pop_front().expect("the store is asked");
            if outcome == PutOutcome::Pending {
                self.pending.push_back((asked, Pending::Acks(to, id, status, acks, nr)));
                return;
            }
        }
        self.acks(to, id, status, acks);
    }

    pub(super) fn acks(&mut self, to: Dev, id: MessageId, status: Option<Status>, acks: u32) {
        if let Some(conn) = &self.devices[to].conn {
            for _ in 0..acks {
                self.expected_replies.push((conn.id, Reply::Ack(id, status)));
            }
        }
    }
}
