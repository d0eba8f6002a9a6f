//! One message through the router: the work of the one thread that handles all messages.
//!
//! Guards "a frame goes one way" (docs/architecture.md): the time that the Registry's thread needs for a message bounds the
//! throughput of the relay. For each kind of recipient the message is acked, and leaves the counters at the end, which is checked.

use std::time::{Duration, Instant};

use criterion::Criterion;

use crate::group;
use crate::relay::{Found, Relay};

/// Messages that wait for an absent device before they are removed, outside the measurement.
const PILE: u64 = 1_024;
const TTL: u64 = 60;

/// Measures each kind of recipient.
pub fn run(criterion: &mut Criterion) {
    let mut group = group(criterion, "router");

    let mut relay = Relay::new();
    let (alice, bob) = (relay.join(false), relay.join(false));
    group.bench_function("to a plain device", |bench| {
        bench.iter(|| {
            relay.send(alice, bob, TTL);
            relay.take(bob);
        });
    });
    let books = relay.router.observe().counts;
    assert_eq!(books.delivered, books.accepted);

    let bob = relay.join(true);
    group.bench_function("to a resumable device that confirms", |bench| {
        bench.iter(|| {
            let id = relay.send(alice, bob, TTL);
            relay.take(bob);
            relay.confirm(bob, id);
        });
    });
    let books = relay.router.observe().counts;
    assert_eq!((books.delivered, books.stray_acks), (books.accepted, 0));

    relay.leave(bob);
    group.bench_function("to a device that is away", |bench| {
        bench.iter_custom(|messages| {
            let (mut left, mut spent) = (messages, Duration::ZERO);
            while left > 0 {
                let pile = left.min(PILE);
                let began = Instant::now();
                for _ in 0..pile {
                    relay.send(alice, bob, TTL);
                }
                spent += began.elapsed();
                left -= pile;
                relay.pass(TTL);
                let found = Found::told(relay.find(usize::MAX));
                assert_eq!(found.len() as u64, pile);
                relay.drop(found);
                relay.take(alice);
            }
            spent
        });
    });
}
