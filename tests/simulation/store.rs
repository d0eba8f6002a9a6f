//! A store that records every put for the model, commits late and fails now and then.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytestring::ByteString;
use sealpost::clock::{Moment, Now};
use sealpost::protocol::envelope::{Envelope, Seq, Subject};
use sealpost::protocol::id::DeviceId;
use sealpost::store::boots::BootTime;
use sealpost::store::records::{CorrespondentRecord, DeviceRecord, Fingerprint, MessageRecord};
use sealpost::store::{Loaded, PutOutcome, PutSeq, Store};

use crate::chance::Chance;
use crate::database::{Change, Database};

/// Which puts are answered with `Pending`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PendingPuts {
    Never,
    Sometimes,
    Always,
}

pub struct Put {
    pub seq: Seq,
    pub put_seq: PutSeq,
    pub to: DeviceId,
    pub expires_at: BootTime,
    pub body: ByteString,
    /// What a notice counts.
    pub notice_bytes: Option<u64>,
    pub kept: PutOutcome,
}

/// What the store reports to the router.
#[derive(Debug)]
pub enum Report {
    Committed(PutSeq),
    /// Through this put; these records are lost.
    Failed(PutSeq, Vec<Seq>),
    Recovered,
}

pub struct Notebook {
    pending_puts: PendingPuts,
    seed: u64,
    now: Now,
    last: PutSeq,
    database: Database,
    is_failing: bool,
    /// Fails at the next put.
    is_about_to_fail: bool,
    /// A put of this step was answered with `Durable`.
    has_durable: bool,
    /// A put of the waiting steps was answered with `Pending`.
    has_pending: bool,
    /// Reports that the router has not got yet.
    reports: VecDeque<Report>,
    /// Puts that the model has not seen yet.
    pub log: VecDeque<Put>,
    /// Requests for a report that the model has not seen yet.
    pub asked: VecDeque<(PutSeq, PutOutcome)>,
    /// Records that were replaced and fingerprints of what was never put, until the model has seen them.
    pub replaced: VecDeque<Seq>,
    pub fingerprints: VecDeque<Fingerprint>,
    /// Put and not removed, in the view of the router.
    pub live: BTreeSet<Seq>,
}

impl Notebook {
    pub fn new(pending_puts: PendingPuts, seed: u64, window: Duration) -> Self {
        Self {
            pending_puts,
            seed,
            now: Now { mono: Moment(0), wall_ms: 0 },
            last: PutSeq(0),
            database: Database::new(window),
            is_failing: false,
            is_about_to_fail: false,
            has_durable: false,
            has_pending: false,
            reports: VecDeque::new(),
            log: VecDeque::new(),
            asked: VecDeque::new(),
            replaced: VecDeque::new(),
            fingerprints: VecDeque::new(),
            live: BTreeSet::new(),
        }
    }

    pub fn set_time(&mut self, now: Now) {
        self.now = now;
    }

    /// Ends a step. A put that was answered with `Durable` is written before its Ack leaves.
    pub fn end_step(&mut self) {
        self.database.end_step();
        let promised = std::mem::take(&mut self.has_durable);
        if !self.is_failing && (promised || self.pending_puts == PendingPuts::Never) {
            self.write(self.database.ready());
        }
    }

    /// Steps that wait to be written.
    pub fn ready(&self) -> usize {
        self.database.ready()
    }

    /// The number of the step that is going on.
    pub fn step(&self) -> u64 {
        self.database.step()
    }

    /// Whether the step of that number is written.
    pub fn has(&self, step: u64) -> bool {
        self.database.has(step)
    }

    pub fn is_empty(&self) -> bool {
        self.database.is_empty()
    }

    /// Writes the current boot and the offset of the wall clock, unless the disk fails.
    pub fn write_boot(&mut self) {
        if !self.is_failing {
            self.database.write_boot(self.now);
        }
    }

    /// The number of the current boot.
    pub fn boot(&self) -> u32 {
        self.database.boot()
    }

    /// Commits the oldest `steps` of the waiting steps.
    pub fn write(&mut self, steps: usize) {
        if steps == 0 {
            return;
        }
        let through = self.database.write(steps, self.now);
        if self.has_pending {
            self.reports.push_back(Report::Committed(through));
            self.has_pending = self.database.ready() > 0;
        }
    }

    /// Fails to commit the oldest `steps`. With `secretly` they are written although the commit failed.
    pub fn fail(&mut self, steps: usize, secretly: bool) {
        let (lost, through) = self.database.fail(steps, secretly, self.now);
        self.is_failing = true;
        self.has_pending = false;
        self.reports.push_back(Report::Failed(through, lost));
    }

    /// Lets the store fail in the middle of a step.
    pub fn set_about_to_fail(&mut self, is_about_to: bool) {
        self.is_about_to_fail = is_about_to && !self.is_failing;
    }

    /// Writes all waiting steps. New messages are accepted only with `room_for_more`.
    pub fn heal(&mut self, room_for_more: bool) {
        self.database.write(self.database.ready(), self.now);
        if room_for_more {
            self.is_failing = false;
            self.reports.push_back(Report::Recovered);
        }
    }

    /// The next report for the router.
    pub fn report(&mut self) -> Option<Report> {
        let report = self.reports.pop_front()?;
        if let Report::Failed(_, lost) = &report {
            for seq in lost {
                self.live.remove(seq);
            }
        }
        Some(report)
    }

