//! What an operator does to one device.

use super::{Router, Slot};
use crate::protocol::id::DeviceId;
use crate::protocol::refusal::CloseReason;
use crate::relay::delivery::{Delivery, Step};

impl Router {
    /// Closes the device's connection; the device may come back at once. `None` for an unknown device; whether it was connected.
    pub fn kick(&mut self, step: &mut Step, id: DeviceId) -> Option<bool> {
        let slot = self.directory.find_alive(step.now, id)?;
        Some(self.close(step, slot, CloseReason::Kicked))
    }

    /// Blocks the device, or ends that: a blocked device has no connection. What waits for it waits on. `None` for an unknown
    /// device; whether anything has changed.
    pub fn set_blocked(&mut self, step: &mut Step, id: DeviceId, blocked: bool) -> Option<bool> {
        let slot = self.directory.find_alive(step.now, id)?;
        let device = &mut self.directory[slot];
        let has_changed = std::mem::replace(&mut device.blocked, blocked) != blocked;
        if has_changed {
            self.store_device(slot);
        }
        if blocked {
            self.close(step, slot, CloseReason::Blocked);
        }
        Some(has_changed)
    }

    /// Ends the device, as its own `Unregister` would, and closes its connection: what waits for the device expires. `None` for
    /// an unknown device.
    pub fn end_device(&mut self, step: &mut Step, id: DeviceId) -> Option<()> {
        let slot = self.directory.find_alive(step.now, id)?;
        self.close(step, slot, CloseReason::Ended);
        self.forget(slot);
        Some(())
    }

    fn close(&mut self, step: &mut Step, slot: Slot, reason: CloseReason) -> bool {
        let connection = self.directory[slot].connection.as_ref().map(|current| current.id);
        if let Some(connection) = connection {
            step.deliver(connection, Delivery::Close(reason));
        }
        connection.is_some()
    }
}
