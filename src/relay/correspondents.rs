//! The correspondents of a device: the devices to which it has addressed a `Send`, an `AuthRequest` or a
//! `KeyRotationUpdate`. All others are unknown senders to it. (protocol: Unknown senders)
//!
//! Answers do not count: a client gives them without its user. Only the newest are kept, each as a keyed hash of 8 bytes.

use std::collections::VecDeque;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::protocol::id::DeviceId;
use crate::store::records::{HashKey, MAX_CORRESPONDENTS};

/// What one correspondent counts in `queue.total_bytes`.
pub const CORRESPONDENT_BYTES: u64 = 8;

/// The hash by which a device is known to its correspondents.
pub fn hash(key: HashKey, device: DeviceId) -> u64 {
    xxh3_64_with_seed(&device.to_u128().to_le_bytes(), key.0)
}

/// Boxed, because most devices of a fleet only ever receive.
#[derive(Debug, Default)]
pub struct Correspondents(Option<Box<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    /// The newest last.
    hashes: VecDeque<u64>,
    /// The number of the next; numbers are never used again.
    next: u64,
}

impl Correspondents {
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |kept| kept.hashes.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn contains(&self, hash: u64) -> bool {
        self.0.as_ref().is_some_and(|kept| {
            let (older, newer) = kept.hashes.as_slices();
            newer.contains(&hash) || older.contains(&hash)
        })
    }

    /// Adds a correspondent and returns its number. The caller has checked that it is new.
    pub fn add(&mut self, hash: u64) -> u64 {
        let kept = self.0.get_or_insert_default();
        let number = kept.next;
        self.restore(number, hash);
        number
    }

    /// Adds a correspondent that was stored; by rising number.
    pub fn restore(&mut self, number: u64, hash: u64) {
        let kept = self.0.get_or_insert_default();
        if kept.hashes.len() >= MAX_CORRESPONDENTS {
            kept.hashes.pop_front();
        }
        if kept.hashes.len() == kept.hashes.capacity() {
            // A deque would double, and half of that would be empty.
            let more = (kept.hashes.len() / 4).max(2);
            kept.hashes.reserve_exact(more.min(MAX_CORRESPONDENTS - kept.hashes.len()));
        }
        kept.hashes.push_back(hash);
        kept.next = number.saturating_add(1);
    }

    /// Makes room where there is none for another. Returns whether there was one.
    pub fn forget_oldest(&mut self) -> bool {
        self.0.as_mut().is_some_and(|kept| kept.hashes.pop_front().is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_512_are_kept() {
        let mut known = Correspondents::default();
        assert!(!known.contains(1) && known.is_empty());
        for hash in 1..=513 {
            assert_eq!(known.add(hash), hash - 1);
        }
        assert_eq!(known.len(), MAX_CORRESPONDENTS);
        assert!(!known.contains(1) && known.contains(2) && known.contains(513));
        assert!(known.forget_oldest() && !known.contains(2) && known.contains(3));
    }

    #[test]
    fn numbers_go_on_after_a_restart() {
        let mut known = Correspondents::default();
        known.restore(511, 7);
        known.restore(512, 8);
        assert!(known.contains(7) && known.contains(8));
        assert_eq!(known.add(9), 513);
    }

    #[test]
    fn a_hash_depends_on_the_key_of_the_relay() {
        let (device, other) = (DeviceId::from_u128(1), DeviceId::from_u128(2));
        assert_ne!(hash(HashKey(1), device), hash(HashKey(2), device));
        assert_ne!(hash(HashKey(1), device), hash(HashKey(1), other));
    }
}
