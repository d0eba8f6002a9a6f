//! Which situations the random events have reached: the simulation proves nothing about any other.

use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The process died and came back.
    Crash,
    /// It came back in the same boot of the machine.
    SameBoot,
    /// It came back in a later boot.
    LaterBoot,
    /// A process died with written records that were not reported yet, and they were there.
    WrittenUnreported,
    /// A process died with changes that were not written.
    Lost,
    /// A durable message came back after a restart.
    Back,
    /// A settled message came back, because its removal was not written.
    BackAgain,
    /// A notice came back after a restart.
    NoticeBack,
    /// Of a message and the notice of its end, the notice was there after a restart.
    NoticeAfter,
    /// Of the two, the message was there, because its end was not written.
    EndsAnew,
    /// A message expired while no process ran.
    OverBefore,
    /// The recipient cannot resume, and the sender gets an Error.
    Unclaimed,
    /// The record of a device was not written before a restart.
    DeviceForgotten,
    /// A message from before a restart was sent again, and acked again.
    Repeat,
    /// A message from before a restart was sent again with other content.
    OtherContent,
    /// The store failed, and a message went back to its sender.
    GivenBack,
    /// The store failed, and a message stayed all the same.
    KeptInMemory,
    /// The store recovered, and was asked again.
    PutAnew,
    /// The store failed, and a notice left without a commit.
    NoticeAtOnce,
    /// A notice left after the commit of the end that it reports.
    NoticeAfterCommit,
    /// A connection ended, and a notice that was not proved to have arrived waits for the next.
    NoticeAgain,
    /// A device proved that it has its notices.
    Proved,
    /// A frame came long after a notice was delivered.
    ProvedByTime,
    /// A message was acked that was delivered after a notice.
    ProvedByAck,
    /// A device resumed without receipts while some waited for it.
    ReceiptsDropped,
    /// A repeat turned on the receipts of a stored message.
    ReceiptsTurnedOn,
}

impl Place {
    pub const ALL: [Self; 26] = [
        Self::Crash,
        Self::SameBoot,
        Self::LaterBoot,
        Self::WrittenUnreported,
        Self::Lost,
        Self::Back,
        Self::BackAgain,
        Self::NoticeBack,
        Self::NoticeAfter,
        Self::EndsAnew,
        Self::OverBefore,
        Self::Unclaimed,
        Self::DeviceForgotten,
        Self::Repeat,
        Self::OtherContent,
        Self::GivenBack,
        Self::KeptInMemory,
        Self::PutAnew,
        Self::NoticeAtOnce,
        Self::NoticeAfterCommit,
        Self::NoticeAgain,
        Self::Proved,
        Self::ProvedByTime,
        Self::ProvedByAck,
        Self::ReceiptsDropped,
        Self::ReceiptsTurnedOn,
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

    /// The places that were never reached.
    pub fn missing(&self) -> Vec<Place> {
        Place::ALL.into_iter().filter(|place| !self.0.contains_key(place)).collect()
    }
}
