//! One mailbox alone.

use std::time::Duration;

use super::*;
use crate::protocol::envelope::{AccessKey, ENVELOPE_OVERHEAD, Origin};

const ALICE: DeviceId = DeviceId::from_u128(1);
const CAROL: DeviceId = DeviceId::from_u128(3);
const WIDE: Credit = Credit { window: 1_000_000, bytes: u64::MAX };
const TEN_BYTES: &str = "ten bytes.";

fn at(seconds: u64) -> Moment {
    Moment(0) + Duration::from_secs(seconds)
}

/// What one item of ten bytes counts.
const ITEM: u64 = 10 + ENVELOPE_OVERHEAD;
const QUOTA: MailboxQuota = MailboxQuota {
    messages: 8,
    bytes: 1000,
    sender_share: 0.5,
    unknown_share: 0.5,
    origin_share: 0.5,
    window: 64,
};

fn known(id: DeviceId) -> Applicant {
    Applicant {
        id,
        origin: Origin::NONE,
        access: AccessKey::NONE,
        is_unknown: false,
        adds_key: false,
    }
}

fn of(window: usize) -> Credit {
    Credit { window, ..WIDE }
}

/// A message of Alice's, ten bytes, for a resumable recipient, that expires after a minute.
fn item(seq: Seq) -> Item {
    let envelope = Envelope {
        from: ALICE,
        subject: Subject::Message(MessageId::from_u128(u128::from(seq))),
        ttl: 60,
        body: TEN_BYTES.into(),
        receipts: false,
        content: 0,
        origin: Origin::NONE,
        access: AccessKey::NONE,
        from_unknown: false,
        recipient_letters: crate::protocol::id::Letters::Small,
    };
    Item::new(seq, at(60), envelope, true)
}

fn until(seq: Seq, deadline: Moment) -> Item {
    Item { deadline, ..item(seq) }
}

fn settled_when_taken(seq: Seq) -> Item {
    Item { settles: SettledBy::Write, ..item(seq) }
}

fn from(sender: DeviceId, seq: Seq, id: u128) -> Item {
    let mut item = item(seq);
    item.envelope.from = sender;
    item.envelope.subject = Subject::Message(MessageId::from_u128(id));
    item
}

fn holding(seqs: impl IntoIterator<Item = Seq>) -> Mailbox {
    let mut mailbox = Mailbox::default();
    for seq in seqs {
        mailbox.push_waiting(item(seq));
    }
    mailbox
}

fn name(seq: Seq) -> MessageId {
    MessageId::from_u128(u128::from(seq))
}

impl Mailbox {
    /// Hands over all items within the credit; returns their sequence numbers.
    fn hands_over(&mut self, credit: Credit) -> Vec<Seq> {
        let mut handed = Vec::new();
        while let Next::InFlight(item) = self.next_deliverable(at(0), credit) {
            handed.push(item.seq);
        }
        self.audit().unwrap();
        handed
    }

    fn loses_its_connection(&mut self) {
        self.detach(|_| true, |_| panic!("everything is kept"));
        self.audit().unwrap();
    }

    fn expires(&mut self, now: Moment, limit: usize) -> Vec<Seq> {
        let mut expired = Vec::new();
        self.expire(now, limit, |item| expired.push(item.seq));
        self.audit().unwrap();
        expired
    }

    fn confirms(&mut self, id: u128, from: Option<DeviceId>) -> Option<Seq> {
        let item = self.ack(MessageId::from_u128(id), from);
        self.audit().unwrap();
        item.map(|item| item.seq)
    }
}

#[test]
fn unconfirmed_items_come_again_first_and_in_order() {
    let mut mailbox = holding(1..=6);
    assert_eq!(mailbox.hands_over(of(4)), [1, 2, 3, 4]);
    assert_eq!(mailbox.confirms(2, None), Some(2));
    mailbox.loses_its_connection();
    assert_eq!(mailbox.hands_over(of(2)), [1, 3]);
    mailbox.loses_its_connection();
    assert_eq!(mailbox.hands_over(WIDE), [1, 3, 4, 5, 6]);
}

