//! Authentication exchanges between two devices. (protocol: Authentication messages)
//!
//! An `AuthRequest` opens an exchange. Each later step goes to the other device, in the order of the protocol, until the
//! deadline. The relay does not verify the proofs and does not store which device trusts which.
//!
//! A device may have opened [`MAX_OPENED`] exchanges. Of those that unknown senders opened and the device has not answered it
//! holds [`MAX_UNANSWERED`]: one more ends the oldest of the origin that has most of them, so that unknown senders take places from
//! each other and never from correspondents.

use std::collections::{BTreeSet, HashMap, VecDeque};

use foldhash::fast::RandomState;

use crate::clock::Moment;
use crate::protocol::envelope::{Origin, Seq};
use crate::protocol::frame::AuthStep;
use crate::protocol::id::{DeviceId, Letters, Recipient};
use crate::protocol::refusal::Refusal;

/// Maximum of open exchanges that one device has opened.
pub const MAX_OPENED: usize = 256;
/// Maximum of exchanges that unknown senders have opened with one device and that the device has not answered.
pub const MAX_UNANSWERED: usize = 256;

#[derive(Debug, Clone, Copy)]
struct Exchange {
    initiator: DeviceId,
    last: AuthStep,
    deadline: Moment,
    /// The sequence number of the `AuthRequest`.
    request: Seq,
    /// The letters in which the initiator wrote the id of the responder.
    responder_letters: Letters,
}

/// An exchange that was ended to make room for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    pub initiator: DeviceId,
    /// The other device, as the initiator named it.
    pub responder: Recipient,
    /// The sequence number of the `AuthRequest`, which may still wait for the responder.
    pub request: Seq,
}

/// The open exchanges of one device.
#[derive(Debug, Default)]
struct OfDevice {
    /// The other devices.
    peers: Vec<DeviceId>,
    /// How many of them this device opened.
    opened: usize,
    /// Initiators that are unknown senders to this device and that it has not answered, the oldest first.
    unanswered: VecDeque<(DeviceId, Origin)>,
}

/// All open exchanges; at most one for each pair of devices.
#[derive(Debug, Default)]
pub struct Exchanges {
    by_pair: HashMap<(DeviceId, DeviceId), Exchange, RandomState>,
    by_device: HashMap<DeviceId, OfDevice, RandomState>,
    /// One entry for each open exchange.
    deadlines: BTreeSet<(Moment, DeviceId, DeviceId)>,
}

fn pair(a: DeviceId, b: DeviceId) -> (DeviceId, DeviceId) {
    if a < b { (a, b) } else { (b, a) }
}

impl Exchanges {
    /// Whether a device may open an exchange; 503 when it has [`MAX_OPENED`] open already.
    pub fn check_open(&self, initiator: DeviceId, responder: DeviceId) -> Result<(), Refusal> {
        let replaced = self.by_pair.get(&pair(initiator, responder));
        let replaces_own = replaced.is_some_and(|older| older.initiator == initiator);
        let opened = self.by_device.get(&initiator).map_or(0, |device| device.opened);
        if opened >= MAX_OPENED && !replaces_own { Err(Refusal::Full) } else { Ok(()) }
    }

