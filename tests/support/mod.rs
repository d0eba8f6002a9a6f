//! A relay to test, in this process or as the binary, and clients for it; see tests/README.md.
#![allow(dead_code, unused_imports, reason = "every test binary uses a part of this")]

pub mod binary;
mod device;
mod endpoints;
pub mod http;
pub mod metrics;
pub mod operator;
pub mod peer;
mod raw_client;
mod relay;
pub mod schema;
pub mod service_manager;
pub mod tls;
pub mod vectors;

pub use binary::Binary;
pub use device::{Away, Device, Gone, confirmation};
pub use endpoints::Endpoints;
pub use raw_client::{ConnectOptions, RawClient};
pub use relay::Relay;

use std::time::{Duration, Instant};

/// Longer than any step takes, even on a machine under load. A test that waits longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An id for a message; the same number is the same id.
pub fn message_id(number: u64) -> String {
    format!("{number:08x}-0000-4000-8000-000000000001")
}

/// Reports that the calling test cannot be run on this system. Names the test in the file of `SKIPPED_TESTS`, if that is set,
/// because the test harness counts a test that returns as passed.
pub fn skip(reason: &str) {
    use std::io::Write as _;
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    eprintln!("skipped: {test}: {reason}");
    if let Some(path) = std::env::var_os("SKIPPED_TESTS") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        let written =
            file.and_then(|mut file| file.write_all(format!("{test}: {reason}\n").as_bytes()));
        written.expect("the file can be written");
    }
}

/// Polls until `condition` holds; for things that report no change, such as a figure of /proc or /healthz.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < PATIENCE, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
