//! One record for each thing that outlives the process: a message, a device, the fingerprint of a message that is gone.
//!
//! The same type is put, encoded and loaded. Times are in the time of the boot in which they were put, see [`super::boots`].
//! A value on disk is little-endian, with a version in front and a checksum behind: a torn or flipped value is
//! counted and dropped, never delivered.

use std::time::Duration;

use bytestring::ByteString;
use xxhash_rust::xxh3::xxh3_64;

use super::boots::{BootTime, Boots};
use super::history::History;
use crate::access;
use crate::clock::{Moment, Now};
use crate::protocol::envelope::{AccessKey, Envelope, NoticeKind, Origin, Seq, Subject};
use crate::protocol::frame::Accept;
use crate::protocol::id::{DeviceId, Letters, MessageId};

/// The format of a database: what its tables hold, and how. A start migrates an older format, see `migrate`.
pub const VERSION: u8 = 4;

/// The first byte of a record: the format in which the layout of its kind last changed. A migration rewrites only the
/// records whose layout changes.
pub mod layout {
    pub const MESSAGE: u8 = 3;
    pub const DEVICE: u8 = 4;
    pub const CORRESPONDENT: u8 = 3;
    pub const FINGERPRINTS: u8 = 3;
    pub const BOOT: u8 = 3;
}

/// A message that waits or is in flight. A put borrows the envelope, so that a store that keeps nothing copies nothing.
#[derive(Debug, Clone)]
pub struct MessageRecord<E = Envelope> {
    /// Position in the order of arrival; the key in the database, not part of the value.
    pub seq: Seq,
    /// The recipient.
    pub to: DeviceId,
    pub expires_at: BootTime,
    pub envelope: E,
}

/// A device that outlives its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRecord {
    pub id: DeviceId,
    /// SHA-256 of the resume token; a plain device has none.
    pub token: Option<[u8; 32]>,
    /// SHA-256 of a newer token that no connection has used yet.
    pub next_token: Option<[u8; 32]>,
    /// `None` while the device is connected.
    pub forget_at: Option<BootTime>,
    pub origin: Origin,
    /// Something was sent or received, or the device was resumed.
    pub used: bool,
    pub accept: Accept,
    /// The connection there is, or the last one, asked for receipts.
    pub receipts: bool,
    /// Unix milliseconds by the wall clock at registration; 0 if that is not known, as of a device of format 3.
    pub registered_at: i64,
    /// An operator has closed the relay to the device.
    pub blocked: bool,
    /// The name of the access token by which the device registered, see [`access::is_name`].
    pub access: Option<Box<str>>,
    /// As of the last time that the record was written.
    pub history: History,
}

/// A device to which another device has written, by a keyed hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CorrespondentRecord {
    pub device: DeviceId,
    /// Counts the correspondents of the device, from 0. A record replaces the one whose number is [`MAX_CORRESPONDENTS`]
    /// lower.
    pub number: u64,
    pub hash: u64,
}

/// Correspondents that are kept of one device, the newest.
pub const MAX_CORRESPONDENTS: usize = 512;

/// The secret of this relay's hashes of devices and networks; made once for each database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HashKey(pub u64);

/// A message by its hashes: its sender may repeat the message because the Ack was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    pub sender: DeviceId,
    /// Hash of the message's id and recipient.
    pub key: u64,
    /// Hash of the message's content.
    pub content: u64,
    /// When the message left the store; meaningless for a message that is still here.
    pub recorded_at: BootTime,
}

/// The flags of a message: see [`Envelope::from_unknown`].
const FROM_UNKNOWN: u8 = 1;
/// The sender wrote the letters of the message's id as capitals.
const MESSAGE_ID_CAPITAL: u8 = 2;
/// The sender wrote the letters of the recipient's id as capitals.
const RECIPIENT_CAPITAL: u8 = 4;

/// The id in the record of everything but a message.
const NO_ID: MessageId = MessageId::from_u128(0);

impl MessageRecord {
    /// The deadline in the time of the current boot. The time left never exceeds the ttl.
    pub fn deadline(&self, boots: &Boots, now: Now) -> Moment {
        boots.moment(now, self.expires_at, Duration::from_secs(self.envelope.ttl))
    }

