//! Pairs at a fixed rate while nothing waits, while messages wait for devices that are away, and while all of these expire.
//!
//! A time to live is in whole seconds, and filling takes many: the later a message is sent, the shorter its own, so that
//! all end within the same second. Their senders stay and are told of each.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

use crate::admin::Admin;
use crate::background::Background;
use crate::cli::{Common, Expiry};
use crate::connection::{Behaviour, Device, Route, Writer};
use crate::messages::{Id, MessageTemplate};
use crate::phase::Phase;
use crate::report::Report;
use crate::run::{self};
use crate::stats::Stats;

use super::pairs;

/// The number of the first device that fills, so that its messages are nobody else's.
const FIRST: usize = 1_000_000;
/// Messages of each sender that are not acked yet.
const IN_FLIGHT: u32 = 64;
/// Goodbyes at the same time.
const AT_ONCE: usize = 64;
/// The `Error` of a message that expired.
const EXPIRED: u16 = 410;
/// How often the relay is asked how far it is.
const LOOK: Duration = Duration::from_millis(20);
/// After so long it is not going to expire any more.
const PATIENCE: Duration = Duration::from_secs(300);

/// When the messages end.
#[derive(Debug, Clone, Copy)]
enum End {
    /// All at this moment, or within a second after it.
    At(Instant),
    /// Seconds from sending to expiry.
    After(u64),
}

impl End {
    /// The time to live of a message that is sent now, in seconds.
    fn ttl(self, now: Instant) -> u64 {
        match self {
            Self::At(end) => end.saturating_duration_since(now).as_secs() + 1,
            Self::After(seconds) => seconds,
        }
    }
}

/// The task of the thread that fills the queues.
struct Plan {
    route: Route,
    messages: u64,
    payload: usize,
    recipients: usize,
    senders: usize,
    end: End,
}

/// Sends to all recipients in turn until there is enough.
struct Filler {
    number: usize,
    stats: Rc<Stats>,
    /// Messages to send, of all senders.
    left: Rc<Cell<u64>>,
    payload: usize,
    end: End,
    recipients: Rc<[Id]>,
    next: Cell<usize>,
    /// The template as it is for one time to live.
    template: RefCell<Option<(u64, MessageTemplate)>>,
}

impl Filler {
    fn send(&self, writer: &Writer) {
        let Some(left) = self.left.get().checked_sub(1) else { return };
        self.left.set(left);
        let ttl = self.end.ttl(Instant::now());
        let mut kept = self.template.borrow_mut();
        let (_, template) = match kept.take() {
            Some((same, template)) if same == ttl => kept.insert((same, template)),
            _ => {
                kept.insert((ttl, MessageTemplate::new(self.number, &writer.id, self.payload, ttl)))
            }
        };
        template.address(&self.recipients[self.next.get() % self.recipients.len()]);
        self.next.set(self.next.get() + 1);
        self.stats.send();
        writer.put(|out| template.send(out, self.stats.now()));
    }
}

impl Behaviour for Filler {
    fn receive(&self, _: &Writer, _: &Id, _: u64) {}

    fn ack(&self, writer: &Writer, _: &Id, _: u64) {
        self.send(writer);
    }

    fn error(&self, _: &Writer) {}
}

/// What became of the messages that wait.
struct Fate {
    acked: u64,
    told: u64,
    other_errors: u64,
    closes: u64,
}

/// Fills, says how many wait, and listens until it is enough.
async fn fill(
    plan: Plan,
    filled: oneshot::Sender<u64>,
    enough: oneshot::Receiver<()>,
) -> io::Result<Fate> {
    let stats = Stats::expecting_errors();
    let Plan { route, messages, payload, end, .. } = plan;
    let recipients = run::join(&route, FIRST, plan.recipients, true).await?;
    let ids: Rc<[Id]> = recipients.iter().map(|device| device.writer.id).collect();
    let departures = stream::iter(recipients).map(Device::leave).buffer_unordered(AT_ONCE);
    departures.try_collect::<()>().await?;
    let first = FIRST + plan.recipients;
    let senders = run::join(&route, first, plan.senders, false).await?;
    let left = Rc::new(Cell::new(messages));
    for (number, device) in (first..).zip(senders) {
        let writer = device.writer.clone();
        let filler = Rc::new(Filler {
            number,
            stats: stats.clone(),
            left: left.clone(),
            payload,
            end,
            recipients: ids.clone(),
            next: number.into(),
            template: RefCell::default(),
        });
        run::live(device, filler.clone(), &stats);
        (0..IN_FLIGHT).for_each(|_| filler.send(&writer));
        writer.flush();
    }
    run::settle(|| (stats.acked.get(), left.get() == 0 && stats.unanswered() == 0)).await;
    let _ = filled.send(stats.acked.get());
    // A sender that is gone has the same meaning as the signal.
    let _ = enough.await;
    let told = || stats.errors.borrow().get(&EXPIRED).copied().unwrap_or(0);
    if matches!(end, End::At(_)) {
        run::settle(|| (told(), told() >= stats.acked.get())).await;
    }
    stats.end();
    let closes = stats.closes.borrow().values().sum();
    Ok(Fate {
        acked: stats.acked.get(),
        told: told(),
        other_errors: stats.errors() - told(),
        closes,
    })
}

