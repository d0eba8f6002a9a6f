//! The two kinds of ids on the wire. Each is a type of its own, so that the compiler finds where one is used for the other.
//!
//! Ids are compared by value. Where the relay answers with an id of the client, it writes the id in the letters of the client,
//! because clients compare text. (protocol: Ids)

use std::fmt;
use std::hash::{Hash, Hasher};

use uuid::Uuid;

/// Id of a device; it never changes while the relay knows the device. (protocol: Ids)
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(Uuid);

/// Id of a message; chosen by the sender and unique within one pair of sender and recipient. (protocol: Ids)
///
/// Keeps the letters in which it was written; they do not count in a comparison.
#[derive(Clone, Copy)]
pub struct MessageId {
    id: Uuid,
    letters: Letters,
}

/// A recipient as its sender named it. The letters stand beside the id, since the id is a key of many tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipient {
    /// The device.
    pub id: DeviceId,
    /// The letters of its id.
    pub letters: Letters,
}

/// The letters of an id as a client wrote them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Letters {
    /// At least one is small.
    #[default]
    Small,
    /// None is small.
    Capital,
}

impl Letters {
    /// The letters of an id with the right spelling.
    fn of(text: &str) -> Self {
        let is_small = text.bytes().any(|byte| byte.is_ascii_lowercase());
        if is_small { Self::Small } else { Self::Capital }
    }

    fn encode(self, id: Uuid, buffer: &mut [u8; 36]) -> &str {
        match self {
            Self::Small => id.hyphenated().encode_lower(buffer),
            Self::Capital => id.hyphenated().encode_upper(buffer),
        }
    }
}

impl MessageId {
    /// Parses an id as the wire spells it; `None` for any other spelling and for the nil UUID.
    pub fn parse(text: &str) -> Option<Self> {
        parse(text).map(|id| Self { id, letters: Letters::of(text) })
    }

    /// The letters in which the relay writes the id.
    pub const fn letters(self) -> Letters {
        self.letters
    }

    /// The same id in these letters.
    pub const fn with_letters(self, letters: Letters) -> Self {
        Self { letters, ..self }
    }

    /// The id's 128 bits, for hashing and for storage.
    pub const fn to_u128(self) -> u128 {
        self.id.as_u128()
    }

    /// The reverse of [`Self::to_u128`], in small letters.
    pub const fn from_u128(bits: u128) -> Self {
        Self { id: Uuid::from_u128(bits), letters: Letters::Small }
    }

    /// Appends the id as the wire spells it: 36 bytes.
    pub fn write_to(self, out: &mut String) {
        out.push_str(self.letters.encode(self.id, &mut [0; 36]));
    }
}

impl PartialEq for MessageId {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for MessageId {}

impl Hash for MessageId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl Recipient {
    /// Parses an id as the wire spells it; `None` for any other spelling and for the nil UUID.
    pub fn parse(text: &str) -> Option<Self> {
        DeviceId::parse(text).map(|id| Self { id, letters: Letters::of(text) })
    }
}

/// A recipient that the sender did not name: in small letters.
impl From<DeviceId> for Recipient {
    fn from(id: DeviceId) -> Self {
        Self { id, letters: Letters::Small }
    }
}

impl DeviceId {
    /// A new id: a UUID v4, which has 122 random bits from the operating system.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

/// Parses the only spelling that the protocol allows: 8-4-4-4-12 hexadecimal digits of either case. A UUID of any version
/// is accepted; the nil UUID is not.
fn parse(text: &str) -> Option<Uuid> {
    // `try_parse` also reads the simple, braced and URN spellings; none of them is 36 bytes long.
    (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten().filter(|id| !id.is_nil())
}

impl DeviceId {
    /// Parses an id as the wire spells it; `None` for any other spelling and for the nil UUID.
    pub fn parse(text: &str) -> Option<Self> {
        parse(text).map(Self)
    }

    /// The id's 128 bits, for hashing and for storage.
    pub const fn to_u128(self) -> u128 {
        self.0.as_u128()
    }

    /// The reverse of [`Self::to_u128`].
    pub const fn from_u128(bits: u128) -> Self {
        Self(Uuid::from_u128(bits))
    }
}

macro_rules! write_id {
    ($name:ident, $id:expr, $letters:expr) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($letters(self).encode($id(self), &mut [0; 36]))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str($letters(self).encode($id(self), &mut [0; 36]))
            }
        }
    };
}

