//! The JSON Schemas of docs/schemas, against which the tests hold frames.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

/// The frames that the relay may send. What the relay itself writes has no field that the schema does not name; clients may
/// not rely on that, so it is not in the file.
static SERVER: LazyLock<Validator> = LazyLock::new(|| {
    let mut schema = read(include_str!("../../docs/schemas/server.schema.json"));
    let written = ["RegisterResponsePayload", "ClientLimits", "ServerAckPayload", "ErrorPayload"];
    let frames =
        ["RegisterResponse", "Receive", "ServerAck", "ServerPing", "ServerPong", "ServerError"];
    for name in written.iter().chain(&frames) {
        let closed = schema["definitions"][name].as_object_mut().expect("a definition");
        closed.insert("additionalProperties".to_owned(), false.into());
    }
    validator(&schema)
});

/// Panics if this is no frame that the relay may send.
#[track_caller]
pub fn assert_server_frame(text: &str) {
    let frame = parse(text).unwrap_or_else(|error| panic!("no JSON: {error}: {text}"));
    assert_valid(&SERVER, &frame);
}

/// Panics with the reason if the frame does not match.
#[track_caller]
pub fn assert_valid(schema: &Validator, frame: &Value) {
    if !schema.is_valid(frame) {
        let kind = &frame["type"];
        let reasons: Vec<String> = schema.iter_errors(frame).map(|it| it.to_string()).collect();
        panic!("docs/schemas do not allow this {kind}: {frame}\n{}", reasons.join("\n"));
    }
}

/// A schema, ready for use.
pub fn validator(schema: &Value) -> Validator {
    jsonschema::draft7::new(schema).expect("a schema")
}

fn read(file: &str) -> Value {
    serde_json::from_str(file).expect("JSON")
}

/// Reads a frame as [`Value`]. What that cannot hold and a test sends is replaced by what no schema distinguishes from it: lone
/// surrogates by U+FFFD, a hundred arrays in each other by none, a number beyond all `f64` by another.
pub fn parse(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str(text).or_else(|_| {
        let flat = text.replace(&"[".repeat(100), "").replace(&"]".repeat(100), "");
        serde_json::from_str(&without_lone_surrogates(&flat.replace("1e400", "1e30")))
    })
}

fn without_lone_surrogates(text: &str) -> String {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (mut out, mut at) = (String::new(), 0);
    while let Some(next) = text[at..].chars().next() {
        let (piece, length) = match (next, unit(at), unit(at + 6)) {
            ('\\', Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (&text[at..at + 12], 12),
            ('\\', Some(0xd800..=0xdfff), _) => ("\\ufffd", 6),
            // An escape that is two characters long: the second begins none.
            ('\\', None, _) => {
                let second = text[at + 1..].chars().next().map_or(0, char::len_utf8);
                (&text[at..=at + second], 1 + second)
            }
            _ => (&text[at..at + next.len_utf8()], next.len_utf8()),
        };
        out.push_str(piece);
        at += length;
    }
    out
}
