//! Who holds most of the queue on disk, and an end to what one of them holds: `sealpost queue top` and `sealpost queue drop`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::Loaded;
use super::boots::BootTime;
use super::database::Changes;
use super::holder::{Held, Holder, Top};
use super::inspect;
use super::open::OpenError;
use super::records::MessageRecord;
use crate::clock::Clock;
use crate::protocol::id::DeviceId;

/// What a drop has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// Messages.
    pub dropped: usize,
}

/// The `count` largest holders of each kind.
///
/// # Errors
///
/// The directory cannot be used, as at the start of a relay.
pub fn top(path: &Path, count: usize) -> Result<Top, OpenError> {
    let (_file, _, loaded) = inspect::open(path, Clock::system().now(), Duration::ZERO)?;
    let access = access_of_devices(&loaded);
    let mut all = HashMap::<Holder, Held>::new();
    for record in loaded.messages.iter().filter(|it| it.envelope.subject.takes_room()) {
        for holder in holders(record, &access) {
            let held = all.entry(holder).or_default();
            held.messages += 1;
            held.bytes = held.bytes.saturating_add(record.envelope.bytes());
        }
    }
    Ok(Top::of(all, count))
}

/// Lets everything that one holder has expire: the next start reports each message to its sender, with the 410 of an expired
/// message.
///
/// # Errors
///
/// As [`top`], or the disk cannot be written.
pub fn drop_held(path: &Path, holder: &Holder) -> Result<Dropped, OpenError> {
    let now = Clock::system().now();
    let (_file, mut database, loaded) = inspect::open(path, now, Duration::ZERO)?;
    let access = access_of_devices(&loaded);
    let mut changes = Changes::default();
    let held = loaded.messages.into_iter().filter(|record| {
        record.envelope.subject.takes_room() && holders(record, &access).any(|one| one == *holder)
    });
    for record in held {
        let expires_at = BootTime::OVER;
        changes.puts.insert(record.seq, MessageRecord { expires_at, ..record });
    }
    if !changes.is_empty() {
        database.migrate().map_err(|error| OpenError::of(path, error))?;
        database.commit(&changes).map_err(|error| OpenError::of(path, error))?;
    }
    Ok(Dropped { dropped: changes.len() })
}

/// By which access token each device registered.
type AccessOfDevices = HashMap<DeviceId, Arc<str>>;

fn access_of_devices(loaded: &Loaded) -> AccessOfDevices {
    let named = |access: &Option<Box<str>>| access.as_deref().map(Arc::from);
    loaded.devices.iter().filter_map(|device| Some((device.id, named(&device.access)?))).collect()
}

/// All that have a message: each is a holder of its own.
fn holders(
    record: &MessageRecord,
    access: &AccessOfDevices,
) -> impl Iterator<Item = Holder> + use<> {
    let envelope = &record.envelope;
    let by_access = access.get(&envelope.from).cloned().map(Holder::Access);
    let (recipient, sender) = (Holder::Recipient(record.to), Holder::Sender(envelope.from));
    [recipient, sender, Holder::Origin(envelope.origin)].into_iter().chain(by_access)
}
