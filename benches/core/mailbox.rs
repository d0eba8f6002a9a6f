//! One device's mail, however much of it waits.
//!
//! Guards "one owner for each truth" (docs/architecture.md, who owns what) at its price: a mailbox keeps order, deadlines,
//! quotas and what is in flight, and none of that may be searched where much waits. What is in order is found without a
//! search, and a confirmation is looked up among what is in flight, which credit bounds. What memory itself costs when a
//! queue is larger than every cache remains.

use std::hint::black_box;

use bytestring::ByteString;
use criterion::{BenchmarkId, Criterion};
use sealpost::clock::Moment;
use sealpost::protocol::envelope::{Envelope, Seq, Subject};
use sealpost::protocol::id::{DeviceId, MessageId};
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

/// At every depth, and at every place of the window.
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
            // What is in flight, in order.
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
        };
        let item = Item::new(self.last, deadline_of(self.last), envelope, true);
        self.mailbox.push_waiting(Item { settles, ..item });
    }

    /// The head of what waits is handed over.
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
