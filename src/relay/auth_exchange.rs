//! Which devices are authenticating each other. (protocol: Authentication)
//!
//! An `AuthRequest` opens an exchange between two devices; the steps after it go to the other side, in order, until
//! its time is over. The relay judges no proof and keeps no trust.

use std::collections::{BTreeSet, HashMap};

use foldhash::fast::RandomState;

use crate::clock::Moment;
use crate::protocol::frame::AuthStep;
use crate::protocol::id::DeviceId;
use crate::protocol::refusal::Refusal;

/// Open exchanges that one device may be part of: bounds what an exchange costs.
pub const MOST_PER_DEVICE: usize = 256;

/// How far an exchange has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Requested,
    Responded,
    Verified,
}

#[derive(Debug, Clone, Copy)]
struct Exchange {
    initiator: DeviceId,
    stage: Stage,
    deadline: Moment,
}

/// All open exchanges, one for each pair.
#[derive(Debug, Default)]
pub struct Exchanges {
    of_pair: HashMap<(DeviceId, DeviceId), Exchange, RandomState>,
    peers: HashMap<DeviceId, Vec<DeviceId>, RandomState>,
    /// One entry for each that is open.
    ends: BTreeSet<(Moment, DeviceId, DeviceId)>,
}

fn pair(a: DeviceId, b: DeviceId) -> (DeviceId, DeviceId) {
    if a < b { (a, b) } else { (b, a) }
}

impl Exchanges {
    /// Opens an exchange, in place of an older one of the same pair.
    ///
    /// # Errors
    ///
    /// 503 when one of the two has too many open.
    pub fn open(
        &mut self,
        initiator: DeviceId,
        responder: DeviceId,
        deadline: Moment,
    ) -> Result<(), Refusal> {
        let pair = pair(initiator, responder);
        if let Some(older) = self.of_pair.get(&pair) {
            self.ends.remove(&(older.deadline, pair.0, pair.1));
        } else {
            for device in [initiator, responder] {
                if self.peers.get(&device).is_some_and(|peers| peers.len() >= MOST_PER_DEVICE) {
                    return Err(Refusal::Full);
                }
            }
            self.peers.entry(initiator).or_default().push(responder);
            if initiator != responder {
                self.peers.entry(responder).or_default().push(initiator);
            }
        }
        let exchange = Exchange { initiator, stage: Stage::Requested, deadline };
        self.of_pair.insert(pair, exchange);
        self.ends.insert((deadline, pair.0, pair.1));
        Ok(())
    }

    /// Who gets this `AuthResponse` or `AuthVerify`, and until when.
    ///
    /// # Errors
    ///
    /// 404 when no exchange waits for this step from this device, 409 when several do.
    pub fn whose(
        &self,
        now: Moment,
        from: DeviceId,
        step: AuthStep,
        named: Option<DeviceId>,
    ) -> Result<(DeviceId, Moment), Refusal> {
        let (before, from_initiator) = match step {
            AuthStep::Request => return Err(Refusal::NoExchange),
            AuthStep::Response => (Stage::Requested, false),
            AuthStep::Verify => (Stage::Responded, true),
        };
        let waits = |peer: DeviceId| {
            self.open_between(now, from, peer).filter(|exchange| {
                exchange.stage == before
                    && (peer == from || (exchange.initiator == from) == from_initiator)
            })
        };
        let mut waiting = self
            .peers_of(from)
            .filter(|peer| named.is_none_or(|named| named == *peer))
            .filter_map(|peer| waits(peer).map(|exchange| (peer, exchange.deadline)));
        let found = waiting.next().ok_or(Refusal::NoExchange)?;
        if waiting.next().is_some() {
            return Err(Refusal::Ambiguous);
        }
        Ok(found)
    }

    /// The step has gone to the other side.
    pub fn advance(&mut self, from: DeviceId, peer: DeviceId, step: AuthStep) {
        let Some(exchange) = self.of_pair.get_mut(&pair(from, peer)) else { return };
        exchange.stage = match step {
            AuthStep::Request => Stage::Requested,
            AuthStep::Response => Stage::Responded,
            AuthStep::Verify => Stage::Verified,
        };
    }

    /// Until when the exchange of two devices stands that has reached `AuthVerify`.
    ///
    /// # Errors
    ///
    /// 403 when there is none.
    pub fn verified(&self, now: Moment, from: DeviceId, to: DeviceId) -> Result<Moment, Refusal> {
        self.open_between(now, from, to)
            .filter(|exchange| exchange.stage == Stage::Verified)
            .map(|exchange| exchange.deadline)
            .ok_or(Refusal::NotVerified)
    }

    /// Forgets what is over.
    pub fn expire(&mut self, now: Moment) {
        while let Some((deadline, a, b)) = self.ends.first().copied() {
            if deadline > now {
                return;
            }
            self.ends.pop_first();
            self.of_pair.remove(&(a, b));
            self.part(a, b);
            self.part(b, a);
        }
    }

    /// When the next one is over.
    #[must_use]
    pub fn next_end(&self) -> Option<Moment> {
        self.ends.first().map(|(deadline, ..)| *deadline)
    }

