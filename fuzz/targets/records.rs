//! Records of the database: damaged ones are refused, and what is read can be written and read again.

use sealpost::protocol::id::DeviceId;
use sealpost::store::boots::BootRecord;
use sealpost::store::records::{
    CorrespondentRecord, DeviceRecord, Fingerprint, MessageRecord, layout,
};
use xxhash_rust::xxh3::xxh3_64;

/// The first byte selects the kind of record, and whether the rest is a whole value or its fields, to which a layout and a
/// sound checksum are added: a checksum is nothing that a fuzzer guesses. Returns whether a record was read.
pub fn run(data: &[u8]) -> bool {
    let Some(([choice, key @ ..], bytes)) = data.split_first_chunk::<9>() else { return false };
    let key = u64::from_le_bytes(*key);
    let layout = match choice & 0x7f {
        0 => layout::MESSAGE,
        1 => layout::DEVICE,
        2 => layout::FINGERPRINTS,
        4 => layout::BOOT,
        _ => layout::CORRESPONDENT,
    };
    let value =
        |key: u64| if choice & 0x80 == 0 { seal(layout, key, bytes) } else { bytes.to_vec() };
    let id = DeviceId::from_u128(u128::from(key));
    let mut out = Vec::new();
    match choice & 0x7f {
        0 => MessageRecord::decode(key, &value(key)).is_some_and(|record| {
            record.encode(&mut out);
            let again = MessageRecord::decode(key, &out);
            assert_eq!(format!("{again:?}"), format!("{:?}", Some(record)));
            true
        }),
        1 => DeviceRecord::decode(id, &value(key)).is_some_and(|record| {
            record.encode(&mut out);
            assert_eq!(DeviceRecord::decode(id, &out), Some(record));
            true
        }),
        2 => Fingerprint::decode(key, &value(key)).is_some_and(|row| {
            Fingerprint::encode(&row, key, &mut out);
            assert_eq!(Fingerprint::decode(key, &out), Some(row));
            true
        }),
        4 => BootRecord::decode(key as u32, &value(u64::from(key as u32))).is_some_and(|record| {
            record.encode(&mut out);
            assert_eq!(BootRecord::decode(key as u32, &out), Some(record));
            true
        }),
        _ => {
            let number = bytes.first_chunk().map_or(0, |number| u64::from_le_bytes(*number));
            CorrespondentRecord::decode(id, &value(key ^ number)).is_some_and(|record| {
                record.encode(&mut out);
                assert_eq!(CorrespondentRecord::decode(id, &out), Some(record));
                true
            })
        }
    }
}

/// As the module of the records does it; the seeds show that both still agree.
fn seal(layout: u8, key: u64, fields: &[u8]) -> Vec<u8> {
    let mut value = [&[layout], fields].concat();
    let sum = xxh3_64(&value) ^ key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    value.extend_from_slice(&sum.to_le_bytes());
    value
}
