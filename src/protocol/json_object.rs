//! Walks one JSON object and hands out the raw text of the fields that somebody asked for.
//!
//! Nothing is copied and nothing is built: a value that the relay only carries is never parsed. `serde_json` checks
//! the grammar; this file adds what it does not check: an object and not an array, no key twice, a bounded depth.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Deepest nesting of arrays and objects that is carried, the envelope being the first level; a deeper value could
/// break a recipient's parser.
const MAX_DEPTH: usize = 128;

/// Unknown keys up to this number are compared one by one; beyond it a set is built.
const FEW: usize = 16;

/// Why a text is not an object that the protocol can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonError {
    /// Not JSON, or not an object.
    NotAnObject,
    /// A key stands in it twice; the index names it if it is one that was asked for.
    Twice(Option<usize>),
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
}

/// The raw JSON of the fields called `names` of an object that stands `level` levels deep, in that order; `None` for an
/// absent one. The depth of the field at `skip_depth_check_for` is left to whoever walks it next.
pub fn fields<'a, const N: usize>(
    text: &'a str,
    level: usize,
    names: &[&str; N],
    skip_depth_check_for: Option<usize>,
) -> Result<[Option<&'a str>; N], JsonError> {
    // A visitor can only answer with an error of serde's own type, so what it found is kept beside it.
    let mut error = JsonError::NotAnObject;
    let mut from = serde_json::Deserializer::from_str(text);
    let walk = Walk { names, most: MAX_DEPTH - level, skip_depth_check_for, error: &mut error };
    let found = from.deserialize_map(walk).and_then(|found| from.end().map(|()| found));
    found.map_err(|_| error)
}

struct Walk<'n, 'f, const N: usize> {
    names: &'n [&'n str; N],
    most: usize,
    skip_depth_check_for: Option<usize>,
    error: &'f mut JsonError,
}

impl<'a, const N: usize> Visitor<'a> for Walk<'_, '_, N> {
    type Value = [Option<&'a str>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        let mut others = Others::default();
        while let Some(Key(key)) = map.next_key()? {
            let value = map.next_value::<&'a RawValue>()?.get();
            let place = self.names.iter().position(|name| *name == key);
            let skip_depth_check_for =
                place.is_some() && place == self.skip_depth_check_for && value.starts_with('{');
            if !skip_depth_check_for && deeper_than(self.most, value) {
                *self.error = JsonError::TooDeep;
                return Err(A::Error::custom(""));
            }
            let twice = match place {
                Some(place) => found[place].replace(value).is_some(),
                None => !others.insert(key),
            };
            if twice {
                *self.error = JsonError::Twice(place);
                return Err(A::Error::custom(""));
            }
        }
        Ok(found)
    }
}

/// A key, borrowed from the text unless it holds escapes.
struct Key<'a>(Cow<'a, str>);

impl<'a> serde::Deserialize<'a> for Key<'a> {
    fn deserialize<D: serde::Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'a> Visitor<'a> for Text {
            type Value = Key<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Key<'a>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Key<'a>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        from.deserialize_str(Text)
    }
}

/// Keys that nobody asked for; kept only to see whether one comes twice.
#[derive(Default)]
struct Others<'a> {
    few: Vec<Cow<'a, str>>,
    many: HashSet<Cow<'a, str>>,
}

impl<'a> Others<'a> {
    fn insert(&mut self, key: Cow<'a, str>) -> bool {
        if !self.many.is_empty() {
            return self.many.insert(key);
        }
        if self.few.contains(&key) {
            return false;
        }
        self.few.push(key);
        if self.few.len() > FEW {
            self.many.extend(self.few.drain(..));
        }
        true
    }
}

/// Whether brackets outside strings nest deeper than that. The text is valid JSON already.
fn deeper_than(most: usize, value: &str) -> bool {
    let bytes = value.as_bytes();
    if !matches!(bytes.first(), Some(b'{' | b'[')) {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in bytes {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > most {
                    return true;
                }
            }
            b'}' | b']' => depth -= 1,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_and_b(text: &str) -> Result<[Option<&str>; 2], JsonError> {
        fields(text, 1, &["a", "b"], None)
    }

    #[test]
    fn fields_come_raw_in_the_order_asked_for() {
        assert_eq!(
            a_and_b(r#" {"x":[1],"b": "\u00e9\n" ,"a":1e400} "#),
            Ok([Some("1e400"), Some(r#""\u00e9\n""#)])
        );
        assert_eq!(a_and_b("{}"), Ok([None, None]));
    }

    #[test]
    fn an_escaped_key_is_the_same_key() {
        assert_eq!(a_and_b(r#"{"\u0061":1}"#), Ok([Some("1"), None]));
        assert_eq!(a_and_b(r#"{"\u0061":1,"a":2}"#), Err(JsonError::Twice(Some(0))));
    }

    #[test]
    fn what_is_not_one_object_is_refused() {
        for text in [
            "",
            "[]",
            "[1,2]",
            "null",
            "1",
            "\"a\"",
            "{",
            "{}{}",
            "{} x",
            "\u{feff}{}",
            "{a:1}",
            "{'a':1}",
            "{\"a\":NaN}",
            "{\"a\":1,}",
            "{\"a\":01}",
            "{/**/}",
            "{\"a\":\"\u{0}\"}",
            "{1:2}",
        ] {
            assert_eq!(a_and_b(text), Err(JsonError::NotAnObject), "{text:?}");
        }
    }

    #[test]
    fn a_key_that_comes_twice_is_refused_known_or_not_among_few_or_many() {
        assert_eq!(a_and_b(r#"{"a":1,"a":1}"#), Err(JsonError::Twice(Some(0))));
        assert_eq!(a_and_b(r#"{"x":1,"x":1}"#), Err(JsonError::Twice(None)));
        let many: String = (0..100).map(|n| format!("\"k{n}\":0,")).collect();
        assert_eq!(a_and_b(&format!("{{{many}\"z\":0}}")), Ok([None, None]));
        assert_eq!(a_and_b(&format!("{{{many}\"k7\":0}}")), Err(JsonError::Twice(None)));
    }

    #[test]
    fn depth_128_is_carried_and_129_is_not() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(a_and_b(&nested(127)).is_ok());
        assert_eq!(a_and_b(&nested(128)), Err(JsonError::TooDeep));
        assert_eq!(a_and_b(&nested(30_000)), Err(JsonError::TooDeep));
        // Brackets inside strings do not nest.
        let flat = format!("{{\"a\":[\"{}\\\"[\"]}}", "[".repeat(500));
        assert!(a_and_b(&flat).is_ok());
    }
}
