//! The changes that the Registry's thread has flushed and the writer's thread has not taken.

use std::sync::mpsc::SyncSender;
use std::time::Instant;

use super::PutSeq;
use super::database::Changes;
use super::records::{CorrespondentRecord, DeviceRecord, Fingerprint, MessageRecord};
use super::snapshot::Snapshot;
use crate::protocol::envelope::Seq;
use crate::protocol::id::DeviceId;

#[derive(Debug)]
pub(super) enum Change {
    Put(PutSeq, MessageRecord),
    Replace(MessageRecord),
    Remove(Seq, Option<Fingerprint>),
    Fingerprint(Fingerprint),
    Device(DeviceId, Option<DeviceRecord>),
    Correspondent(CorrespondentRecord),
    Report(PutSeq),
}

/// Flushed changes that the writer has not taken yet.
#[derive(Debug, Default)]
pub(super) struct PendingChanges {
    pub changes: Changes,
    /// When the first of the changes was flushed.
    pub since: Option<Instant>,
    pub bytes: usize,
    /// The newest put among the changes, or among the changes that were taken before.
    pub last_put: PutSeq,
    /// A report is due even if no change is left to write.
    pub owes_report: bool,
    pub closing: bool,
    /// Who waits for a snapshot.
    pub snapshot_wanted: Option<SyncSender<Snapshot>>,
}

impl PendingChanges {
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && !self.owes_report
    }

    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Put(put_seq, record) => {
                self.bytes += record.envelope.body.len();
                self.last_put = put_seq;
                self.changes.puts.insert(record.seq, record);
            }
            Change::Replace(record) => {
                let newer = &mut self.changes;
                let is_put = newer.puts.contains_key(&record.seq);
                let records = if is_put { &mut newer.puts } else { &mut newer.replaced };
                records.insert(record.seq, record);
            }
            Change::Remove(seq, fingerprint) => {
                self.changes.replaced.remove(&seq);
                if let Some(record) = self.changes.puts.remove(&seq) {
                    self.bytes -= record.envelope.body.len();
                } else {
                    self.changes.removes.push(seq);
                }
                self.changes.fingerprints.extend(fingerprint);
            }
            Change::Fingerprint(fingerprint) => self.changes.fingerprints.push(fingerprint),
            Change::Device(id, device) => {
                self.changes.devices.insert(id, device);
            }
            Change::Report(put_seq) => {
                self.last_put = put_seq;
                self.owes_report = true;
            }
            Change::Correspondent(record) => {
                self.changes.correspondents.insert(record.key(), record);
            }
        }
    }
}
