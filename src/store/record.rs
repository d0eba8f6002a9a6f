//! How a record looks on disk.
//!
//! Little-endian, a version in front, a checksum behind: what was torn or flipped is noticed and dropped, never
//! delivered. Times are Unix milliseconds, since the monotonic clock does not outlive the machine.

use bytestring::ByteString;
use xxhash_rust::xxh3::xxh3_64;

use super::Remember;
use crate::protocol::envelope::{Envelope, Seq, Subject};
use crate::protocol::id::{DeviceId, MessageId};

/// The version that is written. A reader of another version drops nothing silently: it is_failing to start.
pub const VERSION: u8 = 1;

/// An envelope as it is kept.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its place in the order of arrival; the key, not part of the value.
    pub seq: Seq,
    /// For whom.
    pub to: DeviceId,
    /// When it expires; `u64::MAX` if never.
    pub expires_ms: u64,
    /// What.
    pub envelope: Envelope,
}

/// An identity as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredDevice {
    /// SHA-256 of its resume token.
    pub token: Option<[u8; 32]>,
    /// When it is forgotten; `None` while it is connected.
    pub ends_ms: Option<u64>,
}

/// A message that is gone, as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredPrint {
    /// What is remembered.
    pub remember: Remember,
    /// Since when.
    pub at_ms: u64,
}

impl Stored {
    /// The value under the record's sequence.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Envelope { from, subject, ttl, body, receipts, content } = &self.envelope;
        out.clear();
        let (kind, id, key_id) = match subject {
            Subject::Message(id) => (0, id.to_u128(), ""),
            Subject::KeyRotation(key) => (1, 0, &**key),
            Subject::KeyRotationAck(key) => (2, 0, &**key),
            Subject::Auth => (3, 0, ""),
            Subject::Notice => (4, 0, ""),
        };
        out.extend_from_slice(&[VERSION, kind, u8::from(*receipts)]);
        out.extend_from_slice(&from.to_u128().to_le_bytes());
        out.extend_from_slice(&self.to.to_u128().to_le_bytes());
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(&ttl.to_le_bytes());
        out.extend_from_slice(&self.expires_ms.to_le_bytes());
        out.extend_from_slice(&content.to_le_bytes());
        out.extend_from_slice(&(key_id.len() as u32).to_le_bytes());
        out.extend_from_slice(key_id.as_bytes());
        out.extend_from_slice(body.as_bytes());
        seal(self.seq, out);
    }

    /// Reads a value back; `None` if it is damaged.
    #[must_use]
    pub fn decode(seq: Seq, value: &[u8]) -> Option<Self> {
        let mut from = Reader(unseal(seq, value)?);
        let [version, kind, receipts] = from.array()?;
        if version != VERSION {
            return None;
        }
        let (sender, to, id) = (from.u128()?, from.u128()?, from.u128()?);
        let (ttl, expires_ms, content) = (from.u64()?, from.u64()?, from.u64()?);
        let key_id = u32::from_le_bytes(from.array()?) as usize;
        let key_id = || -> Option<(Box<str>, &[u8])> {
            let (key_id, body) = from.0.split_at_checked(key_id)?;
            Some((std::str::from_utf8(key_id).ok()?.into(), body))
        };
        let (key_id, body) = key_id()?;
        let subject = match kind {
            0 => Subject::Message(MessageId::from_u128(id)),
            1 => Subject::KeyRotation(key_id),
            2 => Subject::KeyRotationAck(key_id),
            3 => Subject::Auth,
            4 => Subject::Notice,
            _ => return None,
        };
        let envelope = Envelope {
            from: DeviceId::from_u128(sender),
            subject,
            ttl,
            body: ByteString::from(std::str::from_utf8(body).ok()?),
            receipts: receipts != 0,
            content,
        };
        Some(Self { seq, to: DeviceId::from_u128(to), expires_ms, envelope })
    }
}

impl StoredDevice {
    /// The value under the device's id.
    pub fn encode(self, id: DeviceId, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&[VERSION, u8::from(self.token.is_some())]);
        out.extend_from_slice(&self.token.unwrap_or_default());
        out.extend_from_slice(&self.ends_ms.unwrap_or(u64::MAX).to_le_bytes());
        seal(salt(id), out);
    }

    /// Reads a value back; `None` if it is damaged.
    #[must_use]
    pub fn decode(id: DeviceId, value: &[u8]) -> Option<Self> {
        let mut from = Reader(unseal(salt(id), value)?);
        let [version, resumable] = from.array()?;
        if version != VERSION {
            return None;
        }
        let (token, ends) = (from.array::<32>()?, from.u64()?);
        Some(Self {
            token: (resumable != 0).then_some(token),
            ends_ms: (ends != u64::MAX).then_some(ends),
        })
    }
}

