//! The directory: every known device, found by its id, its resume token or its current connection.

use std::collections::HashMap;
use std::ops::{Index, IndexMut};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use foldhash::fast::RandomState;
use slab::Slab;
use subtle::ConstantTimeEq;

use crate::clock::{BootSecond, Moment, Now};
use crate::protocol::envelope::{AccessKey, Origin, Seq};
use crate::protocol::frame::Accept;
use crate::protocol::id::DeviceId;
use crate::protocol::refusal::Refusal;
use crate::relay::command::{ConnectionId, TokenHash};
use crate::relay::correspondents::Correspondents;
use crate::relay::dedup::DedupWindow;
use crate::relay::delivery::{Delivery, Step};
use crate::relay::item::Item;
use crate::relay::mailbox::{Credit, Mailbox};
use crate::relay::notice_queue::NoticeQueue;
use crate::relay::on_demand::{Empty, OnDemand};
use crate::relay::rate_limit::{Allowance, ResumeRate};
use crate::store::history::History;

pub(super) type Slot = u32;

/// Devices whose dedup windows are pruned in one sweep.
const PRUNED_PER_SWEEP: usize = 256;

#[derive(Debug)]
pub(super) struct Device {
    pub id: DeviceId,
    /// Of a resumable device.
    pub token: Option<TokenHash>,
    /// A new token that no connection has used yet.
    pub next_token: Option<Box<TokenHash>>,
    pub accept: Accept,
    /// How often the device may resume.
    pub resumes: ResumeRate,
    pub allowance: Arc<Allowance>,
    /// Boxed: most devices of a large relay are away.
    pub connection: Option<Box<Connection>>,
    /// How the last connection ended.
    pub last_end: Option<ConnectionEnd>,
    pub history: OnDemand<History>,
    /// The connection there is, or the last one, asked for receipts.
    pub receipts: bool,
    pub mailbox: OnDemand<Mailbox>,
    pub notices: OnDemand<NoticeQueue>,
    pub dedup: OnDemand<DedupWindow>,
    /// The device's entry among the deadlines of the expiry queue.
    pub scheduled: Option<Moment>,
    /// When the device is forgotten; `None` while it is connected.
    pub forget_at: Option<Moment>,
    pub origin: Origin,
    pub correspondents: Correspondents,
    /// Something was sent or received, or the device was resumed.
    pub used: bool,
    /// An operator has closed the relay to the device.
    pub blocked: bool,
    /// The access token by which the device registered.
    pub access: AccessKey,
    /// Unix milliseconds; 0 if it is not known.
    pub registered_at: i64,
    /// The device's entry among those that can be forgotten, see [`super::origins::Origins`].
    pub unused_since: Option<i64>,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub id: ConnectionId,
    /// The device's status is `Offline`.
    pub delivery_paused: bool,
    /// The newest item of the mailbox that was delivered.
    pub last_seq: Seq,
    pub peers: Peers,
    /// Messages that were delivered and not acked yet. This many Acks are expected, even of a plain device, whose messages
    /// do not await an Ack.
    pub unacked: u32,
    pub connected_at: BootSecond,
    /// Since when messages wait although the device is there: the window is full, and nothing was confirmed since.
    pub full_since: Option<BootSecond>,
    /// The connection has an entry among those to look at, see [`super::stuck::StuckConnections`].
    pub is_watched: bool,
    pub is_stuck: bool,
    /// The connection took over from another one.
    pub took_over: bool,
}

/// How a connection ended: when, and the code of its Close frame, 1006 without one (RFC 6455, 7.1.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConnectionEnd {
    pub at: BootSecond,
    pub code: u16,
}

/// The devices with which a connection has exchanged messages: what an `Auth*` without recipient needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peers {
    None,
    One(DeviceId),
    Several,
}

#[derive(Debug, Default)]
pub(super) struct Directory {
    devices: Slab<Device>,
    by_id: HashMap<DeviceId, Slot, RandomState>,
    by_token: HashMap<TokenHash, Slot, RandomState>,
    /// Current connections only.
    by_connection: HashMap<ConnectionId, Slot, RandomState>,
    /// The device whose dedup window is pruned next.
    dedup_cursor: usize,
}

