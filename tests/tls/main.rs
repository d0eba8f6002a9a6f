//! TLS: its own tests, and tests of `it/` and `web/` with every relay behind it (`support::tls::OVER_TLS`).

#[path = "../support/mod.rs"]
mod support;

mod certificates;
mod handshakes;

#[path = "../web/connection_caps.rs"]
mod connection_caps;
#[path = "../it/drain.rs"]
mod drain;
#[path = "../it/end_to_end.rs"]
mod end_to_end;
#[path = "../web/handshake.rs"]
mod handshake;
#[path = "../web/heartbeat.rs"]
mod heartbeat;
#[path = "../web/hostile.rs"]
mod hostile;
#[path = "../web/many_connections.rs"]
mod many_connections;
#[path = "../it/notices.rs"]
mod notices;
#[path = "../it/order.rs"]
mod order;
#[path = "../web/proxy_protocol.rs"]
mod proxy_protocol;
#[path = "../it/receipts.rs"]
mod receipts;
#[path = "../it/resume.rs"]
mod resume;
#[path = "../web/slow_readers.rs"]
mod slow_readers;
#[path = "../web/sockets.rs"]
mod sockets;
