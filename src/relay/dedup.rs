//! The dedup window of a device: the relay acks a repeated `Send` again, but delivers it once. (protocol: Send)
//!
//! There are two generations of fingerprints. When the current one is full or older than the window, it becomes the
//! previous one, and the previous one is dropped. So a `Send` is recognised for at least the window, unless the device
//! sent more than [`MAX_PER_GENERATION`] others after it.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use foldhash::fast::FixedState;
use xxhash_rust::xxh3::xxh3_64;

use super::on_demand::Empty;
use crate::clock::Moment;
use crate::protocol::envelope::Seq;
use crate::protocol::id::{DeviceId, MessageId};
use crate::protocol::json_string;
use crate::store::boots::BootTime;
use crate::store::records::Fingerprint;

/// Maximum of fingerprints in one generation; limits the memory of one device to 24 KiB per generation.
pub const MAX_PER_GENERATION: usize = 512;

/// The bit of a digest that marks a message with ttl 0; 63 bits are enough to distinguish contents.
const TTL_ZERO: u64 = 1;

impl Fingerprint {
    /// The fingerprint of a message that is still here. A sender could only forge its own.
    pub fn new(sender: DeviceId, recipient: DeviceId, id: MessageId, content: u64) -> Self {
        let recorded_at = BootTime::default();
        Self { sender, key: key(recipient, id), content: content & !TTL_ZERO, recorded_at }
    }

    /// Marks the fingerprint of a message with ttl 0: its recipient does not ack it, so a repeat gets another status.
    pub fn with_ttl(self, ttl: u64) -> Self {
        Self { content: self.content | if ttl == 0 { TTL_ZERO } else { 0 }, ..self }
    }
}

fn key(recipient: DeviceId, id: MessageId) -> u64 {
    let mut name = [0; 32];
    name[..16].copy_from_slice(&recipient.to_u128().to_le_bytes());
    name[16..].copy_from_slice(&id.to_u128().to_le_bytes());
    xxh3_64(&name)
}

/// Digest of the content of a `Send`, raw JSON: of what it stands for, since a client may repeat it in another spelling.
pub fn digest(content: &str) -> u64 {
    xxh3_64(&json_string::meaning(content))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
/// What the window knows of a `Send`.
pub enum DedupResult {
    /// Not within the window.
    New,
    /// The same id and the same content.
    Duplicate {
        /// The first `Send` had ttl 0: its recipient sends no Ack for it.
        ttl_zero: bool,
        /// The sequence number of the first `Send`; 0 if it left the queue before a restart.
        seq: Seq,
    },
    /// The same id with other content.
    OtherContent,
}

#[derive(Debug, Default)]
pub struct DedupWindow {
    current: HashMap<u64, Sent, FixedState>,
    previous: HashMap<u64, Sent, FixedState>,
    rotated_at: Moment,
}

impl Empty for DedupWindow {
    fn empty() -> &'static Self {
        static EMPTY: LazyLock<DedupWindow> = LazyLock::new(DedupWindow::default);
        &EMPTY
    }

    fn is_empty(&self) -> bool {
        self.current.is_empty() && self.previous.is_empty()
    }
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    content: u64,
    seq: Seq,
}

impl DedupWindow {
    pub fn check(&self, fingerprint: Fingerprint) -> DedupResult {
        match self.current.get(&fingerprint.key).or_else(|| self.previous.get(&fingerprint.key)) {
            None => DedupResult::New,
            Some(sent) if sent.content & !TTL_ZERO == fingerprint.content & !TTL_ZERO => {
                DedupResult::Duplicate { ttl_zero: sent.content & TTL_ZERO != 0, seq: sent.seq }
            }
            Some(_) => DedupResult::OtherContent,
        }
    }

    pub fn remember(&mut self, now: Moment, window: Duration, fingerprint: Fingerprint, seq: Seq) {
        self.rotate(now, window);
        if self.current.len() >= MAX_PER_GENERATION {
            self.previous = std::mem::take(&mut self.current);
            self.rotated_at = now;
        }
        self.current.insert(fingerprint.key, Sent { content: fingerprint.content, seq });
    }

