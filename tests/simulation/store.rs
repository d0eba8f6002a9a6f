//! A store that says what it was asked to keep, that takes its time if it likes, and that fails now and then.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytestring::ByteString;
use sealpost::clock::{Moment, Now};
use sealpost::protocol::envelope::{Envelope, Seq, Subject};
use sealpost::protocol::id::DeviceId;
use sealpost::store::records::{DeviceRecord, Fingerprint, MessageRecord};
use sealpost::store::{Loaded, PutOutcome, PutSeq, Store};

use crate::chance::Chance;
use crate::disk::{Change, Database};

/// How often a record is only safe later.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum CommitPolicy {
    Never,
    Sometimes,
    Always,
}

pub struct Put {
    pub seq: Seq,
    pub put_seq: PutSeq,
    pub to: DeviceId,
    pub expires_at: u64,
    pub body: ByteString,
    pub is_notice: bool,
    pub kept: PutOutcome,
}

/// What the store has to say to the router.
#[derive(Debug)]
pub enum Report {
    Committed(PutSeq),
    /// Through this turn; these records are lost.
    Failed(PutSeq, Vec<Seq>),
    Recovered,
}

pub struct Notebook {
    pace: CommitPolicy,
    seed: u64,
    now: Now,
    last: PutSeq,
    disk: Database,
    is_failing: bool,
    /// Fails at the next put.
    is_about_to_fail: bool,
    /// Something of this step was called safe.
    is_promised: bool,
    /// Something of the steps that wait was called pending.
    is_owing: bool,
    /// Nobody has heard them yet.
    reports: VecDeque<Report>,
    /// Puts that the model has not seen yet.
    pub log: VecDeque<Put>,
    /// Put and not removed, as far as the router can know.
    pub live: BTreeSet<Seq>,
}

impl Notebook {
    pub fn new(pace: CommitPolicy, seed: u64, window: Duration) -> Self {
        Self {
            pace,
            seed,
            now: Now { mono: Moment(0), wall_ms: 0 },
            last: PutSeq(0),
            disk: Database::new(window),
            is_failing: false,
            is_about_to_fail: false,
            is_promised: false,
            is_owing: false,
            reports: VecDeque::new(),
            log: VecDeque::new(),
            live: BTreeSet::new(),
        }
    }

    /// What it is now.
    pub fn set_time(&mut self, now: Now) {
        self.now = now;
    }

    /// The time of the step that is going on.
    pub fn now(&self) -> Now {
        self.now
    }

    /// A call of the router is over. What was called safe is safe before anybody hears of it.
    pub fn end_step(&mut self) {
        self.disk.end_step();
        let promised = std::mem::take(&mut self.is_promised);
        if !self.is_failing && (promised || self.pace == CommitPolicy::Never) {
            self.write(self.disk.ready());
        }
    }

    /// Steps that wait to be written.
    pub fn ready(&self) -> usize {
        self.disk.ready()
    }

    /// The number of the step that is going on.
    pub fn step(&self) -> u64 {
        self.disk.step()
    }

    /// Whether the step of that number is written.
    pub fn has(&self, step: u64) -> bool {
        self.disk.has(step)
    }

    /// Whether nothing is written of anybody.
    pub fn is_empty(&self) -> bool {
        self.disk.is_empty()
    }

    /// Commits so many of the steps that wait.
    pub fn write(&mut self, steps: usize) {
        if steps == 0 {
            return;
        }
        let through = self.disk.write(steps, self.now.wall_ms);
        if self.is_owing {
            self.reports.push_back(Report::Committed(through));
            self.is_owing = self.disk.ready() > 0;
        }
    }

    /// Fails to commit so many of the steps that wait, or says so although they are written (`secretly`).
    pub fn fail(&mut self, steps: usize, secretly: bool) {
        let (lost, through) = self.disk.fail(steps, secretly, self.now.wall_ms);
        self.is_failing = true;
        self.is_owing = false;
        self.reports.push_back(Report::Failed(through, lost));
    }

