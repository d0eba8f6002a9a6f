//! How many connections there may be, in all and from one address. (protocol: Connecting)

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use ipnet::IpNet;
use tokio::sync::Notify;

use super::handshake::{self, HandshakeRejection};
use crate::actors::rate_limiter::{AddressKey, PER_SITE, is_exempt};

#[derive(Debug)]
pub struct ConnectionCaps<'a> {
    pub connections: usize,
    pub per_address: usize,
    /// Networks whose addresses have no cap of their own.
    pub exempt: [&'a [IpNet]; 2],
}

#[derive(Debug, Default)]
pub struct ConnectionCounter {
    open: Mutex<Open>,
    fewer: Notify,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_address: HashMap<AddressKey, usize, RandomState>,
    /// By the /48 of IPv6 addresses.
    by_site: HashMap<AddressKey, usize, RandomState>,
}

/// One open connection, counted until the permit is dropped.
#[derive(Debug)]
pub struct Permit {
    counter: Arc<ConnectionCounter>,
    address: Option<AddressKey>,
}

impl ConnectionCounter {
    /// Counts one more connection, unless a cap is reached.
    pub fn permit(
        self: &Arc<Self>,
        address: IpAddr,
        caps: &ConnectionCaps<'_>,
    ) -> Result<Permit, HandshakeRejection> {
        let key = counted_address(address, caps);
        let mut open = self.open();
        if open.total >= caps.connections {
            return Err(handshake::FULL);
        }
        let from_address = key.and_then(|key| open.by_address.get(&key)).copied().unwrap_or(0);
        let site = key.and_then(AddressKey::site);
        let from_site = site.and_then(|site| open.by_site.get(&site)).copied().unwrap_or(0);
        let per_site = caps.per_address.saturating_mul(PER_SITE as usize);
        if from_address >= caps.per_address || from_site >= per_site {
            return Err(handshake::TOO_MANY);
        }
        Ok(self.count(&mut open, key))
    }

    /// Counts a connection that has a permit of another counter already, without a check of the caps.
    pub fn transfer(self: &Arc<Self>, address: IpAddr, caps: &ConnectionCaps<'_>) -> Permit {
        self.count(&mut self.open(), counted_address(address, caps))
    }

    /// How many connections an address has, or its /64.
    pub fn of_address(&self, address: IpAddr) -> usize {
        self.open().by_address.get(&AddressKey::from(address)).copied().unwrap_or(0)
    }

    pub fn total(&self) -> usize {
        self.open().total
    }

    pub async fn all_closed(&self) {
        loop {
            let fewer = self.fewer.notified();
            if self.total() == 0 {
                return;
            }
            fewer.await;
        }
    }

    fn count(self: &Arc<Self>, open: &mut Open, address: Option<AddressKey>) -> Permit {
        open.total += 1;
        if let Some(address) = address {
            *open.by_address.entry(address).or_default() += 1;
        }
        if let Some(site) = address.and_then(AddressKey::site) {
            *open.by_site.entry(site).or_default() += 1;
        }
        Permit { counter: self.clone(), address }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `None` for an address without a cap of its own.
fn counted_address(address: IpAddr, caps: &ConnectionCaps<'_>) -> Option<AddressKey> {
    let is_exempt = caps.exempt.iter().any(|networks| is_exempt(networks, address));
    (!is_exempt).then(|| AddressKey::from(address))
}

fn remove_one(counts: &mut HashMap<AddressKey, usize, RandomState>, key: AddressKey) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.counter.open();
        open.total -= 1;
        if let Some(address) = self.address {
            remove_one(&mut open.by_address, address);
            if let Some(site) = address.site() {
                remove_one(&mut open.by_site, site);
            }
        }
        if open.total == 0 {
            self.counter.fewer.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permit(
        counter: &Arc<ConnectionCounter>,
        address: &str,
    ) -> Result<Permit, HandshakeRejection> {
        let exempt: IpNet = "10.0.0.0/8".parse().unwrap();
        let caps = ConnectionCaps { connections: 3, per_address: 2, exempt: [&[exempt], &[]] };
        counter.permit(address.parse().unwrap(), &caps)
    }

    #[test]
    fn an_address_has_its_own_cap_and_an_exempt_address_only_the_global_cap() {
        let (counter, home) = (Arc::<ConnectionCounter>::default(), "192.0.2.1");
        let first = permit(&counter, home).unwrap();
        let _second = permit(&counter, home).unwrap();
        assert_eq!(permit(&counter, home).unwrap_err(), handshake::TOO_MANY);
        let _third = permit(&counter, "10.0.0.1").unwrap();
        assert_eq!(permit(&counter, "10.0.0.1").unwrap_err(), handshake::FULL);
        drop(first);
        assert!(permit(&counter, home).is_ok());
    }

    #[test]
    fn all_addresses_of_an_ipv6_customer_share_one_count() {
        let counter = Arc::<ConnectionCounter>::default();
        let _one = permit(&counter, "2001:db8::1").unwrap();
        let _two = permit(&counter, "2001:db8::2").unwrap();
        assert!(permit(&counter, "2001:db8::3").is_err());
        assert!(permit(&counter, "2001:db8:0:1::3").is_ok());
    }

    #[test]
    fn the_networks_of_one_ipv6_site_share_sixteen_times_the_cap() {
        let counter = Arc::<ConnectionCounter>::default();
        let caps = ConnectionCaps { connections: 100, per_address: 2, exempt: [&[], &[]] };
        let permit = |address: String| counter.permit(address.parse().unwrap(), &caps);
        let held: Vec<_> =
            (0..32).map(|net| permit(format!("2001:db8:0:{net:x}::1")).unwrap()).collect();
        assert_eq!(permit("2001:db8:0:99::1".into()).unwrap_err(), handshake::TOO_MANY);
        let _other = permit("2001:db8:1::1".into()).unwrap();
        drop(held);
        assert!(permit("2001:db8:0:99::1".into()).is_ok());
        assert_eq!(counter.open().by_site.len(), 1);
    }

    #[test]
    fn every_count_is_zero_when_all_connections_have_ended() {
        let counter = Arc::<ConnectionCounter>::default();
        drop(permit(&counter, "192.0.2.1").unwrap());
        assert_eq!(counter.total(), 0);
        assert!(counter.open().by_address.is_empty());
    }
}
