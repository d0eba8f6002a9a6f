//! What each kind of item costs in memory, beside what the byte limits count for it.
//!
//! Guards `queue.total_bytes`: the limit bounds memory only if the router's count and the resident memory agree. The
//! benchmark fills a router with one kind of item until the count is 200 MiB, and compares the growth of the resident
//! memory. Each kind has a process of its own, because an allocator that has memory to spare hides growth.
//!
//! `cargo bench --bench memory` takes two to three minutes; a part of a name after `--` chooses the kinds with this part. It
//! fails if the larger of both figures is more than 1.5 times the smaller one.

#[path = "../core/relay.rs"]
#[allow(dead_code)]
mod relay;

use std::process::{Command, ExitCode};

use sealpost::protocol::envelope::Origin;
use sealpost::protocol::id::{DeviceId, MessageId};
use sealpost::relay::connection_state::{Registered, Request};
use sealpost::relay::correspondents::CORRESPONDENT_BYTES;

use crate::relay::{Device, Found, Relay};

/// The allocator of the relay.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes that the limits count at the end.
const GOAL: u64 = 200 * 1024 * 1024;
/// The larger of both figures, divided by the smaller one, at most.
const MAX_RATIO: f64 = 1.5;
/// Items for each recipient: just above a power of two, so that lists that double are at their emptiest.
const MANY: u64 = 520;
/// `limits.message_bytes` is no limit here.
const MAX_FRAME_BYTES: usize = 1024 * 1024;
/// Exchanges that one device may have opened.
const EXCHANGES: usize = 256;
/// Correspondents that one device may have.
const CORRESPONDENTS: usize = 512;
/// The argument of a process that measures one kind.
const ONE: &str = "--one-kind";

/// Fills a router; returns the bytes that the limits count, and the resident bytes that were added.
type Measure = fn() -> (u64, u64);

