//! `GET /metrics`: everything that is counted, as text for Prometheus. (operations: Seeing it)
//!
//! Nothing is kept for this page: each number is read where it is counted. No label has an id, an address or an origin.

mod families;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpResponse, web};
use prometheus::core::Collector as _;
use prometheus::process_collector::ProcessCollector;
use prometheus::{Encoder as _, TEXT_FORMAT, TextEncoder};

use self::families::Families;
use super::ingress::Ingress;
use crate::actors::access_control::AccessDenials;
use crate::actors::rate_limiter;
use crate::actors::registry::{CoreMetrics, Measure};
use crate::actors::session::CoreHandles;
use crate::clock::Clock;
use crate::metrics::worker::WorkerMetrics;

/// How long a core actor may take to answer, as for `/healthz`.
const CORE_TIMEOUT: Duration = Duration::from_secs(2);

/// `/metrics`; 503 while the core does not answer, which Prometheus shows as a target that is down.
pub async fn get(ingress: web::Data<Arc<Ingress>>) -> HttpResponse {
    let Some(core) = ingress.core.get().cloned() else {
        return HttpResponse::ServiceUnavailable().body("starting\n");
    };
    let measured = tokio::time::timeout(CORE_TIMEOUT, measure(&core, &ingress.clock)).await;
    let Ok(Some(measured)) = measured else {
        return HttpResponse::ServiceUnavailable().body("the core does not answer\n");
    };
    let mut families = Families::default();
    add_connections(&mut families, &ingress);
    add_workers(&mut families, &ingress.workers.all());
    add_core(&mut families, &measured);
    families.extend(ProcessCollector::for_self().collect());
    let mut text = Vec::new();
    match TextEncoder::new().encode(&families.sorted(), &mut text) {
        Ok(()) => HttpResponse::Ok().insert_header((header::CONTENT_TYPE, TEXT_FORMAT)).body(text),
        Err(failed) => {
            log::error!("metrics cannot be encoded error={failed}");
            HttpResponse::InternalServerError().finish()
        }
    }
}

struct Answers {
    core: CoreMetrics,
    denials: AccessDenials,
    registry_wait: Duration,
    limiter_wait: Duration,
}

/// Asks the core actors, and takes the time of each answer: what waits in a mailbox is before the question.
async fn measure(core: &CoreHandles, clock: &Clock) -> Option<Answers> {
    let asked = clock.moment();
    let measured = core.registry.send(Measure { resets: true }).await.ok()?;
    let registry_wait = clock.moment() - asked;
    let asked = clock.moment();
    let denials = core.limiter.send(rate_limiter::Observe).await.ok()?;
    let limiter_wait = clock.moment() - asked;
    Some(Answers { core: measured, denials, registry_wait, limiter_wait })
}

fn add_connections(families: &mut Families, ingress: &Ingress) {
    let settings = ingress.in_force().settings;
    families.gauge(
        "sealpost_build_info",
        "The version of the relay; always 1.",
        [(env!("CARGO_PKG_VERSION"), 1.0)],
        "version",
    );
    families.number("sealpost_connections", "Open WebSockets.", ingress.connections.total() as f64);
    families.number(
        "sealpost_connections_limit",
        "limits.connections: more are answered 503.",
        settings.limits.connections as f64,
    );
    families.number(
        "sealpost_sockets",
        "Open sockets of the public listener, WebSockets among them.",
        ingress.sockets.total() as f64,
    );
    families.number(
        "sealpost_draining",
        "1 while the relay shuts down.",
        f64::from(u8::from(ingress.draining.load(Relaxed))),
    );
    let (expiry, handshakes) = match &ingress.tls {
        Some(tls) => (tls.certificate_expiry(), tls.handshakes.counts()),
        None => (0, [("ok", 0), ("failed", 0), ("timeout", 0)]),
    };
    families.counters(
        "sealpost_tls_handshakes_total",
        "How TLS handshakes ended.",
        "result",
        handshakes,
    );
    families.number(
        "sealpost_tls_certificate_expiry_timestamp_seconds",
        "When the certificate ends, Unix time; 0 without TLS.",
        expiry as f64,
    );
    families.number(
        "sealpost_queue_bytes_limit",
        "queue.total_bytes: more must not wait.",
        settings.queue.total_bytes as f64,
    );
    families.number(
        "sealpost_registered_devices_limit",
        "limits.devices: more are answered 503.",
        settings.limits.devices as f64,
    );
}

