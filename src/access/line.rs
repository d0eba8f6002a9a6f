//! One line of the file of tokens: `NAME SHA256 [expires=TIME] [devices=N] [messages_per_minute=N] [queued_bytes="SIZE"]`.
//!
//! Words are separated by spaces or tabs; a value may stand in quotes, and must if it has a space. What is wrong is named
//! without the word itself: somebody may have written the secret in the place of its hash.

use std::fmt;
use std::num::NonZeroU32;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytesize::ByteSize;

use super::{AccessToken, Bounds, SecretHash, is_name};

/// The least that `queued_bytes` can be: a message counts 256 bytes beside its frame.
const LEAST_QUEUED_BYTES: u64 = 1024;
/// The first moment that a year of four digits cannot write, Unix milliseconds.
pub const END_OF_TIME_MS: u64 = 253_402_300_800_000;
const MOST_QUEUED_BYTES: u64 = 1 << 44;

impl AccessToken {
    /// Reads a line that is neither empty nor a comment. The error says what is wrong with it.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let mut words = words(line)?.into_iter();
        let name = words.next().filter(|name| is_name(name)).ok_or(
            "the first word must be a name: 1 to 64 letters, digits, points, hyphens or underscores",
        )?;
        let hash = words.next().and_then(|word| SecretHash::parse(&word)).ok_or(
            "the second word must be the SHA-256 of the secret, 64 lower-case hexadecimal digits",
        )?;
        let (mut expires_ms, mut bounds) = (None, Bounds::default());
        for word in words {
            let (key, value) =
                word.split_once('=').ok_or("a word after the hash must be key=value")?;
            let is_twice = match key {
                "expires" => expires_ms.replace(time(value)?).is_some(),
                "devices" => bounds.devices.replace(count(key, value)?.get()).is_some(),
                "messages_per_minute" => {
                    bounds.messages_per_minute.replace(count(key, value)?).is_some()
                }
                "queued_bytes" => bounds.queued_bytes.replace(queued_bytes(value)?).is_some(),
                _ => {
                    return Err(
                        "a key is unknown; there are expires, devices, messages_per_minute \
                                and queued_bytes"
                            .to_owned(),
                    );
                }
            };
            if is_twice {
                return Err(format!("{key} stands there twice"));
            }
        }
        Ok(Self { name: name.into(), hash, expires_ms, bounds })
    }
}

/// The line of the token in the file.
impl fmt::Display for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.name)?;
        self.hash.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        if let Some(expires) = self.expires() {
            write!(f, " expires={expires}")?;
        }
        let Bounds { devices, messages_per_minute, queued_bytes } = self.bounds;
        if let Some(devices) = devices {
            write!(f, " devices={devices}")?;
        }
        if let Some(rate) = messages_per_minute {
            write!(f, " messages_per_minute={rate}")?;
        }
        if let Some(bytes) = queued_bytes {
            write!(f, " queued_bytes={bytes}")?;
        }
        Ok(())
    }
}

impl AccessToken {
    /// When the token expires, as the file has it: `2027-01-01T00:00:00Z`.
    pub fn expires(&self) -> Option<String> {
        let at = UNIX_EPOCH.checked_add(Duration::from_millis(self.expires_ms?))?;
        Some(humantime::format_rfc3339_seconds(at).to_string())
    }
}

impl SecretHash {
    fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 64 || !text.bytes().all(is_digit) {
            return None;
        }
        let mut hash = [0; 32];
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(hash)).filter(|hash| *hash != Self::OF_NOTHING)
    }
}

/// A time of the form `2027-01-01T00:00:00Z`, in Unix milliseconds.
///
/// # Errors
///
/// A sentence: what is wrong.
pub fn time(text: &str) -> Result<u64, String> {
    let time: Option<SystemTime> = humantime::parse_rfc3339(text).ok();
    let since_1970 = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since_1970
        .and_then(|time| u64::try_from(time.as_millis()).ok())
        .filter(|at| *at < END_OF_TIME_MS)
        .ok_or_else(|| "expires must be a time like 2027-01-01T00:00:00Z".to_owned())
}

