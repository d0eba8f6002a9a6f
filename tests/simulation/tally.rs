//! Where chance has been: a simulation that never gets somewhere proves nothing about it.

use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The process died and came back.
    Crash,
    /// A process died with written records that were not reported yet, and they were there.
    WrittenUnheard,
    /// It died with changes that were not written.
    Lost,
    /// A message that was safe came back.
    Back,
    /// One that was settled came back, for that was not written.
    BackAgain,
    /// A notice came back.
    NoticeBack,
    /// Of a message and the notice of its end, the notice was there after a restart.
    ToldAfter,
    /// Of the two, the message was there: its end was not written.
    EndsAnew,
    /// It expired while nobody looked.
    OverBefore,
    /// The recipient cannot resume, and the sender gets an Error.
    Unclaimed,
    /// A device came too late to be known after a restart.
    Unregistered,
    /// A message from before a restart was sent again, and acked again.
    Repeat,
    /// The same name from before a restart, and other content.
    OtherContent,
    /// The store failed, and a message went back to its sender.
    GivenBack,
    /// The store failed, and a message stayed all the same.
    KeptInMemory,
    /// The store recovered, and was asked again.
    PutAnew,
}

impl Place {
    pub const ALL: [Self; 16] = [
        Self::Crash,
        Self::WrittenUnheard,
        Self::Lost,
        Self::Back,
        Self::BackAgain,
        Self::NoticeBack,
        Self::ToldAfter,
        Self::EndsAnew,
        Self::OverBefore,
        Self::Unclaimed,
        Self::Unregistered,
        Self::Repeat,
        Self::OtherContent,
        Self::GivenBack,
        Self::KeptInMemory,
        Self::PutAnew,
    ];
}

#[derive(Debug, Default)]
pub struct Tally(BTreeMap<Place, u64>);

impl Tally {
    pub fn reach(&mut self, place: Place) {
        *self.0.entry(place).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        for (place, times) in &other.0 {
            *self.0.entry(*place).or_default() += times;
        }
    }

    /// Where it has never been.
    pub fn missing(&self) -> Vec<Place> {
        Place::ALL.into_iter().filter(|place| !self.0.contains_key(place)).collect()
    }
}
