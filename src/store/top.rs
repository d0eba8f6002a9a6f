//! Who holds most of the queue on disk, and an end to what one of them holds: `sealpost queue top` and `sealpost queue drop`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::Hash;
use std::path::Path;
use std::time::Duration;

use super::boots::BootTime;
use super::database::Changes;
use super::inspect;
use super::open::OpenError;
use super::records::MessageRecord;
use crate::clock::Clock;
use crate::protocol::envelope::Origin;
use crate::protocol::id::DeviceId;

/// Whose items `queue drop` ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Everything that waits for a device.
    Recipient(DeviceId),
    /// Everything of a device that waits.
    Sender(DeviceId),
    /// Everything of the devices of an origin that waits.
    Origin(Origin),
}

impl Holder {
    /// Reads the one that is named, as [`top`] prints it.
    ///
    /// # Errors
    ///
    /// A sentence: what is no id of a device, or no origin.
    pub fn parse(
        recipient: Option<&str>,
        sender: Option<&str>,
        origin: Option<&str>,
    ) -> Result<Self, &'static str> {
        let device = |text| DeviceId::parse(text).ok_or("a device id is a UUID");
        match (recipient, sender, origin) {
            (Some(id), ..) => device(id).map(Self::Recipient),
            (_, Some(id), _) => device(id).map(Self::Sender),
            (.., origin) => parse_origin(origin.unwrap_or_default()).map(Self::Origin),
        }
    }

    fn holds(self, record: &MessageRecord) -> bool {
        record.envelope.subject.takes_room()
            && match self {
                Self::Recipient(id) => record.to == id,
                Self::Sender(id) => record.envelope.from == id,
                Self::Origin(origin) => record.envelope.origin == origin,
            }
    }
}

/// An origin as [`top`] writes it.
fn parse_origin(text: &str) -> Result<Origin, &'static str> {
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let origin = digits.then(|| u64::from_str_radix(text, 16).ok()).flatten();
    origin
        .map(Origin)
        .ok_or("an origin has 16 hexadecimal digits, as `sealpost queue top` prints it")
}

/// The `count` largest recipients, senders and origins: kind, name, messages, bytes.
///
/// # Errors
///
/// The directory cannot be used, as at the start of a relay.
pub fn top(path: &Path, count: usize) -> Result<String, OpenError> {
    let (_file, _, loaded) = inspect::open(path, Clock::system().now(), Duration::ZERO)?;
    let messages = || loaded.messages.iter().filter(|it| it.envelope.subject.takes_room());
    let mut text =
        String::from("holder     id                                    messages        bytes\n");
    // Writing to a String cannot fail.
    for (id, held) in largest(messages(), count, |record| record.to) {
        let _ = writeln!(text, "recipient  {:36} {held}", id.to_string());
    }
    for (id, held) in largest(messages(), count, |record| record.envelope.from) {
        let _ = writeln!(text, "sender     {:36} {held}", id.to_string());
    }
    for (origin, held) in largest(messages(), count, |record| record.envelope.origin) {
        let name =
            if origin == Origin::NONE { "none".into() } else { format!("{:016x}", origin.0) };
        let _ = writeln!(text, "origin     {name:36} {held}");
    }
    Ok(text)
}

/// Lets everything that one holder has expire: the next start reports each message to its sender, with the 410 of an expired
/// message. Returns a line with the number.
///
/// # Errors
///
/// As [`top`], or the disk cannot be written.
pub fn drop_held(path: &Path, holder: Holder) -> Result<String, OpenError> {
    let now = Clock::system().now();
    let (_file, mut database, loaded) = inspect::open(path, now, Duration::ZERO)?;
    let mut changes = Changes::default();
    for record in loaded.messages.into_iter().filter(|record| holder.holds(record)) {
        let expires_at = BootTime::OVER;
        changes.puts.insert(record.seq, MessageRecord { expires_at, ..record });
    }
    if !changes.is_empty() {
        database.migrate().map_err(|error| OpenError::of(path, error))?;
        database.commit(&changes).map_err(|error| OpenError::of(path, error))?;
    }
    Ok(format!("dropped {}; their senders get an Error 410 at the next start\n", changes.len()))
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    bytes: u64,
    messages: u64,
}

impl std::fmt::Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>9} {:>12}", self.messages, self.bytes)
    }
}

fn largest<'a, K: Hash + Ord + Copy>(
    records: impl Iterator<Item = &'a MessageRecord>,
    count: usize,
    holder: impl Fn(&MessageRecord) -> K,
) -> Vec<(K, Held)> {
    let mut held = HashMap::<K, Held>::new();
    for record in records {
        let of_holder = held.entry(holder(record)).or_default();
        of_holder.messages += 1;
        of_holder.bytes = of_holder.bytes.saturating_add(record.envelope.bytes());
    }
    let mut held: Vec<_> = held.into_iter().collect();
    held.sort_unstable_by_key(|(holder, held)| (std::cmp::Reverse(*held), *holder));
    held.truncate(count);
    held
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_read_as_it_is_printed_and_nothing_else_is() {
        let id = "d8f8a9b0-f6e1-4a2b-8d7c-1e9f0a1b2c3d";
        let device = DeviceId::parse(id).expect("an id");
        assert_eq!(Holder::parse(Some(id), None, None), Ok(Holder::Recipient(device)));
        assert_eq!(Holder::parse(None, Some(id), None), Ok(Holder::Sender(device)));
        let origin = Holder::parse(None, None, Some("00000000000000ff"));
        assert_eq!(origin, Ok(Holder::Origin(Origin(255))));
        for wrong in ["ff", "none", "+00000000000000f", ""] {
            assert!(Holder::parse(None, None, Some(wrong)).is_err(), "{wrong}");
        }
        assert!(Holder::parse(Some("nobody"), None, None).is_err());
    }
}
