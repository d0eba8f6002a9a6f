//! Who may register: the operator's access tokens. (protocol: Access tokens)
//!
//! A token is a secret that the operator gives to the devices of one party. The relay knows its SHA-256 and its name; what
//! follows from a token, its bounds among it, belongs to the name. A table of tokens is read from a file and never changed:
//! a reload replaces it.

pub mod file;
pub mod line;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use foldhash::fast::RandomState;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What each secret begins with, so that scanners of source code and logs recognise one.
pub const SECRET_PREFIX: &str = "sealpost_";
/// A longer text is no secret of a token, and is not hashed, bytes.
const LONGEST_SECRET: usize = 256;
/// Bytes of the longest name of a token.
pub const LONGEST_NAME: usize = 64;

/// SHA-256 of the secret of a token; the secret itself is not kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecretHash([u8; 32]);

/// Who may register.
#[derive(Debug)]
pub enum Policy {
    /// Everybody.
    Open,
    /// Who has a token.
    Tokens(AccessTable),
}

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessToken {
    pub name: Arc<str>,
    pub hash: SecretHash,
    /// Unix milliseconds from which on the token registers no device.
    pub expires_ms: Option<u64>,
    pub bounds: Bounds,
}

/// What all devices of one token may have; `None` is no bound but those of every device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Devices alive at the same time: resumable ones that are known, plain ones that are connected.
    pub devices: Option<u32>,
    /// For each device, instead of `rate_limit.messages_per_minute`.
    pub messages_per_minute: Option<NonZeroU32>,
    /// Bytes of all messages of these devices that wait or await an Ack.
    pub queued_bytes: Option<u64>,
}

/// All tokens, by the hash of their secret. Names and hashes are unique.
#[derive(Debug, Default)]
pub struct AccessTable {
    tokens: Vec<AccessToken>,
    by_hash: HashMap<SecretHash, usize, RandomState>,
    names: HashSet<Arc<str>, RandomState>,
}

/// What a client that wants to register has presented.
#[derive(Debug, Clone, Copy, Default)]
pub struct Presented {
    /// In the head of the upgrade: `Authorization: Bearer`.
    pub in_head: Option<SecretHash>,
    /// In the payload of `Register`.
    pub in_payload: Option<SecretHash>,
}

/// Why a presented token does not register a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// There was none.
    Missing,
    /// No token has this secret, or two different ones were presented.
    Unknown,
    Expired,
}

impl SecretHash {
    /// No secret has this hash.
    const OF_NOTHING: Self = Self([0; 32]);

    /// The hash of what a client presents. A text that is too long for a secret gets a hash that no secret has.
    pub fn of(presented: &str) -> Self {
        if presented.len() > LONGEST_SECRET {
            return Self::OF_NOTHING;
        }
        Self(Sha256::digest(presented).into())
    }
}

/// The length only: nothing of a secret belongs into a log.
impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretHash({} bytes)", self.0.len())
    }
}

impl AccessToken {
    /// Whether the token has expired at this time, Unix milliseconds.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|expires| expires <= now_ms)
    }
}

impl AccessTable {
    /// In the order of the file.
    pub fn tokens(&self) -> &[AccessToken] {
        &self.tokens
    }

    /// Adds a token. The error says which of its values another one has.
    pub fn insert(&mut self, token: AccessToken) -> Result<(), String> {
        if self.names.contains(&token.name) {
            return Err(format!("there is another token with the name {}", token.name));
        }
        if let Some(other) = self.by_hash.get(&token.hash) {
            let name = &self.tokens[*other].name;
            return Err(format!("the token {name} has the same SHA-256"));
        }
        self.by_hash.insert(token.hash, self.tokens.len());
        self.names.insert(token.name.clone());
        self.tokens.push(token);
        Ok(())
    }