    /// Writes the value for the key `seq` to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Envelope {
            from,
            subject,
            ttl,
            body,
            receipts,
            content,
            origin,
            // A restart goes by the sender.
            access: _,
            from_unknown,
            recipient_letters,
        } = &self.envelope;
        out.clear();
        let (kind, id, key_id) = match subject {
            Subject::Message(id) => (0, *id, ""),
            Subject::KeyRotation(key) => (1, NO_ID, &**key),
            Subject::KeyRotationAck(key) => (2, NO_ID, &**key),
            Subject::Auth => (3, NO_ID, ""),
            Subject::Notice { kind: NoticeKind::Error, .. } => (4, NO_ID, ""),
            Subject::Notice { kind: NoticeKind::Receipt, .. } => (5, NO_ID, ""),
        };
        let flags = [
            (*from_unknown, FROM_UNKNOWN),
            (id.letters() == Letters::Capital, MESSAGE_ID_CAPITAL),
            (*recipient_letters == Letters::Capital, RECIPIENT_CAPITAL),
        ];
        let flags = flags.iter().filter(|(is_set, _)| *is_set).fold(0, |all, (_, flag)| all | flag);
        out.extend_from_slice(&[layout::MESSAGE, kind, u8::from(*receipts), flags]);
        out.extend_from_slice(&from.to_u128().to_le_bytes());
        out.extend_from_slice(&self.to.to_u128().to_le_bytes());
        out.extend_from_slice(&id.to_u128().to_le_bytes());
        let number = if let Subject::Notice { bytes, .. } = subject { bytes } else { ttl };
        out.extend_from_slice(&number.to_le_bytes());
        put_time(self.expires_at, out);
        out.extend_from_slice(&content.to_le_bytes());
        out.extend_from_slice(&origin.0.to_le_bytes());
        out.extend_from_slice(&(key_id.len() as u32).to_le_bytes());
        out.extend_from_slice(key_id.as_bytes());
        out.extend_from_slice(body.as_bytes());
        seal(self.seq, out);
    }

    /// `None` if the value is damaged.
    pub fn decode(seq: Seq, value: &[u8]) -> Option<Self> {
        let mut from = Reader::open(layout::MESSAGE, seq, value)?;
        let [kind, receipts, flags] = from.array()?;
        let (sender, to, id) = (from.u128()?, from.u128()?, from.u128()?);
        let (number, expires_at, content) = (from.u64()?, from.time()?, from.u64()?);
        let origin = Origin(from.u64()?);
        let key_id_bytes = u32::from_le_bytes(from.array()?) as usize;
        let key_id = from.text(key_id_bytes)?;
        let letters = |flag: u8| if flags & flag == 0 { Letters::Small } else { Letters::Capital };
        let id = MessageId::from_u128(id).with_letters(letters(MESSAGE_ID_CAPITAL));
        let subject = match kind {
            0 => Subject::Message(id),
            1 => Subject::KeyRotation(key_id.into()),
            2 => Subject::KeyRotationAck(key_id.into()),
            3 => Subject::Auth,
            4 => Subject::Notice { kind: NoticeKind::Error, bytes: number },
            5 => Subject::Notice { kind: NoticeKind::Receipt, bytes: number },
            _ => return None,
        };
        let envelope = Envelope {
            from: DeviceId::from_u128(sender),
            ttl: if matches!(subject, Subject::Notice { .. }) { 0 } else { number },
            subject,
            body: ByteString::from(std::str::from_utf8(from.0).ok()?),
            receipts: receipts != 0,
            content,
            origin,
            access: AccessKey::NONE,
            from_unknown: flags & FROM_UNKNOWN != 0,
            recipient_letters: letters(RECIPIENT_CAPITAL),
        };
        Some(Self { seq, to: DeviceId::from_u128(to), expires_at, envelope })
    }
}

impl DeviceRecord {
    /// Writes the value for the device's id to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        let only_correspondents = self.accept == Accept::Correspondents;
        let (resumable, renewed) = (self.token.is_some(), self.next_token.is_some());
        let flags =
            [resumable, renewed, self.used, only_correspondents, self.receipts, self.blocked];
        // Names are checked where they are made; any other would make the whole record unreadable.
        let access =
            self.access.as_deref().filter(|name| access::is_name(name)).unwrap_or_default();
        out.push(layout::DEVICE);
        out.extend_from_slice(&flags.map(u8::from));
        out.extend_from_slice(&self.token.unwrap_or_default());
        out.extend_from_slice(&self.next_token.unwrap_or_default());
        put_time(self.forget_at.unwrap_or(BootTime::NEVER), out);
        out.extend_from_slice(&self.origin.0.to_le_bytes());
        out.extend_from_slice(&self.registered_at.to_le_bytes());
        out.push(access.len() as u8);
        out.extend_from_slice(access.as_bytes());
        self.history.encode(out);
        seal(salt(self.id), out);
    }

    /// Reads the layouts of all formats that can be migrated. `None` if the value is damaged.
    pub fn decode(id: DeviceId, value: &[u8]) -> Option<Self> {
        let layout = *value.first()?;
        if !(3..=layout::DEVICE).contains(&layout) {
            return None;
        }
        let mut from = Reader::open(layout, salt(id), value)?;
        let [resumable, renewed, used, only_correspondents, receipts] =
            from.array()?.map(|flag: u8| flag != 0);
        let blocked = layout >= 4 && from.array::<1>()? != [0];
        let (token, next_token) = (from.array::<32>()?, from.array::<32>()?);
        let forget_at = from.time()?;
        let origin = Origin(from.u64()?);
        let (mut registered_at, mut access) = (0, "");
        if layout >= 4 {
            registered_at = i64::from_le_bytes(from.array()?);
            let [access_bytes] = from.array()?;
            access = from.text(usize::from(access_bytes))?;
        }
        if !access.is_empty() && !access::is_name(access) {
            return None;
        }
        Some(Self {
            id,
            token: resumable.then_some(token),
            next_token: renewed.then_some(next_token),
            forget_at: (forget_at != BootTime::NEVER).then_some(forget_at),
            origin,
            used,
            accept: if only_correspondents { Accept::Correspondents } else { Accept::Anyone },
            receipts,
            registered_at,
            blocked,
            access: (!access.is_empty()).then(|| access.into()),
            history: History::decode(&mut from)?,
        })
    }
}

