use super::*;
use crate::clock::Moment;
use crate::protocol::envelope::{AccessKey, ENVELOPE_OVERHEAD, Envelope, Seq};
use crate::protocol::id::{Letters, MessageId};

const QUOTA: MailboxQuota = MailboxQuota {
    messages: 1_000,
    bytes: 16 << 20,
    sender_share: 0.5,
    unknown_share: 0.5,
    origin_share: 0.5,
    window: 64,
};
const FRIEND: Applicant = Applicant {
    id: DeviceId::from_u128(1),
    origin: Origin(1),
    access: AccessKey::NONE,
    is_unknown: false,
    adds_key: false,
};

/// Device `number` of an origin, unknown to the recipient.
fn unknown(number: u128, origin: u64) -> Applicant {
    Applicant {
        id: DeviceId::from_u128(1_000 + number),
        origin: Origin(origin),
        access: AccessKey::NONE,
        is_unknown: true,
        adds_key: false,
    }
}

#[derive(Default)]
struct Queue {
    usage: MailboxUsage,
    items: Vec<Item>,
}

impl Queue {
    fn admits(&self, from: Applicant, body: usize) -> bool {
        !self.usage.is_full(QUOTA, from, body as u64 + ENVELOPE_OVERHEAD)
    }

    /// Adds one if there is room.
    fn add(&mut self, from: Applicant, body: usize) -> bool {
        let admitted = self.admits(from, body);
        if admitted {
            let subject = if from.adds_key {
                Subject::KeyRotation("".into())
            } else {
                Subject::Message(MessageId::from_u128(1))
            };
            let envelope = Envelope {
                from: from.id,
                subject,
                ttl: 60,
                body: "x".repeat(body).into(),
                receipts: false,
                content: 0,
                origin: from.origin,
                access: AccessKey::NONE,
                from_unknown: from.is_unknown,
                recipient_letters: Letters::Small,
            };
            let item = Item::new(self.items.len() as Seq, Moment::NEVER, envelope, true);
            self.usage.add(&item);
            self.items.push(item);
        }
        admitted
    }

    fn fill(&mut self, from: Applicant, body: usize) -> usize {
        (0..).take_while(|_| self.add(from, body)).count()
    }
}

#[test]
fn unknown_senders_of_one_origin_get_a_third_of_half_however_many_they_are() {
    let mut queue = Queue::default();
    let taken: usize = (0..18).map(|device| queue.fill(unknown(device, 7), 10)).sum();
    assert_eq!(taken, 167);
    assert!(queue.admits(unknown(99, 8), 10), "another origin finds room");
}

#[test]
fn unknown_senders_of_many_origins_leave_the_other_half_to_correspondents() {
    let mut queue = Queue::default();
    let taken: usize =
        (0..50).map(|origin| queue.fill(unknown(origin, 7 + origin as u64), 10)).sum();
    assert!(taken < 490, "{taken}");
    assert!(queue.add(unknown(1_000, 1_000), 10), "a first contact finds room");
    assert_eq!(queue.fill(FRIEND, 10), 500, "a correspondent has its share of the whole");
}

#[test]
fn unknown_senders_share_bytes_as_they_share_messages() {
    let mut queue = Queue::default();
    queue.fill(unknown(1, 7), 60_000);
    let third = QUOTA.bytes / 6;
    let held = queue.usage.total.bytes;
    assert!((third..third + 2 * 60_256).contains(&held), "{held}");
    assert!(queue.admits(unknown(2, 8), 60_000));
}

#[test]
fn unknown_senders_hold_four_key_rotations_each_and_a_quarter_of_the_window_together() {
    let mut queue = Queue::default();
    let key = |device, origin| Applicant { adds_key: true, ..unknown(device, origin) };
    assert_eq!(queue.fill(key(1, 7), 10), 4);
    let all: usize = (2..9).map(|device| queue.fill(key(device, 7 + device as u64), 10)).sum();
    assert_eq!(all, 12);
    assert!(queue.admits(unknown(1, 7), 10), "a message is no key rotation");
    assert!(queue.add(Applicant { adds_key: true, ..FRIEND }, 10));
}

#[test]
fn items_that_leave_give_back_what_they_took() {
    let mut queue = Queue::default();
    queue.fill(unknown(1, 7), 10);
    queue.fill(Applicant { adds_key: true, ..unknown(2, 8) }, 10);
    queue.fill(FRIEND, 10);
    for item in std::mem::take(&mut queue.items) {
        queue.usage.remove(&item);
    }
    assert_eq!(queue.usage, MailboxUsage::default());
}