#[test]
fn an_item_that_is_settled_by_write_leaves_when_the_socket_has_taken_it() {
    let mut mailbox = Mailbox::default();
    mailbox.push_waiting(item(1));
    mailbox.push_waiting(settled_when_taken(2));
    mailbox.push_waiting(settled_when_taken(3));
    mailbox.hands_over(WIDE);
    let mut settled = Vec::new();
    mailbox.on_written(2, |item| settled.push(item.seq));
    assert_eq!(settled, [2]);
    mailbox.loses_its_connection();
    assert_eq!(mailbox.hands_over(WIDE), [1, 3]);
}

#[test]
fn an_item_for_one_connection_only_leaves_with_the_connection() {
    let mut mailbox = holding([1, 2, 3]);
    mailbox.hands_over(WIDE);
    let mut left = Vec::new();
    mailbox.detach(|item| item.seq != 2, |item| left.push(item.seq));
    mailbox.audit().unwrap();
    assert_eq!((left, mailbox.hands_over(WIDE)), (vec![2], vec![1, 3]));
}

#[test]
fn items_that_leave_from_the_middle_leave_the_order_of_the_others() {
    let mut mailbox = Mailbox::default();
    for seq in 1..=40 {
        mailbox.push_waiting(until(seq, at(if seq % 3 == 0 { 100 } else { 10 })));
    }
    assert_eq!(mailbox.expires(at(10), 1000).len(), 27);
    assert_eq!(mailbox.waiting(), 13);
    assert_eq!(mailbox.get_mut(9).map(|item| item.seq), Some(9));
    assert!(mailbox.get_mut(10).is_none());
    let threes: Vec<Seq> = (1..=13).map(|three| 3 * three).collect();
    assert_eq!(mailbox.hands_over(WIDE), threes);
}

/// The hole of an expired item stayed when the next item was sent at once. When that item came back, it stood before the
/// older hole, and the deque was not sorted any more: the binary search did not find the item, which could neither expire
/// nor be acked.
#[test]
fn a_hole_of_an_older_item_does_not_disturb_returned_items() {
    let mut mailbox = holding([1, 2]);
    assert_eq!(mailbox.hands_over(of(1)), [1]);
    mailbox.confirms(1, None);
    mailbox.expires(at(60), 10);
    for seq in 3..=9 {
        mailbox.push_in_flight(until(seq, at(90)));
    }
    mailbox.push_waiting(until(10, at(90)));
    mailbox.loses_its_connection();
    assert!((3..=10).all(|seq| mailbox.get_mut(seq).is_some()));
    assert_eq!(mailbox.expires(at(90), 10), [3, 4, 5, 6, 7, 8, 9, 10]);
}

#[test]
fn no_item_is_handed_over_at_its_deadline_or_after() {
    let mut mailbox = Mailbox::default();
    mailbox.push_waiting(until(1, at(5)));
    mailbox.push_waiting(until(2, Moment(at(5).0 + 1)));
    assert!(matches!(mailbox.next_deliverable(at(5), WIDE), Next::Expired(item) if item.seq == 1));
    assert!(matches!(mailbox.next_deliverable(at(5), WIDE), Next::InFlight(item) if item.seq == 2));
    assert!(matches!(mailbox.next_deliverable(at(5), WIDE), Next::Nothing));
}

#[test]
fn an_item_in_flight_expires_only_if_it_is_settled_by_ack() {
    let mut mailbox = Mailbox::default();
    mailbox.push_in_flight(item(1));
    mailbox.push_in_flight(settled_when_taken(2));
    assert_eq!(mailbox.expires(at(60), 10), [1]);
    assert_eq!(mailbox.in_flight(), 1);
}

#[test]
fn deadlines_do_not_pile_up_when_nothing_ever_expires() {
    let mut mailbox = holding([0]);
    for seq in 1..100_000 {
        mailbox.push_waiting(until(seq, at(1_000_000)));
        mailbox.hands_over(of(2));
        mailbox.ack(name(seq - 1), None).unwrap();
        assert!(mailbox.deadlines.len() < 100);
    }
    for _ in 0..1000 {
        mailbox.loses_its_connection();
        mailbox.hands_over(WIDE);
        assert!(mailbox.deadlines.len() < 100);
    }
}

