//! Everything that a device may do to others it does not know, done by many at once, while two friends talk.
//!
//! The relay has its default limits here, or nothing is shown. The attackers have a thread of their own. The run is sound if the friends
//! lost nothing and were not refused for want of room, and if each newcomer got an Ack; see [`ledger`]. How long the friends' messages took
//! is reported: a run with `--silent` is what to compare it with.

mod attackers;
mod friends;
mod ledger;

use std::io;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use crate::background::Background;
use crate::cli::{Attack as Options, Common};
use crate::phase::Phase;
use crate::process::Process;
use crate::report::{Percentiles, Report};
use crate::stats::Stats;

use attackers::Plan;
use ledger::{Sender, Took};

/// Bob is there for so long and away for so long, or a quarter of a run each if that is shorter.
const TURN: Duration = Duration::from_secs(15);
/// The time, or a quarter of the run, in which the attackers spend the allowances that every device has saved up when it comes: it is
/// reported by itself, too.
const START: Duration = Duration::from_secs(30);
/// So many of the slowest messages are named.
const SLOWEST: usize = 12;
/// At the end of the run the rest is waited for, while the attack goes on.
const SETTLE: Duration = Duration::from_secs(60);

/// Runs it.
pub async fn run(common: &Common, options: &Options) -> io::Result<Report> {
    let route = common.route().map_err(io::Error::other)?;
    let stats = Stats::new();
    let (friends, alice, bob) = friends::meet(&route).await.map_err(io::Error::other)?;
    let ledger = friends.ledger.clone();

    let before = common.process().map(Process::run_time).transpose()?;
    let began = Instant::now();
    let (devices, addresses, silent) = (options.devices, options.addresses, options.silent);
    let turn = TURN.min(common.measured() / 4);
    let victim = friends.bob.clone();
    let plan = Plan { route, devices, addresses, silent, shift: turn, victim };
    let (stop, enough) = oneshot::channel();
    let attacking = Background::begin(move || attackers::attack(plan, enough))?;
    let lives = [
        spawn_local(friends.clone().live_as_alice(alice)),
        spawn_local(friends.live_as_bob(bob, turn)),
    ];
    sleep(common.measured()).await;
    ledger.stop();
    let patience = Instant::now() + SETTLE + turn;
    while !ledger.is_settled() && Instant::now() < patience {
        sleep(Duration::from_millis(10)).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    let after = common.process().map(Process::run_time).transpose()?;
    let resident = common.process().map(Process::resident).transpose()?;
    drop(stop);
    let attack = attacking.end().await?;
    lives.iter().for_each(tokio::task::JoinHandle::abort);

    let [alice, bob] = [Sender::Alice, Sender::Bob].map(|sender| ledger.count(sender));
    let [there, away] = *ledger.newcomers.borrow();
    let (keys, auths) = (ledger.keys.get(), ledger.auths.get());
    let errors = ledger.errors.borrow().clone();
    let relay = before.zip(after).map(|(before, after)| (after - before) as f64 / 1e9);
    let mut report = Report {
        seconds,
        sent: alice[0] + bob[0],
        acked: alice[1] + bob[1],
        delivered: alice[2] + bob[2],
        messages_per_second: (alice[2] + bob[2]) as f64 / seconds,
        relay_cores: relay.map(|relay| relay / seconds),
        generator_cores: Process::own().run_time()? as f64 / 1e9 / seconds,
        ..Report::default()
    };
    let whole = |count: u64| count as f64;
    let of = |code: u16| whole(attack.errors.get(&code).copied().unwrap_or(0));
    report.more.extend([
        ("friends: received twice", whole(alice[3] + bob[3])),
        ("friends: keys sent", whole(keys.0)),
        ("friends: keys confirmed", whole(keys.1)),
        ("friends: auths begun", whole(auths.0)),
        ("friends: auths verified", whole(auths.1)),
        ("Bob: connections", whole(ledger.connections())),
        ("Bob: frames of attackers", whole(ledger.nuisance.get())),
        ("newcomers, Bob there", whole(there.came)),
        ("newcomers, Ack, there", whole(there.acked)),
        ("newcomers, Bob away", whole(away.came)),
        ("newcomers, Ack, away", whole(away.acked)),
        ("attackers: let in", whole(attack.let_in)),
        ("attackers: at once", whole(attack.connections)),
        ("attackers: devices left", whole(attack.registered)),
        ("attackers: frames", whole(attack.sent)),
        ("attackers: acked, Bob", whole(attack.acked_to_victim)),
        ("attackers: acked, others", whole(attack.acked_to_others)),
        ("attackers: 410", of(410)),
        ("attackers: 429", of(429)),
        ("attackers: 503", of(503)),
        ("attackers: 507", of(507)),
        ("attackers: other Errors", {
            let named = [410, 429, 503, 507];
            let other = attack.errors.iter().filter(|(code, _)| !named.contains(*code));
            whole(other.map(|(_, count)| count).sum())
        }),
        ("attackers: resumes", whole(attack.resumes)),
        ("attackers: resumes 429", whole(attack.refused_resumes)),
        ("attackers: Register 429", whole(attack.refused_registrations)),
        ("attackers: HTTP 429, 503", whole(attack.refused_handshakes)),
    ]);
    if let Some(resident) = resident {
        report.more.insert("relay, MiB in memory", resident as f64 / f64::from(1 << 20));
    }
    report.failures = ledger.faults();
    if attack.let_in == 0 && devices > 0 {
        report.failures.push("no attacker got in: nothing is shown".to_owned());
    }
    for (how, count) in &attack.closes {
        eprintln!("attackers' connections that ended: {how}, {count} times");
    }
    for Took { at, took, sender, is_ack } in ledger.slowest(SLOWEST) {
        let what = if is_ack { "Ack" } else { "message" };
        let took = took.as_secs_f64() * 1000.0;
        eprintln!("slow: {sender:?}'s {what} of second {at:.1} took {took:.1} ms");
    }
    let name = if silent { "silent" } else { "attack" };
    let name = format!("{name}: {devices} devices of {addresses} address(es)");
    let mut report = report.concluded(name, &stats);
    report.errors = errors;
    let start = START.min(common.measured() / 4).as_secs_f64();
    report.to_receive_us = Percentiles::of(&ledger.latencies(false, 0.0..seconds));
    report.to_ack_us = Percentiles::of(&ledger.latencies(true, 0.0..seconds));
    report.phases = [
        ("messages, start", false, 0.0..start),
        ("messages, then", false, start..seconds),
        ("Acks, start", true, 0.0..start),
        ("Acks, then", true, start..seconds),
    ]
    .map(|(name, is_ack, due)| {
        let seconds = due.end - due.start;
        let to_receive_us = Percentiles::of(&ledger.latencies(is_ack, due));
        let delivered = to_receive_us.as_ref().map_or(0, |latencies| latencies.count);
        Phase {
            name,
            seconds,
            delivered,
            relay_cores: None,
            cpu_us_per_message: None,
            to_receive_us,
        }
    })
    .into();
    Ok(report)
}
