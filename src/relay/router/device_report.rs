//! Why a device does not get its messages: all that the relay knows of one device. (operations: Looking inside)

use std::collections::BTreeMap;
use std::time::Duration;

use humantime::format_duration;
use serde::Serialize;

use super::directory::{Connection, Device};
use super::{Router, STEP_ENTRIES, Slot};
use crate::clock::Now;
use crate::protocol::id::DeviceId;
use crate::relay::command::ConnectionId;
use crate::relay::mailbox_quota::Usage;
use crate::store::history::{CODES, History};

/// How long ago something may be to still be the cause of what a device misses now.
const RECENT: Duration = Duration::from_secs(60 * 60);

/// What keeps a device from its messages; the first that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// An operator has blocked the device.
    Blocked,
    /// The device has said that it is offline, and is connected.
    Held,
    /// The device confirms nothing, and as much as may be is in flight to it.
    WindowFull,
    /// The queue, or a sender's share of it, is full: senders get 507.
    QueueFull,
    /// A newer connection has taken over from another one.
    ResumedElsewhere,
    /// Messages were not delivered in time.
    Expired,
    /// The device takes messages of its correspondents only: others get 404.
    UnknownSender,
    /// The relay's memory or disk was full: senders got 503.
    RelayFull,
    /// The device is not connected.
    Away,
    /// Nothing that the relay knows of.
    None,
}

/// All that the relay knows of a device. Times are seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceReport {
    pub id: DeviceId,
    pub cause: Cause,
    /// The cause in a sentence.
    pub diagnosis: String,
    /// Unix seconds; `None` if it is not known.
    pub registered_at: Option<i64>,
    /// The name of the access token by which the device registered.
    pub access: Option<String>,
    pub resumable: bool,
    pub blocked: bool,
    pub connection: Option<ConnectionReport>,
    pub last_end: Option<EndReport>,
    pub queue: QueueReport,
    /// Messages that the device may send now.
    pub allowance_left: u64,
    pub since_registration: HistoryReport,
}

/// The connection that a device has.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConnectionReport {
    #[serde(skip)]
    pub id: ConnectionId,
    pub connected_for: u64,
    /// The device has said that it is offline: its messages are held.
    pub held: bool,
    pub in_flight: usize,
    pub window: usize,
    pub window_full_for: Option<u64>,
    pub stuck: bool,
}

/// How the last connection ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EndReport {
    /// The code of the Close frame; 1006 without one.
    pub code: u16,
    pub ago: u64,
}

/// What waits for a device, or awaits its Ack.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QueueReport {
    pub messages: usize,
    pub bytes: u64,
    pub max_messages: usize,
    pub max_bytes: u64,
    pub waiting: usize,
    /// The age of the oldest message.
    pub oldest: Option<u64>,
    /// Until the next message expires.
    pub next_expiry_in: Option<u64>,
}

/// What happened to the messages for a device since its registration, see [`History`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HistoryReport {
    pub accepted: u32,
    pub delivered: u32,
    pub expired: u32,
    /// By the code that the senders got.
    pub refused: BTreeMap<u16, u32>,
    pub replaced: u32,
}

/// A slice of the list of devices.
#[derive(Debug, Default)]
pub struct Listed {
    pub devices: Vec<ListedDevice>,
    /// Where the next slice begins; `None` at the end.
    pub next: Option<u32>,
}

/// A device in a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ListedDevice {
    pub id: DeviceId,
    pub connected: bool,
    pub blocked: bool,
    pub messages: usize,
    pub bytes: u64,
    pub access: Option<String>,
}

impl Router {
    /// The device of this id.
    pub fn describe(&self, now: Now, id: DeviceId) -> Option<DeviceReport> {
        let slot = self.directory.find_alive(now, id)?;
        Some(self.describe_device(now, &self.directory[slot]))
    }

    /// The next devices that fit, from `from` on; visits at most a slice of the directory.
    pub fn list(
        &self,
        now: Now,
        from: u32,
        limit: usize,
        fits: impl Fn(&ListedDevice) -> bool,
    ) -> Listed {
        let mut listed = Listed::default();
        let end = self.directory.capacity().min(from as usize + STEP_ENTRIES);
        for slot in from as usize..end {
            if listed.devices.len() == limit {
                listed.next = Some(slot as Slot);
                return listed;
            }
            let Some(device) = self.directory.get(slot as Slot) else { continue };
            if device.forget_at.is_some_and(|end| end <= now.mono) {
                continue;
            }
            let Usage { messages, bytes } = device.mailbox.usage();
            let entry = ListedDevice {
                id: device.id,
                connected: device.connection.is_some(),
                blocked: device.blocked,
                messages,
                bytes,
                access: self.access.name(device.access).map(|name| name.to_string()),
            };
            listed.devices.extend(fits(&entry).then_some(entry));
        }
        listed.next = (end < self.directory.capacity()).then_some(end as Slot);
        listed
    }

