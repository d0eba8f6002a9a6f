//! The end of a run: everything in time is delivered, then nothing is left.

use std::time::Duration;

use sealpost::protocol::frame::Presence;

use super::World;
use crate::model::{Kind, State};

impl World {
    /// Faults stop: every device that can connect is connected, takes everything and confirms it. Then nothing in time is left.
    pub fn calm_down(&mut self) {
        self.keep_everything();
        for dev in self.model.live.clone() {
            let device = &self.model.devices[dev];
            if device.conn.is_none() && device.resumable && device.is_present(self.now) {
                self.resume_as(dev);
                self.settle();
            }
            if self.model.devices[dev].conn.is_some() {
                self.status_as(dev, Presence::Online);
                self.settle();
            }
        }
        self.keep_everything();
        loop {
            let mut still = true;
            for dev in self.model.live.clone() {
                let Some(conn) = &self.model.devices[dev].conn else { continue };
                let (mark, notice) = (conn.marks.back().copied(), conn.notices.back().copied());
                if let Some(mark) = mark {
                    still = false;
                    event!(self, "the socket of {dev} takes {mark}");
                    let connection = self.conn(dev);
                    self.router.on_written(&mut self.step, connection, mark);
                    self.model.on_written(self.now, dev, mark, &mut self.store.borrow_mut());
                    self.settle();
                }
                if let Some(number) = notice {
                    still = false;
                    self.take_notices_as(dev, number);
                    self.settle();
                }
                let device = &self.model.devices[dev];
                if device.resumable && !device.notices.is_empty() {
                    still = false;
                    self.prove_as(dev, u64::MAX);
                    self.settle();
                }
                for nr in self.model.devices[dev].queue.clone() {
                    let item = &self.model.items[nr];
                    let (kind, from, over) = (item.kind, item.from, item.is_over(self.now));
                    if item.state != State::Flying || !item.by_confirm || over {
                        continue;
                    }
                    still = false;
                    match kind {
                        Kind::Message(id) => self.ack_as(dev, id, Some(from)),
                        Kind::Key(key) => self.ack_key(dev, from, key),
                        _ => {}
                    }
                    self.settle();
                }
            }
            if self.sweep_all() == 0 && still {
                break;
            }
        }
        for dev in &self.model.live {
            let device = &self.model.devices[*dev];
            let left = device.queue.len() + device.notices.len();
            assert!(device.conn.is_none() || left == 0, "{left} are never delivered to {dev}");
        }
    }

    /// All devices leave for good. Then the router holds nothing.
    pub fn end(&mut self) {
        for dev in self.model.live.clone() {
            if self.model.devices[dev].conn.is_some() {
                self.leave_as(dev);
                self.settle();
            }
        }
        self.keep_everything();
        self.pass(Duration::from_secs(1_000_000));
        self.sweep_all();
        self.keep_everything();
        self.router.audit().unwrap();
        let seen = self.router.observe();
        let counts = seen.counts;
        assert_eq!((seen.devices, seen.connected, seen.exchanges), (0, 0, 0));
        assert_eq!((counts.queued, counts.in_flight, counts.queued_bytes), (0, 0, 0));
        assert_eq!(counts.accepted, counts.delivered + counts.expired);
        assert_eq!(self.router.residue(), 0, "something is left");
        assert_eq!(self.router.next_deadline(), None);
        let store = self.store.borrow();
        assert!(store.live.is_empty(), "the store keeps what nobody wants");
        assert!(store.is_empty(), "the disk keeps what nobody wants");
    }

    /// Sweeps until no expired item is left; returns their number.
    fn sweep_all(&mut self) -> usize {
        let mut all = 0;
        loop {
            let found = self.find_expired(64);
            event!(self, "a sweep finds {found:?}");
            self.model.swept(self.now, &found, 64);
            self.drop(&found);
            self.settle();
            if found.is_empty() {
                return all;
            }
            all += found.len();
        }
    }
}
