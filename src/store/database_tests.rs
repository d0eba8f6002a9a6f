//! The database on a simulated disk that loses power or is damaged.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use super::*;
use crate::clock::{Moment, Now};
use crate::protocol::envelope::{AccessKey, Envelope, Origin, Subject};
use crate::protocol::frame::Accept;
use crate::protocol::id::{Letters, MessageId};
use crate::store::history::History;

/// Pseudo-random numbers: the same seed gives the same numbers.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

#[derive(Debug)]
enum Op {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

/// What a loss of power does to writes that are not synced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// All are lost.
    All,
    /// Some are lost.
    Some,
    /// Some sectors of each are lost.
    Torn,
    /// None is lost: the process was killed, the machine was not.
    Nothing,
}

/// The content of a [`Sim`], and the faults that a test has switched on.
#[derive(Debug, Default)]
pub struct State {
    now: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Op>,
    /// Operations until the loss of power.
    pub left: Option<u64>,
    /// Number of successful syncs.
    pub syncs: u64,
    /// Every write fails with ENOSPC.
    pub full: bool,
    /// Every sync fails.
    pub sync_fails: bool,
    /// The next write panics.
    pub write_panics: bool,
    /// No sync returns.
    pub sync_blocked: bool,
    /// A sync is waiting because of `sync_blocked`.
    pub sync_waiting: bool,
}

/// A disk in memory that knows which writes are synced.
#[derive(Debug, Clone, Default)]
pub struct Sim(Arc<(Mutex<State>, Condvar)>);

impl Sim {
    pub fn holding(bytes: Vec<u8>) -> Self {
        let sim = Self::default();
        (sim.state().now, sim.state().synced) = (bytes.clone(), bytes);
        sim
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    /// Changes the state and wakes every waiting thread.
    pub fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.0.1.notify_all();
    }

    /// Waits until the condition holds.
    pub fn wait(&self, condition: impl Fn(&State) -> bool) {
        let mut state = self.state();
        while !condition(&state) {
            state = self.0.1.wait(state).unwrap();
        }
    }

    /// The bytes on the disk after a loss of power.
    pub fn after(&self, loss: Loss, dice: &mut Dice) -> Vec<u8> {
        let state = self.state();
        let mut disk = state.synced.clone();
        for op in &state.unsynced {
            let lost = match loss {
                Loss::All => true,
                Loss::Some => dice.below(2) == 0,
                Loss::Torn | Loss::Nothing => false,
            };
            match op {
                _ if lost => {}
                Op::SetLen(len) => disk.resize(*len as usize, 0),
                Op::Write(offset, data) => {
                    for (nth, sector) in data.chunks(512).enumerate() {
                        if loss == Loss::Torn && dice.below(2) == 0 {
                            continue;
                        }
                        let start = *offset as usize + nth * 512;
                        if disk.len() < start + sector.len() {
                            disk.resize(start + sector.len(), 0);
                        }
                        disk[start..start + sector.len()].copy_from_slice(sector);
                    }
                }
            }
        }
        disk
    }

    fn step(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        if let Some(left) = &mut state.left {
            *left = left.checked_sub(1).ok_or_else(|| io::Error::other("no power"))?;
        }
        Ok(state)
    }
}

impl StorageBackend for Sim {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (start, state) = (offset as usize, self.state());
        let from = start.checked_add(out.len()).and_then(|end| state.now.get(start..end));
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.step()?;
        if state.full && len > state.now.len() as u64 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.now.resize(len as usize, 0);
        state.unsynced.push(Op::SetLen(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.step()?;
        while state.sync_blocked {
            state.sync_waiting = true;
            self.0.1.notify_all();
            state = self.0.1.wait(state).unwrap();
        }
        state.sync_waiting = false;
        if state.sync_fails {
            return Err(io::Error::other("an I/O error"));
        }
        state.synced = state.now.clone();
        state.unsynced.clear();
        state.syncs += 1;
        self.0.1.notify_all();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.step()?;
        assert!(!std::mem::take(&mut state.write_panics), "a bug");
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let end = offset as usize + data.len();
        if state.now.len() < end {
            state.now.resize(end, 0);
        }
        state.now[offset as usize..end].copy_from_slice(data);
        state.unsynced.push(Op::Write(offset, data.to_vec()));
        Ok(())
    }
}

/// A message whose body has about this many bytes.
pub fn message(seq: Seq, bytes: usize) -> MessageRecord {
    MessageRecord {
        seq,
        to: DeviceId::from_u128(u128::from(seq % 5 + 1)),
        expires_at: BootTime::NEVER,
        envelope: Envelope {
            from: DeviceId::from_u128(100),
            subject: Subject::Message(MessageId::from_u128(u128::from(seq))),
            ttl: 1000,
            body: format!("{seq:>8}{}", "0".repeat(bytes)).into(),
            receipts: false,
            content: seq,
            origin: Origin::NONE,
            access: AccessKey::NONE,
            from_unknown: false,
            recipient_letters: Letters::Small,
        },
    }
}

/// The expected content of the database.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    records: BTreeMap<Seq, String>,
    devices: BTreeMap<DeviceId, String>,
    fingerprints: Vec<Fingerprint>,
}

