//! The RateLimiter: owns the rates of all devices and admits registrations.
//!
//! It counts registrations by address, because each new device gets a new allowance, and failed attempts to resume,
//! because each is a guess of a token. Each refusal promises a place of its own, as those of devices do. The RateLimiter
//! removes an address when its limits are full again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::ops::Add;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, MessageResult, Recipient};
use foldhash::fast::RandomState;
use governor::clock::{Clock as GovernorClock, Reference};
use governor::middleware::{StateInformationMiddleware, StateSnapshot};
use governor::nanos::Nanos;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter as Governor};
use ipnet::IpNet;
use sha2::{Digest, Sha256};

use super::access_control::{AccessControl, AccessDenials};
use super::connection_table::DeliveryBatch;
use super::registry::{CORE_MAILBOX, Register, Registry};
use crate::access::{Denied, Policy, Presented};
use crate::clock::{Clock, Moment};
use crate::protocol::encode::Token;
use crate::protocol::envelope::Origin;
use crate::protocol::frame::Accept;
use crate::protocol::id::DeviceId;
use crate::protocol::refusal::Refusal;
use crate::relay::bucket::{Promises, Rate};
use crate::relay::command::{ConnectionId, Registration, Resume, TokenHash};
use crate::relay::delivery::{Delivery, Refused};
use crate::relay::rate_limit::{Allowance, RatePlan};
use crate::settings::Settings;
use crate::store::records::HashKey;

/// How many times what a /64 may have an IPv6 /48 may have: connections and registrations.
pub const PER_SITE: u32 = 16;
const REMOVE_FULL_EVERY: Duration = Duration::from_secs(60);

/// The key under which an address is counted: IPv4 whole, IPv6 by its /64, which usually belongs to one customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressKey(u128);

impl From<IpAddr> for AddressKey {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(v4) => u128::from(v4.to_bits()),
            IpAddr::V6(v6) => v6.to_bits() & !u128::from(u64::MAX),
        })
    }
}

impl AddressKey {
    /// The /48 of an IPv6 address, which providers give to one site: it has [`PER_SITE`] times what a /64 has.
    pub fn site(self) -> Option<Self> {
        let is_v6 = self.0 > u128::from(u32::MAX);
        is_v6.then_some(Self(self.0 & (u128::MAX << 80)))
    }
}

/// The origin of a device that registers from an address: the keyed hash of an IPv4 address or of an IPv6 /48, which
/// providers give to one site. (protocol: Fair shares)
fn origin(key: HashKey, address: IpAddr) -> Origin {
    let network = match address.to_canonical() {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits() & (u128::MAX << 80),
    };
    let mut hash = Sha256::new();
    hash.update(key.0.to_le_bytes());
    hash.update(network.to_le_bytes());
    let hash = hash.finalize();
    let first = hash.first_chunk().copied().map_or(0, u64::from_le_bytes);
    // 0 is the origin of nobody.
    Origin(first.max(1))
}

/// Whether an address is in one of the networks that limits by address do not apply to.
pub fn is_exempt(exempt: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    exempt.iter().any(|network| network.contains(&address))
}

/// A connection without a device asks to register; the answer goes to `session`.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Admit {
    pub connection: ConnectionId,
    pub address: IpAddr,
    pub session: Recipient<DeliveryBatch>,
    /// The allowance of the connection, for a new device.
    pub allowance: Arc<Allowance>,
    pub resumable: bool,
    pub receipts: bool,
    pub accept: Option<Accept>,
    pub token: Option<Token>,
    pub renew_token: bool,
    /// For a new device.
    pub access: Presented,
}

/// The Registry refused a resume token.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ResumeFailed(pub IpAddr);

/// Other access tokens.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ReloadAccess(pub Arc<Policy>);

/// Asks for what is counted here. The time until the answer is what the mailbox costs.
#[derive(Message)]
#[rtype(result = "AccessDenials")]
pub struct Observe;

#[derive(Message)]
#[rtype(result = "()")]
pub struct Reload(pub Arc<Settings>);

