//! Decoding and encoding: paid once for every frame of every device, on the session's thread.
//!
//! Guards "a payload is never decoded beyond the fields that the relay needs" (docs/architecture.md): 60 KB of encrypted data
//! cost one pass over the text, and two passes where `payload` precedes `type`, which the protocol allows and few clients do.

use std::hint::black_box;

use criterion::Criterion;
use sealpost::protocol::decode::decode;
use sealpost::protocol::encode::{Status, ack, error};
use sealpost::protocol::envelope::Subject;
use sealpost::protocol::id::DeviceId;
use sealpost::protocol::refusal::{ErrorContext, ExpiredKind, Refusal};

use crate::frames::{self, MESSAGE, SIZES};
use crate::group;

/// Measures both directions.
pub fn run(criterion: &mut Criterion) {
    let mut group = group(criterion, "codec");
    let mut decodes = |name: String, text: String| {
        assert!(decode(&text).is_ok(), "{name}");
        group.bench_function(name, |bench| bench.iter(|| decode(black_box(&text)).is_ok()));
    };
    for (size, bytes) in SIZES {
        decodes(format!("decode Send, {size}"), frames::send(bytes));
        decodes(format!("decode Send, payload first, {size}"), frames::send_payload_first(bytes));
    }
    decodes("decode Ack".into(), frames::ack());

    group.bench_function("encode Ack", |bench| bench.iter(|| ack(black_box(MESSAGE), None)));
    group.bench_function("encode Ack, queued", |bench| {
        bench.iter(|| ack(black_box(MESSAGE), Some(Status::Queued(black_box(1_678_886_700)))));
    });
    let expired = Refusal::Expired(ExpiredKind::Message(MESSAGE), 300);
    let about =
        ErrorContext::about(Some(&Subject::Message(MESSAGE)), Some(DeviceId::random().into()));
    group.bench_function("encode Error 410", |bench| {
        bench.iter(|| error(black_box(expired), black_box(&about)));
    });
}