impl Model {
    fn apply(&mut self, changes: &Changes) {
        for (seq, stored) in &changes.puts {
            self.records.insert(*seq, format!("{:?}{:?}", stored.to, stored.envelope));
        }
        for seq in &changes.removes {
            self.records.remove(seq);
        }
        self.fingerprints.extend(&changes.fingerprints);
        for (id, device) in &changes.devices {
            match device {
                Some(device) => self.devices.insert(*id, format!("{:?}", device.token)),
                None => self.devices.remove(id),
            };
        }
    }

    fn of(loaded: &Loaded) -> Self {
        let text = |record: &MessageRecord| format!("{:?}{:?}", record.to, record.envelope);
        let devices = &loaded.devices;
        Self {
            records: loaded.messages.iter().map(|record| (record.seq, text(record))).collect(),
            devices: devices.iter().map(|it| (it.id, format!("{:?}", it.token))).collect(),
            fingerprints: loaded.fingerprints.clone(),
        }
    }
}

/// Random changes of every kind.
fn changes(dice: &mut Dice, model: &Model, next_seq: &mut Seq) -> Changes {
    let mut changes = Changes::default();
    for _ in 0..dice.below(8) {
        let bytes = [10, 600, 5000, 70_000][dice.below(4) as usize];
        changes.puts.insert(*next_seq, message(*next_seq, bytes));
        *next_seq += 1;
    }
    for seq in model.records.keys() {
        if dice.below(3) == 0 {
            changes.removes.push(*seq);
            let content = dice.next();
            changes.fingerprints.push(Fingerprint { content, ..print(*seq) });
        }
    }
    for _ in 0..dice.below(3) {
        let id = DeviceId::from_u128(u128::from(dice.below(9) + 1));
        let token = (dice.below(2) == 0).then_some([dice.below(256) as u8; 32]);
        let device = (dice.below(3) > 0).then_some(DeviceRecord {
            id,
            token,
            next_token: None,
            accept: Accept::Anyone,
            forget_at: None,
            origin: Origin::NONE,
            used: false,
            receipts: dice.below(2) > 0,
            registered_at: dice.below(1 << 40) as i64,
            blocked: dice.below(2) > 0,
            access: (dice.below(2) > 0).then(|| "team".into()),
            history: History { accepted: dice.below(2) as u32, ..History::default() },
        });
        changes.devices.insert(id, device);
    }
    changes
}

fn count(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|count| count.parse().ok()).unwrap_or(default)
}

/// Commits until the power is lost, six times. Returns the number of commits, and of interrupted commits that survived.
fn lives_through(seed: u64) -> (u64, u64) {
    let mut dice = Dice(seed);
    let (mut model, mut next_seq) = (Model::default(), 1);
    let mut bytes = {
        let sim = Sim::default();
        drop(Database::open(sim.clone()).expect("a new disk"));
        sim.after(Loss::All, &mut dice)
    };
    let (mut commits, mut survived) = (0, 0);
    for crash in 0..6 {
        let loss = [Loss::All, Loss::Some, Loss::Torn, Loss::Nothing][dice.below(4) as usize];
        let sim = Sim::holding(bytes);
        sim.state().left = Some(dice.below(80));
        // The interrupted commit may have survived, but only as a whole.
        let mut interrupted = None;
        if let Ok(mut disk) = Database::open(sim.clone()) {
            loop {
                let batch = changes(&mut dice, &model, &mut next_seq);
                let mut after = model.clone();
                after.apply(&batch);
                if disk.commit(&batch).is_err() {
                    interrupted = Some(after);
                    break;
                }
                (model, commits) = (after, commits + 1);
            }
        }
        bytes = sim.after(loss, &mut dice);
        let disk = Database::open(Sim::holding(bytes.clone()));
        let disk = disk.unwrap_or_else(|failed| panic!("seed {seed} crash {crash}: {failed}"));
        let loaded = load(&disk);
        assert_eq!(loaded.damaged, 0, "seed {seed} crash {crash} {loss:?}");
        let found = Model::of(&loaded);
        if interrupted.as_ref() == Some(&found) {
            survived += u64::from(found != model);
            model = found;
        }
        assert!(Model::of(&loaded) == model, "seed {seed} crash {crash} {loss:?}");
        let newest = model.records.last_key_value().map_or(0, |(seq, _)| *seq);
        assert!(loaded.next_seq > newest, "seed {seed}: a sequence would be used again");
    }
    (commits, survived)
}

