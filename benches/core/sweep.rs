//! What expires, and what it costs to look for it.
//!
//! Guards "what expires is told to its sender first and dropped after" (docs/architecture.md, expiry in two steps) at
//! its price: a sweep holds up the registry's thread, so it must cost what it finds and not what waits; and a sweep that
//! finds nothing, which nearly all do, next to nothing.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};

use crate::relay::{Device, Found, Relay};
use crate::{DEPTHS, group};

/// Among so many devices that are away all that waits is spread, however much it is.
const DEVICES: usize = 1_000;
/// Messages that come, and that expire, each second.
const RATE: u64 = 10;
/// As the sweeper's.
const SLICE: usize = 512;

/// At every depth.
pub fn run(criterion: &mut Criterion) {
    let mut group = group(criterion, "sweep");
    for depth in DEPTHS {
        let mut world = World::new(depth);
        group.bench_function(BenchmarkId::new("nothing found among", depth), |bench| {
            bench.iter(|| assert!(world.relay.find(SLICE).is_empty()));
        });
        group.bench_function(BenchmarkId::new("one expired among", depth), |bench| {
            bench.iter_custom(|messages| {
                // The clock is read for ten messages at a time.
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
    /// As long as it takes for so many to wait.
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

    /// A second passes: how long the two steps took for those that expired.
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
