//! Contradictions: values that are valid alone but not together.

use std::net::SocketAddr;

use super::Settings;
use super::problem::{Problem, Problems};
use super::value::{size, span};

/// What a message counts beside its frame, bytes. The floor of the protocol has the number; a test compares the two.
pub const MESSAGE_OVERHEAD: usize = 256;

/// Everything in `settings` that contradicts something else in it. A key of `known` has its default in `settings`. The
/// operator did not write the default, so it contradicts nothing.
pub(super) fn contradictions(settings: &Settings, known: &Problems) -> Vec<Problem> {
    let Settings { server, tls, limits, heartbeat, queue, delivery, .. } = settings;
    let mut found = Vec::new();
    let mut refuse_if = |is_wrong: bool, keys: &[&str], value: String, reason: String| {
        if is_wrong && !keys.iter().any(|key| known.concern(key)) {
            found.push(Problem::with_value(keys[0], &value, reason));
        }
    };

    // An unspecified address takes the port of every address.
    let (devices, operators) = (server.listen, &server.admin_listen);
    let is_same = |operators: SocketAddr| {
        let same_ip = devices.ip() == operators.ip()
            || devices.ip().is_unspecified()
            || operators.ip().is_unspecified();
        devices.port() == operators.port() && devices.port() != 0 && same_ip
    };
    refuse_if(
        operators.tcp().is_some_and(is_same),
        &["server.admin_listen", "server.listen"],
        format!("\"{operators}\""),
        format!("must not share the port of server.listen ({devices})"),
    );
    refuse_if(
        server.proxy_protocol && server.trusted_proxies.is_empty(),
        &["server.proxy_protocol", "server.trusted_proxies"],
        server.proxy_protocol.to_string(),
        "needs the proxies' addresses in server.trusted_proxies: no header of others is believed"
            .to_owned(),
    );
    let (certificate, key) = (&tls.certificate, &tls.key);
    for (name, path, other, other_path) in [
        ("tls.key", key, "tls.certificate", certificate),
        ("tls.certificate", certificate, "tls.key", key),
    ] {
        refuse_if(
            path.as_os_str().is_empty() && !other_path.as_os_str().is_empty(),
            &[name, other],
            "\"\"".to_owned(),
            format!("must be set where {other} is, or both empty for plain HTTP"),
        );
    }
    let message = size(limits.message_bytes as u64);
    refuse_if(
        limits.frame_bytes < limits.message_bytes,
        &["limits.frame_bytes", "limits.message_bytes"],
        size(limits.frame_bytes as u64),
        format!("must not be below limits.message_bytes ({message})"),
    );
    let interval = span(heartbeat.interval);
    refuse_if(
        heartbeat.timeout <= heartbeat.interval,
        &["heartbeat.timeout", "heartbeat.interval"],
        span(heartbeat.timeout),
        format!(
            "must be longer than heartbeat.interval ({interval}), or no answer can come in time"
        ),
    );
    refuse_if(
        queue.default_ttl > queue.max_ttl,
        &["queue.default_ttl", "queue.max_ttl"],
        span(queue.default_ttl),
        format!("must not be above queue.max_ttl ({})", span(queue.max_ttl)),
    );
    let queue_bytes = size(queue.bytes as u64);
    refuse_if(
        queue.total_bytes < queue.bytes,
        &["queue.total_bytes", "queue.bytes"],
        size(queue.total_bytes as u64),
        format!("must not be below queue.bytes ({queue_bytes}), which one recipient may take"),
    );
    refuse_if(
        (queue.messages as f64) * queue.sender_share < 1.0,
        &["queue.sender_share", "queue.messages"],
        queue.sender_share.to_string(),
        format!("leaves a sender less than one of queue.messages ({})", queue.messages),
    );
    let largest = limits.message_bytes.saturating_add(MESSAGE_OVERHEAD) as f64;
    let shares =
        [("queue.sender_share", queue.sender_share), ("queue.unknown_share", queue.unknown_share)];
    let too_small = shares.into_iter().find(|(_, share)| queue.bytes as f64 * share < largest);
    if let Some((key, share)) = too_small {
        refuse_if(
            true,
            &[key, "queue.bytes", "limits.message_bytes"],
            share.to_string(),
            format!(
                "leaves a sender too little of queue.bytes ({queue_bytes}) for one message of limits.message_bytes ({message}), which counts {MESSAGE_OVERHEAD} bytes more"
            ),
        );
    }
    refuse_if(
        delivery.bytes < limits.message_bytes,
        &["delivery.bytes", "limits.message_bytes"],
        size(delivery.bytes as u64),
        format!(
            "must not be below limits.message_bytes ({message}), or the largest message could never be handed over"
        ),
    );
    found
}
