//! How much one mailbox may hold: in all, from one sender, and from unknown senders; and how much it holds.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::fair_share::{Pool, share_of};
use super::item::Item;
use crate::protocol::envelope::{AccessKey, Origin, Subject};
use crate::protocol::id::DeviceId;

/// Senders for which an empty mailbox keeps memory.
const SPARE_CAPACITY: usize = 4;
/// Key rotations of one unknown sender that one device may have undelivered. (protocol: KeyRotationUpdate)
const UNKNOWN_KEYS_PER_SENDER: usize = 4;
/// Part of the delivery window that key rotations of all unknown senders may fill.
const UNKNOWN_KEYS_WINDOW: usize = 4;

/// The limits of one mailbox. (protocol: Error 507)
#[derive(Debug, Clone, Copy)]
pub struct MailboxQuota {
    /// Items; notices do not count.
    pub messages: usize,
    pub bytes: u64,
    /// Share of both that one sender may fill, in (0, 1].
    pub sender_share: f64,
    /// Share of both that all unknown senders together may fill, in (0, 1].
    pub unknown_share: f64,
    /// How unknown senders share that, see `limits.origin_share`.
    pub origin_share: f64,
    /// `delivery.window`
    pub window: usize,
}

/// Who wants to put something into a mailbox.
#[derive(Debug, Clone, Copy)]
pub struct Applicant {
    pub id: DeviceId,
    pub origin: Origin,
    pub access: AccessKey,
    pub is_unknown: bool,
    /// The envelope is a `KeyRotationUpdate`.
    pub adds_key: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub messages: usize,
    pub bytes: u64,
}

impl Usage {
    /// Whether one more item of `bytes` exceeds a limit.
    fn exceeds_with(&self, bytes: u64, max_messages: usize, max_bytes: u64) -> bool {
        self.messages >= max_messages || self.bytes.saturating_add(bytes) > max_bytes
    }

    fn add(&mut self, bytes: u64) {
        self.messages += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, bytes: u64) {
        self.messages -= 1;
        self.bytes -= bytes;
    }
}

/// What counts against the quota of one mailbox.
#[derive(Debug, Default, PartialEq)]
pub struct MailboxUsage {
    pub total: Usage,
    by_sender: HashMap<DeviceId, Usage, RandomState>,
    /// Boxed, because most mailboxes hold nothing of unknown senders.
    unknown: Option<Box<UnknownUsage>>,
}

/// What unknown senders hold.
#[derive(Debug, Default, PartialEq)]
struct UnknownUsage {
    total: Usage,
    by_origin: HashMap<Origin, Usage, RandomState>,
    /// Key rotations.
    keys: usize,
    keys_by_sender: HashMap<DeviceId, usize, RandomState>,
}

impl MailboxUsage {
    pub fn is_full(&self, quota: MailboxQuota, from: Applicant, bytes: u64) -> bool {
        if self.total.exceeds_with(bytes, quota.messages, quota.bytes) {
            return true;
        }
        let max_messages = share_of(quota.messages as u64, quota.sender_share).max(1) as usize;
        let max_bytes = share_of(quota.bytes, quota.sender_share);
        let sender = self.by_sender.get(&from.id);
        sender.is_some_and(|usage| usage.exceeds_with(bytes, max_messages, max_bytes))
            || (from.is_unknown && !self.admits_unknown(quota, from, bytes))
    }

    fn admits_unknown(&self, quota: MailboxQuota, from: Applicant, bytes: u64) -> bool {
        let none = UnknownUsage::default();
        let unknown = self.unknown.as_deref().unwrap_or(&none);
        let held = unknown.by_origin.get(&from.origin).copied().unwrap_or_default();
        let keys = unknown.keys_by_sender.get(&from.id).copied().unwrap_or(0);
        let too_many_keys = unknown.keys >= (quota.window / UNKNOWN_KEYS_WINDOW).max(1)
            || keys >= UNKNOWN_KEYS_PER_SENDER;
        if from.adds_key && too_many_keys {
            return false;
        }
        let messages = Pool {
            capacity: share_of(quota.messages as u64, quota.unknown_share).max(1),
            taken: unknown.total.messages as u64,
        };
        let size = Pool {
            capacity: share_of(quota.bytes, quota.unknown_share),
            taken: unknown.total.bytes,
        };
        messages.admits(held.messages as u64, 1, quota.origin_share)
            && size.admits(held.bytes, bytes, quota.origin_share)
    }

    pub fn add(&mut self, item: &Item) {
        let bytes = item.bytes();
        self.total.add(bytes);
        self.by_sender.entry(item.envelope.from).or_default().add(bytes);
        if item.envelope.from_unknown {
            self.unknown.get_or_insert_default().add(item);
        }
    }

    pub fn remove(&mut self, item: &Item) {
        let (sender, bytes) = (item.envelope.from, item.bytes());
        let Some(of_sender) = self.by_sender.get_mut(&sender) else { return };
        self.total.remove(bytes);
        of_sender.remove(bytes);
        if of_sender.messages == 0 {
            self.by_sender.remove(&sender);
        }
        if item.envelope.from_unknown
            && let Some(unknown) = &mut self.unknown
        {
            unknown.remove(item);
            if unknown.total.messages == 0 {
                self.unknown = None;
            }
        }
    }

    pub fn give_back_memory(&mut self) {
        if self.by_sender.capacity() > SPARE_CAPACITY {
            self.by_sender.shrink_to_fit();
        }
    }

    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.by_sender.capacity()
    }
}

impl UnknownUsage {
    fn add(&mut self, item: &Item) {
        let bytes = item.bytes();
        self.total.add(bytes);
        self.by_origin.entry(item.envelope.origin).or_default().add(bytes);
        if is_key(item) {
            self.keys += 1;
            *self.keys_by_sender.entry(item.envelope.from).or_default() += 1;
        }
    }

    fn remove(&mut self, item: &Item) {
        let (origin, bytes) = (item.envelope.origin, item.bytes());
        self.total.remove(bytes);
        if let Some(usage) = self.by_origin.get_mut(&origin) {
            usage.remove(bytes);
            if usage.messages == 0 {
                self.by_origin.remove(&origin);
            }
        }
        if is_key(item)
            && let Some(keys) = self.keys_by_sender.get_mut(&item.envelope.from)
        {
            self.keys -= 1;
            *keys -= 1;
            if *keys == 0 {
                self.keys_by_sender.remove(&item.envelope.from);
            }
        }
    }
}

fn is_key(item: &Item) -> bool {
    matches!(item.envelope.subject, Subject::KeyRotation(_))
}

#[cfg(test)]
#[path = "mailbox_quota_tests.rs"]
mod tests;