#[test]
fn credit_is_counted_in_items_and_in_bytes_and_one_is_always_allowed() {
    let mut mailbox = holding(1..=9);
    let nothing = Credit { window: 0, bytes: 0 };
    assert_eq!(mailbox.hands_over(nothing), [1]);
    assert!(mailbox.hands_over(nothing).is_empty());
    assert_eq!(mailbox.hands_over(of(3)), [2, 3]);
    assert_eq!(mailbox.hands_over(Credit { window: 9, bytes: 5 * ITEM - 1 }), [4]);
    assert_eq!(mailbox.hands_over(Credit { window: 9, bytes: 5 * ITEM }), [5]);
    mailbox.confirms(2, None);
    assert_eq!(mailbox.hands_over(of(5)), [6]);
}

#[test]
fn no_item_overtakes_a_waiting_item() {
    let mut mailbox = Mailbox::default();
    assert!(mailbox.has_credit(WIDE, 10));
    mailbox.push_waiting(item(1));
    assert!(!mailbox.has_credit(WIDE, 10));
    mailbox.hands_over(WIDE);
    assert!(mailbox.has_credit(WIDE, 10));
    assert!(!mailbox.has_credit(of(1), 10));
}

#[test]
fn a_queue_is_full_by_messages_or_by_bytes() {
    let mailbox = holding(1..=4);
    let quota = |messages, bytes| MailboxQuota { messages, bytes, sender_share: 1.0, ..QUOTA };
    assert!(mailbox.is_full(quota(4, 10_000), known(CAROL), 0));
    assert!(!mailbox.is_full(quota(5, 10_000), known(CAROL), 0));
    assert!(!mailbox.is_full(quota(5, 4 * ITEM + 10), known(CAROL), 10));
    assert!(mailbox.is_full(quota(5, 4 * ITEM + 10), known(CAROL), 11));
    assert!(mailbox.is_full(quota(5, u64::MAX - 1), known(CAROL), u64::MAX));
}

#[test]
fn one_sender_has_a_share_and_the_others_have_the_rest() {
    let mut mailbox = holding(1..=4);
    let quota = MailboxQuota { messages: 8, bytes: 10_000, ..QUOTA };
    assert!(mailbox.is_full(quota, known(ALICE), 10));
    assert!(!mailbox.is_full(quota, known(CAROL), 10));
    mailbox.hands_over(of(1));
    assert!(mailbox.is_full(quota, known(ALICE), 10), "what is unconfirmed takes its place still");
    mailbox.confirms(1, None);
    assert!(!mailbox.is_full(quota, known(ALICE), 10));
    assert!(mailbox.is_full(MailboxQuota { bytes: 8 * ITEM - 1, ..quota }, known(ALICE), ITEM));
    assert!(!mailbox.is_full(MailboxQuota { bytes: 8 * ITEM, ..quota }, known(ALICE), ITEM));
}

#[test]
fn two_senders_may_use_one_id() {
    let mut mailbox = Mailbox::default();
    mailbox.push_in_flight(from(ALICE, 1, 7));
    mailbox.push_in_flight(from(CAROL, 2, 7));
    assert_eq!(mailbox.confirms(7, Some(DeviceId::from_u128(9))), None);
    assert_eq!(mailbox.confirms(7, Some(CAROL)), Some(2));
    assert_eq!(mailbox.confirms(7, Some(CAROL)), None);
    assert_eq!(mailbox.confirms(7, None), Some(1));
}

#[test]
fn an_item_of_an_older_connection_can_be_acked_before_it_comes_again() {
    let mut mailbox = holding(1..=5);
    mailbox.hands_over(of(3));
    mailbox.loses_its_connection();
    assert_eq!(mailbox.confirms(2, None), Some(2));
    assert_eq!(mailbox.hands_over(WIDE), [1, 3, 4, 5]);
}

/// A second Ack for a message of one sender settled a waiting message of another sender with the same id.
#[test]
fn an_item_that_was_never_handed_over_is_not_acked() {
    let mut mailbox = Mailbox::default();
    mailbox.push_waiting(from(ALICE, 1, 7));
    mailbox.push_waiting(from(CAROL, 2, 7));
    mailbox.hands_over(of(1));
    assert_eq!(mailbox.confirms(7, None), Some(1));
    assert_eq!(mailbox.confirms(7, None), None);
    assert_eq!(mailbox.hands_over(of(1)), [2]);
}