impl Empty for History {
    fn empty() -> &'static Self {
        static EMPTY: LazyLock<History> = LazyLock::new(History::default);
        &EMPTY
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Peers {
    pub fn record(&mut self, other: DeviceId) {
        *self = match *self {
            Self::None => Self::One(other),
            Self::One(known) if known == other => return,
            _ => Self::Several,
        };
    }
}

impl Connection {
    pub fn new(id: ConnectionId, now: Moment) -> Box<Self> {
        Box::new(Self {
            id,
            delivery_paused: false,
            last_seq: 0,
            peers: Peers::None,
            unacked: 0,
            connected_at: now.second(),
            full_since: None,
            is_watched: false,
            is_stuck: false,
            took_over: false,
        })
    }

    pub fn deliver(&mut self, step: &mut Step, item: &Item) {
        if item.envelope.subject.is_counted() {
            self.peers.record(item.envelope.from);
            self.unacked = self.unacked.saturating_add(1);
        }
        self.last_seq = item.seq;
        let body = item.envelope.body.clone();
        let kind = item.envelope.subject.outgoing();
        step.deliver(self.id, Delivery::Frame { seq: item.seq, body, kind });
    }

    /// Whether an Ack was expected.
    pub fn note_ack(&mut self) -> bool {
        let expected = self.unacked > 0;
        self.unacked = self.unacked.saturating_sub(1);
        expected
    }
}

impl Device {
    pub fn is_resumable(&self) -> bool {
        self.token.is_some()
    }

    /// Whether a restart must know the device. A plain one is worth a write only once it has left something behind.
    pub fn has_record(&self) -> bool {
        self.is_resumable() || self.connection.is_none()
    }

    /// Whether an item of `bytes` could be in flight at once, overtaking nothing.
    pub fn has_credit(&self, credit: Credit, bytes: u64) -> bool {
        self.connection.as_ref().is_some_and(|connection| !connection.delivery_paused)
            && self.mailbox.has_credit(credit, bytes)
    }

    fn is_over(&self, now: Now) -> bool {
        self.forget_at.is_some_and(|moment| moment <= now.mono)
    }
}

impl Index<Slot> for Directory {
    type Output = Device;

    fn index(&self, slot: Slot) -> &Device {
        &self.devices[slot as usize]
    }
}

impl IndexMut<Slot> for Directory {
    fn index_mut(&mut self, slot: Slot) -> &mut Device {
        &mut self.devices[slot as usize]
    }
}

impl Directory {
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    pub fn connected(&self) -> usize {
        self.by_connection.len()
    }

    /// One more than the highest slot that may be in use.
    pub fn capacity(&self) -> usize {
        self.devices.capacity()
    }

    pub fn get(&self, slot: Slot) -> Option<&Device> {
        self.devices.get(slot as usize)
    }

    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Device> {
        self.devices.get_mut(slot as usize)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Device)> {
        self.devices.iter().map(|(slot, device)| (slot as Slot, device))
    }

    pub fn find(&self, id: DeviceId) -> Option<Slot> {
        self.by_id.get(&id).copied()
    }

    /// Like [`Self::find`], unless the device's session is over. (protocol: Send, 404)
    pub fn find_alive(&self, now: Now, id: DeviceId) -> Option<Slot> {
        self.find(id).filter(|slot| !self[*slot].is_over(now))
    }

    /// The device of that resume token, unless its session is over.
    pub fn find_by_token(&self, now: Now, presented: TokenHash) -> Option<Slot> {
        let slot = *self.by_token.get(&presented)?;
        let device = &self[slot];
        let tokens = [device.token, device.next_token.as_deref().copied()].into_iter().flatten();
        let same = tokens.fold(false, |same, token| same | bool::from(token.0.ct_eq(&presented.0)));
        (same && !device.is_over(now)).then_some(slot)
    }

