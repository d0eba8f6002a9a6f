//! What the sockets have taken, on its way to the Registry.
//!
//! Every delivery ends with a watermark. An actix message for each would cost as much as the delivery, so watermarks are
//! collected here, and the Registry gets one message when there are some.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::protocol::envelope::Seq;
use crate::relay::command::ConnectionId;
use crate::relay::notice_queue::NoticeNumber;

/// What the socket of a connection has taken.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    pub connection: ConnectionId,
    /// Everything from the mailbox through this item.
    pub items: Seq,
    /// Every notice through this one.
    pub notices: NoticeNumber,
}

/// See the module. Clones share.
#[derive(Debug, Clone, Default)]
pub struct WriteWatermarks(Arc<Mutex<Vec<Written>>>);

impl WriteWatermarks {
    /// Adds a watermark. Returns whether it is the first, so that the Registry needs a message.
    pub fn record(&self, watermark: Written) -> bool {
        let mut watermarks = self.lock();
        watermarks.push(watermark);
        watermarks.len() == 1
    }

    /// Exchanges the collected watermarks for an empty list with capacity.
    pub fn exchange(&self, empty: &mut Vec<Written>) {
        std::mem::swap(&mut *self.lock(), empty);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Written>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