#[test]
fn a_commit_survives_every_power_loss_whole_or_not_at_all() {
    let first = count("SEED", 0);
    let (mut commits, mut interrupted) = (0, 0);
    for seed in first..first + count("SEEDS", 60) {
        let (committed, survived) = lives_through(seed);
        commits += committed;
        interrupted += survived;
    }
    assert!(commits > 0);
    eprintln!("{commits} commits, {interrupted} that survived unreported");
}

fn used_disk(clean: bool) -> (Vec<u8>, HashSet<String>, usize) {
    let mut dice = Dice(7);
    let (mut model, mut next_seq) = (Model::default(), 1);
    let mut ever = HashSet::new();
    let sim = Sim::default();
    let mut disk = Database::open(sim.clone()).expect("a new disk");
    for _ in 0..12 {
        let batch = changes(&mut dice, &model, &mut next_seq);
        model.apply(&batch);
        ever.extend(model.records.values().cloned());
        disk.commit(&batch).expect("it works");
    }
    if !clean {
        sim.state().left = Some(0);
    }
    drop(disk);
    (sim.after(Loss::All, &mut dice), ever, model.records.len())
}

/// Whether the database can be read. A record that was never written must not be found in it.
fn is_readable(bytes: Vec<u8>, ever: &HashSet<String>, what: &str) -> bool {
    let Ok(disk) = Database::open(Sim::holding(bytes)) else { return false };
    let Ok(loaded) = disk.load(Now::default(), None, Duration::MAX) else { return false };
    for record in Model::of(&loaded).records.values() {
        assert!(ever.contains(record), "{what}: a record that was never written");
    }
    true
}

#[test]
fn a_truncated_file_opens_or_returns_an_error() {
    for clean in [true, false] {
        let (bytes, ever, _) = used_disk(clean);
        let step = (bytes.len() / count("CUTS", 40) as usize).max(1);
        for length in (0..400).step_by(25).chain((400..bytes.len()).step_by(step)) {
            is_readable(bytes[..length].to_vec(), &ever, &format!("cut at {length}"));
        }
        assert!(is_readable(bytes, &ever, "whole"));
    }
}

#[test]
fn a_file_with_flipped_bytes_never_yields_another_message() {
    let mut opened = 0;
    for clean in [true, false] {
        let (bytes, ever, _) = used_disk(clean);
        let mut dice = Dice(count("SEED", 3));
        let flips = count("FLIPS", 120);
        for flip in 0..flips {
            let mut flipped = bytes.clone();
            // Every third in the header of the file, where damage does most.
            let place =
                if flip % 3 == 0 { dice.below(512) } else { dice.below(bytes.len() as u64) };
            flipped[place as usize] ^= 1 + dice.below(255) as u8;
            opened += u64::from(is_readable(flipped, &ever, &format!("flipped at {place}")));
        }
    }
    assert!(opened > 0);
}

#[test]
fn a_damaged_record_is_counted_and_left_out_and_the_rest_is_there() {
    let (mut bytes, ever, records) = used_disk(true);
    // In the text of a body, where only the record's own checksum detects the damage.
    let body = bytes.windows(8).rposition(|bytes| bytes == b"00000000").expect("a body");
    bytes[body] ^= 1;
    let disk = Database::open(Sim::holding(bytes)).expect("it opens");
    let loaded = load(&disk);
    assert!(Model::of(&loaded).records.values().all(|record| ever.contains(record)));
    assert!(loaded.messages.len() + loaded.damaged == records || loaded.damaged == 0);
}

