//! One mailbox, at several numbers of waiting items.
//!
//! Guards the invariant that no operation of a mailbox searches all that waits (docs/architecture.md): an Ack searches what is
//! in flight, which the delivery window bounds. What remains is the memory of a queue that is larger than every cache.

use std::hint::black_box;

use bytestring::ByteString;
use criterion::{BenchmarkId, Criterion};
use sealpost::clock::Moment;
use sealpost::protocol::envelope::{AccessKey, Envelope, Origin, Seq, Subject};
use sealpost::protocol::id::{DeviceId, Letters, MessageId};
use sealpost::relay::item::{Item, SettledBy};
use sealpost::relay::mailbox::{Credit, Mailbox, Next};

use crate::relay::BODY;
use crate::{DEPTHS, group};

/// Four times `delivery.window`.
const WINDOW: u64 = 256;
const CREDIT: Credit = Credit { window: WINDOW as usize, bytes: u64::MAX };
const SENDER: DeviceId = DeviceId::from_u128(1);
/// Nothing expires here.
const NOW: Moment = Moment(0);

/// Measures every depth, and an Ack of every place in the window.
pub fn run(criterion: &mut Criterion) {
    let mut group = group(criterion, "mailbox");
    for depth in DEPTHS {
        let mut mail = Mail::default();
        (0..depth).for_each(|_| mail.arrives(SettledBy::Write));
        let name = BenchmarkId::new("in, handed over and taken, behind", depth);
        group.bench_function(name, |bench| {
            bench.iter(|| {
                mail.arrives(SettledBy::Write);
                let mark = mail.flies();
                mail.mailbox.on_written(mark, |item| drop(black_box(item)));
            });
        });
        assert_eq!((mail.mailbox.waiting() as u64, mail.mailbox.in_flight()), (depth, 0));
    }
    for depth in DEPTHS {
        let mut mail = Mail::default();
        (0..depth).for_each(|_| mail.arrives(SettledBy::Write));
        group.bench_function(BenchmarkId::new("in, and the oldest expired, of", depth), |bench| {
            bench.iter(|| {
                mail.arrives(SettledBy::Write);
                let now = deadline_of(mail.last - depth);
                mail.mailbox.expire(now, 1, |item| drop(black_box(item)));
            });
        });
        assert_eq!(mail.mailbox.waiting() as u64, depth);
    }
    for (name, place) in [("oldest", 0), ("middle", WINDOW / 2), ("newest", WINDOW - 1)] {
        for depth in [0, DEPTHS[2]] {
            let mut mail = Mail::default();
            (0..WINDOW + depth).for_each(|_| mail.arrives(SettledBy::Ack));
            // In order of delivery.
            let mut flight: Vec<_> = (0..WINDOW).map(|_| mail.flies()).collect();
            let name = BenchmarkId::new(format!("the {name} of 256 confirmed, before"), depth);
            group.bench_function(name, |bench| {
                bench.iter(|| {
                    let seq = flight.remove(place as usize);
                    let confirmed = mail.mailbox.ack(name_of(seq), Some(SENDER));
                    assert!(black_box(confirmed).is_some());
                    mail.arrives(SettledBy::Ack);
                    flight.push(mail.flies());
                });
            });
        }
    }
}

#[derive(Default)]
struct Mail {
    mailbox: Mailbox,
    last: Seq,
}

impl Mail {
    fn arrives(&mut self, settles: SettledBy) {
        self.last += 1;
        let envelope = Envelope {
            from: SENDER,
            subject: Subject::Message(name_of(self.last)),
            ttl: 300,
            body: ByteString::from_static(BODY),
            receipts: false,
            content: 0,
            origin: Origin::NONE,
            access: AccessKey::NONE,
            from_unknown: false,
            recipient_letters: Letters::Small,
        };
        let item = Item::new(self.last, deadline_of(self.last), envelope, true);
        self.mailbox.push_waiting(Item { settles, ..item });
    }

    /// Puts the first waiting item in flight.
    fn flies(&mut self) -> Seq {
        match self.mailbox.next_deliverable(NOW, CREDIT) {
            Next::InFlight(item) => item.seq,
            Next::Expired(_) | Next::Nothing => panic!("there is credit, and nothing expires"),
        }
    }
}

fn name_of(seq: Seq) -> MessageId {
    MessageId::from_u128(u128::from(seq))
}

fn deadline_of(seq: Seq) -> Moment {
    Moment(seq)
}
