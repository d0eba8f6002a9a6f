//! Every seed of the fuzz targets, by the functions that the fuzzer calls: see fuzz/Cargo.toml and scripts/fuzz.
//!
//! A target whose inputs are all refused tests nothing, so the names of seeds begin with the result: `frame-`, `refused-`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use sealpost::clock::{Moment, Now};
use sealpost::protocol::envelope::{AccessKey, Envelope, NoticeKind, Origin, Subject};
use sealpost::protocol::frame::Accept;
use sealpost::protocol::id::{DeviceId, Letters, MessageId};
use sealpost::store::boots::{BootRecord, BootTime};
use sealpost::store::history::History;
use sealpost::store::records::{CorrespondentRecord, DeviceRecord, Fingerprint, MessageRecord};

#[path = "../fuzz/targets/conversation.rs"]
mod conversation;
#[path = "../fuzz/targets/decode.rs"]
mod decode;
#[path = "../fuzz/targets/frames.rs"]
mod frames;
#[path = "../fuzz/targets/records.rs"]
mod records;

/// The seeds of a target by name.
fn seeds(target: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("there are seeds") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        found.insert(name, fs::read(&path).expect("a seed"));
    }
    assert!(found.len() >= 4, "the seeds of {target} were not found");
    found
}

/// The result that the beginning of a seed's name promises.
#[track_caller]
fn expect(name: &str, result: &str) {
    let promised = name.split('-').next().unwrap_or_default();
    assert_eq!(promised, result, "the seed {name}");
}

#[test]
fn decode_reads_or_refuses_each_seed() {
    for (name, seed) in seeds("decode") {
        expect(&name, if decode::run(&seed) { "frame" } else { "refused" });
    }
}

#[test]
fn the_frame_decoder_accepts_or_refuses_each_seed() {
    for (name, seed) in seeds("frames") {
        let (frames, is_lawful) = frames::run(&seed);
        expect(&name, if is_lawful { "lawful" } else { "violation" });
        assert!(!is_lawful || frames > 0, "{name} has no frame");
    }
}

#[test]
fn records_are_read_or_refused() {
    for (name, seed) in seeds("records") {
        expect(&name, if records::run(&seed) { "record" } else { "damaged" });
    }
}

/// Writes the seeds of sound records anew, after a change of their format: `cargo test --test fuzz_seeds -- --ignored`.
#[test]
#[ignore = "changes the seeds"]
fn write_the_seeds_of_records() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/records");
    // The key of all seeds; the version in front of a value and the checksum behind it are left out.
    const KEY: u64 = 7;
    let write = |name: &str, kind: u8, value: &[u8]| {
        let fields = &value[1..value.len() - 8];
        let seed = [&[kind], &KEY.to_le_bytes()[..], fields].concat();
        fs::write(folder.join(name), seed).expect("room");
    };
    let time = BootTime { boot: 3, at: Moment(99) };
    let (id, mut out) = (DeviceId::from_u128(u128::from(KEY)), Vec::new());
    for (name, subject) in [
        ("record-message", Subject::Message(MessageId::from_u128(3))),
        ("record-key-rotation", Subject::KeyRotation("\"k\"".into())),
        ("record-key-rotation-ack", Subject::KeyRotationAck("17".into())),
        ("record-notice", Subject::Notice { kind: NoticeKind::Error, bytes: 356 }),
        ("record-receipt", Subject::Notice { kind: NoticeKind::Receipt, bytes: 300 }),
    ] {
        let envelope = Envelope {
            from: DeviceId::from_u128(1),
            subject,
            ttl: 300,
            body: "{\"type\":\"Receive\"}".into(),
            receipts: true,
            content: 5,
            origin: Origin(11),
            access: AccessKey::NONE,
            from_unknown: true,
            recipient_letters: Letters::Small,
        };
        MessageRecord { seq: KEY, to: id, expires_at: time, envelope }.encode(&mut out);
        write(name, 0, &out);
    }
    let history = |is_full: bool| {
        let mut history = History::default();
        if is_full {
            history.count_expired(Now { mono: Moment(1), wall_ms: 1_700_000_000_123 });
            history.delivered = 7;
        }
        history
    };
    for (name, token) in [("record-device", Some([9; 32])), ("record-plain-device", None)] {
        let (forget_at, origin, used) = (Some(time), Origin(6), true);
        let accept = Accept::Correspondents;
        let (next_token, receipts) = (token, true);
        let (registered_at, blocked) = (1_700_000_000_123, true);
        let access = token.map(|_| "team-1".into());
        let device = DeviceRecord {
            id,
            token,
            next_token,
            forget_at,
            origin,
            used,
            accept,
            receipts,
            registered_at,
            blocked,
            access,
            history: history(token.is_some()),
        };
        device.encode(&mut out);
        write(name, 1, &out);
    }
    let fingerprint = Fingerprint { sender: id, key: 2, content: 3, recorded_at: time };
    for (name, row) in [("record-fingerprints", 3), ("record-no-fingerprints", 0)] {
        Fingerprint::encode(&vec![fingerprint; row], KEY, &mut out);
        write(name, 2, &out);
    }
    CorrespondentRecord { device: id, number: 513, hash: 7 }.encode(&mut out);
    write("record-correspondent", 3, &out);
    let entered = Now { mono: Moment(5), wall_ms: 6 };
    let number = KEY as u32;
    BootRecord { number, id: 8, entered, wall_offset_ms: -9 }.encode(&mut out);
    write("record-boot", 4, &out);
}

#[test]
fn conversations_end_with_nothing_left() {
    for (name, seed) in seeds("conversation") {
        let forwarded = conversation::run(&seed);
        expect(&name, if forwarded > 0 { "forwarded" } else { "nothing" });
    }
}

/// The target and the seeds exist for each entry of the fuzz crate.
#[test]
fn each_fuzz_target_has_seeds_and_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest: toml::Table = fs::read_to_string(root.join("fuzz/Cargo.toml"))
        .expect("it is there")
        .parse()
        .expect("TOML");
    let targets = manifest["bin"].as_array().expect("targets");
    let mut names: Vec<&str> =
        targets.iter().map(|target| target["name"].as_str().expect("a name")).collect();
    names.sort_unstable();
    assert_eq!(names, ["conversation", "decode", "frames", "records"]);
    let script = fs::read_to_string(root.join("scripts/fuzz")).expect("it is there");
    assert!(names.iter().all(|name| script.contains(name) && seeds(name).len() >= 4));
}
