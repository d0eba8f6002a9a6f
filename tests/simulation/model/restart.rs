//! Which items must be there after a restart, and which may be.
//!
//! An item that the store reported as durable comes back in its old place. If it was settled, the item or its notice may
//! come back. The model learns the rest from the written records. After a restart no device is connected, no item is in
//! flight, and no sender waits for an Ack.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sealpost::clock::Now;
use sealpost::protocol::envelope::{Origin, Seq, Subject};
use sealpost::protocol::id::DeviceId;
use sealpost::relay::item::SettledBy;
use sealpost::store::boots::BootTime;
use sealpost::store::records::{DeviceRecord, MessageRecord};
use sealpost::store::{Loaded, PutSeq};

use super::{Care, Dev, Kind, Model, NEVER, Nr, Pending, SECOND, Sent, State};
use crate::rules::Rules;
use crate::store::Notebook;
use crate::tally::Place;

/// The end of one process and the start of the next.
pub struct Restart<'a> {
    pub loaded: &'a Loaded,
    /// When the old process ended, in the time of its boot.
    pub was: Now,
    /// When the new process begins, in the time of its boot.
    pub now: Now,
    /// Both are in the same boot.
    pub is_same_boot: bool,
    /// The old process had no report yet that records through this put were lost.
    pub lost_through: PutSeq,
}

impl Restart<'_> {
    /// What is left until a stored time, by the boots on disk.
    fn left(&self, stored: BootTime, longest: Duration) -> Duration {
        let longest = longest.as_nanos() as i128;
        let mut at = i128::from(stored.at.0);
        for boots in self.loaded.boots.records.windows(2) {
            let [boot, next] = boots else { unreachable!("two of them") };
            if boot.number >= stored.boot {
                let left = at + (i128::from(boot.wall_offset_ms) - wall_ms(next.entered)) * MS;
                at = i128::from(next.entered.mono.0) + left.clamp(0, longest);
            }
        }
        nanos((at - i128::from(self.now.mono.0)).clamp(0, longest))
    }

    /// What is left until a time that the old process has stored. Within a boot, the wall clock does not matter.
    fn left_since(&self, before: u64) -> i128 {
        let at = i128::from(before);
        let records = &self.loaded.boots.records;
        match (self.is_same_boot, &records[..]) {
            (false, [.., boot, _]) => {
                at + (i128::from(boot.wall_offset_ms) - wall_ms(self.now)) * MS
            }
            _ => at - i128::from(self.now.mono.0),
        }
    }
}

impl Model {
    pub fn restarted(&mut self, restart: &Restart<'_>, rules: Rules, store: &Notebook) {
        self.tally.reach(Place::Crash);
        self.tally.reach(if restart.is_same_boot { Place::SameBoot } else { Place::LaterBoot });
        self.rules = rules;
        self.tickets.clear();
        self.first_ticket = 0;
        self.exchanges.clear();
        self.next_seq = restart.loaded.next_seq;
        (self.accepted, self.delivered, self.expired) = (0, 0, 0);
        self.unmatched_acks = 0;

        let all = self.items.iter().enumerate();
        let marked = all.filter(|(_, item)| item.mark > 0);
        let marks: HashMap<Seq, Nr> = marked.map(|(nr, item)| (item.mark, nr)).collect();
        let named = |record: &MessageRecord| {
            let nr = marks.get(&record.seq);
            *nr.unwrap_or_else(|| panic!("{record:?} comes back and was never here"))
        };
        let records = restart.loaded.messages.iter().map(|record| (named(record), record));
        let records: Vec<(Nr, &MessageRecord)> = records.collect();
        let back: HashSet<Nr> = records.iter().map(|(nr, _)| *nr).collect();

        self.check_notices(restart, &back);
        let over = self.restart_devices(restart, store);
        self.correspondents_come_back(restart.loaded);
        self.lose(&back);
        self.pending.clear();
        for nr in marks.values().filter(|nr| !back.contains(*nr)) {
            self.items[*nr].mark = 0;
        }
        for (nr, record) in &records {
            self.comes_back(restart, *nr, record, &over, store);
        }
        let devices = 0..self.devices.len();
        self.live = devices.filter(|dev| !self.devices[*dev].forgotten).collect();
        for dev in &self.live {
            assert!(self.devices[*dev].queue.is_sorted(), "not in the order of arrival");
        }
        self.recall(restart, &records);
    }

