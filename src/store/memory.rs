//! A store for a relay whose queue lives and dies with the process: the mailboxes hold everything already.

use super::{Known, PutOutcome, Record, Remember, Store};
use crate::protocol::envelope::Seq;
use crate::protocol::id::DeviceId;

/// Keeps nothing besides what the mailboxes keep.
#[derive(Debug, Default)]
pub struct Memory;

impl Store for Memory {
    fn put(&mut self, _: Record<'_>) -> PutOutcome {
        PutOutcome::Durable
    }

    fn remove(&mut self, _: Seq, _: Option<Remember>) {}

    fn put_device(&mut self, _: Known) {}

    fn remove_device(&mut self, _: DeviceId) {}
}
