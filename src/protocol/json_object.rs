//! Reads one JSON object and returns the raw text of the fields that the caller names. Nothing is copied.
//! `serde_json` checks the grammar. This file checks the rest: an object, no key twice, a limited depth. (protocol: Envelope)

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::json_string::{inner, meaning};
use super::refusal::Refusal;

/// Deepest nesting of arrays and objects in a message; the envelope is the first level. A deeper value could crash a
/// recipient's parser.
const MAX_DEPTH: usize = 128;

/// Up to this number, unknown keys are compared one by one; more of them are put into a set.
const MAX_LINEAR: usize = 16;

/// The raw JSON of the fields `names` of an object at depth `level`, in the order of `names`; `None` for an absent
/// field. The depth of the field with index `skip_depth_check_for` is not checked: the caller reads that object next.
pub fn fields<'a, const N: usize>(
    text: &'a str,
    level: usize,
    names: &[&'static str; N],
    skip_depth_check_for: Option<usize>,
) -> Result<[Option<&'a str>; N], Refusal> {
    // A serde visitor can only return serde's own error type. Therefore it writes its error into this variable.
    let mut error = Refusal::NotAnObject;
    let mut json = serde_json::Deserializer::from_str(text);
    let visitor =
        Fields { names, max_depth: MAX_DEPTH - level, skip_depth_check_for, error: &mut error };
    json.deserialize_map(visitor).and_then(|found| json.end().map(|()| found)).map_err(|_| error)
}

struct Fields<'n, 'e, const N: usize> {
    names: &'n [&'static str; N],
    max_depth: usize,
    skip_depth_check_for: Option<usize>,
    error: &'e mut Refusal,
}

impl<'a, const N: usize> Visitor<'a> for Fields<'_, '_, N> {
    type Value = [Option<&'a str>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        let mut unknown_keys = UnknownKeys::default();
        // A key is raw, too: `serde_json` refuses a lone surrogate where it decodes a string.
        while let Some(key) = map.next_key::<&'a RawValue>()?.map(RawValue::get) {
            let value = map.next_value::<&'a RawValue>()?.get();
            let named = |key: &[u8]| self.names.iter().position(|name| name.as_bytes() == key);
            // Almost every key is one of the names, without an escape.
            let index = inner(key).and_then(|key| named(key.as_bytes()));
            let index = index.or_else(|| named(&meaning(key)));
            let skip =
                index.is_some() && index == self.skip_depth_check_for && value.starts_with('{');
            let is_new = match index {
                Some(index) => found[index].replace(value).is_none(),
                None => unknown_keys.insert(meaning(key)),
            };
            *self.error = if !skip && is_deeper_than(self.max_depth, value) {
                Refusal::TooDeep
            } else if !is_new {
                Refusal::Twice(index.map(|index| self.names[index]))
            } else {
                continue;
            };
            return Err(A::Error::custom(""));
        }
        Ok(found)
    }
}

/// The keys that the caller did not name; kept to find a key that occurs twice.
#[derive(Default)]
struct UnknownKeys<'a> {
    list: Vec<Cow<'a, [u8]>>,
    set: HashSet<Cow<'a, [u8]>>,
}

impl<'a> UnknownKeys<'a> {
    fn insert(&mut self, key: Cow<'a, [u8]>) -> bool {
        if !self.set.is_empty() {
            return self.set.insert(key);
        }
        if self.list.contains(&key) {
            return false;
        }
        self.list.push(key);
        if self.list.len() > MAX_LINEAR {
            self.set.extend(self.list.drain(..));
        }
        true
    }
}

/// Whether brackets outside strings nest deeper than `max`. `value` is valid JSON.
fn is_deeper_than(max: usize, value: &str) -> bool {
    if !value.starts_with(['{', '[']) {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in value.bytes() {
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
                if depth > max {
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

    fn a_and_b(text: &str) -> Result<[Option<&str>; 2], Refusal> {
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
        assert_eq!(a_and_b(r#"{"\u0061":1,"a":2}"#), Err(Refusal::Twice(Some("a"))));
    }

    #[test]
    fn a_lone_surrogate_in_a_key_stands_for_itself() {
        assert_eq!(a_and_b(r#"{"\ud800":1,"\ud801":2,"\ufffd":3,"a":4}"#), Ok([Some("4"), None]));
        assert_eq!(a_and_b(r#"{"x\ud800":1,"\u0078\uD800":1}"#), Err(Refusal::Twice(None)));
        assert_eq!(a_and_b(r#"{"b":{"\udc00":1}}"#), Ok([None, Some(r#"{"\udc00":1}"#)]));
    }

    #[test]
    fn a_text_that_is_not_one_object_is_refused() {
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
            "{\"\u{1}\":0}",
            "{\"\\u0061\u{1}\":0}",
            "{\"\\ud80\":0}",
            "{\"\\x\":0}",
            "{1:2}",
        ] {
            assert_eq!(a_and_b(text), Err(Refusal::NotAnObject), "{text:?}");
        }
    }

    #[test]
    fn a_key_that_comes_twice_is_refused_known_or_not_among_few_or_many() {
        assert_eq!(a_and_b(r#"{"a":1,"a":1}"#), Err(Refusal::Twice(Some("a"))));
        assert_eq!(a_and_b(r#"{"x":1,"x":1}"#), Err(Refusal::Twice(None)));
        let many: String = (0..100).map(|n| format!("\"k{n}\":0,")).collect();
        assert_eq!(a_and_b(&format!("{{{many}\"z\":0}}")), Ok([None, None]));
        assert_eq!(a_and_b(&format!("{{{many}\"k7\":0}}")), Err(Refusal::Twice(None)));
    }

    #[test]
    fn depth_128_is_carried_and_129_is_not() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(a_and_b(&nested(127)).is_ok());
        assert_eq!(a_and_b(&nested(128)), Err(Refusal::TooDeep));
        assert_eq!(a_and_b(&nested(30_000)), Err(Refusal::TooDeep));
        // Brackets inside strings do not nest.
        let flat = format!("{{\"a\":[\"{}\\\"[\"]}}", "[".repeat(500));
        assert!(a_and_b(&flat).is_ok());
    }
}