const KINDS: [(&str, Measure); 15] = [
    ("Send, frame of 250 bytes, 520 for each recipient", || messages(0, MANY)),
    ("Send, frame of 250 bytes, 1,000 for each recipient", || messages(0, 1_000)),
    ("Send, frame of 250 bytes, 5 for each recipient", || messages(0, 5)),
    ("Send, frame of 250 bytes, 1 for each recipient", || messages(0, 1)),
    ("Send, frame of 350 bytes, 520 for each recipient", || messages(100, MANY)),
    ("Send, frame of 1 KiB, 520 for each recipient", || messages(1_024 - 250, MANY)),
    ("Send, frame of 64 KiB, 120 for each recipient", || messages(65_536 - 250, 120)),
    ("KeyRotationUpdate, key_id of 256 bytes, 520 for each recipient", || keys(false, 256, MANY)),
    ("KeyRotationUpdate, key_id of 10 bytes, 520 for each recipient", || keys(false, 10, MANY)),
    ("KeyRotationAck, key_id of 256 bytes, 520 for each recipient", || keys(true, 256, MANY)),
    ("AuthRequest, 520 for each recipient", authentications),
    ("notice of a 410, 520 for each sender", || notices(MANY)),
    ("notice of a 410, 1 for each sender", || notices(1)),
    ("correspondents, 512 for each device", || correspondents(CORRESPONDENTS)),
    ("correspondents, 257 for each device", || correspondents(CORRESPONDENTS / 2 + 1)),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [argument, kind] = &arguments[..]
        && argument == ONE
    {
        let (_, measure) = KINDS.iter().find(|(name, _)| name == kind).expect("a kind");
        let (counted, resident) = measure();
        println!("{counted} {resident}");
        return ExitCode::SUCCESS;
    }
    // `cargo bench` adds an option of its own.
    let part = arguments.iter().find(|argument| !argument.starts_with("--"));
    println!("| kind | counted, MiB | resident, MiB | resident / counted |\n|---|---|---|---|");
    let mut agree = true;
    for (kind, _) in KINDS.iter().filter(|(kind, _)| part.is_none_or(|part| kind.contains(part))) {
        let (counted, resident) = in_own_process(kind);
        let ratio = resident / counted;
        let remark = if ratio.max(1.0 / ratio) > MAX_RATIO { " **too far apart**" } else { "" };
        agree &= remark.is_empty();
        let [counted, resident] = [counted, resident].map(|bytes| bytes / 1024.0 / 1024.0);
        println!("| {kind} | {counted:.0} | {resident:.0} | {ratio:.2}{remark} |");
    }
    if agree { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn in_own_process(kind: &str) -> (f64, f64) {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program).args([ONE, kind]).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let figures: Vec<f64> = text.split_whitespace().filter_map(|it| it.parse().ok()).collect();
    match figures[..] {
        [counted, resident] if output.status.success() => (counted, resident),
        _ => panic!("{kind}: {text} {}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// Resident memory of this process, bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a figure");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

/// A router whose devices are unknown senders to nobody, so that only the limits of one sender apply.
fn relay() -> Relay {
    let mut relay = Relay::new();
    relay.origin = Origin::NONE;
    relay
}

fn counted(relay: &Relay) -> u64 {
    relay.router.observe().counts.queued_bytes
}

/// Parses a frame as the session of its sender does, and lets the router handle it.
fn frame(relay: &mut Relay, from: Device, text: &str) {
    match (Registered { device: from.id }).parse(text, MAX_FRAME_BYTES) {
        Ok(Request::Command(command)) => relay.handle(from, command),
        other => panic!("{other:?}"),
    }
}

/// Resumable devices without a connection.
fn away(relay: &mut Relay, number: u64) -> Vec<Device> {
    let devices: Vec<_> = (0..number).map(|_| relay.join(true)).collect();
    devices.iter().for_each(|device| relay.leave(*device));
    devices
}

/// Frames of two senders in turns, `each` for each recipient, that wait until the goal is reached.
fn wait(each: u64, text: impl Fn(DeviceId, DeviceId, u128) -> String) -> (u64, u64) {
    let mut relay = relay();
    let senders = [relay.join(false), relay.join(false)];
    let [sender, _] = senders;
    let probe = relay.join(true);
    relay.leave(probe);
    frame(&mut relay, sender, &text(sender.id, probe.id, 1));
    let items = GOAL / counted(&relay);
    let recipients = away(&mut relay, items.div_ceil(each));
    let before = resident();
    let mut number = 1;
    'rounds: for round in 0.. {
        for recipient in &recipients {
            number += 1;
            let sender = senders[round % senders.len()];
            frame(&mut relay, sender, &text(sender.id, recipient.id, number));
            if counted(&relay) >= GOAL {
                break 'rounds;
            }
            assert!(
                u64::try_from(number).is_ok_and(|number| number <= 2 * items),
                "one was refused"
            );
        }
    }
    (counted(&relay), resident() - before)
}

fn send(from: DeviceId, to: DeviceId, id: MessageId, more: usize, ttl: u64) -> String {
    let data = "e".repeat(more);
    format!(
        r#"{{"type":"Send","payload":{{"recipient_id":"{to}","sender_id":"{from}","message_id":"{id}","ttl":{ttl},"encrypted_data":"{data}"}}}}"#
    )
}

/// Messages with `more` bytes beside what is in every frame.
fn messages(more: usize, each: u64) -> (u64, u64) {
    wait(each, |from, to, number| send(from, to, MessageId::from_u128(number), more, 86_400))
}

/// Key rotations, or their Acks.
fn keys(are_acks: bool, key_bytes: usize, each: u64) -> (u64, u64) {
    let (kind, last) = if are_acks {
        ("KeyRotationAck", r#""success":true"#)
    } else {
        ("KeyRotationUpdate", r#""encrypted_key_package":"""#)
    };
    wait(each, |from, to, number| {
        let key = format!("{number:0width$}", width = key_bytes - 2);
        format!(
            r#"{{"type":"{kind}","payload":{{"recipient_id":"{to}","sender_id":"{from}","key_id":"{key}",{last}}}}}"#
        )
    })
}

/// Each of 520 initiators opens an exchange with each of 256 recipients, and so do others, until the goal is reached.
fn authentications() -> (u64, u64) {
    let mut relay = relay();
    let before = resident();
    loop {
        let recipients = away(&mut relay, EXCHANGES as u64);
        for _ in 0..MANY {
            let sender = relay.join(false);
            for recipient in &recipients {
                let (from, to) = (sender.id, recipient.id);
                let text = format!(
                    r#"{{"type":"AuthRequest","payload":{{"device_id":"{from}","recipient_id":"{to}","public_key":"","challenge":""}}}}"#
                );
                frame(&mut relay, sender, &text);
            }
            if counted(&relay) >= GOAL {
                return (counted(&relay), resident() - before);
            }
        }
    }
}

/// Messages expire whose senders are away by then.
fn notices(each: u64) -> (u64, u64) {
    let mut relay = relay();
    let recipient = relay.join(true);
    relay.leave(recipient);
    let (mut number, mut before) = (0, None);
    let mut senders = Vec::new();
    loop {
        let sender = senders.pop().unwrap_or_else(|| relay.join(true));
        for _ in 0..each {
            number += 1;
            let id = MessageId::from_u128(number);
            frame(&mut relay, sender, &send(sender.id, recipient.id, id, 0, 1));
        }
        relay.leave(sender);
        relay.pass(2);
        loop {
            let found = relay.find(512);
            if found.is_empty() {
                break;
            }
            relay.drop(Found::told(found));
        }
        // The devices are not among the items, so they are there before.
        before = before.or_else(|| {
            let devices = GOAL / counted(&relay);
            senders = (0..devices).map(|_| relay.join(true)).collect();
            Some(resident())
        });
        if counted(&relay) >= GOAL {
            return (counted(&relay), resident() - before.unwrap_or_default());
        }
    }
}

/// Frames to devices that are not there: their senders' correspondents are kept all the same.
fn correspondents(each: usize) -> (u64, u64) {
    let mut relay = relay();
    let number = GOAL / CORRESPONDENT_BYTES / each as u64;
    let devices: Vec<_> = (0..number).map(|_| relay.join(true)).collect();
    let before = resident();
    let id = MessageId::from_u128(1);
    for device in devices {
        for _ in 0..each {
            frame(&mut relay, device, &send(device.id, DeviceId::random(), id, 0, 60));
        }
    }
    assert_eq!(counted(&relay), 0, "no message waits");
    (number * each as u64 * CORRESPONDENT_BYTES, resident() - before)
}