impl CorrespondentRecord {
    /// The key of the record: the device, and the place of the number.
    pub fn key(&self) -> (u128, u16) {
        let place = self.number % MAX_CORRESPONDENTS as u64;
        (self.device.to_u128(), place as u16)
    }

    /// Writes the value for [`Self::key`] to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        out.push(layout::CORRESPONDENT);
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.hash.to_le_bytes());
        seal(salt(self.device) ^ self.number, out);
    }

    /// `None` if the value is damaged.
    pub fn decode(device: DeviceId, value: &[u8]) -> Option<Self> {
        let number = value.get(1..9)?.try_into().ok().map(u64::from_le_bytes)?;
        let mut from = Reader::open(layout::CORRESPONDENT, salt(device) ^ number, value)?;
        Some(Self { device, number: from.u64()?, hash: from.u64()? })
    }
}

impl Fingerprint {
    /// Writes the value of one row, fingerprints in order, to `out`.
    pub fn encode(row: &[Self], key: u64, out: &mut Vec<u8>) {
        out.clear();
        out.push(layout::FINGERPRINTS);
        for Self { sender, key, content, recorded_at } in row {
            out.extend_from_slice(&sender.to_u128().to_le_bytes());
            out.extend_from_slice(&key.to_le_bytes());
            out.extend_from_slice(&content.to_le_bytes());
            put_time(*recorded_at, out);
        }
        seal(key, out);
    }

    /// `None` if the value is damaged.
    pub fn decode(key: u64, value: &[u8]) -> Option<Vec<Self>> {
        let mut from = Reader::open(layout::FINGERPRINTS, key, value)?;
        let mut row = Vec::new();
        while !from.0.is_empty() {
            let sender = DeviceId::from_u128(from.u128()?);
            let (key, content, recorded_at) = (from.u64()?, from.u64()?, from.time()?);
            row.push(Self { sender, key, content, recorded_at });
        }
        Some(row)
    }
}

fn salt(id: DeviceId) -> u64 {
    let bits = id.to_u128();
    (bits >> 64) as u64 ^ bits as u64
}