    /// Opens an exchange; replaces an older one of the same pair. `unknown` is the origin of an initiator that the responder
    /// does not know, `request` the sequence number of the `AuthRequest`. Returns the exchange that had to end.
    pub fn open(
        &mut self,
        initiator: DeviceId,
        responder: Recipient,
        deadline: Moment,
        unknown: Option<Origin>,
        request: Seq,
    ) -> Option<Ended> {
        let Recipient { id: responder, letters: responder_letters } = responder;
        self.close(initiator, responder);
        let ended = unknown.and_then(|_| self.end_one_for(responder));
        let pair = pair(initiator, responder);
        let last = AuthStep::Request;
        let exchange = Exchange { initiator, last, deadline, request, responder_letters };
        self.by_pair.insert(pair, exchange);
        self.deadlines.insert((deadline, pair.0, pair.1));
        let of_initiator = self.by_device.entry(initiator).or_default();
        of_initiator.peers.push(responder);
        of_initiator.opened += 1;
        let of_responder = self.by_device.entry(responder).or_default();
        if initiator != responder {
            of_responder.peers.push(initiator);
        }
        if let Some(origin) = unknown {
            of_responder.unanswered.push_back((initiator, origin));
        }
        ended
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
        let waits = |peer: DeviceId| {
            let exchange = self.open_between(now, from, peer)?;
            let waits = exchange.last == before
                && (peer == from || (exchange.initiator == from) == from_initiator);
            waits.then_some((peer, exchange.deadline))
        };
        if let Some(named) = named {
            return waits(named).ok_or(Refusal::NoExchange);
        }
        let peers = self.by_device.get(&from).map_or(&[][..], |device| &device.peers);
        let mut waiting = peers.iter().filter_map(|peer| waits(*peer));
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
        if step == AuthStep::Response
            && let Some(device) = self.by_device.get_mut(&from)
        {
            device.unanswered.retain(|(initiator, _)| *initiator != peer);
        }
    }

    /// The deadline of an exchange between two devices that has reached `AuthVerify`; 403 when there is none.
    pub fn verified(&self, now: Moment, from: DeviceId, to: DeviceId) -> Result<Moment, Refusal> {
        self.open_between(now, from, to)
            .filter(|exchange| exchange.last == AuthStep::Verify)
            .map(|exchange| exchange.deadline)
            .ok_or(Refusal::NotVerified)
    }

    /// Removes exchanges whose deadline is not after `now`, at most `limit`. Returns how many.
    pub fn expire(&mut self, now: Moment, limit: usize) -> usize {
        let mut removed = 0;
        while removed < limit
            && let Some((deadline, a, b)) = self.deadlines.first().copied()
            && deadline <= now
        {
            self.close(a, b);
            removed += 1;
        }
        removed
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
        [self.by_pair.len(), self.by_device.len(), self.deadlines.len()]
    }

    /// Removes the exchange of a pair, if there is one.
    fn close(&mut self, a: DeviceId, b: DeviceId) -> Option<Exchange> {
        let pair = pair(a, b);
        let exchange = self.by_pair.remove(&pair)?;
        self.deadlines.remove(&(exchange.deadline, pair.0, pair.1));
        // A device can authenticate itself.
        let sides = if a == b { 1 } else { 2 };
        for (device, peer) in [(a, b), (b, a)].into_iter().take(sides) {
            let Some(of_device) = self.by_device.get_mut(&device) else { continue };
            of_device.peers.retain(|other| *other != peer);
            of_device.unanswered.retain(|(initiator, _)| *initiator != peer);
            of_device.opened -= usize::from(exchange.initiator == device);
            if of_device.peers.is_empty() {
                self.by_device.remove(&device);
            }
        }
        Some(exchange)
    }

