//! The notices of one device: what the relay itself has to say of the device's own messages.
//!
//! Notices do not wait behind messages: only as many are handed over as the socket takes. A plain device has a notice when its
//! socket took the notice. A resumable device has it when something has come that only a device that got it can have sent; until
//! then the notice comes again on the next connection. (protocol: Notices)

use std::collections::VecDeque;
use std::sync::LazyLock;

use super::item::Item;
use super::on_demand::Empty;
use crate::clock::Moment;
use crate::protocol::envelope::{NoticeKind, Seq, Subject};

/// Grows from each notice of a device to the next; starts anew with the process.
pub type NoticeNumber = u64;

/// An empty lane gives back the memory of more notices than this.
const SPARE_CAPACITY: usize = 4;

#[derive(Debug)]
pub struct Notice {
    pub number: NoticeNumber,
    pub item: Item,
    /// Of the last connection that it was handed over to.
    handed_over: HandedOver,
}

/// When a notice was handed over, and behind which message of the same connection.
#[derive(Debug, Clone, Copy, Default)]
struct HandedOver {
    at: Moment,
    behind: Seq,
}

/// The notices of one kind, by rising number. The first `handed_over` have been handed over to the current connection.
#[derive(Debug, Default)]
struct Lane {
    /// Boxed: no number limits them, and a deque that grows moves all that it holds in one step.
    notices: VecDeque<Box<Notice>>,
    handed_over: usize,
}

#[derive(Debug, Default)]
pub struct NoticeQueue {
    /// Errors and receipts: a resume without receipts drops those in one move.
    lanes: [Lane; 2],
    /// The newest number.
    last: NoticeNumber,
    /// The newest notice that was handed over.
    handed_over: NoticeNumber,
    /// Handed over, and not taken by the socket.
    unwritten: usize,
    /// The device has everything through this one.
    settled: NoticeNumber,
}

impl Empty for NoticeQueue {
    fn empty() -> &'static Self {
        static EMPTY: LazyLock<NoticeQueue> = LazyLock::new(NoticeQueue::default);
        &EMPTY
    }

    fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.notices.is_empty())
    }
}

impl NoticeQueue {
    pub fn push(&mut self, item: Item) -> NoticeNumber {
        self.last += 1;
        let lane = match item.envelope.subject {
            Subject::Notice { kind: NoticeKind::Receipt, .. } => &mut self.lanes[1],
            _ => &mut self.lanes[0],
        };
        let handed_over = HandedOver::default();
        if lane.notices.capacity() == 0 {
            // Most queues hold one; a deque would begin with four.
            lane.notices.reserve_exact(1);
        }
        lane.notices.push_back(Box::new(Notice { number: self.last, item, handed_over }));
        self.last
    }

    /// Hands over the next notice, behind the message `behind` of the same connection. `None` if there is none, or if the socket
    /// has not taken `window` others.
    pub fn hand_over(&mut self, window: usize, at: Moment, behind: Seq) -> Option<&Notice> {
        if self.unwritten >= window {
            return None;
        }
        let next = |lane: &&mut Lane| lane.notices.get(lane.handed_over).map(|next| next.number);
        let waiting = self.lanes.iter_mut().filter(|lane| next(lane).is_some());
        let lane = waiting.min_by_key(next)?;
        let notice = lane.notices.get_mut(lane.handed_over)?;
        notice.handed_over = HandedOver { at, behind };
        lane.handed_over += 1;
        self.unwritten += 1;
        self.handed_over = notice.number;
        Some(notice)
    }

    /// The socket has taken everything through this notice.
    pub fn on_written(&mut self, through: NoticeNumber) {
        let unwritten = self.lanes.iter().map(|lane| {
            let handed_over = lane.notices.range(..lane.handed_over);
            handed_over.rev().take_while(|notice| notice.number > through).count()
        });
        self.unwritten = unwritten.sum();
    }

    /// The device has everything through this notice.
    pub fn settle(&mut self, through: NoticeNumber) {
        self.settled = self.settled.max(through.min(self.handed_over));
    }

