//! A load generator for the relay: how much, how fast, at what cost.
//!
//! `cargo run --release -p sealpost-load -- MODE [options]`, with MODE one of `pairs`, `offline`, `drain`, `idle`,
//! `fanout`, `hostile`, `expiry` and `attack`; `--help` explains them and their options. Give it the relay's process id (`--pid`) to learn the CPU time
//! of a message, the figure that a busy machine moves least. Exit code 1: nothing was delivered, a connection ended by
//! itself, or a message was lost.
//!
//! # The relay under test
//!
//! Its limits are made for people, so they must be lifted, for all modes but `attack`, which is about them:
//!
//! ```sh
//! export SEALPOST__LIMITS__EXEMPT_CIDRS=127.0.0.0/8 SEALPOST__LIMITS__CONNECTIONS=50000
//! export SEALPOST__RATE_LIMIT__MESSAGES_PER_MINUTE=4294967295 SEALPOST__RATE_LIMIT__BURST=1000000
//! export SEALPOST__RATE_LIMIT__CONTROL_PER_MINUTE=4294967295
//! # offline, drain and expiry: one sender may fill every queue
//! export SEALPOST__QUEUE__MESSAGES=10000000 SEALPOST__QUEUE__BYTES=4GiB SEALPOST__QUEUE__TOTAL_BYTES=64GiB
//! export SEALPOST__QUEUE__SENDER_SHARE=1
//! # a directory on the disk that is to be measured, not in memory
//! export SEALPOST__QUEUE__PATH=/var/tmp/sealpost-load
//! ulimit -n 100000
//! taskset -c 0 target/release/sealpost &
//! taskset -c 1 target/release/load pairs --pid $! --connections 100 --in-flight 16
//! ```
//!
//! Over TLS: `--url wss://127.0.0.1:8080/ws --ca relay.pem`, where the file has the relay's certificate or that of its authority.
//!
//! # Peers
//!
//! With `--dialect` two modes, `pairs` and `idle`, work with other servers: `plain` is the protocol's Register, Send,
//! Receive and Ack and nothing else, `nats` is NATS over WebSocket. NATS has no Acks; what has
//! arrived counts as acked there, or the messages of a pair would soon travel together. `scripts/compare` runs all of them
//! in turn and prints the ratios.
//!
//! # What can be believed
//!
//! The generator is one thread and must not be the bottleneck: it prints its own share of a core, which must stay well
//! below 1. Beyond about 25,000 connections `--sources` is needed, because an address has no more ports.
//! With `--rate` latencies count from when a message was due, so a relay that stands still is not excused by messages that
//! were never sent (coordinated omission). In a closed loop the latency is a consequence of the rate: messages under way
//! divided by messages a second.
//!
//! `hostile` and `expiry` compare phases of one run: what else is done meanwhile has a thread of its own, and a flood gives
//! way to the one that measures, so that the generator's own work is not in the latencies. It shares their core nevertheless,
//! and on a machine where others work a single run says little about p99: repeat it.

mod admin;
mod background;
mod cli;
mod connection;
mod dialect;
mod frame;
mod line;
mod messages;
mod modes;
mod nats;
mod pacer;
mod phase;
mod process;
mod report;
mod run;
mod stats;
mod stream;

use std::io;
use std::process::ExitCode;

use clap::Parser as _;
use cli::{Cli, Mode};
use modes::{attack, drain, expiry, fanout, hostile, idle, offline, pairs};
use report::Report;
use tokio::runtime;
use tokio::task::LocalSet;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Every connection is a descriptor; where there are too few, connecting says so.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let report = match run(&cli) {
        Ok(report) => report,
        Err(failed) => {
            eprintln!("{failed}");
            return ExitCode::FAILURE;
        }
    };
    let table = format!("{}\n{report}", report.mode);
    if cli.common.json {
        eprint!("{table}");
        println!("{}", serde_json::to_string(&report).unwrap_or_default());
    } else {
        print!("{table}");
    }
    let is_silent_by_intent = matches!(&cli.mode, Mode::Idle(idle) if idle.large.is_none());
    if report.is_sound() && (is_silent_by_intent || report.delivered + report.acked > 0) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run(cli: &Cli) -> io::Result<Report> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let common = &cli.common;
    common.dialect.check(&cli.mode).map_err(io::Error::other)?;
    LocalSet::new().block_on(&runtime, async {
        match &cli.mode {
            Mode::Pairs(options) => pairs::run(common, options).await,
            Mode::Offline(options) => offline::run(common, options).await,
            Mode::Drain(options) => drain::run(common, options).await,
            Mode::Idle(options) => idle::run(common, options).await,
            Mode::Fanout(options) => fanout::run(common, options).await,
            Mode::Hostile(options) => hostile::run(common, options).await,
            Mode::Expiry(options) => expiry::run(common, options).await,
            Mode::Attack(options) => attack::run(common, options).await,
        }
    })
}
