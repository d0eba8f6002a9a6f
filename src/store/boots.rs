//! Times that outlive the process: in the time of one boot of the machine, with what leads from a boot to the next one.
//!
//! The wall clock may be set at any time, and machines without a battery start in 1970. A restart within a boot therefore
//! does not look at it. Only the step from one boot to the next needs it: the wall clock at the first start in the new boot,
//! and the latest offset of the wall clock in the old one.

use std::time::Duration;

use super::database::{Changes, Database};
use super::open::OpenError;
use super::records::{Reader, layout, seal};
use super::writer::DatabaseFile;
use crate::clock::{Moment, Now};

/// A point in the time of one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BootTime {
    /// The number of a [`BootRecord`].
    pub boot: u32,
    pub at: Moment,
}

impl BootTime {
    /// The deadline of what does not expire, in every boot.
    pub const NEVER: Self = Self { boot: 0, at: Moment::NEVER };
    /// A deadline that has passed, in every boot.
    pub const OVER: Self = Self { boot: 0, at: Moment(0) };
}

/// A boot of the machine in which a relay has used the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BootRecord {
    /// Counts up from 1; the key in the database, not part of the value.
    pub number: u32,
    /// The kernel's id of the boot; 0 if it is unknown.
    pub id: u128,
    /// The first start of a relay in this boot.
    pub entered: Now,
    /// [`Now::wall_offset_ms`], the latest that was noticed.
    pub wall_offset_ms: i64,
}

/// Boots that are remembered. What an older boot has stored gets its whole ttl once more.
pub const MAX_BOOTS: u32 = 1024;

/// A smaller change of the offset is drift, or the time between the readings of the two clocks.
const STEP_MS: u64 = 250;

const NANOS_PER_MS: i128 = 1_000_000;

impl BootRecord {
    /// The record with the offset of now, if the wall clock was set since the last one.
    pub fn renewed(self, now: Now) -> Option<Self> {
        let wall_offset_ms = now.wall_offset_ms();
        let is_stepped = wall_offset_ms.abs_diff(self.wall_offset_ms) >= STEP_MS;
        is_stepped.then_some(Self { wall_offset_ms, ..self })
    }

    /// How long after the first start in `next` a moment of this boot comes; below 0 if it comes before.
    fn nanos_after_start_of(&self, next: &Self, at: Moment) -> i128 {
        let wall = i128::from(at.0) + i128::from(self.wall_offset_ms) * NANOS_PER_MS;
        wall - i128::from(next.entered.wall_ms) * NANOS_PER_MS
    }

    /// Writes the value for the key `number` to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        out.push(layout::BOOT);
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.entered.mono.0.to_le_bytes());
        out.extend_from_slice(&self.entered.wall_ms.to_le_bytes());
        out.extend_from_slice(&self.wall_offset_ms.to_le_bytes());
        seal(u64::from(self.number), out);
    }

    /// `None` if the value is damaged.
    pub fn decode(number: u32, value: &[u8]) -> Option<Self> {
        let mut from = Reader::open(layout::BOOT, u64::from(number), value)?;
        let id = from.u128()?;
        let entered = Now { mono: Moment(from.u64()?), wall_ms: from.u64()? };
        Some(Self { number, id, entered, wall_offset_ms: i64::from_le_bytes(from.array()?) })
    }
}

/// All boots that are remembered, the current one last.
#[derive(Debug, Clone, Default)]
pub struct Boots {
    /// In the order of their numbers.
    pub records: Vec<BootRecord>,
    /// The current boot is not on disk yet.
    pub(super) is_new: bool,
}

impl Boots {
    /// `records` in the order of their numbers.
    pub fn new(records: Vec<BootRecord>) -> Self {
        Self { records, is_new: false }
    }

    /// Makes the boot with this id the current one. Only the last one can be meant: a database that was on another machine in
    /// between continues by the wall clock.
    pub fn enter(&mut self, id: Option<u128>, now: Now) {
        let last = self.current();
        if id.is_some_and(|id| id == last.id) {
            return;
        }
        self.is_new = true;
        self.records.push(BootRecord {
            number: last.number.saturating_add(1),
            id: id.unwrap_or_default(),
            entered: now,
            wall_offset_ms: now.wall_offset_ms(),
        });
    }

    /// The current boot; one with the number 0 if nothing was stored in any.
    pub fn current(&self) -> BootRecord {
        self.records.last().copied().unwrap_or_default()
    }

    /// A stored time in the time of the current boot. From `now` on it is at most `longest` away, and so it was at the first
    /// start in every boot since: whatever ran backwards, nothing lives longer than it may.
    pub fn moment(&self, now: Now, stored: BootTime, longest: Duration) -> Moment {
        if stored.at == BootTime::NEVER.at || stored.at == BootTime::OVER.at {
            return stored.at;
        }
        let first = self.records.partition_point(|boot| boot.number < stored.boot);
        let (mut at, mut before) = (stored.at, None::<&BootRecord>);
        for boot in self.records.iter().skip(first) {
            if boot.number > stored.boot {
                let left = before.map_or(longest, |before| {
                    let nanos = before.nanos_after_start_of(boot, at);
                    Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
                });
                at = boot.entered.mono + left.min(longest);
            }
            before = Some(boot);
        }
        at.min(now.mono + longest)
    }

    /// Whether what was recorded at `stored` happened less than `window` ago.
    pub fn is_within(&self, now: Now, stored: BootTime, window: Duration) -> bool {
        let end = BootTime { at: stored.at + window, ..stored };
        self.moment(now, end, window) > now.mono
    }
}

/// Writes the current boot before anything is stored in it. On a full disk what is there is still delivered: then the writer
/// tries again.
///
/// # Errors
///
/// As [`DatabaseFile::reopen`].
pub fn write_boot(
    mut database: Database,
    file: &impl DatabaseFile,
    boots: &mut Boots,
) -> Result<Database, OpenError> {
    if boots.is_new {
        let boot = Some(boots.current());
        if let Err(error) = database.commit(&Changes { boot, ..Changes::default() }) {
            log::error!(error:%; "the boot of the machine cannot be written to the queue");
            drop(database);
            return file.reopen();
        }
        boots.is_new = false;
    }
    Ok(database)
}

#[cfg(test)]
#[path = "boots_tests.rs"]
mod tests;