#[test]
fn a_mailbox_frees_its_memory_after_a_burst() {
    let mut mailbox = holding(1..=10_000);
    mailbox.hands_over(WIDE);
    for seq in 1..=10_000 {
        assert!(mailbox.ack(name(seq), None).is_some());
    }
    let rooms = [mailbox.places.capacity(), mailbox.deadlines.capacity(), mailbox.usage.capacity()];
    assert!(rooms.iter().all(|room| *room <= SPARE_CAPACITY), "{rooms:?}");
    let mut mailbox = holding(1..=10_000);
    mailbox.expire(at(60), usize::MAX, drop);
    assert!(
        mailbox.places.capacity() <= SPARE_CAPACITY
            && mailbox.deadlines.capacity() <= SPARE_CAPACITY
    );
}

#[test]
fn a_million_expired_items_are_taken_in_slices_and_in_the_order_of_their_deadlines() {
    const ALL: u64 = 1_000_000;
    let mut mailbox = Mailbox::default();
    for seq in 0..ALL {
        mailbox.push_waiting(until(seq, Moment(1 + (seq * 7_919) % ALL)));
    }
    let (mut slices, mut last) = (0, Moment(0));
    while mailbox.waiting() > 0 {
        let mut slice = 0;
        mailbox.expire(at(60), 10_000, |item| {
            assert!(item.deadline > last);
            last = item.deadline;
            slice += 1;
        });
        assert_eq!(slice, 10_000);
        slices += 1;
    }
    assert_eq!(slices, 100);
    mailbox.audit().unwrap();
}

#[test]
fn items_that_expire_in_the_order_of_arrival_leave_no_holes() {
    let mut mailbox = Mailbox::default();
    (0..9).for_each(|seq| mailbox.push_waiting(until(seq, at(10 + seq))));
    mailbox.expire(at(13), 9, |_| {});
    assert_eq!((mailbox.waiting(), mailbox.places.len() - mailbox.in_flight), (5, 5));
    mailbox.audit().unwrap();
}

#[test]
fn holes_behind_the_head_leave_with_the_head() {
    let mut mailbox = holding(0..9);
    mailbox.withdraw(1).unwrap();
    mailbox.withdraw(2).unwrap();
    assert_eq!((mailbox.waiting(), mailbox.places.len() - mailbox.in_flight), (7, 9));
    mailbox.withdraw(0).unwrap();
    assert_eq!((mailbox.waiting(), mailbox.places.len() - mailbox.in_flight), (6, 6));
    mailbox.audit().unwrap();
    assert_eq!(mailbox.hands_over(WIDE), [3, 4, 5, 6, 7, 8]);
}

#[test]
fn an_ack_does_not_search_the_holes_behind_the_returned_items() {
    let mut mailbox = holding(1..=6);
    mailbox.hands_over(of(2));
    mailbox.loses_its_connection();
    assert_eq!((mailbox.waiting_again, mailbox.withdraw(1).map(|item| item.seq)), (2, Some(1)));
    mailbox.withdraw(3).unwrap();
    assert_eq!(mailbox.confirms(4, None), None, "no connection ever had the item");
    assert_eq!(mailbox.confirms(2, None), Some(2));
    assert_eq!(mailbox.waiting_again, 0);
    assert_eq!(mailbox.hands_over(WIDE), [4, 5, 6]);
}

#[test]
fn the_items_for_a_resuming_device_are_counted_without_a_search() {
    let mut mailbox = holding(1..=3);
    let mut step = until(4, at(60));
    step.envelope.subject = Subject::Auth;
    mailbox.push_waiting(step);
    mailbox.hands_over(of(1));
    assert_eq!(mailbox.messages(), 3);
    mailbox.confirms(1, None);
    mailbox.expires(at(60), 1);
    assert_eq!(mailbox.messages(), 1);
}

#[test]
fn waiting_items_can_be_removed_in_order() {
    let mut mailbox = holding(1..=6);
    mailbox.hands_over(of(2));
    let all: Vec<Seq> = mailbox.take_all().map(|item| item.seq).collect();
    assert_eq!(all, [1, 2, 3, 4, 5, 6]);
    mailbox.audit().unwrap();
}