    /// Will fail in the middle of a step.
    pub fn set_about_to_fail(&mut self, is_about_to: bool) {
        self.is_about_to_fail = is_about_to && !self.is_failing;
    }

    /// Tries to write again. There may be room for that and no more.
    pub fn heal(&mut self, room_for_more: bool) {
        self.disk.write(self.disk.ready(), self.now.wall_ms);
        if room_for_more {
            self.is_failing = false;
            self.reports.push_back(Report::Recovered);
        }
    }

    /// What the router is to hear next.
    pub fn report(&mut self) -> Option<Report> {
        let report = self.reports.pop_front()?;
        if let Report::Failed(_, lost) = &report {
            for seq in lost {
                self.live.remove(seq);
            }
        }
        Some(report)
    }

    /// Through which turn records are lost, and nobody has heard it yet.
    pub fn lost_through(&self) -> PutSeq {
        let lost = self.reports.iter().filter_map(|report| match report {
            Report::Failed(through, _) => Some(*through),
            _ => None,
        });
        lost.max().unwrap_or_default()
    }

    /// The process ends, after so many of the steps that waited were written in the last moment.
    pub fn crash(&mut self, steps: usize) {
        self.disk.crash(steps, self.now.wall_ms);
        self.last = PutSeq(0);
        self.is_failing = false;
        self.is_about_to_fail = false;
        self.is_promised = false;
        self.is_owing = false;
        self.reports.clear();
    }

    /// Another process reads what there is.
    pub fn load(&mut self) -> Loaded {
        let loaded = self.disk.load(self.now.wall_ms);
        self.live = loaded.messages.iter().map(|record| record.seq).collect();
        loaded
    }

    fn validate(&mut self, seq: Seq) -> PutOutcome {
        if self.is_about_to_fail && !self.is_promised {
            self.is_about_to_fail = false;
            self.fail(self.disk.ready(), false);
        }
        if self.is_failing {
            return PutOutcome::Rejected;
        }
        // Which one is pending depends on nothing but its name: the router may ask in any order.
        let pending = match self.pace {
            CommitPolicy::Never => false,
            CommitPolicy::Sometimes => Chance::new(self.seed ^ seq << 20).percent(50),
            CommitPolicy::Always => true,
        };
        if pending { PutOutcome::Pending } else { PutOutcome::Durable }
    }
}

impl Store for Notebook {
    fn put(&mut self, record: MessageRecord<&Envelope>, put_seq: PutSeq) -> PutOutcome {
        assert!(put_seq > self.last, "the order of the puts does not grow");
        self.last = put_seq;
        let kept = self.validate(record.seq);
        let MessageRecord { seq, to, expires_at, envelope } = record;
        self.log.push_back(Put {
            seq,
            put_seq,
            to,
            expires_at,
            body: envelope.body.clone(),
            is_notice: envelope.subject == Subject::Notice,
            kept,
        });
        if kept == PutOutcome::Rejected {
            return kept;
        }
        assert!(self.live.insert(seq), "{seq} is put twice");
        self.is_promised |= kept == PutOutcome::Durable;
        self.is_owing |= kept == PutOutcome::Pending;
        let record = MessageRecord { seq, to, expires_at, envelope: envelope.clone() };
        self.disk.change(Change::Put(put_seq, record));
        kept
    }

    fn remove(&mut self, seq: Seq, fingerprint: Option<Fingerprint>) {
        self.live.remove(&seq);
        self.disk.change(Change::Remove(seq));
        if let Some(fingerprint) = fingerprint {
            assert_eq!(fingerprint.recorded_at, self.now.wall_ms, "not recorded when it left");
            self.disk.change(Change::Fingerprint(fingerprint));
        }
    }

    fn put_device(&mut self, device: DeviceRecord) {
        self.disk.change(Change::Device(device.id, Some(device)));
    }

    fn remove_device(&mut self, id: DeviceId) {
        self.disk.change(Change::Device(id, None));
    }

    fn is_failing(&self) -> bool {
        self.is_failing
    }
}
