//! `Send` to `Receive`: the only copy of a message that the relay makes.
//!
//! Guards "never encoded again: `splice` changes `Send` to `Receive`" (docs/architecture.md): the payload is copied once.
//! `Registered::parse` is all that a session does with a `Send`: decode, compare the sender, hash the content, splice.

use std::hint::black_box;

use criterion::Criterion;
use sealpost::protocol::encode::{Forwarded, splice};
use sealpost::relay::connection_state::Registered;

use crate::frames::{self, ALICE, SIZES};
use crate::group;

/// Measures the copy alone and the whole of `Registered::parse`.
pub fn run(criterion: &mut Criterion) {
    let mut group = group(criterion, "splice");
    for (size, bytes) in SIZES {
        let payload = frames::payload(bytes);
        group.bench_function(format!("Send to Receive, {size}"), |bench| {
            bench.iter(|| splice(Forwarded::Receive, black_box(&payload)));
        });
        let (text, alice) = (frames::send(bytes), Registered { device: ALICE });
        assert!(alice.parse(&text, 65_536).is_ok());
        group.bench_function(format!("hear, {size}"), |bench| {
            bench.iter(|| alice.parse(black_box(&text), 65_536).is_ok());
        });
    }
}
