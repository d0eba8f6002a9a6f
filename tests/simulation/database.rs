//! The half of the store that survives the process, without a disk: the written records, and the steps that wait.
//!
//! The changes of one call of the router are one step. A commit takes whole steps in their order, so a crash keeps all of a
//! step or nothing. A record that is removed before its commit is never written, and its sequence number may be used again.
//! `sealpost::store::writer` and `sealpost::store::database` do the same on a disk.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use sealpost::clock::Now;
use sealpost::protocol::envelope::Seq;
use sealpost::protocol::id::DeviceId;
use sealpost::store::boots::{BootRecord, BootTime, Boots};
use sealpost::store::records::{
    CorrespondentRecord, DeviceRecord, Fingerprint, HashKey, MessageRecord,
};
use sealpost::store::{Loaded, PutSeq};

pub enum Change {
    Put(PutSeq, MessageRecord),
    Replace(MessageRecord),
    Report(PutSeq),
    Remove(Seq),
    Fingerprint(Fingerprint),
    Device(DeviceId, Option<DeviceRecord>),
    Correspondent(CorrespondentRecord),
}

/// The changes of one commit.
#[derive(Default)]
struct Batch {
    puts: BTreeMap<Seq, MessageRecord>,
    replaced: BTreeMap<Seq, MessageRecord>,
    removes: Vec<Seq>,
    fingerprints: Vec<Fingerprint>,
    devices: BTreeMap<DeviceId, Option<DeviceRecord>>,
    correspondents: Vec<CorrespondentRecord>,
}

#[derive(Default)]
struct Written {
    queue: BTreeMap<Seq, MessageRecord>,
    devices: BTreeMap<DeviceId, DeviceRecord>,
    correspondents: BTreeMap<(u128, u16), CorrespondentRecord>,
    fingerprints: VecDeque<Fingerprint>,
    next_seq: Seq,
    boots: BTreeMap<u32, BootRecord>,
}

pub struct Database {
    window: Duration,
    written: Written,
    /// The current boot, written or not.
    boot: BootRecord,
    /// Steps that wait, the oldest first; the last one is not over.
    waiting: VecDeque<Vec<Change>>,
    /// Number of written steps.
    steps: u64,
    /// The newest put that was written, or removed before it was.
    last: PutSeq,
}

impl Database {
    pub fn new(window: Duration) -> Self {
        let waiting = VecDeque::from([Vec::new()]);
        let (written, boot) = (Written::default(), BootRecord::default());
        Self { window, written, boot, waiting, steps: 0, last: PutSeq(0) }
    }

    /// Adds a change to the current step.
    pub fn change(&mut self, change: Change) {
        self.current().push(change);
    }

    fn current(&mut self) -> &mut Vec<Change> {
        self.waiting.back_mut().expect("there is a current step")
    }

    pub fn end_step(&mut self) {
        if !self.current().is_empty() {
            self.waiting.push_back(Vec::new());
        }
    }

    /// Number of steps that wait and are over.
    pub fn ready(&self) -> usize {
        self.waiting.len() - 1
    }

    /// The number of the current step. The step is written when more steps than that are.
    pub fn step(&self) -> u64 {
        self.steps + self.ready() as u64
    }

    /// Whether the step of that number is written.
    pub fn has(&self, step: u64) -> bool {
        step < self.steps
    }

    pub fn is_empty(&self) -> bool {
        let Written { queue, devices, correspondents, .. } = &self.written;
        queue.is_empty() && devices.is_empty() && correspondents.is_empty()
    }

    /// Writes the oldest `steps`. Returns the newest put that is safe.
    pub fn write(&mut self, steps: usize, now: Now) -> PutSeq {
        let batch = self.take(steps);
        self.apply(&batch, now);
        self.last
    }

    /// Writes the current boot and the offset of the wall clock, without a step.
    pub fn write_boot(&mut self, now: Now) {
        self.boot = self.boot.renewed(now).unwrap_or(self.boot);
        self.written.boots.insert(self.boot.number, self.boot);
    }

    pub fn boot(&self) -> u32 {
        self.boot.number
    }

