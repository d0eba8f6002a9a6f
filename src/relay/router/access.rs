//! What the devices of each access token have, what they may have, and the end of all of them. (protocol: Access tokens)

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::directory::{Device, Slot};
use super::{Router, STEP_ENTRIES};
use crate::access::{Bounds, Policy};
use crate::protocol::envelope::AccessKey;
use crate::protocol::refusal::{AccessBound, CloseReason, Refusal};
use crate::relay::delivery::{Delivery, Step};

/// Registrations and messages that were refused because the devices of a token have all that they may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AccessRefusals {
    pub devices: u64,
    pub queued_bytes: u64,
}

/// The access tokens that the operator has named or by which a device registered.
#[derive(Debug, Default)]
pub(super) struct AccessTokens {
    keys: HashMap<Arc<str>, AccessKey, RandomState>,
    /// By key, from 1 on.
    tokens: Vec<Token>,
    refusals: AccessRefusals,
}

#[derive(Debug)]
struct Token {
    name: Arc<str>,
    bounds: Bounds,
    /// That are alive: resumable ones that are known, plain ones that are connected.
    devices: u32,
}

/// All devices of an access token end; those before `next` have ended.
#[derive(Debug)]
pub(super) struct Ending {
    access: AccessKey,
    next: Slot,
}

impl AccessTokens {
    /// The key of a name; a new one if the name was never seen.
    pub fn key_of(&mut self, name: &Arc<str>) -> AccessKey {
        if let Some(key) = self.keys.get(name) {
            return *key;
        }
        self.tokens.push(Token { name: name.clone(), bounds: Bounds::default(), devices: 0 });
        let key = u32::try_from(self.tokens.len()).map_or(AccessKey::NONE, AccessKey);
        self.keys.insert(name.clone(), key);
        key
    }

    /// The name of a key.
    pub fn name(&self, key: AccessKey) -> Option<&Arc<str>> {
        self.get(key).map(|token| &token.name)
    }

    /// A name that was seen, and how many devices of it are alive.
    fn named(&self, name: &str) -> Option<(AccessKey, u32)> {
        let key = *self.keys.get(name)?;
        Some((key, self.devices_of(key)))
    }

    /// Replaces all bounds. A name that is in the table no more keeps its bounds while it has devices: who loses a token must
    /// gain nothing by it.
    pub fn set_policy(&mut self, policy: &Policy) {
        let is_open = matches!(policy, Policy::Open);
        for token in self.tokens.iter_mut().filter(|token| is_open || token.devices == 0) {
            token.bounds = Bounds::default();
        }
        let Policy::Tokens(table) = policy else { return };
        for token in table.tokens() {
            let key = self.key_of(&token.name);
            if let Some(known) = self.get_mut(key) {
                known.bounds = token.bounds;
            }
        }
    }

    /// Whether the devices of a token may be one more, else 403.
    pub fn check_devices(&mut self, key: AccessKey) -> Result<(), Refusal> {
        let bound = self.get(key).and_then(|token| token.bounds.devices);
        if bound.is_none_or(|most| self.devices_of(key) < most) {
            return Ok(());
        }
        self.refusals.devices += 1;
        Err(Refusal::AccessLimit(AccessBound::Devices))
    }

    pub fn queued_bytes_bound(&self, key: AccessKey) -> Option<u64> {
        self.get(key)?.bounds.queued_bytes
    }

    /// A message is refused: the devices of its sender's token have all the bytes waiting that they may have.
    pub fn refuse_bytes(&mut self) -> Refusal {
        self.refusals.queued_bytes += 1;
        Refusal::AccessLimit(AccessBound::QueuedBytes)
    }

    pub fn refusals(&self) -> AccessRefusals {
        self.refusals
    }

    /// A device of the token is alive from now on.
    pub fn added(&mut self, key: AccessKey) {
        if let Some(token) = self.get_mut(key) {
            token.devices += 1;
        }
    }

    /// A device of the token was alive until now.
    pub fn removed(&mut self, key: AccessKey) {
        if let Some(token) = self.get_mut(key) {
            token.devices -= 1;
        }
    }

    pub fn devices_of(&self, key: AccessKey) -> u32 {
        self.get(key).map_or(0, |token| token.devices)
    }

    /// The number of devices of each token that has any, for the audit.
    pub fn devices(&self) -> impl Iterator<Item = (&Arc<str>, u32)> {
        let all = self.keys.iter().map(|(name, key)| (name, self.devices_of(*key)));
        all.filter(|(_, devices)| *devices > 0)
    }

    fn get(&self, key: AccessKey) -> Option<&Token> {
        self.tokens.get((key.0 as usize).checked_sub(1)?)
    }

    fn get_mut(&mut self, key: AccessKey) -> Option<&mut Token> {
        self.tokens.get_mut((key.0 as usize).checked_sub(1)?)
    }
}

/// Whether a device counts among those of its access token: a plain one cannot come back.
pub(super) fn is_alive(device: &Device) -> bool {
    device.is_resumable() || device.connection.is_some()
}

impl Router {
    /// Replaces the access tokens. Bounds that are below what the devices of a token have refuse more; nothing ends.
    pub fn set_access(&mut self, policy: &Policy) {
        self.access.set_policy(policy);
    }

    /// Ends all devices of an access token, connected or absent, as if each had unregistered; connections are closed with 4403.
    /// What one step does not reach ends in later ones. Returns how many of the devices were alive.
    pub fn end_devices_of(&mut self, step: &mut Step, access: &str) -> u32 {
        let Some((access, alive)) = self.access.named(access) else { return 0 };
        self.ending.push_back(Ending { access, next: 0 });
        self.continue_ending(step);
        alive
    }

    /// Visits a slice of the directory for the first of the access tokens whose devices end.
    pub(super) fn continue_ending(&mut self, step: &mut Step) {
        let Some(Ending { access, next }) = self.ending.pop_front() else { return };
        let end = (next as usize).saturating_add(STEP_ENTRIES).min(self.directory.capacity());
        for slot in next..end as Slot {
            let Some(device) = self.directory.get(slot) else { continue };
            if device.access != access {
                continue;
            }
            let connection = device.connection.as_ref().map(|connection| connection.id);
            self.forget(slot);
            if let Some(connection) = connection {
                step.deliver(connection, Delivery::Close(CloseReason::Ended));
            }
        }
        if end < self.directory.capacity() {
            self.ending.push_front(Ending { access, next: end as Slot });
        }
    }
}