impl StoredPrint {
    /// The value that holds these, in order, under a key of its own.
    pub fn encode(prints: &[Self], key: u64, out: &mut Vec<u8>) {
        out.clear();
        out.push(VERSION);
        for Self { remember: Remember { sender, key, content }, at_ms } in prints {
            out.extend_from_slice(&sender.to_u128().to_le_bytes());
            out.extend_from_slice(&key.to_le_bytes());
            out.extend_from_slice(&content.to_le_bytes());
            out.extend_from_slice(&at_ms.to_le_bytes());
        }
        seal(key, out);
    }

    /// Reads a value back; `None` if it is damaged.
    #[must_use]
    pub fn decode(key: u64, value: &[u8]) -> Option<Vec<Self>> {
        let mut from = Reader(unseal(key, value)?);
        if from.array()? != [VERSION] {
            return None;
        }
        let mut prints = Vec::new();
        while !from.0.is_empty() {
            let sender = DeviceId::from_u128(from.u128()?);
            let (key, content, at_ms) = (from.u64()?, from.u64()?, from.u64()?);
            prints.push(Self { remember: Remember { sender, key, content }, at_ms });
        }
        Some(prints)
    }
}

fn salt(id: DeviceId) -> u64 {
    let bits = id.to_u128();
    (bits >> 64) as u64 ^ bits as u64
}

/// The checksum covers the key, so a value under the wrong key is noticed, too.
fn checksum(key: u64, value: &[u8]) -> u64 {
    xxh3_64(value) ^ key.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn seal(key: u64, value: &mut Vec<u8>) {
    let sum = checksum(key, value);
    value.extend_from_slice(&sum.to_le_bytes());
}

fn unseal(key: u64, value: &[u8]) -> Option<&[u8]> {
    let (value, sum) = value.split_last_chunk::<8>()?;
    (checksum(key, value) == u64::from_le_bytes(*sum)).then_some(value)
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(subject: Subject) -> Stored {
        Stored {
            seq: 7,
            to: DeviceId::from_u128(2),
            expires_ms: 99,
            envelope: Envelope {
                from: DeviceId::from_u128(1),
                subject,
                ttl: 300,
                body: ByteString::from_static("{\"x\":1}"),
                receipts: true,
                content: 5,
            },
        }
    }

    fn encoded(stored: &Stored) -> Vec<u8> {
        let mut value = Vec::new();
        stored.encode(&mut value);
        value
    }

    #[test]
    fn what_is_written_is_read_back() {
        for subject in [
            Subject::Message(MessageId::from_u128(3)),
            Subject::KeyRotation("\"k\"".into()),
            Subject::KeyRotationAck("17".into()),
            Subject::Auth,
            Subject::Notice,
        ] {
            let before = stored(subject);
            let after = Stored::decode(7, &encoded(&before)).unwrap();
            assert_eq!(format!("{after:?}"), format!("{before:?}"));
        }
        for token in [None, Some([9; 32])] {
            for ends_ms in [None, Some(5)] {
                let (device, mut value) = (StoredDevice { token, ends_ms }, Vec::new());
                device.encode(DeviceId::from_u128(4), &mut value);
                assert_eq!(StoredDevice::decode(DeviceId::from_u128(4), &value), Some(device));
            }
        }
        let remember = Remember { sender: DeviceId::from_u128(1), key: 2, content: 3 };
        let mut value = Vec::new();
        for prints in [vec![], vec![StoredPrint { remember, at_ms: 4 }; 3]] {
            StoredPrint::encode(&prints, 8, &mut value);
            assert_eq!(StoredPrint::decode(8, &value), Some(prints));
        }
    }

    #[test]
    fn every_flipped_bit_every_cut_and_a_wrong_key_are_noticed() {
        let value = encoded(&stored(Subject::KeyRotation("17".into())));
        for bit in 0..value.len() * 8 {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Stored::decode(7, &flipped).is_none(), "bit {bit}");
        }
        for length in 0..value.len() {
            assert!(Stored::decode(7, &value[..length]).is_none(), "length {length}");
        }
        assert!(Stored::decode(8, &value).is_none());
    }
}