    /// Fails to write the oldest `steps`. All waiting records are lost; all other changes wait again. With `secretly` the
    /// steps are written although the commit failed. Returns the lost records and the newest put among them.
    pub fn fail(&mut self, steps: usize, secretly: bool, now: Now) -> (Vec<Seq>, PutSeq) {
        let before = self.steps;
        let failed = self.take(steps);
        if secretly {
            self.apply(&failed, now);
        }
        let since = self.take(self.waiting.len());
        // They are one step now, because the next commit takes all of them.
        self.steps = before;
        let lost: Vec<Seq> = failed.puts.keys().chain(since.puts.keys()).copied().collect();
        let mut replaced = failed.replaced;
        replaced.extend(since.replaced);
        let removes = failed.puts.into_keys().chain(failed.removes).chain(since.removes);
        let fingerprints = failed.fingerprints.into_iter().chain(since.fingerprints);
        let correspondents = failed.correspondents.into_iter().chain(since.correspondents);
        let devices = failed.devices.into_iter().chain(since.devices);
        let step = replaced
            .into_values()
            .map(Change::Replace)
            .chain(removes.map(Change::Remove))
            .chain(fingerprints.map(Change::Fingerprint))
            .chain(correspondents.map(Change::Correspondent))
            .chain(devices.map(|(id, device)| Change::Device(id, device)));
        self.waiting = VecDeque::from([step.collect()]);
        (lost, self.last)
    }

    /// Ends the process. The oldest `steps` were written just before, without a report.
    pub fn crash(&mut self, steps: usize, now: Now) {
        if steps > 0 {
            self.write(steps, now);
        }
        self.waiting = VecDeque::from([Vec::new()]);
        self.last = PutSeq(0);
    }

    /// Starts a process in the boot with this id.
    pub fn load(&mut self, now: Now, boot_id: u128) -> Loaded {
        let Written { queue, devices, correspondents, fingerprints, next_seq, boots } =
            &self.written;
        let mut boots = Boots::new(boots.values().copied().collect());
        boots.enter(Some(boot_id), now);
        self.boot = boots.current();
        let is_young = |print: &&Fingerprint| boots.is_within(now, print.recorded_at, self.window);
        let fingerprints = fingerprints.iter().filter(is_young);
        Loaded {
            devices: devices.values().cloned().collect(),
            correspondents: correspondents.values().copied().collect(),
            hash_key: HashKey::default(),
            messages: queue.values().cloned().collect(),
            fingerprints: fingerprints.copied().collect(),
            next_seq: (*next_seq).max(1),
            boots: boots.clone(),
            damaged: 0,
        }
    }

    fn take(&mut self, steps: usize) -> Batch {
        let mut batch = Batch::default();
        for change in self.waiting.drain(..steps).flatten() {
            match change {
                Change::Put(put_seq, record) => {
                    self.last = put_seq;
                    batch.puts.insert(record.seq, record);
                }
                Change::Replace(record) if batch.puts.contains_key(&record.seq) => {
                    batch.puts.insert(record.seq, record);
                }
                Change::Replace(record) => {
                    batch.replaced.insert(record.seq, record);
                }
                Change::Report(put_seq) => self.last = put_seq,
                Change::Remove(seq) => {
                    batch.replaced.remove(&seq);
                    if batch.puts.remove(&seq).is_none() {
                        batch.removes.push(seq);
                    }
                }
                Change::Fingerprint(fingerprint) => batch.fingerprints.push(fingerprint),
                Change::Correspondent(record) => batch.correspondents.push(record),
                Change::Device(id, device) => {
                    batch.devices.insert(id, device);
                }
            }
        }
        self.steps += steps as u64;
        batch
    }

    fn apply(&mut self, batch: &Batch, now: Now) {
        self.write_boot(now);
        let Written { queue, devices, correspondents, fingerprints, next_seq, .. } =
            &mut self.written;
        for (seq, record) in &batch.puts {
            queue.insert(*seq, record.clone());
            *next_seq = (*next_seq).max(seq + 1);
        }
        for (seq, record) in &batch.replaced {
            if let Some(replaced) = queue.get_mut(seq) {
                *replaced = record.clone();
            }
        }
        for seq in &batch.removes {
            queue.remove(seq);
        }
        fingerprints.extend(&batch.fingerprints);
        let BootRecord { number: boot, entered, .. } = self.boot;
        let since = (now.mono - entered.mono).checked_sub(self.window);
        let oldest = since.map(|since| BootTime { boot, at: entered.mono + since });
        let oldest = oldest.unwrap_or_default();
        for _ in 0..2 * batch.fingerprints.len() {
            match fingerprints.front() {
                Some(fingerprint) if fingerprint.recorded_at < oldest => fingerprints.pop_front(),
                _ => break,
            };
        }
        for record in &batch.correspondents {
            correspondents.insert(record.key(), *record);
        }
        for (id, device) in &batch.devices {
            match device {
                Some(device) => {
                    devices.insert(*id, device.clone());
                }
                None => {
                    devices.remove(id);
                    correspondents.retain(|(device, _), _| *device != id.to_u128());
                }
            }
        }
    }
}
