//! How long something took, in buckets.

use std::time::Duration;

/// Upper bounds of the buckets, nanoseconds: a hundred microseconds to ten seconds. What took longer is in no bucket but the
/// one without a bound.
pub const BOUNDS: [u64; 16] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Times, by bucket. A plain number each: the owner adds, and a reader gets a copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BOUNDS.len()],
    count: u64,
    sum_ns: u64,
}

impl Histogram {
    /// Adds a time.
    pub fn observe(&mut self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = BOUNDS.iter().position(|bound| ns <= *bound) {
            self.buckets[bucket] += 1;
        }
        self.count += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    /// How many times there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum, seconds.
    pub fn sum_seconds(&self) -> f64 {
        Duration::from_nanos(self.sum_ns).as_secs_f64()
    }

    /// Each bound in seconds, and how many times are not above it.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let counts = self.buckets.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        // Nanoseconds divided, so that a bound is printed as it is read: 0.00025.
        BOUNDS.iter().map(|bound| *bound as f64 / 1e9).zip(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_each_bucket_whose_bound_it_does_not_exceed() {
        let mut histogram = Histogram::default();
        for ms in [0, 1, 2, 11_000] {
            histogram.observe(Duration::from_millis(ms));
        }
        let at = |bound: f64| histogram.cumulative().find(|(found, _)| *found == bound).unwrap().1;
        assert_eq!([at(0.0001), at(0.001), at(0.0025), at(10.0)], [1, 2, 3, 3]);
        assert_eq!((histogram.count(), histogram.sum_seconds()), (4, 11.003));
    }
}