    /// The device has the message `seq`, and so every notice that was handed over before it on the same connection.
    pub fn settle_before(&mut self, seq: Seq) {
        self.settle_where(|notice| notice.handed_over.behind < seq);
    }

    /// The device has every notice that was handed over before a moment.
    pub fn settle_older(&mut self, than: Moment) {
        self.settle_where(|notice| notice.handed_over.at < than);
    }

    /// Whether a notice that was handed over is not settled.
    pub fn awaits_proof(&self) -> bool {
        self.handed_over > self.settled
    }

    /// Takes out the next settled notice.
    pub fn take_settled(&mut self) -> Option<Item> {
        let is_settled = |notice: &Notice| notice.number <= self.settled;
        let lane = self.lanes.iter_mut().find(|lane| lane.first_handed_over(is_settled))?;
        lane.handed_over -= 1;
        let notice = lane.notices.pop_front();
        lane.give_back_memory();
        notice.map(|notice| notice.item)
    }

    /// The connection has ended: what is not settled is handed over again.
    pub fn detach(&mut self) {
        for lane in &mut self.lanes {
            // Settled ones stay in front, until they are taken out.
            lane.handed_over = lane.notices.partition_point(|it| it.number <= self.settled);
        }
        self.handed_over = self.settled;
        self.unwritten = 0;
    }

    /// Empties the receipts. None of them is handed over to the current connection.
    pub fn take_receipts(&mut self) -> VecDeque<Box<Notice>> {
        std::mem::take(&mut self.lanes[1]).notices
    }

    /// Empties the queue.
    pub fn take_all(&mut self) -> [VecDeque<Box<Notice>>; 2] {
        std::mem::take(&mut self.lanes).map(|lane| lane.notices)
    }

    pub fn get_mut(&mut self, number: NoticeNumber) -> Option<&mut Item> {
        let found = self.lanes.iter_mut().find_map(|lane| {
            let place = lane.notices.binary_search_by_key(&number, |notice| notice.number).ok()?;
            lane.notices.get_mut(place)
        });
        found.map(|notice| &mut notice.item)
    }

    /// Visits the notices after `number`, of each kind at most half of `limit`. Returns the number from which to continue, if
    /// there are more; some are visited again then.
    pub fn visit_after(
        &mut self,
        number: NoticeNumber,
        limit: usize,
        mut visit: impl FnMut(NoticeNumber, &mut Item),
    ) -> Option<NoticeNumber> {
        let mut more = None;
        for lane in &mut self.lanes {
            let first = lane.notices.partition_point(|notice| notice.number <= number);
            let end = lane.notices.len().min(first + limit / 2);
            for notice in lane.notices.range_mut(first..end) {
                visit(notice.number, &mut notice.item);
            }
            if end < lane.notices.len() {
                let last = lane.notices[end - 1].number;
                more = Some(more.map_or(last, |more: NoticeNumber| more.min(last)));
            }
        }
        more
    }

    pub(super) fn items(&self) -> impl Iterator<Item = &Item> {
        self.lanes.iter().flat_map(|lane| lane.notices.iter().map(|notice| &notice.item))
    }

    fn settle_where(&mut self, fits: impl Fn(&Notice) -> bool) {
        for lane in 0..self.lanes.len() {
            let lane = &self.lanes[lane];
            // Both the moments and the messages grow from notice to notice.
            let (mut low, mut high) = (0, lane.handed_over);
            while low < high {
                let middle = usize::midpoint(low, high);
                if lane.notices.get(middle).is_some_and(|notice| fits(notice)) {
                    low = middle + 1
                } else {
                    high = middle
                }
            }
            let through = low.checked_sub(1).and_then(|last| lane.notices.get(last));
            if let Some(through) = through.map(|notice| notice.number) {
                self.settle(through);
            }
        }
    }
}

impl Lane {
    fn first_handed_over(&self, fits: impl Fn(&Notice) -> bool) -> bool {
        self.handed_over > 0 && self.notices.front().is_some_and(|notice| fits(notice))
    }

    fn give_back_memory(&mut self) {
        if self.notices.is_empty() && self.notices.capacity() > SPARE_CAPACITY {
            self.notices = VecDeque::new();
        }
    }
}
