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
}

/// What counts against the quota of one mailbox.
#[derive(Debug, Default, PartialEq)]
pub struct MailboxUsage {
    pub total: Usage,
    by_sender: HashMap<DeviceId, Usage, RandomState>,
}

impl MailboxUsage {
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
            let sender = self.by_sender.entry(item.envelope.from).or_default();
            for usage in [&mut self.total, sender] {
                usage.messages += 1;
                usage.bytes += item.bytes();
            }
        }
    }

    pub fn remove(&mut self, item: &Item) {
        let sender = item.envelope.from;
        if item.envelope.subject.takes_room()
            && let Some(of_sender) = self.by_sender.get_mut(&sender)
        {
            for usage in [&mut self.total, &mut *of_sender] {
                usage.messages -= 1;
                usage.bytes -= item.bytes();
            }
            if of_sender.messages == 0 {
                self.by_sender.remove(&sender);
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
