//! The two addresses of a relay, and the figures behind the admin address.

use std::net::SocketAddr;

use serde_json::Value;

use super::{eventually, http};

/// Where a relay listens. [`Relay`](super::Relay) and [`Binary`](super::Binary) dereference to this.
#[derive(Debug, Clone, Copy)]
pub struct Endpoints {
    pub public: SocketAddr,
    pub admin: SocketAddr,
}

impl Endpoints {
    /// `/healthz`. Its counters must balance at any time.
    pub async fn health(&self) -> Value {
        let body = http::get(self.admin, "/healthz").await.body;
        let health: Value = serde_json::from_str(&body).expect("health is JSON");
        let of = |name: &str| health[name].as_u64().unwrap_or_else(|| panic!("{name} in {health}"));
        let ended = of("delivered") + of("expired");
        assert_eq!(of("accepted"), ended + of("queued") + of("in_flight"), "{health}");
        health
    }

    /// A figure of `/healthz`.
    pub async fn figure(&self, name: &str) -> u64 {
        self.health().await[name].as_u64().expect("a number")
    }

    /// Waits until a figure of `/healthz` has this value.
    pub async fn wait_for(&self, figure: &str, value: u64) {
        let what = format!("{figure} = {value}");
        eventually(&what, async || self.figure(figure).await == value).await;
    }

    /// Waits until `/healthz` satisfies `condition`.
    pub async fn wait_until(&self, condition: impl Fn(&Value) -> bool) {
        eventually("/healthz", async || condition(&self.health().await)).await;
    }
}
