//! A store that says what it was asked to keep, and that takes its time if it likes.

use std::collections::{BTreeSet, VecDeque};

use sealpost::protocol::envelope::{Seq, Subject};
use sealpost::protocol::id::DeviceId;
use sealpost::store::{Kept, Known, Record, Remember, Store, Turn};

use crate::chance::Chance;

/// How often a record is only safe later.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    Never,
    Sometimes,
    Always,
}

pub struct Put {
    pub seq: Seq,
    pub turn: Turn,
    pub to: DeviceId,
    pub deadline: u64,
    pub body: Box<[u8]>,
    pub kept: Kept,
}

pub struct Notebook {
    pace: Pace,
    chance: Chance,
    last: Turn,
    /// Puts that the model has not seen yet.
    pub log: VecDeque<Put>,
    /// Put and not removed.
    pub live: BTreeSet<Seq>,
    /// Of these, the relay's own words: the model knows when they must be gone, not when they must be kept.
    pub notices: BTreeSet<Seq>,
}

impl Notebook {
    pub fn new(pace: Pace, seed: u64) -> Self {
        let chance = Chance::new(seed ^ 0x570e);
        Self {
            pace,
            chance,
            last: Turn(0),
            log: VecDeque::new(),
            live: BTreeSet::new(),
            notices: BTreeSet::new(),
        }
    }
}

impl Store for Notebook {
    fn put(&mut self, record: Record<'_>) -> Kept {
        assert!(record.turn > self.last, "a turn does not grow");
        let is_notice = record.envelope.subject == Subject::Notice;
        let kept = if is_notice { &mut self.notices } else { &mut self.live };
        assert!(kept.insert(record.seq), "{} is put twice", record.seq);
        self.last = record.turn;
        if is_notice {
            return if self.pace == Pace::Never { Kept::Safe } else { Kept::Pending };
        }
        let pending = match self.pace {
            Pace::Never => false,
            Pace::Sometimes => self.chance.percent(50),
            Pace::Always => true,
        };
        let kept = if pending { Kept::Pending } else { Kept::Safe };
        self.log.push_back(Put {
            seq: record.seq,
            turn: record.turn,
            to: record.to,
            deadline: record.deadline.0,
            body: AsRef::<[u8]>::as_ref(&record.envelope.body).into(),
            kept,
        });
        kept
    }

    fn remove(&mut self, seq: Seq, _: Option<Remember>) {
        self.live.remove(&seq);
        self.notices.remove(&seq);
    }

    fn know(&mut self, _: Known) {}

    fn forget(&mut self, _: DeviceId) {}
}
