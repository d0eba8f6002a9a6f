//! How much one mailbox may hold, in all and from one sender, and how much it holds.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::item::Item;
use crate::protocol::id::DeviceId;

/// Senders for which an empty mailbox keeps memory.
const SPARE_CAPACITY: usize = 4;

/// The limits of one mailbox. (protocol: Error 507)
#[derive(Debug, Clone, Copy)]
pub struct MailboxQuota {
    /// Items; notices do not count.
    pub messages: usize,
    pub bytes: u64,
    /// Share of both that one sender may fill, in (0, 1].
    pub sender_share: f64,
}

/// Number and bytes of items that devices sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub messages: usize,
    pub bytes: u64,
}

impl Usage {
    fn add(&mut self, bytes: u64) {
        self.messages += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, bytes: u64) {
        self.messages -= 1;
        self.bytes -= bytes;
    }

    /// Whether one more item of `bytes` exceeds a limit.
    fn exceeds_with(&self, bytes: u64, max_messages: usize, max_bytes: u64) -> bool {
        self.messages >= max_messages || self.bytes.saturating_add(bytes) > max_bytes
    }
}

/// What counts against the quota of one mailbox.
#[derive(Debug, Default, PartialEq)]
pub struct MailboxUsage {
    total: Usage,
    by_sender: HashMap<DeviceId, Usage, RandomState>,
}

impl MailboxUsage {
    pub fn total(&self) -> Usage {
        self.total
    }

    pub fn is_full(&self, quota: MailboxQuota, from: DeviceId, bytes: u64) -> bool {
        if self.total.exceeds_with(bytes, quota.messages, quota.bytes) {
            return true;
        }
        let max_messages = ((quota.messages as f64 * quota.sender_share) as usize).max(1);
        let max_bytes = (quota.bytes as f64 * quota.sender_share) as u64;
        let sender = self.by_sender.get(&from);
        sender.is_some_and(|usage| usage.exceeds_with(bytes, max_messages, max_bytes))
    }

    pub fn add(&mut self, item: &Item) {
        if item.envelope.subject.takes_room() {
            self.total.add(item.bytes());
            self.by_sender.entry(item.envelope.from).or_default().add(item.bytes());
        }
    }

    pub fn remove(&mut self, item: &Item) {
        if !item.envelope.subject.takes_room() {
            return;
        }
        self.total.remove(item.bytes());
        if let Some(usage) = self.by_sender.get_mut(&item.envelope.from) {
            usage.remove(item.bytes());
            if usage.messages == 0 {
                self.by_sender.remove(&item.envelope.from);
            }
        }
    }

    /// For an empty mailbox.
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
