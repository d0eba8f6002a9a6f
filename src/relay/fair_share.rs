//! The one rule by which origins share a pool. (protocol: Fair shares)
//!
//! An origin may add to a pool while what the origin holds there is at most a share of what is free. With a share of one half
//! a single origin ends at a third of the pool and two at a quarter each; an origin that holds nothing is refused only when
//! the pool is full. So a pool needs no list of who else may come.
//!
//! The rule alone would let a few dozen origins, one after the other, leave nothing: each takes a third of what the one before
//! it left. So the last eighth of a pool is for origins that hold next to nothing.

/// The part of a pool that only origins with little may fill: one over this.
const RESERVE: u64 = 8;
/// What little is: one over this of the pool.
const LITTLE: u64 = 512;

/// A pool of bytes, messages or devices, and what is taken of it.
#[derive(Debug, Clone, Copy)]
pub struct Pool {
    pub capacity: u64,
    pub taken: u64,
}

impl Pool {
    /// Whether `more` fits into the pool at all.
    pub fn fits(self, more: u64) -> bool {
        self.taken.checked_add(more).is_some_and(|taken| taken <= self.capacity)
    }

    /// Whether an origin that holds `held` may add `more`. `share` is `limits.origin_share`.
    pub fn admits(self, held: u64, more: u64, share: f64) -> bool {
        if held == 0 {
            return self.fits(more);
        }
        let free = self.capacity.saturating_sub(self.taken);
        let leaves_reserve = free.saturating_sub(more) >= self.capacity / RESERVE;
        self.fits(more)
            && held as f64 <= share * free as f64
            && (leaves_reserve || held <= self.capacity / LITTLE)
    }
}

/// A share of a limit, rounded down.
pub fn share_of(limit: u64, share: f64) -> u64 {
    (limit as f64 * share) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each of some origins holds when none of them may add one more.
    fn filled(origins: usize, capacity: u64) -> (Vec<u64>, u64) {
        let (mut held, mut taken) = (vec![0; origins], 0);
        loop {
            let before = taken;
            for one in &mut held {
                if (Pool { capacity, taken }).admits(*one, 1, 0.5) {
                    (*one, taken) = (*one + 1, taken + 1);
                }
            }
            if taken == before {
                return (held, capacity - taken);
            }
        }
    }

    #[test]
    fn one_origin_gets_a_third_and_two_get_a_quarter_each() {
        assert_eq!(filled(1, 3_000), (vec![1_001], 1_999));
        let (two, _) = filled(2, 4_000);
        assert!(two.iter().all(|held| (1_000..=1_001).contains(held)), "{two:?}");
    }

    #[test]
    fn an_origin_that_holds_nothing_finds_room_against_hundreds() {
        let (_, free) = filled(400, 500);
        assert_eq!(free, 500 / RESERVE);
        assert!(Pool { capacity: 500, taken: 500 - free }.admits(0, 1, 0.5));
    }

    #[test]
    fn origins_that_come_one_after_the_other_leave_room_too() {
        for (capacity, more, origins) in
            [(500, 1, 60), (8 << 20, 60_000, 20), (1 << 30, 60_000, 60)]
        {
            let mut taken = 0;
            for _ in 0..origins {
                let mut held = 0;
                while (Pool { capacity, taken }).admits(held, more, 0.5) {
                    (held, taken) = (held + more, taken + more);
                }
            }
            assert!(Pool { capacity, taken }.admits(0, more, 0.5), "{taken} of {capacity}");
        }
        assert!(Pool { capacity: 500, taken: 499 }.admits(0, 1, 0.5));
        assert!(!Pool { capacity: 500, taken: 500 }.admits(0, 1, 0.5));
    }

    #[test]
    fn no_number_overflows() {
        assert!(!Pool { capacity: u64::MAX, taken: 1 }.fits(u64::MAX));
        assert!(!Pool { capacity: 1, taken: 5 }.admits(0, u64::MAX, 1.0));
    }
}
