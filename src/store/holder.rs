//! Who holds the queue: recipients, senders, origins and access tokens, by name and in order. The queue on disk and the relay
//! that runs are looked at in these words.

use std::cmp::Reverse;
use std::sync::Arc;

use serde::Serialize;

use crate::access;
use crate::protocol::envelope::Origin;
use crate::protocol::id::DeviceId;

/// Whose items.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    /// All that waits for a device.
    Recipient(DeviceId),
    /// All that a device has sent and that waits.
    Sender(DeviceId),
    /// All that the devices of an origin have sent and that waits.
    Origin(Origin),
    /// All that the devices of an access token have sent and that waits.
    Access(Arc<str>),
}

/// Messages and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// With the fixed part that each message counts.
    pub bytes: u64,
    /// Their number.
    pub messages: u64,
}

/// A holder as text, and what it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HolderRow {
    /// `recipient`, `sender`, `origin` or `access`.
    pub holder: &'static str,
    /// As [`Holder::parse`] reads it; `none` for messages without an origin.
    pub id: String,
    pub messages: u64,
    pub bytes: u64,
}

/// The largest holders of each kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Top {
    pub holders: Vec<HolderRow>,
}

impl Top {
    /// The `count` largest recipients, senders, origins and access tokens, in this order.
    pub fn of(held: impl IntoIterator<Item = (Holder, Held)>, count: usize) -> Self {
        let mut held: Vec<_> = held.into_iter().collect();
        held.sort_unstable_by(|(one, of_one), (other, of_other)| {
            (one.place(), Reverse(of_one), one).cmp(&(other.place(), Reverse(of_other), other))
        });
        let same_kind = held.chunk_by(|(one, _), (other, _)| one.place() == other.place());
        let rows = same_kind.flat_map(|same_kind| same_kind.iter().take(count));
        let row = |(holder, held): &(Holder, Held)| HolderRow {
            holder: holder.kind(),
            id: holder.name(),
            messages: held.messages,
            bytes: held.bytes,
        };
        Self { holders: rows.map(row).collect() }
    }
}

impl Holder {
    /// Reads the one that is named, as [`Top`] writes it.
    ///
    /// # Errors
    ///
    /// A sentence: none or several are named, or what is no id of a device, no origin or no name of a token.
    pub fn parse(
        recipient: Option<&str>,
        sender: Option<&str>,
        origin: Option<&str>,
        access: Option<&str>,
    ) -> Result<Self, &'static str> {
        let device = |text| DeviceId::parse(text).ok_or("a device id is a UUID, written in full");
        match (recipient, sender, origin, access) {
            (Some(id), None, None, None) => device(id).map(Self::Recipient),
            (None, Some(id), None, None) => device(id).map(Self::Sender),
            (None, None, Some(origin), None) => parse_origin(origin).map(Self::Origin),
            (None, None, None, Some(name)) if access::is_name(name) => {
                Ok(Self::Access(name.into()))
            }
            (None, None, None, Some(_)) => Err(
                "the name of an access token has 1 to 64 letters, digits, points, hyphens or underscores",
            ),
            _ => Err("name one of recipient, sender, origin and access"),
        }
    }

    /// `recipient`, `sender`, `origin` or `access`.
    pub fn kind(&self) -> &'static str {
        ["recipient", "sender", "origin", "access"][self.place()]
    }

    /// The id, origin or name.
    pub fn name(&self) -> String {
        match self {
            Self::Recipient(id) | Self::Sender(id) => id.to_string(),
            Self::Origin(Origin::NONE) => "none".to_owned(),
            Self::Origin(origin) => format!("{:016x}", origin.0),
            Self::Access(name) => name.to_string(),
        }
    }

    fn place(&self) -> usize {
        match self {
            Self::Recipient(_) => 0,
            Self::Sender(_) => 1,
            Self::Origin(_) => 2,
            Self::Access(_) => 3,
        }
    }
}

fn parse_origin(text: &str) -> Result<Origin, &'static str> {
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let origin = digits.then(|| u64::from_str_radix(text, 16).ok()).flatten();
    origin
        .map(Origin)
        .ok_or("an origin has 16 hexadecimal digits, as `sealpost queue top` prints it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_read_as_it_is_printed_and_nothing_else_is() {
        let id = "d8f8a9b0-f6e1-4a2b-8d7c-1e9f0a1b2c3d";
        let device = DeviceId::parse(id).expect("an id");
        let holders = [
            (Holder::parse(Some(id), None, None, None), Holder::Recipient(device)),
            (Holder::parse(None, Some(id), None, None), Holder::Sender(device)),
            (
                Holder::parse(None, None, Some("00000000000000ff"), None),
                Holder::Origin(Origin(255)),
            ),
            (Holder::parse(None, None, None, Some("acme")), Holder::Access("acme".into())),
        ];
        for (parsed, holder) in holders {
            assert_eq!(parsed, Ok(holder));
        }
        for wrong in ["ff", "none", "+00000000000000f", ""] {
            assert!(Holder::parse(None, None, Some(wrong), None).is_err(), "{wrong}");
        }
        assert!(Holder::parse(Some("nobody"), None, None, None).is_err());
        assert!(Holder::parse(None, None, None, Some("a b")).is_err());
        assert!(Holder::parse(Some(id), Some(id), None, None).is_err());
        assert!(Holder::parse(None, None, None, None).is_err());
    }

    #[test]
    fn the_largest_of_each_kind_come_first() {
        let access = |name: &str| Holder::Access(name.into());
        let held = |bytes, messages| Held { bytes, messages };
        let all = [
            (access("small"), held(1, 9)),
            (access("large"), held(9, 1)),
            (access("middle"), held(5, 1)),
            (Holder::Origin(Origin::NONE), held(2, 1)),
        ];
        let top = Top::of(all, 2);
        let ids: Vec<_> = top.holders.iter().map(|row| (row.holder, row.id.as_str())).collect();
        assert_eq!(ids, [("origin", "none"), ("access", "large"), ("access", "middle")]);
    }
}