    /// The end of a message and its notice are one step: either the message or the notice comes back.
    fn check_notices(&mut self, restart: &Restart<'_>, back: &HashSet<Nr>) {
        for nr in self.items.iter().enumerate().filter(|(_, item)| item.is_over_for_good) {
            assert!(!back.contains(&nr.0), "{:?} comes back, and its sender knew its end", nr.1);
        }
        let held = self.pending.iter().filter_map(|(_, pending)| match pending {
            Pending::Notice(nr) => Some(nr),
            _ => None,
        });
        let here = self.live.iter().flat_map(|dev| &self.devices[*dev].notices);
        for nr in here.chain(held) {
            let tally = &mut self.tally;
            let notice = &self.items[*nr];
            let Some(about) = notice.ends else { continue };
            let is_lost =
                matches!(notice.care, Care::Asked(put_seq) if put_seq <= restart.lost_through);
            if !notice.is_kept() || is_lost {
                continue;
            }
            let (notice_is_back, message_is_back) = (back.contains(nr), back.contains(&about));
            assert!(!(notice_is_back && message_is_back), "{notice:?} will be sent twice");
            let safe = self.items[about].care == Care::Safe;
            if notice_is_back || message_is_back {
                tally.reach(if notice_is_back { Place::NoticeAfter } else { Place::EndsAnew });
            }
            assert!(
                notice_is_back || message_is_back || !safe,
                "{:?} ends without a notice",
                self.items[about]
            );
        }
    }

    /// Returns the devices whose session was over already.
    fn restart_devices(&mut self, restart: &Restart<'_>, store: &Notebook) -> HashSet<Dev> {
        let Restart { loaded, was, now, .. } = *restart;
        let devices = loaded.devices.iter().map(|device| (dev_of(device.id), device));
        let known: HashMap<Dev, &DeviceRecord> = devices.collect();
        let mut over = HashSet::new();
        for (dev, device) in self.devices.iter_mut().enumerate() {
            if !device.is_present(was) {
                over.insert(dev);
            }
            device.conn = None;
            let was_recorded = device.recorded_at.take().is_some_and(|step| store.has(step));
            let ends = device.ends.take();
            let Some(known) = known.get(&dev) else {
                assert!(!was_recorded || over.contains(&dev), "{dev} is forgotten");
                if device.resumable && !over.contains(&dev) {
                    self.tally.reach(Place::DeviceForgotten);
                }
                device.forgotten = true;
                device.sent.clear();
                continue;
            };
            assert_eq!(known.token.is_some(), device.resumable, "{dev} has become another");
            let registered = (known.registered_at as u64, known.access.as_deref());
            assert_eq!(registered, device.registered, "{dev} registered at another time");
            assert!(!was_recorded || known.receipts == device.receipts, "{dev} has other wishes");
            device.receipts = known.receipts;
            let rules = self.rules;
            let absence = if device.resumable { rules.session_ttl } else { rules.plain_ttl };
            let known_left = known.forget_at.map(|at| restart.left(at, absence));
            if was_recorded {
                let left = ends.map(|ends| nanos(restart.left_since(ends).max(0)).min(absence));
                // A session that is over has no time left.
                let fits = known_left == left || over.contains(&dev);
                assert!(fits, "{dev} is known for {known_left:?}, not {left:?}");
            }
            device.forgotten = false;
            // The end of a device that was connected is written at this start.
            device.recorded_at = known.forget_at.is_none().then(|| store.step());
            device.ends = Some((now.mono + known_left.unwrap_or(absence)).0);
        }
        over
    }

    /// Removes all items that waited or were in flight and do not come back.
    fn lose(&mut self, back: &HashSet<Nr>) {
        for dev in &self.live {
            let device = &mut self.devices[*dev];
            let mut all = std::mem::take(&mut device.queue);
            all.append(&mut device.notices);
            for nr in all {
                if back.contains(&nr) {
                    continue;
                }
                let item = &mut self.items[nr];
                assert!(item.care != Care::Safe, "lost although safe: {item:?}");
                self.tally.reach(Place::Lost);
                item.state = State::Lost;
                item.body = Box::default();
            }
        }
    }

