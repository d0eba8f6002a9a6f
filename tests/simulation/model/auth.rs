//! Authentications: which exchanges are open, and to whom a step goes.

use sealpost::clock::Now;
use sealpost::protocol::envelope::{ENVELOPE_OVERHEAD, EXCHANGE_OVERHEAD};
use sealpost::protocol::frame::AuthStep;
use sealpost::protocol::refusal::ErrorContext;
use sealpost::protocol::refusal::Refusal;

use super::{Dev, Kind, Model, Reply, SECOND};
use crate::store::Notebook;

#[derive(Debug)]
pub(super) struct Exchange {
    a: Dev,
    b: Dev,
    stage: u8,
    pub(super) deadline: u64,
}

/// What a step counts.
fn bytes_of(body: &str) -> u64 {
    body.len() as u64 + ENVELOPE_OVERHEAD + EXCHANGE_OVERHEAD
}

impl Exchange {
    fn advanced(&mut self) -> &mut Self {
        self.stage += 1;
        self
    }

    fn is_between(&self, a: Dev, b: Dev) -> bool {
        (self.a, self.b) == (a, b) || (self.a, self.b) == (b, a)
    }
}

impl Model {
    /// The recipient of an Auth step, by the open exchanges.
    pub fn auth_target(
        &self,
        now: Now,
        from: Dev,
        step: AuthStep,
        named: Option<Dev>,
    ) -> Result<Dev, Refusal> {
        if step == AuthStep::Request {
            return match (named, &self.conn(from).met[..]) {
                (Some(named), _) => Ok(named),
                (None, [one]) => Ok(*one),
                (None, []) => Err(Refusal::NobodyYet),
                (None, _) => Err(Refusal::Ambiguous),
            };
        }
        let (stage, by_opener) = if step == AuthStep::Response { (0, false) } else { (1, true) };
        let fits = |exchange: &&Exchange| {
            let speaker = if by_opener { exchange.a } else { exchange.b };
            exchange.stage == stage && speaker == from && exchange.deadline > now.mono.0
        };
        let peers: Vec<Dev> = self
            .exchanges
            .iter()
            .filter(fits)
            .map(|exchange| if by_opener { exchange.b } else { exchange.a })
            .filter(|peer| named.is_none_or(|named| named == *peer))
            .collect();
        match &peers[..] {
            [one] => Ok(*one),
            [] => Err(Refusal::NoExchange),
            _ => Err(Refusal::Ambiguous),
        }
    }

    pub fn auth_step_sent(
        &mut self,
        now: Now,
        from: Dev,
        step: AuthStep,
        named: Option<Dev>,
        body: &str,
        store: &mut Notebook,
    ) {
        let outcome = self.auth_target(now, from, step, named).and_then(|to| {
            if step == AuthStep::Request {
                let id = self.devices[to].id;
                self.addresses(now, from, id);
            }
            if !self.devices[to].is_present(now) {
                return Err(Refusal::UnknownRecipient);
            }
            let refused = self.no_room(now, from, to, bytes_of(body), false);
            refused.map_or(Ok(to), Err)
        });
        match outcome {
            Ok(to) => {
                let end = now.mono.0 + self.rules.exchange_ttl * SECOND;
                let exchange = match step {
                    AuthStep::Request => {
                        self.exchanges.retain(|exchange| !exchange.is_between(from, to));
                        let exchange = Exchange { a: from, b: to, stage: 0, deadline: end };
                        self.exchanges.push(exchange);
                        self.exchanges.last_mut()
                    }
                    _ => {
                        let mut all = self.exchanges.iter_mut();
                        let exchange = all.find(|exchange| exchange.is_between(from, to));
                        exchange.map(Exchange::advanced)
                    }
                };
                let deadline = exchange.expect("it is there").deadline;
                self.carry(from, to, deadline, body, store);
            }
            Err(refusal) => self.refuse_auth(from, named, refusal),
        }
    }

    pub fn auth_success_sent(
        &mut self,
        now: Now,
        from: Dev,
        to: Dev,
        body: &str,
        store: &mut Notebook,
    ) {
        let verified = self.exchanges.iter().find(|exchange| {
            exchange.is_between(from, to) && exchange.stage == 2 && exchange.deadline > now.mono.0
        });
        let Some(deadline) = verified.map(|exchange| exchange.deadline) else {
            return self.refuse_auth(from, Some(to), Refusal::NotVerified);
        };
        if !self.devices[to].is_present(now) {
            return self.refuse_auth(from, Some(to), Refusal::UnknownRecipient);
        }
        match self.no_room(now, from, to, bytes_of(body), false) {
            Some(refusal) => self.refuse_auth(from, Some(to), refusal),
            None => self.carry(from, to, deadline, body, store),
        }
    }

    fn carry(&mut self, from: Dev, to: Dev, deadline: u64, body: &str, store: &mut Notebook) {
        let ttl = self.rules.exchange_ttl;
        self.accept(Kind::Auth, from, to, ttl, deadline, body.as_bytes(), false, store);
    }

    fn refuse_auth(&mut self, from: Dev, named: Option<Dev>, refusal: Refusal) {
        let about = ErrorContext::about(None, named.map(|named| self.devices[named].id.into()));
        self.expected_replies.push((self.conn(from).id, Reply::Refused(refusal, about)));
    }
}