/// The checksum covers the key, so a value under the wrong key is detected, too.
fn checksum(key: u64, value: &[u8]) -> u64 {
    xxh3_64(value) ^ key.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

pub(super) fn seal(key: u64, value: &mut Vec<u8>) {
    let sum = checksum(key, value);
    value.extend_from_slice(&sum.to_le_bytes());
}

fn put_time(time: BootTime, out: &mut Vec<u8>) {
    out.extend_from_slice(&time.boot.to_le_bytes());
    out.extend_from_slice(&time.at.0.to_le_bytes());
}

/// The bytes that are still to be read.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// `None` if the checksum or the layout does not match.
    pub(super) fn open(layout: u8, key: u64, value: &'a [u8]) -> Option<Self> {
        let (value, sum) = value.split_last_chunk::<8>()?;
        let (found, fields) = value.split_first()?;
        let fits = checksum(key, value) == u64::from_le_bytes(*sum) && *found == layout;
        fits.then_some(Self(fields))
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn text(&mut self, bytes: usize) -> Option<&'a str> {
        let (text, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn time(&mut self) -> Option<BootTime> {
        Some(BootTime { boot: u32::from_le_bytes(self.array()?), at: Moment(self.u64()?) })
    }

    pub(super) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::refusal::Refusal;

    fn record(subject: Subject) -> MessageRecord {
        MessageRecord {
            seq: 7,
            to: DeviceId::from_u128(2),
            expires_at: BootTime { boot: 3, at: Moment(99) },
            envelope: Envelope {
                from: DeviceId::from_u128(1),
                subject,
                ttl: 300,
                body: ByteString::from_static("{\"x\":1}"),
                receipts: true,
                content: 5,
                origin: Origin(11),
                access: AccessKey::NONE,
                from_unknown: true,
                recipient_letters: Letters::Small,
            },
        }
    }

    fn history(refused: usize) -> History {
        let now = Now { mono: Moment(1), wall_ms: 1_700_000_000_000 };
        let mut history = History { accepted: refused as u32, ..History::default() };
        for _ in 0..refused {
            history.count_refusal(now, Refusal::QueueFull);
            history.count_refusal(now, Refusal::UnknownRecipient);
            history.count_expired(now);
        }
        history
    }

    fn encoded(record: &MessageRecord) -> Vec<u8> {
        let mut value = Vec::new();
        record.encode(&mut value);
        value
    }

    #[test]
    fn a_record_is_decoded_as_it_was_encoded() {
        for subject in [
            Subject::Message(MessageId::from_u128(3)),
            Subject::KeyRotation("\"k\"".into()),
            Subject::KeyRotationAck("17".into()),
            Subject::Auth,
            Subject::Notice { kind: NoticeKind::Error, bytes: 356 },
            Subject::Notice { kind: NoticeKind::Receipt, bytes: 300 },
        ] {
            let is_notice = matches!(subject, Subject::Notice { .. });
            let mut before = record(subject);
            before.envelope.ttl = if is_notice { 0 } else { 300 };
            let after = MessageRecord::decode(7, &encoded(&before)).unwrap();
            assert_eq!(format!("{after:?}"), format!("{before:?}"));
        }
        for id in [Letters::Small, Letters::Capital] {
            for recipient in [Letters::Small, Letters::Capital] {
                let id = MessageId::from_u128(0xabc).with_letters(id);
                let mut before = record(Subject::Message(id));
                before.envelope.recipient_letters = recipient;
                let after = MessageRecord::decode(7, &encoded(&before)).unwrap();
                let Subject::Message(after_id) = after.envelope.subject else { panic!() };
                assert_eq!(after_id.to_string(), id.to_string());
                assert_eq!(after.envelope.recipient_letters, recipient);
                assert!(after.envelope.from_unknown);
            }
        }
        for token in [None, Some([9; 32])] {
            let names =
                [None, Some("a"), Some("Team-1_b.c"), Some(&*"x".repeat(access::LONGEST_NAME))];
            for (access, forget_at) in names
                .iter()
                .flat_map(|name| [(name, None), (name, Some(BootTime { boot: 1, at: Moment(5) }))])
            {
                let id = DeviceId::from_u128(4);
                let (device, mut value) = (
                    DeviceRecord {
                        id,
                        token,
                        next_token: token.map(|_| [8; 32]),
                        forget_at,
                        origin: Origin(6),
                        used: token.is_some(),
                        accept: token.map_or(Accept::Anyone, |_| Accept::Correspondents),
                        receipts: token.is_none(),
                        registered_at: 1_700_000_000_123,
                        blocked: access.is_some(),
                        access: access.map(Into::into),
                        history: history(access.map_or(0, str::len)),
                    },
                    Vec::new(),
                );
                device.encode(&mut value);
                assert_eq!(DeviceRecord::decode(id, &value), Some(device));
            }
        }
        let correspondent =
            CorrespondentRecord { device: DeviceId::from_u128(4), number: 513, hash: 7 };
        let mut value = Vec::new();
        correspondent.encode(&mut value);
        assert_eq!(CorrespondentRecord::decode(correspondent.device, &value), Some(correspondent));
        assert_eq!(correspondent.key(), (4, 1));
        let sender = DeviceId::from_u128(1);
        let recorded_at = BootTime { boot: 5, at: Moment(4) };
        let fingerprint = Fingerprint { sender, key: 2, content: 3, recorded_at };
        let mut value = Vec::new();
        for row in [vec![], vec![fingerprint; 3]] {
            Fingerprint::encode(&row, 8, &mut value);
            assert_eq!(Fingerprint::decode(8, &value), Some(row));
        }
    }

    #[test]
    fn every_flipped_bit_every_cut_and_a_wrong_key_are_detected() {
        let value = encoded(&record(Subject::KeyRotation("17".into())));
        for bit in 0..value.len() * 8 {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(MessageRecord::decode(7, &flipped).is_none(), "bit {bit}");
        }
        for length in 0..value.len() {
            assert!(MessageRecord::decode(7, &value[..length]).is_none(), "length {length}");
        }
        assert!(MessageRecord::decode(8, &value).is_none());
    }
}
