//! What the core costs, without sockets, actors or a disk: words in and out, the rules, one mailbox, the sweep.
//!
//! `cargo bench --bench core` takes less than a minute and a half; a name behind `--` runs what it is part of. Each group says which
//! promise it guards. The promise behind all of them: what one message costs does not depend on how many others wait.
//! So whatever can wait is measured at several depths, each built once and then kept in a steady state, one in and one
//! out, so that nothing is measured but the step itself.

mod codec;
mod mailbox;
mod relay;
mod router;
mod splice;
mod sweep;
mod words;

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};

/// As the relay itself.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many messages wait: next to none, and more than any cache holds.
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

/// A group whose element is one message, or one frame.
fn group<'c>(criterion: &'c mut Criterion, name: &str) -> BenchmarkGroup<'c, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(1));
    group
}