    /// Makes room among the unanswered exchanges of a device: ends the oldest one of the origin that has most.
    fn end_one_for(&mut self, responder: DeviceId) -> Option<Ended> {
        let unanswered = &self.by_device.get(&responder)?.unanswered;
        if unanswered.len() < MAX_UNANSWERED {
            return None;
        }
        let mut by_origin = HashMap::<Origin, usize, RandomState>::default();
        for (_, origin) in unanswered {
            *by_origin.entry(*origin).or_default() += 1;
        }
        let most = by_origin.values().copied().max()?;
        let (initiator, _) =
            *unanswered.iter().find(|(_, origin)| by_origin.get(origin) == Some(&most))?;
        let Exchange { request, responder_letters, .. } = self.close(initiator, responder)?;
        let responder = Recipient { id: responder, letters: responder_letters };
        Some(Ended { initiator, responder, request })
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

    fn open(exchanges: &mut Exchanges, from: DeviceId, to: DeviceId, deadline: Moment) {
        exchanges.check_open(from, to).unwrap();
        assert_eq!(exchanges.open(from, to.into(), deadline, None, 0), None);
    }

    fn requested_by_alice() -> Exchanges {
        let mut exchanges = Exchanges::default();
        open(&mut exchanges, ALICE, BOB, END);
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
        open(&mut exchanges, CAROL, BOB, END);
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
        exchanges.expire(END, usize::MAX);
        assert!(exchanges.indexed() == [0, 0, 0]);
    }

    #[test]
    fn a_new_request_of_a_pair_replaces_the_old_one() {
        let mut exchanges = requested_by_alice();
        open(&mut exchanges, BOB, ALICE, Moment(90));
        exchanges.expire(END, usize::MAX);
        assert_eq!((exchanges.len(), exchanges.deadlines.len()), (1, 1));
        let answered = send_step(&mut exchanges, END, ALICE, AuthStep::Response, None);
        assert_eq!(answered, Ok((BOB, Moment(90))));
    }

    #[test]
    fn a_device_opens_256_and_what_others_open_with_it_does_not_count() {
        let mut exchanges = Exchanges::default();
        for peer in 0..MAX_OPENED as u128 {
            open(&mut exchanges, ALICE, DeviceId::from_u128(100 + peer), END);
            open(&mut exchanges, DeviceId::from_u128(1_000 + peer), ALICE, END);
        }
        assert_eq!(exchanges.check_open(ALICE, BOB), Err(Refusal::Full));
        assert_eq!(
            exchanges.check_open(ALICE, DeviceId::from_u128(100)),
            Ok(()),
            "it replaces one"
        );
        assert_eq!(exchanges.check_open(BOB, ALICE), Ok(()));
    }

    #[test]
    fn of_unknown_senders_the_origin_with_most_makes_room_and_answered_ones_stay() {
        let mut exchanges = Exchanges::default();
        let (crowd, newcomer) = (Origin(1), Origin(2));
        let device = |number: usize| DeviceId::from_u128(100 + number as u128);
        open(&mut exchanges, CAROL, BOB, END);
        for number in 0..=MAX_UNANSWERED {
            let ended = exchanges.open(device(number), BOB.into(), END, Some(crowd), number as Seq);
            assert_eq!(ended.is_some(), number == MAX_UNANSWERED);
            if number == 0 {
                // The answered one does not count any more.
                let response = AuthStep::Response;
                send_step(&mut exchanges, NOW, BOB, response, Some(device(0))).unwrap();
                exchanges.open(device(1_000), BOB.into(), END, Some(newcomer), 1_000);
            }
        }
        let ended = exchanges.open(device(2_000), BOB.into(), END, Some(newcomer), 2_000);
        assert_eq!(ended, Some(Ended { initiator: device(2), responder: BOB.into(), request: 2 }));
        let response = AuthStep::Response;
        for answered in [CAROL, device(1_000), device(2_000)] {
            assert!(send_step(&mut exchanges, NOW, BOB, response, Some(answered)).is_ok());
        }
        exchanges.expire(END, usize::MAX);
        assert_eq!(exchanges.indexed(), [0, 0, 0]);
    }

    #[test]
    fn a_device_can_authenticate_itself() {
        let mut exchanges = Exchanges::default();
        open(&mut exchanges, ALICE, ALICE, END);
        assert_eq!(
            send_step(&mut exchanges, NOW, ALICE, AuthStep::Response, None),
            Ok((ALICE, END))
        );
        assert_eq!(send_step(&mut exchanges, NOW, ALICE, AuthStep::Verify, None), Ok((ALICE, END)));
        exchanges.expire(END, usize::MAX);
        assert_eq!(exchanges.indexed(), [0, 0, 0]);
    }
}