    fn comes_back(
        &mut self,
        restart: &Restart<'_>,
        nr: Nr,
        record: &MessageRecord,
        over: &HashSet<Dev>,
        store: &Notebook,
    ) {
        let item = &mut self.items[nr];
        let envelope = &record.envelope;
        let same = match (&envelope.subject, item.kind) {
            (Subject::Message(id), Kind::Message(known)) => {
                *id == known && envelope.content == item.content
            }
            (Subject::KeyRotation(key), Kind::Key(known))
            | (Subject::KeyRotationAck(key), Kind::KeyAck(known)) => **key == known.to_string(),
            (Subject::Notice { bytes, .. }, Kind::Notice(notice)) => *bytes == notice.bytes,
            _ => false,
        };
        let unsettled =
            matches!(item.state, State::Held | State::Waiting | State::Flying | State::Aside);
        let same = same
            && (envelope.body.as_bytes() == &*item.body || !unsettled)
            && dev_of(envelope.from) == item.from
            && dev_of(record.to) == item.to
            && envelope.ttl == item.ttl
            && (envelope.receipts == item.receipts
                || item.receipts_since.is_some_and(|step| !store.has(step)));
        assert!(same && item.care != Care::None, "{record:?} comes back for {item:?}");
        let device = &mut self.devices[item.to];
        if std::mem::take(&mut device.forgotten) {
            let to = item.to;
            assert!(!device.resumable || over.contains(&to), "{to} is lost with its mail");
            // No device can claim the item; its sender gets a notice.
            self.tally.reach(Place::Unclaimed);
            device.resumable = false;
            device.origin = Origin::NONE;
            device.used = true;
            device.registered = (0, None);
            device.ends = Some((restart.now.mono + self.rules.plain_ttl).0);
        }
        // Whatever ran backwards, the item has no more time than it ever had.
        let left = restart.left(record.expires_at, Duration::from_nanos(item.ttl * SECOND));
        // A boot of which nothing was written is entered again, at another time.
        let is_entered_before = restart.loaded.boots.current().entered != restart.now;
        if unsettled && item.care == Care::Safe && restart.is_same_boot && is_entered_before {
            let expected = restart.left_since(item.deadline).max(0);
            assert!(item.deadline == NEVER || nanos(expected) == left, "{left:?} for {item:?}");
        }
        self.tally.reach(match (item.kind, item.state) {
            (Kind::Notice(_), _) => Place::NoticeBack,
            _ if !unsettled => Place::BackAgain,
            _ if left.is_zero() => Place::OverBefore,
            _ if item.care == Care::Safe => Place::Back,
            _ => Place::WrittenUnreported,
        });
        item.deadline = match record.expires_at {
            BootTime::NEVER => NEVER,
            _ => (restart.now.mono + left).0,
        };
        item.body = AsRef::<[u8]>::as_ref(&envelope.body).into();
        item.by_confirm = SettledBy::of(envelope, device.resumable) == SettledBy::Ack;
        item.state = State::Waiting;
        item.seen = false;
        item.care = Care::Safe;
        item.owed = 0;
        item.ticket = false;
        item.ends = None;
        item.receipts = envelope.receipts;
        item.receipts_since = None;
        device.used = true;
        let is_notice = matches!(item.kind, Kind::Notice(_));
        if is_notice { &mut device.notices } else { &mut device.queue }.push(nr);
        self.accepted += u64::from(item.kind.is_counted());
    }

    /// A repeat is recognised again: by the items that are still here, and by the fingerprints of the others.
    fn recall(&mut self, restart: &Restart<'_>, records: &[(Nr, &MessageRecord)]) {
        let senders = restart.loaded.devices.iter().map(|device| dev_of(device.id));
        let senders: HashSet<Dev> = senders.filter(|dev| self.devices[*dev].resumable).collect();
        let mut before = HashMap::new();
        for dev in &self.live {
            before.insert(*dev, std::mem::take(&mut self.devices[*dev].sent));
        }
        let gone = restart.loaded.fingerprints.iter().map(|print| {
            let nr = self.prints.get(&(dev_of(print.sender), print.key, print.content & !1));
            *nr.unwrap_or_else(|| panic!("{print:?} was never sent"))
        });
        let here = records.iter().map(|(nr, _)| *nr);
        for nr in gone.chain(here).collect::<Vec<_>>() {
            let item = &self.items[nr];
            let Kind::Message(id) = item.kind else { continue };
            if senders.contains(&item.from) {
                let (content, at) = (item.content, restart.now.mono.0);
                let (from, to) = (item.from, item.to);
                let sent = Sent { content, at, nth: 0, item: nr, is_old: true };
                self.devices[from].remember(to, id, sent);
            }
        }
        for (dev, sent) in before {
            if !senders.contains(&dev) {
                continue;
            }
            for (name, sent) in sent {
                let item = &self.items[sent.item];
                // A fingerprint that was too old stays forgotten although the clock was set back.
                let age_before = i128::from(restart.was.mono.0) - i128::from(sent.at);
                let age = age_before.max(-restart.left_since(sent.at));
                let in_time = age < self.rules.dedup_window.as_nanos() as i128;
                let settled = item.state == State::Delivered && item.care == Care::Safe;
                if in_time && settled && !sent.is_old {
                    let now = self.devices[dev].sent.get(&name).map(|sent| sent.content);
                    assert_eq!(now, Some(sent.content), "{item:?} would be delivered again");
                }
            }
        }
    }
}

pub(super) fn dev_of(id: DeviceId) -> Dev {
    id.to_u128() as usize - 1
}

const MS: i128 = 1_000_000;

fn wall_ms(now: Now) -> i128 {
    i128::from(now.wall_ms)
}

fn nanos(nanos: i128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).expect("not below 0"))
}
