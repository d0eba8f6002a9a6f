//! The two kinds of ids on the wire. Each is a type of its own, so that the compiler finds where one is used for the other.

use std::fmt;

use uuid::Uuid;

/// Id of a device; it never changes while the relay knows the device. (protocol: Ids)
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(Uuid);

/// Id of a message; chosen by the sender and unique within one pair of sender and recipient. (protocol: Ids)
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(Uuid);

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

macro_rules! wire_id {
    ($name:ident) => {
        impl $name {
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

            /// Appends the id as the wire spells it: 36 bytes, lower case.
            pub fn write_to(self, out: &mut String) {
                out.push_str(self.0.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        /// The first 8 digits: enough to distinguish ids in a log that does not reveal them.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:08x}…", self.0.as_fields().0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
    };
}

wire_id!(DeviceId);
wire_id!(MessageId);

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