impl Add<Nanos> for Moment {
    type Output = Self;
    fn add(self, by: Nanos) -> Self {
        Self(self.0.saturating_add(by.as_u64()))
    }
}

impl Reference for Moment {
    fn duration_since(&self, earlier: Self) -> Nanos {
        self.0.saturating_sub(earlier.0).into()
    }

    fn saturating_sub(&self, by: Nanos) -> Self {
        Self(self.0.checked_sub(by.as_u64()).unwrap_or(self.0))
    }
}

impl GovernorClock for Clock {
    type Instant = Moment;
    fn now(&self) -> Moment {
        self.moment()
    }
}

type Counter =
    Governor<AddressKey, HashMapStateStore<AddressKey>, Clock, StateInformationMiddleware>;

/// A limit by address. `governor` counts what is admitted; each refusal promises a place.
struct ByAddress {
    counter: Counter,
    rate: Rate,
    promises: HashMap<AddressKey, Promises, RandomState>,
}

impl ByAddress {
    fn new(rate: NonZeroU32, clock: &Clock) -> Self {
        let quota = Quota::per_minute(rate).allow_burst(rate);
        Self {
            counter: Governor::hashmap_with_clock(quota, clock.clone()).with_middleware(),
            rate: Rate::per_minute(rate, rate),
            promises: HashMap::default(),
        }
    }

    /// For a /48, which has [`PER_SITE`] times what an address has.
    fn of_sites(rate: NonZeroU32, clock: &Clock) -> Self {
        Self::new(rate.saturating_mul(NonZeroU32::MIN.saturating_add(PER_SITE - 1)), clock)
    }

    /// Counts one, or returns when the next place is free.
    fn count(&self, key: AddressKey) -> Result<StateSnapshot, Moment> {
        self.counter.check_key(&key).map_err(|early| early.earliest_possible())
    }

    /// Promises the next place after those promised before, at most ten minutes ahead; returns the time until it.
    fn promise(&mut self, now: Moment, key: AddressKey, free: Moment) -> Duration {
        self.promises.entry(key).or_default().promise(now, free, &self.rate).wait
    }

    fn remove_full(&mut self, now: Moment) {
        self.counter.retain_recent();
        self.counter.shrink_to_fit();
        self.promises.retain(|_, promises| !promises.has_lapsed(now));
        self.promises.shrink_to_fit();
    }
}

pub struct RateLimiter {
    clock: Clock,
    plan: Arc<RatePlan>,
    settings: Arc<Settings>,
    registrations: ByAddress,
    /// By the /48 of IPv6 addresses.
    site_registrations: ByAddress,
    /// Resume tokens and access tokens that were refused.
    failures: ByAddress,
    /// Addresses that have tried too many, and until when.
    barred: HashMap<AddressKey, Moment, RandomState>,
    /// For hashes of origins.
    hash_key: HashKey,
    access: AccessControl,
    registry: Addr<Registry>,
}

impl RateLimiter {
    pub fn new(
        clock: Clock,
        plan: Arc<RatePlan>,
        settings: Arc<Settings>,
        hash_key: HashKey,
        access: AccessControl,
        registry: Addr<Registry>,
    ) -> Self {
        let rates = &settings.rate_limit;
        Self {
            registrations: ByAddress::new(rates.registrations_per_minute, &clock),
            site_registrations: ByAddress::of_sites(rates.registrations_per_minute, &clock),
            failures: ByAddress::new(rates.resume_failures_per_minute, &clock),
            clock,
            plan,
            settings,
            barred: HashMap::default(),
            hash_key,
            access,
            registry,
        }
    }

    /// Counts a registration from an address, unless there were too many.
    fn check_registration(&mut self, address: IpAddr) -> Result<(), Refused> {
        if is_exempt(&self.settings.limits.exempt_cidrs, address) {
            return Ok(());
        }
        let now = self.clock.moment();
        let limit = self.settings.rate_limit.registrations_per_minute.get();
        let key = AddressKey::from(address);
        // The address first: what one /64 is refused must not use up the places of the others in its /48.
        let limits =
            [(&mut self.registrations, Some(key)), (&mut self.site_registrations, key.site())];
        for (registrations, key) in limits {
            let Some(key) = key else { continue };
            if let Err(free) = registrations.count(key) {
                return Err(Refused::rate_limited(limit, registrations.promise(now, key, free)));
            }
        }
        Ok(())
    }