    /// How many are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.of_pair.len()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.of_pair.is_empty()
    }

    /// Entries in all collections; for tests.
    pub(super) fn residue(&self) -> usize {
        self.of_pair.len() + self.peers.len() + self.ends.len()
    }

    fn part(&mut self, device: DeviceId, peer: DeviceId) {
        if let Some(peers) = self.peers.get_mut(&device) {
            peers.retain(|other| *other != peer);
            if peers.is_empty() {
                self.peers.remove(&device);
            }
        }
    }

    fn peers_of(&self, device: DeviceId) -> impl Iterator<Item = DeviceId> {
        self.peers.get(&device).into_iter().flatten().copied()
    }

    fn open_between(&self, now: Moment, a: DeviceId, b: DeviceId) -> Option<Exchange> {
        self.of_pair.get(&pair(a, b)).filter(|exchange| now < exchange.deadline).copied()
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

    /// What the router does with a step that finds room.
    fn say(
        exchanges: &mut Exchanges,
        now: Moment,
        from: DeviceId,
        step: AuthStep,
        named: Option<DeviceId>,
    ) -> Result<(DeviceId, Moment), Refusal> {
        let found = exchanges.whose(now, from, step, named)?;
        exchanges.advance(from, found.0, step);
        Ok(found)
    }

    fn alice_asked_bob() -> Exchanges {
        let mut exchanges = Exchanges::default();
        exchanges.open(ALICE, BOB, END).unwrap();
        exchanges
    }

    #[test]
    fn the_steps_go_to_the_other_side_in_order() {
        let mut exchanges = alice_asked_bob();
        assert_eq!(exchanges.verified(NOW, BOB, ALICE), Err(Refusal::NotVerified));
        assert_eq!(say(&mut exchanges, NOW, BOB, AuthStep::Response, None), Ok((ALICE, END)));
        assert_eq!(say(&mut exchanges, NOW, ALICE, AuthStep::Verify, None), Ok((BOB, END)));
        assert_eq!(exchanges.verified(NOW, BOB, ALICE), Ok(END));
        assert_eq!(exchanges.verified(NOW, ALICE, BOB), Ok(END));
        assert_eq!(exchanges.verified(NOW, CAROL, ALICE), Err(Refusal::NotVerified));
    }

    #[test]
    fn a_step_out_of_order_from_the_wrong_side_or_again_finds_no_exchange() {
        let mut exchanges = alice_asked_bob();
        let none = Err(Refusal::NoExchange);
        assert_eq!(say(&mut exchanges, NOW, ALICE, AuthStep::Verify, None), none);
        assert_eq!(say(&mut exchanges, NOW, ALICE, AuthStep::Response, None), none);
        assert_eq!(say(&mut exchanges, NOW, CAROL, AuthStep::Response, None), none);
        assert_eq!(say(&mut exchanges, NOW, BOB, AuthStep::Response, Some(CAROL)), none);
        say(&mut exchanges, NOW, BOB, AuthStep::Response, None).unwrap();
        assert_eq!(say(&mut exchanges, NOW, BOB, AuthStep::Response, None), none);
    }

    #[test]
    fn several_open_exchanges_are_ambiguous_until_one_is_named() {
        let mut exchanges = alice_asked_bob();
        exchanges.open(CAROL, BOB, END).unwrap();
        let answer = AuthStep::Response;
        assert_eq!(say(&mut exchanges, NOW, BOB, answer, None), Err(Refusal::Ambiguous));
        assert_eq!(say(&mut exchanges, NOW, BOB, answer, Some(CAROL)), Ok((CAROL, END)));
        // Only Alice's still waits for an answer, so nothing is ambiguous any more.
        assert_eq!(say(&mut exchanges, NOW, BOB, answer, None), Ok((ALICE, END)));
    }

    #[test]
    fn an_exchange_ends_with_its_time_and_leaves_nothing_behind() {
        let mut exchanges = alice_asked_bob();
        assert!(say(&mut exchanges, END, BOB, AuthStep::Response, None).is_err());
        exchanges.expire(END);
        assert!(exchanges.is_empty() && exchanges.peers.is_empty() && exchanges.ends.is_empty());
    }

    #[test]
    fn a_new_request_of_the_pair_takes_the_old_ones_place() {
        let mut exchanges = alice_asked_bob();
        exchanges.open(BOB, ALICE, Moment(90)).unwrap();
        exchanges.expire(END);
        assert_eq!((exchanges.len(), exchanges.ends.len()), (1, 1));
        let answered = say(&mut exchanges, END, ALICE, AuthStep::Response, None);
        assert_eq!(answered, Ok((BOB, Moment(90))));
    }

    #[test]
    fn one_device_opens_so_many_and_no_more() {
        let mut exchanges = Exchanges::default();
        for peer in 0..MOST_PER_DEVICE as u128 {
            exchanges.open(ALICE, DeviceId::from_u128(100 + peer), END).unwrap();
        }
        assert_eq!(exchanges.open(ALICE, BOB, END), Err(Refusal::Full));
    }

    #[test]
    fn a_device_can_authenticate_itself() {
        let mut exchanges = Exchanges::default();
        exchanges.open(ALICE, ALICE, END).unwrap();
        assert_eq!(say(&mut exchanges, NOW, ALICE, AuthStep::Response, None), Ok((ALICE, END)));
        assert_eq!(say(&mut exchanges, NOW, ALICE, AuthStep::Verify, None), Ok((ALICE, END)));
        exchanges.expire(END);
        assert!(exchanges.peers.is_empty());
    }
}
