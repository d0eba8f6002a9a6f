//! The rules under chance: devices that come, go, send, hold, repeat themselves and lie, a store that takes its time and
//! fails, a sweeper that stops half-way, a process that dies and comes back; and after every event a naive model that says
//! what must be.
//!
//! `SIM_SEEDS` and `SIM_EVENTS` say how much, `SIM_FIRST` from where on. A failure prints its seed and its last events;
//! `SEED=17 cargo test --test simulation` runs that one alone.

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

/// Events after which everything has happened.
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

/// Runs a seed again, which takes the same way, and shows the end of it.
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