write_id!(DeviceId, |it: &Self| it.0, |_: &Self| Letters::Small);
write_id!(MessageId, |it: &Self| it.id, |it: &Self| it.letters);
write_id!(Recipient, |it: &Self| it.id.0, |it: &Self| it.letters);

/// The first 8 digits: enough to distinguish ids in a log that does not reveal them.
fn write_in_short(id: Uuid, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{:08x}…", id.as_fields().0)
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_in_short(self.0, f)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_in_short(self.id, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_in_either_case_and_compared_by_value() {
        let lower = DeviceId::parse("a1b2c3d4-e5f6-7890-1234-567890abcdef").unwrap();
        let upper = DeviceId::parse("A1B2C3D4-E5F6-7890-1234-567890ABCDEF").unwrap();
        assert_eq!(lower, upper);
        assert_eq!(upper.to_string(), "a1b2c3d4-e5f6-7890-1234-567890abcdef");
    }

    #[test]
    fn an_id_is_written_in_the_letters_of_its_client() {
        const SMALL: &str = "a1b2c3d4-e5f6-7890-1234-567890abcdef";
        const CAPITAL: &str = "A1B2C3D4-E5F6-7890-1234-567890ABCDEF";
        const MIXED: &str = "A1B2C3D4-E5F6-7890-1234-567890ABCDEf";
        const DIGITS: &str = "11111111-1111-4111-8111-111111111111";
        for (written, answered) in
            [(SMALL, SMALL), (CAPITAL, CAPITAL), (MIXED, SMALL), (DIGITS, DIGITS)]
        {
            let id = MessageId::parse(written).unwrap();
            let mut text = String::new();
            id.write_to(&mut text);
            assert_eq!([&text, &id.to_string()], [answered; 2]);
            assert_eq!(serde_json::to_value(id).unwrap(), answered);
            let recipient = Recipient::parse(written).unwrap();
            assert_eq!(recipient.to_string(), answered);
            assert_eq!(serde_json::to_value(recipient).unwrap(), answered);
            let stored = MessageId::from_u128(id.to_u128()).with_letters(id.letters());
            assert_eq!(stored.to_string(), answered);
        }
        let [small, capital] = [SMALL, CAPITAL].map(|text| MessageId::parse(text).unwrap());
        assert!(small == capital && std::collections::HashSet::from([small]).contains(&capital));
    }

    #[test]
    fn every_other_spelling_is_refused() {
        for text in [
            "",
            "00000000-0000-0000-0000-000000000000",
            "a1b2c3d4e5f678901234567890abcdef",
            "{a1b2c3d4-e5f6-7890-1234-567890abcdef}",
            "urn:uuid:a1b2c3d4-e5f6-7890-1234-567890abcdef",
            " a1b2c3d4-e5f6-7890-1234-567890abcdef",
            "a1b2c3d4-e5f6-7890-1234-567890abcdeg",
            "a1b2c3d4-e5f6-7890-1234-567890abcd\u{ff11}",
            "a1b2c3d4-e5f6-78901-234-567890abcdef",
            "a1b2c3d4-e5f6-7890-1234-567890abcde",
        ] {
            assert_eq!(DeviceId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_log_line_shows_the_first_eight_digits_only() {
        let id = MessageId::parse("a1b2c3d4-e5f6-7890-1234-567890abcdef").unwrap();
        assert_eq!(format!("{id:?}"), "a1b2c3d4…");
    }
}
