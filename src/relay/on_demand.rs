//! A part of a device that most devices do not need: memory for it is allocated at its first change.
//!
//! A million idle devices are mostly empty mailboxes and dedup windows; each costs a pointer here.

use std::ops::{Deref, DerefMut};

/// A value that can be empty, and one such value for all to read.
pub trait Empty: Default + 'static {
    fn empty() -> &'static Self;
    fn is_empty(&self) -> bool;
}

/// Reads as an empty value until it is changed.
#[derive(Debug)]
pub struct OnDemand<T>(Option<Box<T>>);

impl<T> Default for OnDemand<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Empty> OnDemand<T> {
    /// Gives back the memory of an empty value.
    pub fn trim(&mut self) {
        if self.0.as_ref().is_some_and(|value| value.is_empty()) {
            self.0 = None;
        }
    }
}

impl<T: Empty> Deref for OnDemand<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Some(value) => value,
            None => T::empty(),
        }
    }
}

impl<T: Empty> DerefMut for OnDemand<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    impl Empty for Vec<u8> {
        fn empty() -> &'static Self {
            static EMPTY: LazyLock<Vec<u8>> = LazyLock::new(Vec::new);
            &EMPTY
        }

        fn is_empty(&self) -> bool {
            self.as_slice().is_empty()
        }
    }

    #[test]
    fn memory_is_taken_at_the_first_change_and_given_back_when_nothing_is_left() {
        let mut part = OnDemand::<Vec<u8>>::default();
        assert_eq!((part.len(), part.0.is_none()), (0, true));
        part.push(1);
        part.trim();
        assert_eq!(part.first(), Some(&1));
        part.clear();
        part.trim();
        assert!(part.0.is_none());
    }
}
