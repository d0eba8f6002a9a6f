//! ExpiryNotice items, and the cost of a search for them.
//!
//! Guards "an expired item is reported to its sender first and dropped afterwards" (docs/architecture.md, expiry in two steps):
//! a sweep occupies the Registry's thread, so its cost must grow with the items that it finds and not with those that wait, and a
//! sweep that finds nothing must cost next to nothing.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};

use crate::relay::{Device, Found, Relay};
use crate::{DEPTHS, group};

/// Absent devices among which the waiting messages are spread.
const DEVICES: usize = 1_000;
/// Messages that arrive, and that expire, each second.
const RATE: u64 = 10;
/// The sweeper's slice.
const SLICE: usize = 512;

/// Measures every depth.
pub fn run(criterion: &mut Criterion) {
    let mut group = group(criterion, "sweep");
    for depth in DEPTHS {
        let mut world = World::new(depth);
        group.bench_function(BenchmarkId::new("nothing found among", depth), |bench| {
            bench.iter(|| assert!(world.relay.find(SLICE).is_empty()));
        });
        group.bench_function(BenchmarkId::new("one expired among", depth), |bench| {
            bench.iter_custom(|messages| {
                // One clock reading for ten messages.
                let seconds = messages.div_ceil(RATE);
                let spent: Duration = (0..seconds).map(|_| world.second()).sum();
                spent.mul_f64(messages as f64 / (seconds * RATE) as f64)
            });
        });
        let books = world.relay.router.observe().counts;
        assert_eq!((books.queued, books.expired), (depth, books.accepted - depth));
    }
}

struct World {
    relay: Relay,
    sender: Device,
    away: Vec<Device>,
    next: usize,
    /// The ttl with which `depth` messages wait at this rate.
    ttl: u64,
}

impl World {
    fn new(depth: u64) -> Self {
        let mut relay = Relay::new();
        let sender = relay.join(false);
        let away: Vec<_> = (0..DEVICES).map(|_| relay.join(true)).collect();
        away.iter().for_each(|device| relay.leave(*device));
        let mut world = Self { relay, sender, away, next: 0, ttl: depth / RATE };
        for _ in 0..world.ttl {
            world.relay.pass(1);
            world.arrive();
        }
        world
    }

    /// The messages of one second arrive.
    fn arrive(&mut self) {
        for _ in 0..RATE {
            self.relay.send(self.sender, self.away[self.next], self.ttl);
            self.next = (self.next + 1) % DEVICES;
        }
    }

    /// Lets a second pass; returns the time that both steps took for the expired messages.
    fn second(&mut self) -> Duration {
        self.relay.pass(1);
        let began = Instant::now();
        let found = self.relay.find(SLICE);
        let finding = began.elapsed();
        let found = Found::told(found);
        assert_eq!(found.len() as u64, RATE);
        let began = Instant::now();
        self.relay.drop(found);
        let dropping = began.elapsed();
        self.relay.take(self.sender);
        self.arrive();
        finding + dropping
    }
}
