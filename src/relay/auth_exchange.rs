//! Authentication exchanges between two devices. (protocol: Authentication messages)
//!
//! An `AuthRequest` opens an exchange. Each later step goes to the other device, in the order of the protocol, until the
//! deadline. The relay does not verify the proofs and does not store which device trusts which.

use std::collections::{BTreeSet, HashMap};

use foldhash::fast::RandomState;

use crate::clock::Moment;
use crate::protocol::frame::AuthStep;
use crate::protocol::id::DeviceId;
use crate::protocol::refusal::Refusal;

/// Maximum of open exchanges for one device; limits the time to find one of them.
pub const MAX_PER_DEVICE: usize = 256;

#[derive(Debug, Clone, Copy)]
struct Exchange {
    initiator: DeviceId,
    last: AuthStep,
    deadline: Moment,
}

/// All open exchanges; at most one for each pair of devices.
#[derive(Debug, Default)]
pub struct Exchanges {
    by_pair: HashMap<(DeviceId, DeviceId), Exchange, RandomState>,
    /// The other devices of the open exchanges of a device.
    peers: HashMap<DeviceId, Vec<DeviceId>, RandomState>,
    /// One entry for each open exchange.
    deadlines: BTreeSet<(Moment, DeviceId, DeviceId)>,
}

fn pair(a: DeviceId, b: DeviceId) -> (DeviceId, DeviceId) {
    if a < b { (a, b) } else { (b, a) }
}

impl Exchanges {
    /// Opens an exchange; replaces an older one of the same pair. 503 when one of the two devices has [`MAX_PER_DEVICE`] open
    /// exchanges.
    pub fn open(
        &mut self,
        initiator: DeviceId,
        responder: DeviceId,
        deadline: Moment,
    ) -> Result<(), Refusal> {
        let pair = pair(initiator, responder);
        if let Some(older) = self.by_pair.get(&pair) {
            self.deadlines.remove(&(older.deadline, pair.0, pair.1));
        } else {
            if [initiator, responder].iter().any(|one| self.peers_of(*one).len() >= MAX_PER_DEVICE)
            {
                return Err(Refusal::Full);
            }
            self.peers.entry(initiator).or_default().push(responder);
            if initiator != responder {
                self.peers.entry(responder).or_default().push(initiator);
            }
        }
        self.by_pair.insert(pair, Exchange { initiator, last: AuthStep::Request, deadline });
        self.deadlines.insert((deadline, pair.0, pair.1));
        Ok(())
    }

    /// The recipient of an `AuthResponse` or `AuthVerify`, and the deadline of the exchange. `named` is the recipient that
    /// the client names. 404 when no exchange waits for this step of this device, 409 when several do.
    pub fn recipient_of(
        &self,
        now: Moment,
        from: DeviceId,
        step: AuthStep,
        named: Option<DeviceId>,
    ) -> Result<(DeviceId, Moment), Refusal> {
        let (before, from_initiator) = match step {
            AuthStep::Request => return Err(Refusal::NoExchange),
            AuthStep::Response => (AuthStep::Request, false),
            AuthStep::Verify => (AuthStep::Response, true),
        };
        let peers = self.peers_of(from).iter().copied();
        let mut waiting =
            peers.filter(|peer| named.is_none_or(|named| named == *peer)).filter_map(|peer| {
                let exchange = self.open_between(now, from, peer)?;
                let waits = exchange.last == before
                    && (peer == from || (exchange.initiator == from) == from_initiator);
                waits.then_some((peer, exchange.deadline))
            });
        let found = waiting.next().ok_or(Refusal::NoExchange)?;
        if waiting.next().is_some() {
            return Err(Refusal::Ambiguous);
        }
        Ok(found)
    }

    pub fn advance(&mut self, from: DeviceId, peer: DeviceId, step: AuthStep) {
        if let Some(exchange) = self.by_pair.get_mut(&pair(from, peer)) {
            exchange.last = step;
        }
    }

    /// The deadline of an exchange between two devices that has reached `AuthVerify`; 403 when there is none.
    pub fn verified(&self, now: Moment, from: DeviceId, to: DeviceId) -> Result<Moment, Refusal> {
        self.open_between(now, from, to)
            .filter(|exchange| exchange.last == AuthStep::Verify)
            .map(|exchange| exchange.deadline)
            .ok_or(Refusal::NotVerified)
    }

    /// Removes the exchanges whose deadline is not after `now`.
    pub fn expire(&mut self, now: Moment) {
        while let Some((deadline, a, b)) = self.deadlines.first().copied()
            && deadline <= now
        {
            self.deadlines.pop_first();
            self.by_pair.remove(&(a, b));
            self.remove_peer(a, b);
            self.remove_peer(b, a);
        }
    }

    pub fn next_deadline(&self) -> Option<Moment> {
        self.deadlines.first().map(|(deadline, ..)| *deadline)
    }

    pub fn len(&self) -> usize {
        self.by_pair.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_pair.is_empty()
    }

    /// Entries in the three collections.
    pub(super) fn indexed(&self) -> [usize; 3] {
        [self.by_pair.len(), self.peers.len(), self.deadlines.len()]
    }

    fn remove_peer(&mut self, device: DeviceId, peer: DeviceId) {
        if let Some(peers) = self.peers.get_mut(&device) {
            peers.retain(|other| *other != peer);
            if peers.is_empty() {
                self.peers.remove(&device);
            }
        }
    }

