//! What a run has come to: as a table for people, as JSON for scripts.

use std::collections::BTreeMap;
use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::phase::Phase;
use crate::stats::{Latencies, Stats};

/// The figures of a run; those that the mode does not measure are absent.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// What was run, with everything that matters for the figures.
    pub mode: String,
    /// How long was measured.
    pub seconds: f64,
    /// Messages that went out in that time.
    pub sent: u64,
    /// Messages that arrived in that time.
    pub delivered: u64,
    /// Messages that the relay acked in that time.
    pub acked: u64,
    /// What counts in this mode (arrived or acked) by the second.
    pub messages_per_second: f64,
    /// Run time of all threads of the relay for each message that counts.
    pub cpu_us_per_message: Option<f64>,
    /// The same, as a share of one core.
    pub relay_cores: Option<f64>,
    /// The generator's own share of one core: near 1, it is the generator that was measured.
    pub generator_cores: f64,
    /// From sending (or when it should have been sent) to arriving.
    pub to_receive_us: Option<Percentiles>,
    /// From sending (or when it should have been sent) to the relay's Ack.
    pub to_ack_us: Option<Percentiles>,
    /// Where the same is measured under different conditions: each of them.
    pub phases: Vec<Phase>,
    /// Figures of one mode only.
    pub more: BTreeMap<&'static str, f64>,
    /// By code, over the whole run.
    pub errors: BTreeMap<u16, u64>,
    /// Messages without Ack or Error when patience was at an end.
    pub unanswered: u64,
    /// Messages acked (sent, where there are no acks) that have not arrived when patience was at an end; always 0 where nobody is there.
    pub undelivered: u64,
    /// Connections that ended though they should not have.
    pub unexpected_closes: BTreeMap<String, u64>,
    /// What else the relay should not have done.
    pub failures: Vec<String>,
}

/// Latencies in microseconds.
#[derive(Debug, Serialize)]
pub struct Percentiles {
    /// Number of messages.
    pub count: u64,
    /// The median.
    pub p50: f64,
    p90: f64,
    /// What one of a hundred exceeds.
    pub p99: f64,
    p99_9: f64,
    max: f64,
}

impl Percentiles {
    /// None if nothing was measured.
    pub fn of(latencies: &Latencies) -> Option<Self> {
        let latencies: &Histogram<u64> = &latencies.borrow();
        let at = |percentile| us(latencies.value_at_percentile(percentile));
        (!latencies.is_empty()).then(|| Self {
            count: latencies.len(),
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p99_9: at(99.9),
            max: us(latencies.max()),
        })
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, p50, p90, p99, p99_9, max } = self;
        write!(
            f,
            "us  p50 {p50:.0}  p90 {p90:.0}  p99 {p99:.0}  p99.9 {p99_9:.0}  max {max:.0}  (of {count})"
        )
    }
}

fn us(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}

impl Report {
    /// The run is over: takes over what all modes count.
    pub fn concluded(self, mode: String, stats: &Stats) -> Self {
        stats.end();
        Self {
            mode,
            to_receive_us: Percentiles::of(&stats.to_receive),
            to_ack_us: Percentiles::of(&stats.to_ack),
            errors: stats.errors.borrow().clone(),
            unexpected_closes: stats.closes.borrow().clone(),
            ..self
        }
    }

    /// Whether the run was what it claims to be.
    pub fn is_sound(&self) -> bool {
        self.unexpected_closes.is_empty()
            && self.unanswered == 0
            && self.undelivered == 0
            && self.failures.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: String| writeln!(f, "{name:<24}{value:>14}");
        row("measured, s", format!("{:.1}", self.seconds))?;
        row("sent", self.sent.to_string())?;
        row("delivered", self.delivered.to_string())?;
        row("acked", self.acked.to_string())?;
        row("messages/s", format!("{:.0}", self.messages_per_second))?;
        if let Some(cpu) = self.cpu_us_per_message {
            row("relay CPU, us/message", format!("{cpu:.2}"))?;
        }
        if let Some(cores) = self.relay_cores {
            row("relay, cores", format!("{cores:.2}"))?;
        }
        row("generator, cores", format!("{:.2}", self.generator_cores))?;
        for (name, value) in &self.more {
            row(name, format!("{value:.1}"))?;
        }
        for (name, percentiles) in
            [("send -> Receive", &self.to_receive_us), ("send -> Ack", &self.to_ack_us)]
        {
            let Some(percentiles) = percentiles else { continue };
            writeln!(f, "{name:<16} {percentiles}")?;
        }
        for phase in &self.phases {
            writeln!(f, "{phase}")?;
        }
        for (code, count) in &self.errors {
            writeln!(f, "Error {code:<18}{count:>14}")?;
        }
        for (how, count) in &self.unexpected_closes {
            writeln!(f, "UNEXPECTED END: {how}, {count} times")?;
        }
        if self.unanswered > 0 {
            writeln!(f, "UNANSWERED: {} messages got neither Ack nor Error", self.unanswered)?;
        }
        if self.undelivered > 0 {
            writeln!(
                f,
                "UNDELIVERED: {} messages were taken and did not arrive",
                self.undelivered
            )?;
        }
        for failure in &self.failures {
            writeln!(f, "FAILED: {failure}")?;
        }
        Ok(())
    }
}