    /// The refusal of one more wrong token from an address, if there were too many; [`ResumeFailed`] counts them. A good token
    /// is never refused for wrong ones.
    fn barred(&mut self, address: IpAddr) -> Option<Refused> {
        let (now, key) = (self.clock.moment(), AddressKey::from(address));
        let until = *self.barred.get(&key).filter(|until| **until > now)?;
        let limit = self.settings.rate_limit.resume_failures_per_minute.get();
        Some(Refused::rate_limited(limit, self.failures.promise(now, key, until)))
    }

    /// The name of the access token of a new device, if one is needed. 401 in one wording, and 429 where the address has tried too
    /// many tokens.
    fn check_access(&mut self, admit: &Admit) -> Result<Option<Arc<str>>, Refused> {
        let denied = match self.access.find(admit.access, self.clock.now().wall_ms) {
            Ok(name) => return Ok(name),
            Err(denied) => denied,
        };
        // Who has no token guesses nothing.
        let is_guess = denied != Denied::Missing;
        let limited = if is_guess { self.barred(admit.address) } else { None };
        self.access.count(denied, limited.is_some());
        if is_guess && limited.is_none() {
            self.count_failure(admit.address);
        }
        Err(limited.unwrap_or(Refusal::NoAccess.into()))
    }

    /// Counts a token that was refused. An address with too many of them is barred.
    fn count_failure(&mut self, address: IpAddr) {
        if is_exempt(&self.settings.limits.exempt_cidrs, address) {
            return;
        }
        let key = AddressKey::from(address);
        let until = match self.failures.count(key) {
            Ok(left) if left.remaining_burst_capacity() > 0 => return,
            // The place was the last. One more is refused, which counts nothing and yields the exact time.
            Ok(_) => self.failures.count(key).err(),
            Err(free) => Some(free),
        };
        self.barred.extend(until.map(|until| (key, until)));
    }

    fn origin(&self, address: IpAddr) -> Origin {
        if is_exempt(&self.settings.limits.exempt_cidrs, address) {
            return Origin::NONE;
        }
        origin(self.hash_key, address)
    }

    fn admit(&mut self, admit: &Admit) -> Result<(), Refused> {
        let full = || Refused::from(Refusal::Full);
        let mut access = None;
        if admit.token.is_none() {
            access = self.check_access(admit)?;
            self.check_registration(admit.address)?;
        }
        let resume = admit.token.clone().map(|token| {
            let (token, hash) = hashed(token);
            Resume { token, hash, renew: admit.renew_token, barred: self.barred(admit.address) }
        });
        let connection = admit.connection;
        let allowance = match &access {
            Some(name) => self.access.allowance(name),
            None => admit.allowance.clone(),
        };
        let registration = Registration {
            resumable: admit.resumable,
            receipts: admit.receipts,
            origin: self.origin(admit.address),
            access,
            accept: admit.accept,
            resume,
            fresh_id: DeviceId::random(),
            fresh_token: fresh_token().map_err(|_| full())?,
        };
        let register = Register { connection, registration, allowance };
        self.registry.try_send(register).map_err(|_| full())
    }

    fn remove_full(&mut self, _: &mut Context<Self>) {
        let now = self.clock.moment();
        for limit in [&mut self.registrations, &mut self.site_registrations, &mut self.failures] {
            limit.remove_full(now);
        }
        self.barred.retain(|_, until| *until > now);
        self.barred.shrink_to_fit();
    }
}

fn hashed(token: Token) -> (Token, TokenHash) {
    let hash = TokenHash(Sha256::digest(&token.0).into());
    (token, hash)
}

/// 256 random bits from the operating system, as 64 hexadecimal digits.
fn fresh_token() -> Result<(Token, TokenHash), getrandom::Error> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)?;
    Ok(hashed(Token(random.iter().map(|byte| format!("{byte:02x}")).collect())))
}