#[test]
fn times_are_read_in_a_later_boot_by_the_boots_on_disk() {
    let (sim, hour) = (Sim::default(), Duration::from_secs(3600));
    let first = Now { mono: Moment(0) + hour, wall_ms: 7_200_000 };
    let mut disk = Database::open(sim.clone()).expect("a new disk");
    let boots = disk.load(first, Some(1), hour).expect("it can be read").boots;
    assert_eq!((boots.current().number, boots.is_new), (1, true));
    let recorded_at = BootTime { boot: 1, at: first.mono };
    let expires_at = BootTime { boot: 1, at: first.mono + Duration::from_secs(900) };
    let changes = Changes {
        puts: BTreeMap::from([(1, MessageRecord { expires_at, ..message(1, 9) })]),
        fingerprints: vec![Fingerprint { recorded_at, ..print(1) }],
        boot: Some(boots.current()),
        ..Changes::default()
    };
    disk.commit(&changes).expect("it works");
    drop(disk);
    let disk = Database::open(sim).expect("it opens");
    let again = disk.load(first, Some(1), hour).expect("it can be read");
    assert_eq!((again.boots.current().number, again.boots.is_new), (1, false));
    // Ten minutes later in another boot.
    let second = Now { mono: Moment(5), wall_ms: 7_800_000 };
    let loaded = disk.load(second, Some(2), hour).expect("it can be read");
    assert_eq!((loaded.boots.current().number, loaded.boots.is_new), (2, true));
    let left = loaded.messages[0].deadline(&loaded.boots, second) - second.mono;
    assert_eq!((left, loaded.fingerprints.len()), (Duration::from_secs(300), 1));
    let window = Duration::from_secs(600);
    assert_eq!(disk.load(second, Some(2), window).expect("it can be read").fingerprints.len(), 0);
}

#[test]
fn only_the_newest_boots_are_kept() {
    let mut disk = Database::open(Sim::default()).expect("a new disk");
    for number in 1..=MAX_BOOTS + 5 {
        let boot = Some(BootRecord { number, ..BootRecord::default() });
        disk.commit(&Changes { boot, ..Changes::default() }).expect("it works");
    }
    let records = load(&disk).boots.records;
    assert_eq!(records.first().map(|boot| boot.number), Some(6));
}

/// Loads everything, in a boot of its own.
pub fn load(disk: &Database) -> Loaded {
    disk.load(Now::default(), None, Duration::MAX).expect("it can be read")
}

fn print(key: u64) -> Fingerprint {
    let (sender, recorded_at) = (DeviceId::from_u128(1), BootTime { boot: 1, at: Moment(9) });
    Fingerprint { sender, key, content: 0, recorded_at }
}

#[test]
fn old_fingerprints_are_deleted_although_an_old_message_was_recorded_late() {
    let mut disk = Database::open(Sim::default()).expect("a new disk");
    for at in 0..400_u64 {
        let time = |at| BootTime { boot: 2, at: Moment(at) };
        // One in eight is of an earlier boot, whose time is far ahead.
        let early = BootTime { boot: 1, at: Moment(1_000_000) };
        let recorded_at = if at % 8 == 7 { early } else { time(at) };
        let oldest_fingerprint = time(at.saturating_sub(20));
        let fingerprints = vec![Fingerprint { recorded_at, ..print(1_000_000 - at) }];
        disk.commit(&Changes { fingerprints, oldest_fingerprint, ..Changes::default() })
            .expect("it works");
    }
    let remembered = load(&disk).fingerprints.len();
    assert!((15..=30).contains(&remembered), "{remembered} are remembered");
}

#[test]
fn fingerprints_from_before_a_restart_keep_their_order() {
    let sim = Sim::default();
    let keys = |sim: &Sim| -> Vec<u64> {
        let disk = Database::open(sim.clone()).expect("it opens");
        load(&disk).fingerprints.iter().map(|print| print.key).collect()
    };
    for key in 0..3 {
        let fingerprints = vec![print(key)];
        let mut disk = Database::open(sim.clone()).expect("it opens");
        disk.commit(&Changes { fingerprints, ..Changes::default() }).expect("it works");
        disk.probe().expect("there is room");
    }
    assert_eq!(keys(&sim), [0, 1, 2]);
}
