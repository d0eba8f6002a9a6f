//! The rules under random events: devices that connect, leave, send, hold, repeat messages and name false senders, a store
//! that is slow and fails, a sweeper that stops half-way, a process that dies and restarts. After every event a naive model
//! computes the expected state.
//!
//! `SIM_SEEDS` and `SIM_EVENTS` set the number of seeds and events, `SIM_FIRST` the first seed. A failure prints its
//! seed and its last events; `SEED=17 cargo test --test simulation` runs that seed alone.

mod access;
mod chance;
mod database;
mod model;
mod rules;
mod store;
mod tally;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tally::Tally;
use world::World;

/// Number of events after which each place of the tally has been reached.
const ENOUGH: u64 = 500_000;

#[test]
fn the_rules_hold_whatever_happens() {
    let events = number("SIM_EVENTS").unwrap_or(5_000);
    let first = number("SIM_FIRST").unwrap_or(0);
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => first..first + number("SIM_SEEDS").unwrap_or(2_000),
    };
    let asked = (seeds.end - seeds.start) * events;
    let (mut ran, mut tally) = (0, Tally::default());
    for seed in seeds {
        let mut world = World::new(seed, false);
        match catch_unwind(AssertUnwindSafe(|| run(&mut world, events))) {
            Ok(()) => {
                ran += events;
                tally.add(world.tally());
            }
            Err(_) => fail(seed, events),
        }
    }
    println!("{ran} events: {tally:?}");
    assert!(ran >= asked, "{ran} events of {asked}");
    let missing = tally.missing();
    assert!(ran < ENOUGH || missing.is_empty(), "never reached: {missing:?}");
}

fn run(world: &mut World, events: u64) {
    for _ in 0..events {
        world.step();
    }
    world.calm_down();
    world.end();
}

/// Runs a seed again, with the same events, and shows the last of them.
fn fail(seed: u64, events: u64) -> ! {
    let mut world = World::new(seed, true);
    let outcome = catch_unwind(AssertUnwindSafe(|| run(&mut world, events)));
    eprintln!("seed {seed} fails; its last events:");
    for line in world.log() {
        eprintln!("{line}");
    }
    let Err(panic) = outcome else { panic!("seed {seed} failed, and then it did not") };
    let fixed = panic.downcast_ref::<&str>().copied();
    let reason = panic.downcast_ref::<String>().map(String::as_str).or(fixed);
    eprintln!("seed {seed}: {}", reason.unwrap_or_default());
    resume_unwind(panic)
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}
