//! The tests of `transport/`, on TLS in place of the bare socket.

#[path = "../transport/endings.rs"]
mod endings;
#[path = "../transport/flow.rs"]
mod flow;
#[path = "../transport/messages.rs"]
mod messages;
#[path = "../support/peer.rs"]
mod peer;
#[path = "../transport/session.rs"]
mod session;
#[path = "../transport/time.rs"]
mod time;
#[path = "../support/tls.rs"]
mod tls;
#[path = "../transport/violations.rs"]
mod violations;
