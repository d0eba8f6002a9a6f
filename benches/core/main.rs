//! The cost of the core without sockets, actors or a disk: decoding and encoding, the router, one mailbox, the sweep.
//!
//! `cargo bench --bench core` takes less than a minute and a half; a name after `--` runs the benchmarks with this name. Each group
//! names the invariant that it guards. The invariant behind all of them: the cost of a message does not depend on how many
//! others wait. So each group is measured at several depths; each depth is built once and then kept steady, one item in and one
//! out.

mod codec;
mod frames;
mod mailbox;
mod relay;
mod router;
mod splice;
mod sweep;

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};

/// The allocator of the relay.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Numbers of waiting messages, from nearly none to more than any cache holds.
const DEPTHS: [u64; 3] = [10, 10_000, 1_000_000];

fn main() {
    let mut criterion = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_millis(1_500))
        .sample_size(50)
        .nresamples(20_000)
        .configure_from_args();
    codec::run(&mut criterion);
    splice::run(&mut criterion);
    router::run(&mut criterion);
    mailbox::run(&mut criterion);
    sweep::run(&mut criterion);
    criterion.final_summary();
}

/// A group whose throughput is counted in messages or frames.
fn group<'c>(criterion: &'c mut Criterion, name: &str) -> BenchmarkGroup<'c, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(1));
    group
}