    fn peers_of(&self, device: DeviceId) -> &[DeviceId] {
        self.peers.get(&device).map_or(&[], Vec::as_slice)
    }

    fn open_between(&self, now: Moment, a: DeviceId, b: DeviceId) -> Option<Exchange> {
        self.by_pair.get(&pair(a, b)).filter(|exchange| now < exchange.deadline).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: DeviceId = DeviceId::from_u128(1);
    const BOB: DeviceId = DeviceId::from_u128(2);
    const CAROL: DeviceId = DeviceId::from_u128(3);
    const NOW: Moment = Moment(0);
    const END: Moment = Moment(60);

    /// The two calls that the router makes for one step.
    fn send_step(
        exchanges: &mut Exchanges,
        now: Moment,
        from: DeviceId,
        step: AuthStep,
        named: Option<DeviceId>,
    ) -> Result<(DeviceId, Moment), Refusal> {
        let found = exchanges.recipient_of(now, from, step, named)?;
        exchanges.advance(from, found.0, step);
        Ok(found)
    }

    fn requested_by_alice() -> Exchanges {
        let mut exchanges = Exchanges::default();
        exchanges.open(ALICE, BOB, END).unwrap();
        exchanges
    }

    #[test]
    fn the_steps_go_to_the_other_device_in_order() {
        let mut exchanges = requested_by_alice();
        assert_eq!(exchanges.verified(NOW, BOB, ALICE), Err(Refusal::NotVerified));
        assert_eq!(send_step(&mut exchanges, NOW, BOB, AuthStep::Response, None), Ok((ALICE, END)));
        assert_eq!(send_step(&mut exchanges, NOW, ALICE, AuthStep::Verify, None), Ok((BOB, END)));
        assert_eq!(exchanges.verified(NOW, BOB, ALICE), Ok(END));
        assert_eq!(exchanges.verified(NOW, ALICE, BOB), Ok(END));
        assert_eq!(exchanges.verified(NOW, CAROL, ALICE), Err(Refusal::NotVerified));
    }

    #[test]
    fn a_step_out_of_order_from_the_wrong_device_or_repeated_finds_no_exchange() {
        let mut exchanges = requested_by_alice();
        let none = Err(Refusal::NoExchange);
        assert_eq!(send_step(&mut exchanges, NOW, ALICE, AuthStep::Verify, None), none);
        assert_eq!(send_step(&mut exchanges, NOW, ALICE, AuthStep::Response, None), none);
        assert_eq!(send_step(&mut exchanges, NOW, CAROL, AuthStep::Response, None), none);
        assert_eq!(send_step(&mut exchanges, NOW, BOB, AuthStep::Response, Some(CAROL)), none);
        send_step(&mut exchanges, NOW, BOB, AuthStep::Response, None).unwrap();
        assert_eq!(send_step(&mut exchanges, NOW, BOB, AuthStep::Response, None), none);
    }

    #[test]
    fn several_open_exchanges_are_ambiguous_until_one_is_named() {
        let mut exchanges = requested_by_alice();
        exchanges.open(CAROL, BOB, END).unwrap();
        let response = AuthStep::Response;
        assert_eq!(send_step(&mut exchanges, NOW, BOB, response, None), Err(Refusal::Ambiguous));
        assert_eq!(send_step(&mut exchanges, NOW, BOB, response, Some(CAROL)), Ok((CAROL, END)));
        // Only the exchange with Alice still waits for a response, so the recipient is unambiguous.
        assert_eq!(send_step(&mut exchanges, NOW, BOB, response, None), Ok((ALICE, END)));
    }

    #[test]
    fn an_exchange_ends_at_its_deadline_and_leaves_nothing_behind() {
        let mut exchanges = requested_by_alice();
        assert!(send_step(&mut exchanges, END, BOB, AuthStep::Response, None).is_err());
        exchanges.expire(END);
        assert!(
            exchanges.is_empty() && exchanges.peers.is_empty() && exchanges.deadlines.is_empty()
        );
    }

    #[test]
    fn a_new_request_of_a_pair_replaces_the_old_one() {
        let mut exchanges = requested_by_alice();
        exchanges.open(BOB, ALICE, Moment(90)).unwrap();
        exchanges.expire(END);
        assert_eq!((exchanges.len(), exchanges.deadlines.len()), (1, 1));
        let answered = send_step(&mut exchanges, END, ALICE, AuthStep::Response, None);
        assert_eq!(answered, Ok((BOB, Moment(90))));
    }

    #[test]
    fn the_open_exchanges_of_one_device_are_limited() {
        let mut exchanges = Exchanges::default();
        for peer in 0..MAX_PER_DEVICE as u128 {
            exchanges.open(ALICE, DeviceId::from_u128(100 + peer), END).unwrap();
        }
        assert_eq!(exchanges.open(ALICE, BOB, END), Err(Refusal::Full));
    }

    #[test]
    fn a_device_can_authenticate_itself() {
        let mut exchanges = Exchanges::default();
        exchanges.open(ALICE, ALICE, END).unwrap();
        assert_eq!(
            send_step(&mut exchanges, NOW, ALICE, AuthStep::Response, None),
            Ok((ALICE, END))
        );
        assert_eq!(send_step(&mut exchanges, NOW, ALICE, AuthStep::Verify, None), Ok((ALICE, END)));
        exchanges.expire(END);
        assert!(exchanges.peers.is_empty());
    }
}
