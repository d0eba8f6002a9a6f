//! Text to frame and frame to text: paid once for every frame of every device, on the session's thread.
//!
//! Guards "a payload is never decoded beyond the fields that the relay needs" (docs/architecture.md, the journey of a
//! frame): 60 KB of encrypted data cost one walk over them, and two where `payload` comes before `type`, which the
//! protocol allows and few clients do.

use std::hint::black_box;

use criterion::Criterion;
use sealpost::protocol::decode::decode;
use sealpost::protocol::encode::{Status, ack, error};
use sealpost::protocol::envelope::Subject;
use sealpost::protocol::id::DeviceId;
use sealpost::protocol::refusal::{ErrorContext, Expired, Refusal};

use crate::group;
use crate::words::{self, MESSAGE, SIZES};

/// Both directions.
pub fn run(criterion: &mut Criterion) {
    let mut group = group(criterion, "codec");
    let mut decodes = |name: String, text: String| {
        assert!(decode(&text).is_ok(), "{name}");
        group.bench_function(name, |bench| bench.iter(|| decode(black_box(&text)).is_ok()));
    };
    for (size, bytes) in SIZES {
        decodes(format!("decode Send, {size}"), words::send(bytes));
        decodes(format!("decode Send, payload first, {size}"), words::send_payload_first(bytes));
    }
    decodes("decode Ack".into(), words::ack());

    group.bench_function("encode Ack", |bench| bench.iter(|| ack(black_box(MESSAGE), None)));
    group.bench_function("encode Ack, queued", |bench| {
        bench.iter(|| ack(black_box(MESSAGE), Some(Status::Queued(black_box(1_678_886_700)))));
    });
    let expired = Refusal::Expired(Expired::Message(MESSAGE), 300);
    let about = ErrorContext::about(Some(&Subject::Message(MESSAGE)), Some(DeviceId::random()));
    group.bench_function("encode Error 410", |bench| {
        bench.iter(|| error(black_box(expired), black_box(&about)));
    });
}