    /// The token that was presented. `now_ms` is in Unix milliseconds.
    pub fn find(&self, presented: Presented, now_ms: u64) -> Result<&AccessToken, Denied> {
        let presented = match (presented.in_head, presented.in_payload) {
            (None, None) => return Err(Denied::Missing),
            (Some(one), Some(other)) if one != other => return Err(Denied::Unknown),
            (Some(hash), _) | (None, Some(hash)) => hash,
        };
        let found = self.by_hash.get(&presented).and_then(|index| self.tokens.get(*index));
        // The map compares hashes, of which a client cannot choose the first bytes; the last word has a comparison that
        // takes the same time for every hash.
        let token = found
            .filter(|token| bool::from(token.hash.0.ct_eq(&presented.0)))
            .ok_or(Denied::Unknown)?;
        if token.is_expired(now_ms) { Err(Denied::Expired) } else { Ok(token) }
    }
}

/// Whether a text can be the name of a token: 1 to 64 letters, digits, points, hyphens and underscores.
pub fn is_name(text: &str) -> bool {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(is_valid)
}

/// A new secret: the prefix and 256 random bits from the operating system, as hexadecimal digits.
///
/// # Errors
///
/// The operating system has no randomness.
pub fn fresh_secret() -> Result<String, getrandom::Error> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)?;
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{SECRET_PREFIX}{digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> AccessTable {
        let mut table = AccessTable::default();
        for (name, expires_ms) in [("always", None), ("until", Some(1_000))] {
            let hash = SecretHash::of(name);
            let token =
                AccessToken { name: name.into(), hash, expires_ms, bounds: Bounds::default() };
            table.insert(token).unwrap();
        }
        table
    }

    #[test]
    fn a_token_is_found_by_its_secret_wherever_it_was_presented() {
        let (table, always) = (table(), Some(SecretHash::of("always")));
        for (in_head, in_payload) in [(always, None), (None, always), (always, always)] {
            let presented = Presented { in_head, in_payload };
            assert_eq!(&*table.find(presented, 0).unwrap().name, "always");
        }
    }

    #[test]
    fn what_is_missing_unknown_contradictory_or_expired_is_denied() {
        let (table, hash) = (table(), |text| Some(SecretHash::of(text)));
        let denied = |in_head, in_payload, now| {
            table.find(Presented { in_head, in_payload }, now).unwrap_err()
        };
        assert_eq!(denied(None, None, 0), Denied::Missing);
        assert_eq!(denied(hash("wrong"), None, 0), Denied::Unknown);
        assert_eq!(denied(hash("always"), hash("until"), 0), Denied::Unknown);
        let long = Some(SecretHash::of(&"x".repeat(257)));
        assert_eq!(denied(None, long, 0), Denied::Unknown);
        let until = Presented { in_head: hash("until"), in_payload: None };
        assert!(table.find(until, 999).is_ok());
        assert_eq!(denied(hash("until"), None, 1_000), Denied::Expired);
    }

    #[test]
    fn names_and_secrets_are_unique() {
        let mut table = table();
        let token = |name: &str, secret| AccessToken {
            name: name.into(),
            hash: SecretHash::of(secret),
            expires_ms: None,
            bounds: Bounds::default(),
        };
        assert!(table.insert(token("always", "new")).is_err());
        assert!(table.insert(token("new", "always")).is_err());
        assert!(table.insert(token("new", "new")).is_ok());
    }

    #[test]
    fn a_secret_is_recognisable_and_random_and_does_not_print_itself() {
        let (one, other) = (fresh_secret().unwrap(), fresh_secret().unwrap());
        assert!(one.starts_with(SECRET_PREFIX) && one.len() == SECRET_PREFIX.len() + 64);
        assert_ne!(one, other);
        assert_eq!(format!("{:?}", SecretHash::of(&one)), "SecretHash(32 bytes)");
    }

    #[test]
    fn a_name_is_short_and_plain() {
        assert!(is_name("acme-2.office_1") && is_name(&"n".repeat(64)));
        for wrong in ["", "a b", "é", "a=b", "a/b", "#a", &"n".repeat(65)] {
            assert!(!is_name(wrong), "{wrong}");
        }
    }
}
