//! A store for a relay whose queue lives and dies with the process: the mailboxes hold everything already.

use super::{Kept, Known, Record, Remember, Store};
use crate::protocol::envelope::Seq;
use crate::protocol::id::DeviceId;

/// Keeps nothing besides what the mailboxes keep.
#[derive(Debug, Default)]
pub struct Memory;

impl Store for Memory {
    fn put(&mut self, _: Record<'_>) -> Kept {
        Kept::Safe
    }

    fn remove(&mut self, _: Seq, _: Option<Remember>) {}

    fn know(&mut self, _: Known) {}

    fn forget(&mut self, _: DeviceId) {}
}
