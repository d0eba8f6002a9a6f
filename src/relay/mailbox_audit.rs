//! Whether a mailbox's counts agree with its items; for tests.

use super::Mailbox;

impl Mailbox {
    /// Recounts everything that is kept twice.
    pub(in crate::relay) fn audit(&self) -> Result<(), String> {
        let mut found = Self::default();
        for (index, place) in self.places.iter().enumerate() {
            let Some(item) = &place.item else {
                found.holes += 1;
                continue;
            };
            if item.in_flight != (index < self.in_flight) || item.seq != place.seq {
                return Err(format!("{} has a wrong place in flight", item.seq));
            }
            if item.in_flight {
                found.in_flight += 1;
                found.in_flight_bytes += item.bytes();
            }
            found.waiting_again += usize::from(!item.in_flight && item.handed_over);
            found.messages += usize::from(item.envelope.subject.is_counted());
            if item.is_held() {
                found.count_held(item);
            }
        }
        let counts = |it: &Self| {
            let places = (it.in_flight, it.in_flight_bytes, it.holes, it.waiting_again);
            (places, it.messages)
        };
        let watched = self.deadlines.clone().into_sorted_vec();
        let agrees = counts(&found) == counts(self)
            && found.usage == self.usage
            && self.places.iter().is_sorted_by(|a, b| a.seq < b.seq)
            && found.deadlines.iter().all(|entry| watched.binary_search(entry).is_ok());
        if agrees { Ok(()) } else { Err(format!("the mailbox does not add up: {self:?}")) }
    }
}