/// Runs it.
pub async fn run(common: &Common, options: &Expiry) -> io::Result<Report> {
    let stats = Stats::new();
    let pairs = pairs::begin(common, &options.paced.pairs(), &stats).await?;
    sleep(common.warm_up()).await;
    let mut phases = vec![Phase::rest("nothing waits", &stats, common).await?];

    let begun = Instant::now();
    let end = begun + Duration::from_secs(options.expire_after);
    let plan = Plan {
        route: common.route().map_err(io::Error::other)?,
        messages: options.messages,
        payload: options.queued_bytes,
        recipients: options.recipients,
        senders: options.senders,
        end: if options.stay { End::After(common.ttl) } else { End::At(end) },
    };
    let (tell_filled, filled) = oneshot::channel();
    let (stop, enough) = oneshot::channel();
    let filling = Background::begin(move || fill(plan, tell_filled, enough))?;
    // Where nobody says that it is full, the reason comes at the end.
    let waiting = filled.await.unwrap_or(0);
    let fill_time = begun.elapsed();
    sleep(common.warm_up()).await;
    if waiting > 0 || options.stay {
        phases.push(Phase::rest("all wait", &stats, common).await?);
    }
    if waiting > 0 && !options.stay {
        if Instant::now() > end {
            return Err(io::Error::other("they expire before all is measured: --expire-after"));
        }
        phases.push(expire(common, options, &stats, end).await?);
    }
    drop(stop);
    let fate = filling.end().await?;

    let mut report = run::conclude(&stats).await?;
    report.more.insert("filling, s", fill_time.as_secs_f64());
    report.more.insert("queued", fate.acked as f64);
    report.more.insert("other Errors", fate.other_errors as f64);
    report.unanswered += fate.closes;
    if !options.stay {
        report.more.insert("told of expiry (410)", fate.told as f64);
        report.unanswered += fate.acked.abs_diff(fate.told);
    }
    if let [nothing, wait, ..] = &*phases
        && let Some((_, p99)) = wait.slower_than(nothing)
    {
        report.more.insert("p99 waiting/nothing", p99);
    }
    if let [_, wait, expire] = &*phases {
        if let Some((p50, p99)) = expire.slower_than(wait) {
            report.more.insert("p50 expiring/waiting", p50);
            report.more.insert("p99 expiring/waiting", p99);
        }
        report.more.insert("expiring, s", expire.seconds);
        if let Some((more, usual)) = expire.relay_cores.zip(wait.relay_cores) {
            let cpu = (more - usual) * expire.seconds * 1e6 / fate.told.max(1) as f64;
            report.more.insert("us/expired message", cpu);
        }
    }
    report.phases = phases;
    Ok(report.concluded(format!("expiry: {pairs}; {} wait", options.messages), &stats))
}

/// Measures from the first that expires to the last.
async fn expire(
    common: &Common,
    options: &Expiry,
    stats: &Stats,
    end: Instant,
) -> io::Result<Phase> {
    sleep_until(end).await;
    let mut admin = Admin::connect(options.admin.as_deref().unwrap_or_default()).await?;
    let before = admin.books().await?;
    while admin.books().await?.expired == before.expired {
        if end.elapsed() > PATIENCE {
            return Err(io::Error::other(format!("nothing expires: {before:?}")));
        }
        sleep(LOOK).await;
    }
    Phase::measure("all expire", stats, common, async {
        loop {
            let books = admin.books().await?;
            if books.queued == 0 {
                return Ok(());
            }
            if end.elapsed() > PATIENCE {
                return Err(io::Error::other(format!("not all have expired: {books:?}")));
            }
            sleep(LOOK).await;
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_later_lives_shorter_and_ends_in_the_same_second() {
        let begun = Instant::now();
        let end = begun + Duration::from_secs(60);
        for later in [0, 1, 999, 1000, 1001, 30_500, 59_999] {
            let sent = begun + Duration::from_millis(later);
            let ends = sent + Duration::from_secs(End::At(end).ttl(sent));
            assert!(ends > end && ends <= end + Duration::from_secs(1), "sent {later} ms later");
        }
        assert_eq!(End::After(7).ttl(begun), 7);
    }
}
