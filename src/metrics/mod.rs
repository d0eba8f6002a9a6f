//! What is counted for `/metrics`. (operations: Seeing it)
//!
//! A count is a plain number where something happens, and is read when somebody asks for it: nothing is shared on the way
//! of a message. Each worker's thread has counters of its own ([`worker`]); the router has histograms of its own.

pub mod histogram;
pub mod worker;

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread increases and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one. Only the thread that owns the counter may: there is no locked instruction.
    pub fn increase(&self) {
        self.0.store(self.get().wrapping_add(1), Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters that differ in one label. The label's values are few and fixed: none comes from a client.
#[derive(Debug)]
pub struct Labelled<const N: usize> {
    labels: &'static [&'static str; N],
    counters: [Counter; N],
}

impl<const N: usize> Labelled<N> {
    /// One counter for each value of the label.
    pub fn new(labels: &'static [&'static str; N]) -> Self {
        Self { labels, counters: std::array::from_fn(|_| Counter::default()) }
    }

    /// Adds one to the counter at an index; what has none is counted with the last, which is for all else.
    pub fn increase(&self, index: usize) {
        if let Some(counter) = self.counters.get(index).or(self.counters.last()) {
            counter.increase();
        }
    }

    /// Adds one to the counter of a value of the label; what has none is counted with the last.
    pub fn increase_of(&self, label: &str) {
        let index = self.labels.iter().position(|known| *known == label);
        self.increase(index.unwrap_or(usize::MAX));
    }

    /// Each value of the label, and the number.
    pub fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.labels.iter().copied().zip(self.counters.iter().map(Counter::get))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_label_of_its_own_is_counted_as_other() {
        let counters = Labelled::new(&["a", "b", "other"]);
        counters.increase(1);
        counters.increase_of("b");
        counters.increase_of("invented");
        counters.increase(99);
        assert_eq!(counters.read().collect::<Vec<_>>(), [("a", 0), ("b", 2), ("other", 2)]);
    }
}