impl Actor for RateLimiter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(CORE_MAILBOX);
        ctx.run_interval(REMOVE_FULL_EVERY, Self::remove_full);
    }
}

impl Handler<Admit> for RateLimiter {
    type Result = ();

    fn handle(&mut self, admit: Admit, _: &mut Self::Context) {
        let Err(refused) = self.admit(&admit) else { return };
        // Fails only if the session is gone or its mailbox is full; neither needs an answer.
        let deliveries = vec![Delivery::Refused(Box::new(refused))];
        let _ = admit.session.try_send(DeliveryBatch { deliveries, ..DeliveryBatch::default() });
    }
}

impl Handler<ResumeFailed> for RateLimiter {
    type Result = ();

    fn handle(&mut self, ResumeFailed(address): ResumeFailed, _: &mut Self::Context) {
        self.count_failure(address);
    }
}

impl Handler<ReloadAccess> for RateLimiter {
    type Result = ();

    fn handle(&mut self, ReloadAccess(policy): ReloadAccess, _: &mut Self::Context) {
        self.access.set_policy(policy);
    }
}

impl Handler<Observe> for RateLimiter {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.access.denials())
    }
}

impl Handler<Reload> for RateLimiter {
    type Result = ();

    fn handle(&mut self, Reload(settings): Reload, _: &mut Self::Context) {
        let (old, new) = (&self.settings.rate_limit, &settings.rate_limit);
        self.plan.change(new.clone());
        self.access.rates_mut().set_general(new.clone());
        if new.registrations_per_minute != old.registrations_per_minute {
            self.registrations = ByAddress::new(new.registrations_per_minute, &self.clock);
            self.site_registrations =
                ByAddress::of_sites(new.registrations_per_minute, &self.clock);
        }
        if new.resume_failures_per_minute != old.resume_failures_per_minute {
            self.failures = ByAddress::new(new.resume_failures_per_minute, &self.clock);
            self.barred.clear();
        }
        self.settings = settings;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::write_watermarks::WriteWatermarks;
    use crate::relay::access_rates::AccessRates;
    use crate::store::memory::Memory;

    /// The time that a refused registration was told.
    fn wait(limiter: &mut RateLimiter, address: &str) -> Option<u64> {
        let refused = limiter.check_registration(address.parse().unwrap()).err()?;
        refused.context.retry_after_ms
    }

    #[actix::test]
    async fn what_a_network_is_refused_uses_up_nothing_of_its_site() {
        let (clock, settings) = (Clock::still(), Arc::new(Settings::default()));
        let plan = RatePlan::new(settings.rate_limit.clone(), clock.clone());
        let (memory, watermarks) = (Box::new(Memory), WriteWatermarks::default());
        let registry = Registry::new(clock.clone(), settings.clone(), memory, watermarks).start();
        let key = HashKey::default();
        let rates = AccessRates::new(settings.rate_limit.clone(), &Policy::Open, clock.clone());
        let access = AccessControl::new(Arc::new(Policy::Open), rates);
        let mut limiter = RateLimiter::new(clock.clone(), plan, settings, key, access, registry);
        assert!((0..60).all(|_| wait(&mut limiter, "2001:db8::1").is_none()));
        for number in 1..=1_000 {
            let time = (number * 1_000).min(600_000);
            assert_eq!(wait(&mut limiter, "2001:db8::2"), Some(time), "at most ten minutes");
        }
        assert_eq!(wait(&mut limiter, "2001:db8:0:1::1"), None);
        // The site has sixteen times as many places as one of its networks.
        for network in 2..=900 {
            assert_eq!(wait(&mut limiter, &format!("2001:db8:0:{network:x}::1")), None);
        }
        assert!(wait(&mut limiter, "2001:db8:0:ffff::1").is_some_and(|time| time < 100));
        clock.advance(Duration::from_secs(3_600));
        for limit in [&mut limiter.registrations, &mut limiter.site_registrations] {
            limit.remove_full(clock.moment());
            assert_eq!((limit.counter.len(), limit.promises.len()), (0, 0));
        }
    }
}
