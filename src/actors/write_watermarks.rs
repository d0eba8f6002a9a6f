//! What the sockets took, on its way to the Registry.
//!
//! Every delivery ends with such a mark. As messages of their own they would cost as much as what they are about, so
//! they come together here, and the Registry is told once that there are some.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::protocol::envelope::Seq;
use crate::relay::command::ConnectionId;

/// A connection, and the mark through which its socket took everything.
pub type Watermark = (ConnectionId, Seq);

/// See the module. Clones share.
#[derive(Debug, Clone, Default)]
pub struct WriteWatermarks(Arc<Mutex<Vec<Watermark>>>);

impl WriteWatermarks {
    /// Leaves a mark. Answers whether it is the first, so that the Registry must be told.
    #[must_use]
    pub fn record(&self, watermark: Watermark) -> bool {
        let mut watermarks = self.lock();
        watermarks.push(watermark);
        watermarks.len() == 1
    }

    /// Exchanges what has come together for an empty list with room.
    pub fn exchange(&self, empty: &mut Vec<Watermark>) {
        std::mem::swap(&mut *self.lock(), empty);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Watermark>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
