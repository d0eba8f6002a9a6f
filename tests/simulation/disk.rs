//! The half of the store that outlives the process: what is written, and what waits to be.
//!
//! What one call of the router changes is one step, and a commit takes whole steps in their order: after a crash there is
//! everything of a step or nothing. What is taken back before it is written is never written, so not even its sequence
//! leaves a trace. All of it goes as in `sealpost::store::durable` and `disk`, without a disk.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use sealpost::protocol::envelope::Seq;
use sealpost::protocol::id::DeviceId;
use sealpost::store::records::{DeviceRecord, Fingerprint, MessageRecord};
use sealpost::store::{Loaded, PutSeq};

/// One thing that the store was told.
pub enum Change {
    Put(PutSeq, MessageRecord),
    Remove(Seq),
    Fingerprint(Fingerprint),
    Device(DeviceId, Option<DeviceRecord>),
}

/// What one commit changes.
#[derive(Default)]
struct Batch {
    puts: BTreeMap<Seq, MessageRecord>,
    removes: Vec<Seq>,
    prints: Vec<Fingerprint>,
    devices: BTreeMap<DeviceId, Option<DeviceRecord>>,
}

#[derive(Default)]
struct Written {
    queue: BTreeMap<Seq, MessageRecord>,
    devices: BTreeMap<DeviceId, DeviceRecord>,
    prints: VecDeque<Fingerprint>,
    next_seq: Seq,
}

pub struct Database {
    window_ms: u64,
    written: Written,
    /// Steps that wait, the oldest first; the newest is still going on.
    waiting: VecDeque<Vec<Change>>,
    /// Steps that are written.
    steps: u64,
    /// Of the newest record that was written, or taken back before it was.
    last: PutSeq,
}

impl Database {
    pub fn new(window: Duration) -> Self {
        let window_ms = window.as_millis() as u64;
        let waiting = VecDeque::from([Vec::new()]);
        Self { window_ms, written: Written::default(), waiting, steps: 0, last: PutSeq(0) }
    }

    /// Takes a change up into the step that is going on.
    pub fn change(&mut self, change: Change) {
        self.current().push(change);
    }

    fn current(&mut self) -> &mut Vec<Change> {
        self.waiting.back_mut().expect("a step is always going on")
    }

    /// The step is over; the next one begins.
    pub fn end_step(&mut self) {
        if !self.current().is_empty() {
            self.waiting.push_back(Vec::new());
        }
    }

    /// Steps that wait and are over.
    pub fn ready(&self) -> usize {
        self.waiting.len() - 1
    }

    /// The number of the step that is going on: written as soon as more steps are.
    pub fn step(&self) -> u64 {
        self.steps + self.ready() as u64
    }

    /// Whether a step of that number is written.
    pub fn has(&self, step: u64) -> bool {
        step < self.steps
    }

    pub fn is_empty(&self) -> bool {
        self.written.queue.is_empty() && self.written.devices.is_empty()
    }

    /// Writes so many steps, all of them or none; answers through which turn everything is safe.
    pub fn write(&mut self, steps: usize, wall_ms: u64) -> PutSeq {
        let batch = self.take(steps);
        self.apply(&batch, wall_ms);
        self.last
    }

    /// Fails to write so many steps. Their records are lost and so are those that came since; everything else waits again.
    /// Sometimes the disk has written it all the same (`secretly`). Answers which records are lost, and the last turn.
    pub fn fail(&mut self, steps: usize, secretly: bool, wall_ms: u64) -> (Vec<Seq>, PutSeq) {
        let before = self.steps;
        let failed = self.take(steps);
        if secretly {
            self.apply(&failed, wall_ms);
        }
        let since = self.take(self.waiting.len());
        // One step from now on: whatever is written next is written together.
        self.steps = before;
        let lost = failed.puts.keys().chain(since.puts.keys()).copied().collect();
        let removes = failed.puts.into_keys().chain(failed.removes).chain(since.removes);
        let prints = failed.prints.into_iter().chain(since.prints);
        let devices = failed.devices.into_iter().chain(since.devices);
        let step = removes
            .map(Change::Remove)
            .chain(prints.map(Change::Fingerprint))
            .chain(devices.map(|(id, device)| Change::Device(id, device)));
        self.waiting = VecDeque::from([step.collect()]);
        (lost, self.last)
    }

    /// The process ends. So many of the steps that waited were written in the last moment, and nobody heard of it.
    pub fn crash(&mut self, steps: usize, wall_ms: u64) {
        self.write(steps, wall_ms);
        self.waiting = VecDeque::from([Vec::new()]);
        self.last = PutSeq(0);
    }

    /// What a restart finds.
    pub fn load(&self, wall_ms: u64) -> Loaded {
        let Written { queue, devices, prints, next_seq } = &self.written;
        let oldest = wall_ms.saturating_sub(self.window_ms);
        let prints = prints.iter().filter(|print| print.recorded_at >= oldest);
        Loaded {
            devices: devices.values().copied().collect(),
            messages: queue.values().cloned().collect(),
            fingerprints: prints.copied().collect(),
            next_seq: (*next_seq).max(1),
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
                Change::Remove(seq) => {
                    if batch.puts.remove(&seq).is_none() {
                        batch.removes.push(seq);
                    }
                }
                Change::Fingerprint(print) => batch.prints.push(print),
                Change::Device(id, device) => {
                    batch.devices.insert(id, device);
                }
            }
        }
        self.steps += steps as u64;
        batch
    }

    fn apply(&mut self, batch: &Batch, wall_ms: u64) {
        let Written { queue, devices, prints, next_seq } = &mut self.written;
        for (seq, record) in &batch.puts {
            queue.insert(*seq, record.clone());
            *next_seq = (*next_seq).max(seq + 1);
        }
        for seq in &batch.removes {
            queue.remove(seq);
        }
        prints.extend(&batch.prints);
        let window = self.window_ms;
        let memory = wall_ms.saturating_sub(window)..=wall_ms.saturating_add(window);
        for _ in 0..2 * batch.prints.len() {
            match prints.front() {
                Some(print) if !memory.contains(&print.recorded_at) => prints.pop_front(),
                _ => break,
            };
        }
        for (id, device) in &batch.devices {
            match device {
                Some(device) => devices.insert(*id, *device),
                None => devices.remove(id),
            };
        }
    }
}
