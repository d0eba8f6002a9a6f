//! How many connections there may be, in all and from one address. (protocol: Connecting)

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use ipnet::IpNet;
use tokio::sync::Notify;

use super::handshake::{self, HandshakeRejection};
use crate::actors::rate_limiter::{AddressKey, is_exempt};

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
        if from_address >= caps.per_address {
            return Err(handshake::TOO_MANY);
        }
        Ok(self.count(&mut open, key))
    }

    /// Counts a connection that has a permit of another counter already, without a check of the caps.
    pub fn transfer(self: &Arc<Self>, address: IpAddr, caps: &ConnectionCaps<'_>) -> Permit {
        self.count(&mut self.open(), counted_address(address, caps))
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

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.counter.open();
        open.total -= 1;
        if let Some(address) = self.address
            && let Some(count) = open.by_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&address);
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
    fn every_count_is_zero_when_all_connections_have_ended() {
        let counter = Arc::<ConnectionCounter>::default();
        drop(permit(&counter, "192.0.2.1").unwrap());
        assert_eq!(counter.total(), 0);
        assert!(counter.open().by_address.is_empty());
    }
}
