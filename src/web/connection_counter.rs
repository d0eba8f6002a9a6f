//! How many connections there may be, in all and from one address. (protocol: Connecting)

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use ipnet::IpNet;
use tokio::sync::Notify;

use crate::actors::rate_limiter::{AddressKey, is_exempt};

/// The caps in force.
#[derive(Debug, Clone)]
pub struct Most {
    /// Connections in all.
    pub connections: usize,
    /// Connections from one address.
    pub per_address: usize,
    /// Networks whose addresses are not counted.
    pub exempt: Vec<IpNet>,
}

/// Why a connection does not get a permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CapReached {
    /// The relay is full.
    Full,
    /// This address has its share.
    TooManyFromAddress,
}

/// Counts the open connections.
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

/// One open connection; it is counted for as long as this lives.
#[derive(Debug)]
pub struct Permit {
    caps: Arc<ConnectionCounter>,
    address: Option<AddressKey>,
}

impl ConnectionCounter {
    /// Counts one more connection.
    ///
    /// # Errors
    ///
    /// When one of the caps is reached.
    pub fn permit(self: &Arc<Self>, address: IpAddr, most: &Most) -> Result<Permit, CapReached> {
        let mut open = self.open();
        if open.total >= most.connections {
            return Err(CapReached::Full);
        }
        let address = (!is_exempt(&most.exempt, address)).then(|| AddressKey::from(address));
        if let Some(address) = address {
            let count = open.by_address.entry(address).or_default();
            if *count >= most.per_address {
                return Err(CapReached::TooManyFromAddress);
            }
            *count += 1;
        }
        open.total += 1;
        Ok(Permit { caps: self.clone(), address })
    }

    /// Counts a connection that has its permit already and goes on as something else.
    #[must_use]
    pub fn hold(self: &Arc<Self>, address: IpAddr, most: &Most) -> Permit {
        let address = (!is_exempt(&most.exempt, address)).then(|| AddressKey::from(address));
        let mut open = self.open();
        if let Some(address) = address {
            *open.by_address.entry(address).or_default() += 1;
        }
        open.total += 1;
        Permit { caps: self.clone(), address }
    }

    /// Open connections.
    #[must_use]
    pub fn total(&self) -> usize {
        self.open().total
    }

    /// Waits until no connection is open.
    pub async fn all_closed(&self) {
        loop {
            let fewer = self.fewer.notified();
            if self.total() == 0 {
                return;
            }
            fewer.await;
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.caps.open();
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
            self.caps.fewer.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn most() -> Most {
        Most { connections: 3, per_address: 2, exempt: vec!["10.0.0.0/8".parse().unwrap()] }
    }

    #[test]
    fn an_address_has_its_share_and_an_exempt_one_all_there_is() {
        let (caps, home) = (Arc::<ConnectionCounter>::default(), "192.0.2.1".parse().unwrap());
        let first = caps.permit(home, &most()).unwrap();
        let _second = caps.permit(home, &most()).unwrap();
        assert_eq!(caps.permit(home, &most()).unwrap_err(), CapReached::TooManyFromAddress);
        let _third = caps.permit("10.0.0.1".parse().unwrap(), &most()).unwrap();
        assert_eq!(
            caps.permit("10.0.0.1".parse().unwrap(), &most()).unwrap_err(),
            CapReached::Full
        );
        drop(first);
        assert!(caps.permit(home, &most()).is_ok());
    }

    #[test]
    fn all_addresses_of_an_ipv6_customer_share_one_count() {
        let caps = Arc::<ConnectionCounter>::default();
        let _one = caps.permit("2001:db8::1".parse().unwrap(), &most()).unwrap();
        let _two = caps.permit("2001:db8::2".parse().unwrap(), &most()).unwrap();
        assert!(caps.permit("2001:db8::3".parse().unwrap(), &most()).is_err());
        assert!(caps.permit("2001:db8:0:1::3".parse().unwrap(), &most()).is_ok());
    }

    #[test]
    fn nothing_is_left_when_all_are_gone() {
        let caps = Arc::<ConnectionCounter>::default();
        drop(caps.permit("192.0.2.1".parse().unwrap(), &most()).unwrap());
        assert_eq!(caps.total(), 0);
        assert!(caps.open().by_address.is_empty());
    }
}
