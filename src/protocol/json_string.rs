//! What a JSON string stands for: two spellings of one text are equal. (protocol: Envelope)
//!
//! The text is in WTF-8, which is UTF-8 with room for a lone surrogate. So a lone surrogate, which some clients write, stands
//! for itself. Nothing is decoded or copied unless the string holds an escape.

use std::borrow::Cow;
use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer};

/// What the raw JSON of a string stands for, without its quotes. Any other JSON stands for itself.
pub fn meaning(raw: &str) -> Cow<'_, [u8]> {
    let Some(inner) = inner(raw) else { return Cow::Borrowed(raw.as_bytes()) };
    if !has_escape(inner) {
        return Cow::Borrowed(inner.as_bytes());
    }
    match serde_json::from_str(raw) {
        Ok(Unescaped(text)) => Cow::Owned(text),
        // Not a JSON string.
        Err(_) => Cow::Borrowed(raw.as_bytes()),
    }
}

/// Whether two pieces of raw JSON, each a number or a string, are equal: strings by what they stand for, numbers as written.
pub fn same(a: &str, b: &str) -> bool {
    a == b || (inner(a).is_some() && inner(b).is_some() && meaning(a) == meaning(b))
}

/// What the raw JSON of a string stands for, with U+FFFD in place of a lone surrogate: for a value that is compared with names
/// of the protocol, none of which holds either. `None` for any other JSON.
pub fn text(raw: &str) -> Option<Cow<'_, str>> {
    let inner = inner(raw)?;
    if !has_escape(inner) {
        return Some(Cow::Borrowed(inner));
    }
    Some(Cow::Owned(String::from_utf8_lossy(&meaning(raw)).into_owned()))
}

fn has_escape(inner: &str) -> bool {
    memchr::memchr(b'\\', inner.as_bytes()).is_some()
}

/// The raw JSON of a string without its quotes.
pub fn inner(raw: &str) -> Option<&str> {
    raw.strip_prefix('"')?.strip_suffix('"')
}

/// `serde_json` decodes lone surrogates for a visitor of bytes.
struct Unescaped(Vec<u8>);

impl<'de> Deserialize<'de> for Unescaped {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Unescaped;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E>(self, text: &[u8]) -> Result<Unescaped, E> {
                Ok(Unescaped(text.to_vec()))
            }
        }
        from.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_text_are_the_same_and_other_texts_are_not() {
        for (a, b) in [
            (r#""AA/BB""#, r#""AA\/BB""#),
            (r#""AA/BB""#, r#""\u0041\u0041\u002f\u0042B""#),
            (r#""\u00E9\n""#, r#""é\u000a""#),
            (r#""🦭""#, r#""\ud83e\uddAD""#),
            (r#""\ud800""#, r#""\uD800""#),
            (r#""\uD800\u0041""#, r#""\ud800A""#),
            (r#""\ud800\ud83e\udDAD""#, r#""\uD800🦭""#),
            (r#""\udc00\t""#, r#""\uDC00\u0009""#),
        ] {
            assert!(same(a, b) && same(b, a), "{a} {b}");
        }
        for (a, b) in [
            (r#""7""#, "7"),
            (r#""\u0037""#, "7"),
            ("7", "7.0"),
            ("7", "70e-1"),
            (r#""\ud800""#, r#""\ud801""#),
            (r#""\ud800""#, r#""\ufffd""#),
            (r#""\\u0041""#, r#""A""#),
            (r#""a""#, r#""\u0041""#),
        ] {
            assert!(!same(a, b) && !same(b, a), "{a} {b}");
        }
    }

    #[test]
    fn nothing_is_copied_where_there_is_no_escape() {
        assert!(matches!(meaning("\"é 🦭\""), Cow::Borrowed(_)));
        assert!(matches!(text("\"Away\""), Some(Cow::Borrowed("Away"))));
        assert_eq!(text(r#""\u0041way""#).as_deref(), Some("Away"));
        assert_eq!(text(r#""\ud800way""#).as_deref(), Some("\u{fffd}\u{fffd}\u{fffd}way"));
        assert_eq!(text("7"), None);
    }
}
