//! A part of a run that is measured by itself, so that it can be compared with another part.

use std::fmt;
use std::io;
use std::time::Duration;

use serde::Serialize;
use tokio::time::sleep;

use crate::cli::Common;
use crate::report::Percentiles;
use crate::run::{self, Counts};
use crate::stats::Stats;

/// Messages do not come quite in the order in which they went out; so long the last of a phase are waited for.
const STRAGGLERS: Duration = Duration::from_millis(100);

/// What a phase has come to.
#[derive(Debug, Serialize)]
pub struct Phase {
    /// What went on.
    pub name: &'static str,
    /// How long it lasted.
    pub seconds: f64,
    /// Messages that arrived in that time.
    pub delivered: u64,
    /// The relay's run time, all that it did, as a share of one core.
    pub relay_cores: Option<f64>,
    /// The same for each message that arrived.
    pub cpu_us_per_message: Option<f64>,
    /// From when a message should have been sent to its arriving.
    pub to_receive_us: Option<Percentiles>,
}

impl Phase {
    /// Measures what is sent while this is worked at.
    ///
    /// # Errors
    ///
    /// Those of the work, or when the relay's process cannot be read.
    pub async fn measure(
        name: &'static str,
        stats: &Stats,
        common: &Common,
        work: impl Future<Output = io::Result<()>>,
    ) -> io::Result<Self> {
        stats.open_window();
        let report = run::time(stats, common, Counts::Delivered, work).await?;
        stats.close_window();
        let sent = stats.sent.get();
        run::settle(|| (stats.received.get(), stats.received.get() >= sent)).await;
        sleep(STRAGGLERS).await;
        Ok(Self {
            name,
            seconds: report.seconds,
            delivered: report.delivered,
            relay_cores: report.relay_cores,
            cpu_us_per_message: report.cpu_us_per_message,
            to_receive_us: Percentiles::of(&stats.to_receive),
        })
    }

    /// The same for as long as the command line says.
    ///
    /// # Errors
    ///
    /// When the relay's process cannot be read.
    pub async fn rest(name: &'static str, stats: &Stats, common: &Common) -> io::Result<Self> {
        Self::measure(name, stats, common, async {
            sleep(common.measured()).await;
            Ok(())
        })
        .await
    }

    /// How many times another phase's median and p99 these are.
    pub fn slower_than(&self, other: &Self) -> Option<(f64, f64)> {
        let (this, other) = (self.to_receive_us.as_ref()?, other.to_receive_us.as_ref()?);
        Some((this.p50 / other.p50, this.p99 / other.p99))
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<16} {:.1} s", self.name, self.seconds)?;
        if let Some(cores) = self.relay_cores {
            write!(f, "  {cores:.2} cores")?;
        }
        if let Some(cpu) = self.cpu_us_per_message {
            write!(f, "  {cpu:.1} us/message")?;
        }
        match &self.to_receive_us {
            Some(percentiles) => write!(f, "  {percentiles}"),
            None => Ok(()),
        }
    }
}
