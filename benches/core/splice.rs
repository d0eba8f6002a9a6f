//! `Send` to `Receive`: the only copy of a message that the relay makes.
//!
//! Guards "never encoded again: `splice` changes `Send` to `Receive` around the very bytes" (docs/architecture.md): the
//! payload is copied once and not looked at. `hear` is all that a session does with a `Send`: decode it, compare the
//! sender, digest the content, splice.

use std::hint::black_box;

use criterion::Criterion;
use sealpost::protocol::encode::{Forwarded, splice};
use sealpost::relay::connection_state::Registered;

use crate::group;
use crate::words::{self, ALICE, SIZES};

/// The copy alone, and all that goes with it.
pub fn run(criterion: &mut Criterion) {
    let mut group = group(criterion, "splice");
    for (size, bytes) in SIZES {
        let payload = words::payload(bytes);
        group.bench_function(format!("Send to Receive, {size}"), |bench| {
            bench.iter(|| splice(Forwarded::Receive, black_box(&payload)));
        });
        let (text, alice) = (words::send(bytes), Registered { device: ALICE });
        assert!(alice.parse(&text, 65_536).is_ok());
        group.bench_function(format!("hear, {size}"), |bench| {
            bench.iter(|| alice.parse(black_box(&text), 65_536).is_ok());
        });
    }
}
