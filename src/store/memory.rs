//! The store of a relay whose queue ends with the process: the mailboxes hold everything already.

use super::records::{CorrespondentRecord, DeviceRecord, Fingerprint, MessageRecord};
use super::{PutOutcome, PutSeq, Store};
use crate::protocol::envelope::{Envelope, Seq};
use crate::protocol::id::DeviceId;

#[derive(Debug, Default)]
pub struct Memory;

impl Store for Memory {
    fn put(&mut self, _: MessageRecord<&Envelope>, _: PutSeq) -> PutOutcome {
        PutOutcome::Durable
    }

    fn remove(&mut self, _: Seq, _: Option<Fingerprint>) {}

    fn replace(&mut self, _: MessageRecord<&Envelope>) {}

    fn put_fingerprint(&mut self, _: Fingerprint) {}

    fn put_device(&mut self, _: DeviceRecord) {}

    fn remove_device(&mut self, _: DeviceId) {}

    fn report_commit(&mut self, _: PutSeq) -> PutOutcome {
        PutOutcome::Durable
    }

    fn put_correspondent(&mut self, _: CorrespondentRecord) {}
}
