//! The RateLimiter: owns the rates of all devices and admits registrations.
//!
//! It counts registrations by address, because each new device gets a new allowance, and failed attempts to resume,
//! because each is a guess of a token. It removes an address when its limits are full again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, Recipient};
use foldhash::fast::RandomState;
use governor::RateLimiter as Governor;
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::HashMapStateStore;
use ipnet::IpNet;
use sha2::{Digest, Sha256};

use super::connection_table::DeliveryBatch;
use super::registry::{CORE_MAILBOX, Register, Registry};
use crate::clock::{Clock, Moment};
use crate::protocol::encode::Token;
use crate::protocol::envelope::Origin;
use crate::protocol::frame::Accept;
use crate::protocol::id::DeviceId;
use crate::protocol::refusal::Refusal;
use crate::relay::command::{ConnectionId, Registration, Resume, TokenHash};
use crate::relay::delivery::{Delivery, Refused};
use crate::relay::rate_limit::{Allowance, RatePlan, per_minute};
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
}

/// The Registry refused a resume token.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ResumeFailed(pub IpAddr);

#[derive(Message)]
#[rtype(result = "()")]
pub struct Reload(pub Arc<Settings>);

type ByAddress =
    Governor<AddressKey, HashMapStateStore<AddressKey>, Clock, StateInformationMiddleware>;

pub struct RateLimiter {
    clock: Clock,
    plan: Arc<RatePlan>,
    settings: Arc<Settings>,
    registrations: ByAddress,
    /// By the /48 of IPv6 addresses.
    site_registrations: ByAddress,
    failures: ByAddress,
    /// Addresses that may not try to resume, and until when.
    barred: HashMap<AddressKey, Moment, RandomState>,
    /// For hashes of origins.
    hash_key: HashKey,
    registry: Addr<Registry>,
}

impl RateLimiter {
    pub fn new(
        clock: Clock,
        plan: Arc<RatePlan>,
        settings: Arc<Settings>,
        hash_key: HashKey,
        registry: Addr<Registry>,
    ) -> Self {
        let rates = &settings.rate_limit;
        Self {
            registrations: by_address(rates.registrations_per_minute, &clock),
            site_registrations: by_site(rates.registrations_per_minute, &clock),
            failures: by_address(rates.resume_failures_per_minute, &clock),
            clock,
            plan,
            settings,
            barred: HashMap::default(),
            hash_key,
            registry,
        }
    }

    /// Counts a registration from an address, unless there were too many.
    fn check_registration(&self, address: IpAddr) -> Result<(), Refused> {
        if is_exempt(&self.settings.limits.exempt_cidrs, address) {
            return Ok(());
        }
        let now = self.clock.moment();
        let rate = self.settings.rate_limit.registrations_per_minute;
        let key = AddressKey::from(address);
        let of_site =
            key.site().map_or(Ok(()), |site| self.site_registrations.check_key(&site).map(drop));
        let checked = of_site.and_then(|()| self.registrations.check_key(&key).map(drop));
        checked.map_err(|early| Refused::rate_limited(rate.get(), early.wait_time_from(now)))
    }

    /// The refusal of one more wrong token from an address, if there were too many; [`ResumeFailed`] counts them. A good token
    /// is never refused for wrong ones.
    fn barred(&self, address: IpAddr) -> Option<Refused> {
        let now = self.clock.moment();
        let until = *self.barred.get(&AddressKey::from(address)).filter(|until| **until > now)?;
        let rate = self.settings.rate_limit.resume_failures_per_minute;
        Some(Refused::rate_limited(rate.get(), until - now))
    }

    fn origin(&self, address: IpAddr) -> Origin {
        if is_exempt(&self.settings.limits.exempt_cidrs, address) {
            return Origin::NONE;
        }
        origin(self.hash_key, address)
    }

    fn admit(&self, admit: &Admit) -> Result<(), Refused> {
        let full = || Refused::from(Refusal::Full);
        if admit.token.is_none() {
            self.check_registration(admit.address)?;
        }
        let resume = admit.token.clone().map(|token| {
            let (token, hash) = hashed(token);
            Resume { token, hash, renew: admit.renew_token, barred: self.barred(admit.address) }
        });
        let registration = Registration {
            resumable: admit.resumable,
            receipts: admit.receipts,
            origin: self.origin(admit.address),
            accept: admit.accept,
            resume,
            fresh_id: DeviceId::random(),
            fresh_token: fresh_token().map_err(|_| full())?,
        };
        let (connection, allowance) = (admit.connection, admit.allowance.clone());
        let register = Register { connection, registration, allowance };
        self.registry.try_send(register).map_err(|_| full())
    }

    fn remove_full(&mut self, _: &mut Context<Self>) {
        for limiter in [&self.registrations, &self.site_registrations, &self.failures] {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
        let now = self.clock.moment();
        self.barred.retain(|_, until| *until > now);
        self.barred.shrink_to_fit();
    }
}

fn by_address(rate: NonZeroU32, clock: &Clock) -> ByAddress {
    Governor::hashmap_with_clock(per_minute(rate, rate), clock.clone()).with_middleware()
}

fn by_site(rate: NonZeroU32, clock: &Clock) -> ByAddress {
    by_address(rate.saturating_mul(NonZeroU32::MIN.saturating_add(PER_SITE - 1)), clock)
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
        if is_exempt(&self.settings.limits.exempt_cidrs, address) {
            return;
        }
        let key = AddressKey::from(address);
        let now = self.clock.moment();
        let until = match self.failures.check_key(&key) {
            Ok(left) if left.remaining_burst_capacity() > 0 => return,
            Ok(left) => now + left.quota().replenish_interval(),
            Err(early) => now + early.wait_time_from(now),
        };
        self.barred.insert(key, until);
    }
}

impl Handler<Reload> for RateLimiter {
    type Result = ();

    fn handle(&mut self, Reload(settings): Reload, _: &mut Self::Context) {
        let (old, new) = (&self.settings.rate_limit, &settings.rate_limit);
        self.plan.change(new.clone());
        if new.registrations_per_minute != old.registrations_per_minute {
            self.registrations = by_address(new.registrations_per_minute, &self.clock);
            self.site_registrations = by_site(new.registrations_per_minute, &self.clock);
        }
        if new.resume_failures_per_minute != old.resume_failures_per_minute {
            self.failures = by_address(new.resume_failures_per_minute, &self.clock);
            self.barred.clear();
        }
        self.settings = settings;
    }
}