    /// A connection uses this token. If it is the newer one, the older one is no longer good; returns whether it was.
    pub fn use_token(&mut self, slot: Slot, presented: TokenHash) -> bool {
        let device = &mut self.devices[slot as usize];
        let is_newer = device.next_token.take_if(|next| **next == presented).is_some();
        if is_newer && let Some(old) = device.token.replace(presented) {
            self.by_token.remove(&old);
        }
        is_newer
    }

    /// Replaces the token that no connection has used yet.
    pub fn set_next_token(&mut self, slot: Slot, token: Option<TokenHash>) {
        let device = &mut self.devices[slot as usize];
        if let Some(unused) = std::mem::replace(&mut device.next_token, token.map(Box::new)) {
            self.by_token.remove(&unused);
        }
        if let Some(token) = token {
            self.by_token.insert(token, slot);
        }
    }

    /// `None` for a connection that was replaced or has ended.
    pub fn find_by_connection(&self, connection: ConnectionId) -> Option<Slot> {
        self.by_connection.get(&connection).copied()
    }

    pub fn connection_of(&self, id: DeviceId) -> Option<ConnectionId> {
        Some(self[self.find(id)?].connection.as_ref()?.id)
    }

    /// 503 when no slot is left.
    pub fn insert(
        &mut self,
        id: DeviceId,
        token: Option<TokenHash>,
        origin: Origin,
        allowance: Arc<Allowance>,
    ) -> Result<Slot, Refusal> {
        let slot = Slot::try_from(self.devices.vacant_key()).map_err(|_| Refusal::Full)?;
        self.devices.insert(Device {
            id,
            token,
            next_token: None,
            accept: Accept::Anyone,
            resumes: ResumeRate::default(),
            allowance,
            connection: None,
            last_end: None,
            history: OnDemand::default(),
            receipts: false,
            mailbox: OnDemand::default(),
            notices: OnDemand::default(),
            dedup: OnDemand::default(),
            scheduled: None,
            forget_at: None,
            origin,
            correspondents: Correspondents::default(),
            used: false,
            blocked: false,
            access: AccessKey::NONE,
            registered_at: 0,
            unused_since: None,
        });
        self.by_id.insert(id, slot);
        if let Some(token) = token {
            self.by_token.insert(token, slot);
        }
        Ok(slot)
    }

    pub fn remove(&mut self, slot: Slot) -> Option<Device> {
        let device = self.devices.try_remove(slot as usize)?;
        self.by_id.remove(&device.id);
        for token in [device.token, device.next_token.as_deref().copied()].into_iter().flatten() {
            self.by_token.remove(&token);
        }
        if let Some(connection) = &device.connection {
            self.by_connection.remove(&connection.id);
        }
        Some(device)
    }

    pub fn attach(&mut self, slot: Slot, connection: Box<Connection>) {
        self.by_connection.insert(connection.id, slot);
        self[slot].connection = Some(connection);
    }

    pub fn detach(&mut self, slot: Slot) -> Option<Box<Connection>> {
        let connection = self[slot].connection.take()?;
        self.by_connection.remove(&connection.id);
        Some(connection)
    }

    /// Drops outdated fingerprints of some devices, of others at the next call.
    pub fn prune_dedup(&mut self, now: Now, window: Duration) {
        let end = self.dedup_cursor + PRUNED_PER_SWEEP;
        for slot in self.dedup_cursor..end {
            if let Some(device) = self.devices.get_mut(slot)
                && !device.dedup.is_empty()
            {
                device.dedup.rotate(now.mono, window);
                device.dedup.trim();
            }
        }
        self.dedup_cursor = if end >= self.devices.capacity() { 0 } else { end };
    }

    /// Entries in the three indexes.
    pub fn indexed(&self) -> [usize; 3] {
        [self.by_id.len(), self.by_token.len(), self.by_connection.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There is one for each known device, of which most are absent and have nothing waiting.
    #[test]
    fn a_device_is_small() {
        assert!(size_of::<Device>() <= 240);
    }
}