/// The sum over all workers of what each counts.
fn add_workers(families: &mut Families, workers: &[Arc<WorkerMetrics>]) {
    let sum = |of: &dyn Fn(&WorkerMetrics) -> Vec<(&'static str, u64)>| {
        let mut sums = BTreeMap::new();
        for (label, count) in workers.iter().flat_map(|worker| of(worker)) {
            *sums.entry(label).or_insert(0) += count;
        }
        sums
    };
    families.counters(
        "sealpost_messages_received_total",
        "Frames that devices sent, by type.",
        "type",
        sum(&|worker| worker.read_received().collect()),
    );
    families.counters(
        "sealpost_messages_sent_total",
        "Frames that were handed to sockets, by type.",
        "type",
        sum(&|worker| worker.read_sent().collect()),
    );
    families.counters(
        "sealpost_messages_rejected_total",
        "Frames that were answered with an Error, by its code.",
        "code",
        sum(&|worker| worker.rejected.read().collect()),
    );
    families.counters(
        "sealpost_rate_limited_total",
        "Frames and registrations that were answered 429 because of a rate, by the kind of rate.",
        "class",
        sum(&|worker| worker.limited.read().collect()),
    );
    families.counters(
        "sealpost_registrations_total",
        "How registrations ended.",
        "result",
        sum(&|worker| worker.registrations.read().collect()),
    );
    families.counters(
        "sealpost_connections_closed_total",
        "How connections ended: by the code of the Close frame, gone without one, stalled for clients that did not read.",
        "code",
        sum(&|worker| worker.closed.read().collect()),
    );
    families.counters(
        "sealpost_handshakes_rejected_total",
        "Sockets and requests that did not become a WebSocket, by reason.",
        "reason",
        sum(&|worker| worker.handshakes.read().collect()),
    );
}

fn add_core(families: &mut Families, answers: &Answers) {
    let Answers { core, denials, registry_wait, limiter_wait } = answers;
    let CoreMetrics { router, longest_round } = core;
    let (snapshot, store) = (&router.snapshot, &router.store);
    let counts = &snapshot.counts;
    for (name, help, count) in [
        (
            "sealpost_messages_accepted_total",
            "Messages and key rotations that the relay has accepted.",
            counts.accepted,
        ),
        (
            "sealpost_messages_delivered_total",
            "Accepted messages that their recipients have.",
            counts.delivered,
        ),
        (
            "sealpost_messages_expired_total",
            "Accepted messages that were not delivered in time; their senders have a notice.",
            counts.expired,
        ),
        ("sealpost_unmatched_acks_total", "Acks that matched no message.", counts.stray_acks),
    ] {
        families.counter(name, help, count);
    }
    let refusals = &snapshot.access_refusals;
    families.counters(
        "sealpost_access_denied_total",
        "Registrations and messages that an access token, or the lack of one, did not allow, by reason.",
        "reason",
        [
            ("missing", denials.missing),
            ("unknown", denials.unknown),
            ("expired", denials.expired),
            ("limited", denials.limited),
            ("devices", refusals.devices),
            ("queued_bytes", refusals.queued_bytes),
        ],
    );
    for (name, help, number) in [
        (
            "sealpost_registered_devices",
            "Devices that are known, connected or away.",
            snapshot.devices as f64,
        ),
        ("sealpost_connected_devices", "Devices that are connected.", snapshot.connected as f64),
        ("sealpost_auth_exchanges", "Mutual authentications under way.", snapshot.exchanges as f64),
        (
            "sealpost_queue_messages",
            "Accepted messages that wait for their recipients.",
            counts.queued as f64,
        ),
        (
            "sealpost_queue_bytes",
            "Bytes of all that waits or awaits an Ack, as queue.total_bytes counts them.",
            counts.queued_bytes as f64,
        ),
        (
            "sealpost_inflight_messages",
            "Messages that were handed to a connection and are not settled.",
            counts.in_flight as f64,
        ),
        (
            "sealpost_stuck_devices",
            "Connected devices that have confirmed nothing for delivery.stuck_after although messages wait.",
            snapshot.stuck as f64,
        ),
        (
            "sealpost_store_failing",
            "1 while the disk takes no writes: messages that must wait are answered 503.",
            f64::from(u8::from(store.is_failing)),
        ),
        ("sealpost_disk_bytes", "Size of the queue's file.", store.disk_bytes as f64),
    ] {
        families.number(name, help, number);
    }
    families.number(
        "sealpost_oldest_waiting_seconds",
        "The age of the oldest message that waits; 0 if none does.",
        router.oldest_waiting.map_or(0.0, |age| age.as_secs_f64()),
    );
    let times = &router.times;
    for (name, help, histogram) in [
        (
            "sealpost_forward_seconds",
            "From the acceptance of a message for a device that is there to the write of its last byte; the newest message of each write.",
            &times.forward,
        ),
        (
            "sealpost_ack_seconds",
            "From the acceptance of a message that is stored to the commit that lets its Ack leave.",
            &times.ack,
        ),
        (
            "sealpost_commit_seconds",
            "How long a commit of the queue takes, its sync included.",
            &store.commits,
        ),
        (
            "sealpost_sweep_lag_seconds",
            "From the end of a message's time to the step that found it.",
            &times.sweep_lag,
        ),
    ] {
        families.histogram(name, help, histogram);
    }
    families.number(
        "sealpost_registry_round_messages",
        "The most messages that were in the Registry's mailbox at once since the last scrape.",
        *longest_round as f64,
    );
    families.gauge(
        "sealpost_mailbox_wait_seconds",
        "How long the question of this scrape waited in the mailbox of a core actor.",
        [("registry", registry_wait.as_secs_f64()), ("rate_limiter", limiter_wait.as_secs_f64())],
        "actor",
    );
}