/// A size for `queued_bytes`, as in the settings.
///
/// # Errors
///
/// A sentence: what is wrong.
pub fn queued_bytes(text: &str) -> Result<u64, String> {
    let bytes = text.trim().parse::<ByteSize>().ok().map(|size| size.as_u64());
    bytes.filter(|bytes| (LEAST_QUEUED_BYTES..=MOST_QUEUED_BYTES).contains(bytes)).ok_or_else(
        || "queued_bytes must be a size between 1 KiB and 16 TiB, like \"10 MiB\"".to_owned(),
    )
}

fn count(key: &str, text: &str) -> Result<NonZeroU32, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten();
    number.ok_or_else(|| format!("{key} must be a whole number between 1 and {}", u32::MAX))
}

/// The words of a line, without the quotes around values.
fn words(line: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for letter in line.chars() {
        match letter {
            '"' => quoted = !quoted,
            ' ' | '\t' if !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            letter if letter.is_control() => return Err("has a control character".to_owned()),
            letter => word.push(letter),
        }
    }
    if quoted {
        return Err("a quote is not closed".to_owned());
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn parse(rest: &str) -> Result<AccessToken, String> {
        AccessToken::parse(&format!("acme {HASH} {rest}"))
    }

    #[test]
    fn a_line_is_read_as_it_is_written() {
        let token = parse(
            "expires=2027-01-01T00:00:00Z devices=5\tmessages_per_minute=\"60\" queued_bytes=\"10 MiB\"",
        );
        let token = token.unwrap();
        let bounds = Bounds {
            devices: Some(5),
            messages_per_minute: NonZeroU32::new(60),
            queued_bytes: Some(10 << 20),
        };
        assert_eq!((&*token.name, token.bounds), ("acme", bounds));
        assert_eq!(
            (token.hash, token.expires_ms),
            (SecretHash::of("test"), Some(1_798_761_600_000))
        );
        assert_eq!(AccessToken::parse(&token.to_string()).unwrap(), token);
        assert_eq!(parse("").unwrap().to_string(), format!("acme {HASH}"));
    }

    #[test]
    fn every_mistake_has_a_sentence_that_repeats_nothing() {
        for (line, wrong) in [
            (String::new(), "first word"),
            (format!("two-words/ {HASH}"), "first word"),
            ("acme".to_owned(), "second word"),
            ("acme sealpost_secret".to_owned(), "second word"),
            (format!("acme {}", HASH.to_uppercase()), "second word"),
            (format!("acme {}", "0".repeat(64)), "second word"),
            (format!("acme {HASH} sealpost_secret"), "key=value"),
            (format!("acme {HASH} sealpost_secret=1"), "unknown"),
            (format!("acme {HASH} devices=0"), "devices must be"),
            (format!("acme {HASH} devices=+5"), "devices must be"),
            (format!("acme {HASH} devices=4294967296"), "devices must be"),
            (format!("acme {HASH} devices=5 devices=5"), "twice"),
            (format!("acme {HASH} messages_per_minute=0"), "messages_per_minute must be"),
            (format!("acme {HASH} expires=tomorrow"), "expires must be"),
            (format!("acme {HASH} expires=2027-01-01"), "expires must be"),
            (format!("acme {HASH} queued_bytes=1"), "queued_bytes must be"),
            (format!("acme {HASH} queued_bytes=\"10 MiB"), "quote"),
            (format!("acme {HASH} devices=5\u{7}"), "control"),
        ] {
            let reason = AccessToken::parse(&line).unwrap_err();
            assert!(reason.contains(wrong) && !reason.contains("sealpost_"), "{line}: {reason}");
        }
    }
}