    fn describe_device(&self, now: Now, device: &Device) -> DeviceReport {
        let (cause, diagnosis) = self.diagnose(now, device);
        let Usage { messages, bytes } = device.mailbox.usage();
        let quota = self.quota();
        let oldest = device.mailbox.items_at(0, STEP_ENTRIES).find_map(|item| item.age(now.mono));
        let history = &*device.history;
        DeviceReport {
            id: device.id,
            cause,
            diagnosis,
            registered_at: Some(device.registered_at / 1_000).filter(|at| *at > 0),
            access: self.access.name(device.access).map(|name| name.to_string()),
            resumable: device.is_resumable(),
            blocked: device.blocked,
            connection: device.connection.as_ref().map(|connection| ConnectionReport {
                id: connection.id,
                connected_for: connection.connected_at.ago(now.mono).as_secs(),
                held: connection.delivery_paused,
                in_flight: device.mailbox.in_flight(),
                window: quota.window,
                window_full_for: connection.full_since.map(|since| since.ago(now.mono).as_secs()),
                stuck: connection.is_stuck,
            }),
            last_end: device
                .last_end
                .map(|end| EndReport { code: end.code, ago: end.at.ago(now.mono).as_secs() }),
            queue: QueueReport {
                messages,
                bytes,
                max_messages: quota.messages,
                max_bytes: quota.bytes,
                waiting: device.mailbox.waiting(),
                oldest: oldest.map(|age| age.as_secs()),
                next_expiry_in: device.mailbox.next_deadline().map(|at| (at - now.mono).as_secs()),
            },
            allowance_left: device.allowance.messages_left(),
            since_registration: HistoryReport {
                accepted: history.accepted,
                delivered: history.delivered,
                expired: history.expired,
                refused: CODES.map(|code| (code, history.refused(code))).into(),
                replaced: history.replaced,
            },
        }
    }

    /// The first cause that holds, and a sentence.
    fn diagnose(&self, now: Now, device: &Device) -> (Cause, String) {
        let Usage { messages, bytes } = device.mailbox.usage();
        let waiting = device.mailbox.waiting();
        let history = &*device.history;
        let quota = self.quota();
        let is_recent = |at: u64| at > 0 && ago(now, at) <= RECENT;
        if device.blocked {
            let text = format!("blocked by an operator; {messages} messages wait for it");
            return (Cause::Blocked, text);
        }
        if let Some(cause) =
            device.connection.as_deref().and_then(|it| connection_cause(it, now, waiting))
        {
            return cause;
        }
        let is_full = messages >= quota.messages || bytes >= quota.bytes;
        if is_full || is_recent(history.last_refused(507)) {
            let refused = history.refused(507);
            let what = if is_full {
                "its queue is full"
            } else {
                "a sender's share of its queue was full"
            };
            let where_ = if device.connection.is_some() { "connected" } else { "away" };
            let text = format!(
                "{what}: {messages} of {} messages, {bytes} of {} bytes; {refused} were refused with 507; the device is {where_}",
                quota.messages, quota.bytes
            );
            return (Cause::QueueFull, text);
        }
        let taken_over = device.connection.as_ref().filter(|it| it.took_over);
        if let Some(connection) = taken_over {
            let ago = time(connection.connected_at.ago(now.mono));
            let text = format!(
                "resumed elsewhere {ago} ago: a newer connection with its token took over, and the older one was closed with 4409"
            );
            return (Cause::ResumedElsewhere, text);
        }
        if history.expired > 0 && (device.connection.is_none() || is_recent(history.last_expired)) {
            let (expired, ago) = (history.expired, ago(now, history.last_expired));
            let text = format!(
                "{expired} messages expired before they were delivered, the last one {} ago",
                time(ago)
            );
            return (Cause::Expired, text);
        }
        if let Some(cause) = refusal_cause(history, is_recent) {
            return cause;
        }
        if device.connection.is_some() {
            return (Cause::None, "connected, and nothing keeps its messages".to_owned());
        }
        let since = match device.last_end {
            Some(end) => {
                let ago = time(end.at.ago(now.mono));
                format!("away for {ago} (its connection ended with {})", end.code)
            }
            None => "away since the relay started".to_owned(),
        };
        (Cause::Away, format!("{since}; {messages} messages wait for it"))
    }
}

/// What a connection itself does not take.
fn connection_cause(connection: &Connection, now: Now, waiting: usize) -> Option<(Cause, String)> {
    if connection.delivery_paused {
        let text =
            format!("connected, but holds its messages back: it said Offline; {waiting} wait");
        return Some((Cause::Held, text));
    }
    let ago = time(connection.full_since?.ago(now.mono));
    let text = format!(
        "connected, but its window is full: it has confirmed nothing for {ago}; {waiting} wait"
    );
    Some((Cause::WindowFull, text))
}

/// What the relay itself does not take for a device.
fn refusal_cause(history: &History, is_recent: impl Fn(u64) -> bool) -> Option<(Cause, String)> {
    let refused = |code| is_recent(history.last_refused(code)).then(|| history.refused(code));
    if let Some(refused) = refused(503) {
        let text = format!("the relay's memory or disk was full: {refused} were refused with 503");
        return Some((Cause::RelayFull, text));
    }
    let text = format!(
        "it takes messages of its correspondents only: {} of others were refused with 404",
        refused(404)?
    );
    Some((Cause::UnknownSender, text))
}

/// How long ago these Unix seconds were, by the wall clock.
fn ago(now: Now, at: u64) -> Duration {
    Duration::from_secs(now.unix().saturating_sub(at))
}

fn time(time: Duration) -> String {
    format_duration(Duration::from_secs(time.as_secs())).to_string()
}