    /// Removes a `Send` that was not delivered, so that its sender can repeat it with the same id.
    pub fn forget(&mut self, recipient: DeviceId, id: MessageId) {
        let key = key(recipient, id);
        self.current.remove(&key);
        self.previous.remove(&key);
    }

    /// Drops the generations that are older than the window.
    pub fn rotate(&mut self, now: Moment, window: Duration) {
        let age = now - self.rotated_at;
        if age < window {
            return;
        }
        let current = std::mem::take(&mut self.current);
        self.previous = if age < window.saturating_mul(2) { current } else { HashMap::default() };
        self.rotated_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(600);

    fn fingerprint(id: u128, content: &str) -> Fingerprint {
        to(2, id, content)
    }

    fn to(recipient: u128, id: u128, content: &str) -> Fingerprint {
        let [sender, recipient] = [1, recipient].map(DeviceId::from_u128);
        Fingerprint::new(sender, recipient, MessageId::from_u128(id), digest(content))
    }

    fn at(seconds: u64) -> Moment {
        Moment(0) + Duration::from_secs(seconds)
    }

    #[test]
    fn a_repeat_is_distinguished_from_other_content() {
        let mut sends = DedupWindow::default();
        assert_eq!(sends.check(fingerprint(1, "a")), DedupResult::New);
        sends.remember(at(0), WINDOW, fingerprint(1, "a"), 7);
        assert_eq!(
            sends.check(fingerprint(1, "a")),
            DedupResult::Duplicate { ttl_zero: false, seq: 7 }
        );
        assert_eq!(sends.check(fingerprint(1, "b")), DedupResult::OtherContent);
        sends.remember(at(0), WINDOW, fingerprint(3, "a").with_ttl(0), 7);
        assert_eq!(
            sends.check(fingerprint(3, "a")),
            DedupResult::Duplicate { ttl_zero: true, seq: 7 }
        );
        assert_eq!(sends.check(fingerprint(2, "a")), DedupResult::New);
    }

    #[test]
    fn content_is_compared_by_what_it_stands_for() {
        assert_eq!(digest(r#""AA/BB \ud800""#), digest(r#""AA\/BB \uD800""#));
        assert_ne!(digest(r#""\ud800""#), digest(r#""\ud801""#));
        assert_ne!(digest(r#""\ud800""#), digest(r#""\ufffd""#));
    }

    #[test]
    fn the_same_id_to_another_recipient_is_another_message() {
        let mut sends = DedupWindow::default();
        sends.remember(at(0), WINDOW, fingerprint(1, "a"), 7);
        assert_eq!(sends.check(to(3, 1, "a")), DedupResult::New);
    }

    #[test]
    fn a_send_is_remembered_for_one_window_and_at_most_for_two() {
        let mut sends = DedupWindow::default();
        sends.remember(at(10), WINDOW, fingerprint(1, "a"), 7);
        sends.rotate(at(609), WINDOW);
        assert_eq!(
            sends.check(fingerprint(1, "a")),
            DedupResult::Duplicate { ttl_zero: false, seq: 7 }
        );
        sends.rotate(at(1900), WINDOW);
        assert_eq!(sends.check(fingerprint(1, "a")), DedupResult::New);
    }

    #[test]
    fn memory_is_limited_and_the_newest_sends_are_remembered() {
        let mut sends = DedupWindow::default();
        for id in 0..10_000 {
            sends.remember(at(0), WINDOW, fingerprint(id, "a"), 7);
        }
        assert!(sends.current.len() + sends.previous.len() <= 2 * MAX_PER_GENERATION);
        for id in 10_000 - MAX_PER_GENERATION as u128..10_000 {
            assert_eq!(
                sends.check(fingerprint(id, "a")),
                DedupResult::Duplicate { ttl_zero: false, seq: 7 }
            );
        }
    }

    #[test]
    fn an_undelivered_message_can_be_sent_again() {
        let mut sends = DedupWindow::default();
        sends.remember(at(0), WINDOW, fingerprint(1, "a"), 7);
        sends.forget(DeviceId::from_u128(2), MessageId::from_u128(1));
        assert_eq!(sends.check(fingerprint(1, "b")), DedupResult::New);
    }
}