    /// The newest put of a failure that the router does not know of.
    pub fn lost_through(&self) -> PutSeq {
        let lost = self.reports.iter().filter_map(|report| match report {
            Report::Failed(through, _) => Some(*through),
            _ => None,
        });
        lost.max().unwrap_or_default()
    }

    /// Ends the process. The oldest `steps` of the waiting steps were written just before.
    pub fn crash(&mut self, steps: usize) {
        self.database.crash(steps, self.now);
        self.last = PutSeq(0);
        self.is_failing = false;
        self.is_about_to_fail = false;
        self.has_durable = false;
        self.has_pending = false;
        self.reports.clear();
    }

    /// Starts the next process, which reads the database.
    pub fn load(&mut self, boot_id: u128) -> Loaded {
        let loaded = self.database.load(self.now, boot_id);
        self.live = loaded.messages.iter().map(|record| record.seq).collect();
        loaded
    }

    fn record(&mut self, fingerprint: Fingerprint) {
        let now = BootTime { boot: self.database.boot(), at: self.now.mono };
        assert_eq!(fingerprint.recorded_at, now, "not recorded when it left");
        self.database.change(Change::Fingerprint(fingerprint));
    }

    fn validate(&mut self, seq: Seq) -> PutOutcome {
        if self.is_about_to_fail && !self.has_durable {
            self.is_about_to_fail = false;
            self.fail(self.database.ready(), false);
        }
        if self.is_failing {
            return PutOutcome::Rejected;
        }
        // Depends on the sequence number alone, because the order of the puts of one step is free.
        let pending = match self.pending_puts {
            PendingPuts::Never => false,
            PendingPuts::Sometimes => Chance::new(self.seed ^ seq << 20).percent(50),
            PendingPuts::Always => true,
        };
        if pending { PutOutcome::Pending } else { PutOutcome::Durable }
    }
}

/// The store as the router owns it; the world looks at the same one.
pub struct SharedStore(pub Rc<RefCell<Notebook>>);

impl Store for SharedStore {
    fn put(&mut self, record: MessageRecord<&Envelope>, put_seq: PutSeq) -> PutOutcome {
        self.0.borrow_mut().put(record, put_seq)
    }

    fn remove(&mut self, seq: Seq, fingerprint: Option<Fingerprint>) {
        self.0.borrow_mut().remove(seq, fingerprint);
    }

    fn replace(&mut self, record: MessageRecord<&Envelope>) {
        self.0.borrow_mut().replace(record);
    }

    fn put_fingerprint(&mut self, fingerprint: Fingerprint) {
        self.0.borrow_mut().put_fingerprint(fingerprint);
    }

    fn put_device(&mut self, device: DeviceRecord) {
        self.0.borrow_mut().put_device(device);
    }

    fn remove_device(&mut self, id: DeviceId) {
        self.0.borrow_mut().remove_device(id);
    }

    fn report_commit(&mut self, put_seq: PutSeq) -> PutOutcome {
        self.0.borrow_mut().report_commit(put_seq)
    }

    fn put_correspondent(&mut self, correspondent: CorrespondentRecord) {
        self.0.borrow_mut().put_correspondent(correspondent);
    }

    fn is_failing(&self) -> bool {
        self.0.borrow().is_failing()
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
            notice_bytes: match envelope.subject {
                Subject::Notice { bytes, .. } => Some(bytes),
                _ => None,
            },
            kept,
        });
        if kept == PutOutcome::Rejected {
            return kept;
        }
        assert!(self.live.insert(seq), "{seq} is put twice");
        self.has_durable |= kept == PutOutcome::Durable;
        self.has_pending |= kept == PutOutcome::Pending;
        let record = MessageRecord { seq, to, expires_at, envelope: envelope.clone() };
        self.database.change(Change::Put(put_seq, record));
        kept
    }

    fn remove(&mut self, seq: Seq, fingerprint: Option<Fingerprint>) {
        self.live.remove(&seq);
        self.database.change(Change::Remove(seq));
        if let Some(fingerprint) = fingerprint {
            self.record(fingerprint);
        }
    }

    fn replace(&mut self, record: MessageRecord<&Envelope>) {
        let MessageRecord { seq, to, expires_at, envelope } = record;
        assert!(self.live.contains(&seq), "{seq} is replaced and not there");
        self.replaced.push_back(seq);
        let record = MessageRecord { seq, to, expires_at, envelope: envelope.clone() };
        self.database.change(Change::Replace(record));
    }

    fn put_fingerprint(&mut self, fingerprint: Fingerprint) {
        self.fingerprints.push_back(fingerprint);
        self.record(fingerprint);
    }

    fn put_device(&mut self, device: DeviceRecord) {
        self.database.change(Change::Device(device.id, Some(device)));
    }

    fn remove_device(&mut self, id: DeviceId) {
        self.database.change(Change::Device(id, None));
    }

    fn report_commit(&mut self, put_seq: PutSeq) -> PutOutcome {
        assert!(put_seq > self.last, "the order of the puts does not grow");
        self.last = put_seq;
        let outcome = self.validate(put_seq.0);
        self.asked.push_back((put_seq, outcome));
        if outcome != PutOutcome::Rejected {
            self.has_durable |= outcome == PutOutcome::Durable;
            self.has_pending |= outcome == PutOutcome::Pending;
            self.database.change(Change::Report(put_seq));
        }
        outcome
    }

    fn put_correspondent(&mut self, correspondent: CorrespondentRecord) {
        self.database.change(Change::Correspondent(correspondent));
    }

    fn is_failing(&self) -> bool {
        self.is_failing
    }
}
