//! Contradictions: values that are fine alone and cannot be together.

use super::Settings;
use super::problem::Problem;
use super::value::{size, span};

/// A contradiction, and the keys it is between.
pub(super) struct Contradiction {
    pub keys: &'static [&'static str],
    pub problem: Problem,
}

/// Everything in `settings` that contradicts something else in it.
pub(super) fn contradictions(settings: &Settings) -> Vec<Contradiction> {
    let Settings { server, limits, heartbeat, queue, delivery, .. } = settings;
    let mut found = Vec::new();
    let mut refuse = |keys: &'static [&'static str], value: String, reason: String| {
        let problem = Problem::with_value(keys.first().unwrap_or(&""), &value, reason);
        found.push(Contradiction { keys, problem });
    };

    // An unspecified address takes the port of every address.
    let (devices, operators) = (server.listen, server.admin_listen);
    let same_port = devices.port() == operators.port() && devices.port() != 0;
    let same_address = devices.ip() == operators.ip()
        || devices.ip().is_unspecified()
        || operators.ip().is_unspecified();
    if same_port && same_address {
        refuse(
            &["server.admin_listen", "server.listen"],
            format!("\"{operators}\""),
            format!("must not share the port of server.listen ({devices})"),
        );
    }
    if limits.frame_bytes < limits.message_bytes {
        refuse(
            &["limits.frame_bytes", "limits.message_bytes"],
            bytes(limits.frame_bytes),
            format!("must not be below limits.message_bytes ({})", bytes(limits.message_bytes)),
        );
    }
    if heartbeat.timeout <= heartbeat.interval {
        refuse(
            &["heartbeat.timeout", "heartbeat.interval"],
            span(heartbeat.timeout),
            format!(
                "must be longer than heartbeat.interval ({}), or no answer can come in time",
                span(heartbeat.interval)
            ),
        );
    }
    if queue.default_ttl > queue.max_ttl {
        refuse(
            &["queue.default_ttl", "queue.max_ttl"],
            span(queue.default_ttl),
            format!("must not be above queue.max_ttl ({})", span(queue.max_ttl)),
        );
    }
    if queue.total_bytes < queue.bytes {
        refuse(
            &["queue.total_bytes", "queue.bytes"],
            bytes(queue.total_bytes),
            format!(
                "must not be below queue.bytes ({}), which one recipient may take",
                bytes(queue.bytes)
            ),
        );
    }
    if (queue.messages as f64) * queue.sender_share < 1.0 {
        refuse(
            &["queue.sender_share", "queue.messages"],
            queue.sender_share.to_string(),
            format!("leaves a sender less than one of queue.messages ({})", queue.messages),
        );
    }
    if (queue.bytes as f64) * queue.sender_share < limits.message_bytes as f64 {
        refuse(
            &["queue.sender_share", "queue.bytes", "limits.message_bytes"],
            queue.sender_share.to_string(),
            format!(
                "leaves a sender too little of queue.bytes ({}) for one message of limits.message_bytes ({})",
                bytes(queue.bytes),
                bytes(limits.message_bytes)
            ),
        );
    }
    if delivery.bytes < limits.message_bytes {
        refuse(
            &["delivery.bytes", "limits.message_bytes"],
            bytes(delivery.bytes),
            format!(
                "must not be below limits.message_bytes ({}), or the largest message could never be handed over",
                bytes(limits.message_bytes)
            ),
        );
    }
    found
}

fn bytes(count: usize) -> String {
    size(u64::try_from(count).unwrap_or(u64::MAX))
}
