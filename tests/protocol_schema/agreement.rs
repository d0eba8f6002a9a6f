//! The schemas allow what the decoder decodes and what the encoders write, and nothing else that a schema can refuse.
//!
//! JSON Schema sees values, the decoder sees text. So there are frames that a schema allows and the decoder refuses, and no
//! others than these ([`is_beyond_schemas`], [`BEYOND_SCHEMAS`]):
//!
//! * a key twice in one object, and nesting deeper than 128;
//! * a `ttl` whose value is whole and which is not written in digits: `7.0`, `1e2`, `-0`;
//! * a `key_id` that is longer as written than 256 bytes: a long number, or a string with letters of several bytes or escapes.
//!
//! There is no frame that the decoder decodes and the schema refuses.

use std::collections::{BTreeMap, BTreeSet};

use jsonschema::Validator;
use sealpost::protocol::decode::decode;
use sealpost::protocol::encode::{self, ClientLimits, Extension, PROTOCOL, Status, Token};
use sealpost::protocol::envelope::Subject;
use sealpost::protocol::id::{DeviceId, MessageId, Recipient};
use sealpost::protocol::kind::Kind;
use sealpost::protocol::refusal::{AccessBound, ErrorContext, ExpiredKind, Refusal};
use sealpost::protocol::schema::{bundle, client_frames, server_frames};
use serde_json::{Value, json};

use super::support::schema::{assert_server_frame, assert_valid, parse, validator};
use super::support::vectors::vectors;
use super::{REFERENCE, WRITE_A_CLIENT};

const ID: &str = "f47ac10b-58cc-4372-a567-0e02b2c3d479";

/// Parts of the sentences by which the decoder refuses what no schema can refuse.
const BEYOND_SCHEMAS: [&str; 3] =
    ["appears twice", "nested deeper than 128", "at most 256 bytes long as written"];

fn client() -> Validator {
    validator(&bundle("", "", &client_frames()))
}

fn server() -> Validator {
    validator(&bundle("", "", &server_frames()))
}

/// Which side wrote the frame of a vector, and in a vector of a frame of its own, its type.
fn written_by(comment: &str) -> Option<(&str, Option<&str>)> {
    let words: Vec<&str> = comment.split(' ').collect();
    match words[..] {
        [side @ ("client" | "server"), kind] => Some((side, Some(kind))),
        ["conversation", _, _, "->", "server"] => Some(("client", None)),
        ["conversation", _, "server", "->", _] => Some(("server", None)),
        _ => None,
    }
}

#[test]
fn every_vector_of_both_pages_validates() {
    let mut schemas = BTreeMap::from([(("client", None), client()), (("server", None), server())]);
    let frames = [("client", client_frames()), ("server", server_frames())];
    for (side, frames) in &frames {
        for frame in frames {
            schemas.insert((*side, Some(frame.kind.as_str())), validator(&frame.schema));
        }
    }
    let vectors: Vec<_> = [REFERENCE, WRITE_A_CLIENT].into_iter().flat_map(vectors).collect();
    let mut run = BTreeMap::new();
    for vector in &vectors {
        let Some((side, kind)) = written_by(&vector.comment) else { continue };
        if side == "client" {
            assert!(decode(vector.json()).is_ok(), "line {}", vector.line);
        }
        let frame = parse(vector.json()).expect("JSON");
        assert_valid(&schemas[&(side, None)], &frame);
        assert_valid(&schemas[&(side, kind)], &frame);
        if side == "server" {
            assert_server_frame(vector.json());
        }
        *run.entry((side, frame["type"].as_str().unwrap_or_default().to_owned())).or_insert(0) += 1;
    }
    let missing = schemas.keys().filter_map(|(side, kind)| Some((*side, (*kind)?.to_owned())));
    let missing: Vec<_> = missing.filter(|key| !run.contains_key(key)).collect();
    assert!(missing.is_empty(), "no vector for {missing:?}");
}

#[test]
fn what_the_decoder_refuses_the_schema_refuses() {
    let schema = client();
    let mut run = 0;
    for vector in vectors(REFERENCE) {
        let Some(refused) = vector.of_kind("refused") else { continue };
        let is_malformed = decode(vector.json()).is_err();
        let is_beyond = BEYOND_SCHEMAS.iter().any(|part| refused.contains(part));
        let frame = parse(vector.json()).expect("JSON");
        let expected = !is_malformed || is_beyond;
        assert_eq!(schema.is_valid(&frame), expected, "line {}: {refused}", vector.line);
        run += usize::from(is_malformed && !is_beyond);
    }
    assert!(run > 15, "only {run} vectors were refused");
}

/// Whether the decoder refuses this frame for the way in which a value is written, which no schema sees.
fn is_beyond_schemas(frame: &Value) -> bool {
    let is_number = |value: &Value| {
        value.is_number() && !value.to_string().bytes().all(|it| it.is_ascii_digit())
    };
    let payload = &frame["payload"];
    is_number(&payload["ttl"]) || payload["key_id"].to_string().len() > 256
}

/// Asserts that decoder and schema agree; returns whether they allow the frame.
#[track_caller]
fn agree(schema: &Validator, frame: &Value) -> bool {
    let decodes = decode(&frame.to_string()).is_ok();
    let is_valid = schema.is_valid(frame);
    let excused = is_valid && !decodes && is_beyond_schemas(frame);
    assert!(
        decodes == is_valid || excused,
        "the decoder says {decodes}, the schema {is_valid}: {frame}"
    );
    decodes
}

/// Frames of clients to start from: those of the reference, good and bad.
fn bases() -> Vec<Value> {
    let frames = vectors(REFERENCE).into_iter().filter_map(|vector| {
        let of_client = written_by(&vector.comment).is_some_and(|(side, _)| side == "client");
        let is_base = of_client || vector.of_kind("refused").is_some();
        is_base.then(|| parse(vector.json()).expect("JSON"))
    });
    let found: BTreeMap<String, Value> =
        frames.filter(|it| it.is_object()).map(|it| (it.to_string(), it)).collect();
    // A text with a key twice, or nested too deep, says something else as a value.
    found.into_values().filter(|frame| frame.get("x-deep").is_none()).collect()
}

/// Values of every kind that some field allows, and their neighbours.
fn values() -> Vec<Value> {
    let long = |letter: &str, count| json!(letter.repeat(count));
    let mut values = vec![
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(300),
        json!(-1),
        json!(1.5),
        json!(7.0),
        json!(-0.0),
        json!(1e30),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(""),
        json!("true"),
        json!("300"),
        json!([]),
        json!([ID]),
        json!({}),
        json!({"message_id": ID}),
        json!(ID),
        json!(ID.to_uppercase()),
        json!(ID.replace('-', "")),
        json!(format!("{ID}\n")),
        json!(format!("{{{ID}}}")),
        json!(format!("urn:uuid:{ID}")),
        json!(format!(" {ID}")),
        json!(ID.replace('f', "g")),
        json!(ID.replace('4', "\u{ff14}")),
        json!("00000000-0000-0000-0000-000000000000"),
        json!("ffffffff-ffff-ffff-ffff-ffffffffffff"),
        json!("anyone"),
        json!("correspondents"),
        json!("Anyone"),
        json!("Online"),
        json!("Away"),
        json!("Offline"),
        json!("online"),
        json!("Receive"),
        json!("RegisterResponse"),
        json!("Error"),
        json!("register"),
        long("x", 254),
        long("x", 255),
        long("é", 127),
        long("é", 200),
        long("\"", 130),
    ];
    values.extend(Kind::NAMES.map(Value::from));
    values
}

/// The names of all fields, of the schemas and of the table of fields in the reference.
fn names() -> BTreeSet<String> {
    let schemas = client_frames().into_iter().flat_map(|frame| payload_of(&frame.schema).0);
    schemas.chain(table().into_values().flat_map(|(names, _)| names)).collect()
}

#[test]
fn one_wrong_value_is_wrong_for_decoder_and_schema() {
    let (schema, names, values) = (client(), names(), values());
    let (mut allowed, mut run) = (0, 0);
    // One for each type and choice of fields.
    let fields = |frame: &Value| {
        frame["payload"].as_object().map(|it| it.keys().cloned().collect::<Vec<_>>())
    };
    let shapes = bases().into_iter().map(|base| ((base["type"].to_string(), fields(&base)), base));
    for base in shapes.collect::<BTreeMap<_, _>>().into_values() {
        for value in &values {
            for key in ["type", "payload", "x-more"] {
                let mut frame = base.clone();
                frame[key] = value.clone();
                allowed += usize::from(agree(&schema, &frame));
                run += 1;
            }
            for name in names.iter().filter(|_| base["payload"].is_object()) {
                let mut frame = base.clone();
                frame["payload"][name.as_str()] = value.clone();
                allowed += usize::from(agree(&schema, &frame));
                run += 1;
            }
        }
        for name in names.iter().map(String::as_str).chain(["type", "payload"]) {
            let mut frame = base.clone();
            frame.as_object_mut().expect("an object").remove(name);
            agree(&schema, &frame);
            let mut frame = base.clone();
            frame.get_mut("payload").and_then(Value::as_object_mut).and_then(|it| it.remove(name));
            agree(&schema, &frame);
        }
    }
    assert!(allowed > 10_000 && run - allowed > 10_000, "{allowed} of {run} were allowed");
}

#[test]
fn many_changes_are_right_or_wrong_for_decoder_and_schema() {
    let (schema, bases, values) = (client(), bases(), values());
    let names: Vec<String> = names().into_iter().collect();
    let mut chance = Chance(20_260_101);
    let (mut allowed, mut run) = (0, 0);
    for _ in 0..20_000 {
        let mut frame = chance.of(&bases).clone();
        for _ in 0..=chance.below(4) {
            let other = chance.of(&bases)["payload"].clone();
            match (chance.below(8), frame["payload"].is_object()) {
                (0, _) => frame["type"] = json!(chance.of(&Kind::NAMES)),
                (1, _) => frame["payload"] = other,
                (2, true) => {
                    let payload = frame["payload"].as_object_mut().expect("an object");
                    payload.remove(chance.of(&names));
                }
                // A field from another frame, so that frames become whole again.
                (3..=5, true) if other.is_object() => {
                    let fields: Vec<(&String, &Value)> =
                        other.as_object().expect("an object").iter().collect();
                    if !fields.is_empty() {
                        let (name, value) = *chance.of(&fields);
                        frame["payload"][name] = value.clone();
                    }
                }
                (_, true) => {
                    frame["payload"][chance.of(&names).as_str()] = chance.of(&values).clone()
                }
                _ => frame["x-more"] = chance.of(&values).clone(),
            }
        }
        allowed += usize::from(agree(&schema, &frame));
        run += 1;
    }
    assert!(allowed > 2_000 && run - allowed > 2_000, "{allowed} of {run} were allowed");
}

/// Numbers that look random and are the same in each run.
struct Chance(u64);

impl Chance {
    /// SplitMix64.
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from(mixed >> 33).expect("31 bits") % end
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// The names of the fields of a frame's payload, and those that are required.
fn payload_of(frame: &Value) -> (BTreeSet<String>, BTreeSet<String>) {
    let text = frame["properties"]["payload"].to_string();
    let name = text.split("#/definitions/").nth(1).and_then(|rest| rest.split('"').next());
    let payload = &frame["definitions"][name.unwrap_or_default()];
    let properties = payload["properties"].as_object().into_iter().flatten();
    let required = payload["required"].as_array().into_iter().flatten();
    (
        properties.map(|(name, _)| name.clone()).collect(),
        required.map(|name| name.as_str().expect("a name").to_owned()).collect(),
    )
}

/// The table of fields in the reference: by type, the names of all fields, and of those in bold.
fn table() -> BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> {
    let section = REFERENCE.split("\n### Fields\n").nth(1).expect("the table is there");
    let section = section.split("\n#").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.map(|row| {
        let [_, kind, fields, _] = row.split('|').collect::<Vec<_>>()[..] else { panic!("{row}") };
        let quoted: Vec<&str> = fields.split('`').collect();
        // A value of a field stands in quotes of its own: `"anyone"`.
        let names = (1..quoted.len()).step_by(2).filter(|at| !quoted[*at].starts_with('"'));
        let (mut all, mut required) = (BTreeSet::new(), BTreeSet::new());
        for at in names {
            all.insert(quoted[at].to_owned());
            if quoted[at - 1].ends_with("**") && quoted[at + 1].starts_with("**") {
                required.insert(quoted[at].to_owned());
            }
        }
        (kind.trim().to_owned(), (all, required))
    })
    .collect()
}

#[test]
fn the_table_of_fields_says_what_the_schemas_say() {
    let table = table();
    for frame in client_frames() {
        let (mut names, required) = payload_of(&frame.schema);
        // Carried, not judged.
        for free in ["timestamp", "content_type", "size_bytes"] {
            names.remove(free);
        }
        let written = table.get(&frame.kind).cloned().unwrap_or_default();
        assert_eq!((names, required), written, "{}", frame.kind);
    }
    assert_eq!(table.len(), 10, "a row that no schema has");
}

#[test]
fn every_type_has_a_schema() {
    let kinds: Vec<String> = client_frames().into_iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, Kind::NAMES);
}

#[test]
fn what_the_encoders_write_validates() {
    let device = DeviceId::parse(ID).expect("an id");
    let message = MessageId::parse(ID).expect("an id");
    for status in [None, Some(Status::Queued(7)), Some(Status::Delivered), Some(Status::Processed)]
    {
        assert_server_frame(&encode::ack(message, status));
    }
    assert_server_frame(encode::PING);
    assert_server_frame(encode::PONG);
    assert_server_frame(&encode::register_response(device, None));
    for token in [None, Some(Token("9c".repeat(32)))] {
        let limits = ClientLimits {
            message_bytes: 1,
            messages_per_minute: 1,
            burst: 1,
            control_per_minute: 1,
            queue_messages: 1,
            queue_bytes: 1,
            max_ttl: u64::MAX,
            default_ttl: 1,
            window: 1,
        };
        let (protocol, resumable) = (PROTOCOL, token.is_some());
        let extension = Extension {
            protocol,
            resumable,
            resume_token: token,
            resumed: false,
            queued: 0,
            session_ttl: 1,
            limits,
        };
        assert_server_frame(&encode::register_response(device, Some(&extension)));
    }
    let subjects = [
        Subject::Message(message),
        Subject::KeyRotation("7".into()),
        Subject::KeyRotationAck("\"7\"".into()),
    ];
    for refusal in refusals(message) {
        for subject in [None].into_iter().chain(subjects.iter().map(Some)) {
            for recipient in [None, Recipient::parse(ID)] {
                let mut context = ErrorContext::about(subject, recipient);
                assert_server_frame(&encode::error(refusal, &context));
                context.retry_after_ms = Some(1000);
                assert_server_frame(&encode::error(refusal, &context));
            }
        }
    }
}

fn refusals(message: MessageId) -> Vec<Refusal> {
    vec![
        Refusal::NotAnObject,
        Refusal::Missing(Kind::Send, "message_id"),
        Refusal::Wrong(Kind::Send, "message_id", "a string"),
        Refusal::Twice(None),
        Refusal::Twice(Some("type")),
        Refusal::TooDeep,
        Refusal::UnknownType,
        Refusal::ServerOnly("Receive"),
        Refusal::NobodyYet,
        Refusal::NotRegistered,
        Refusal::Blocked,
        Refusal::BadToken,
        Refusal::NoAccess,
        Refusal::AccessLimit(AccessBound::Devices),
        Refusal::AccessLimit(AccessBound::QueuedBytes),
        Refusal::ForeignSender,
        Refusal::ForeignDevice,
        Refusal::NotVerified,
        Refusal::UnknownRecipient,
        Refusal::NoExchange,
        Refusal::OtherContent,
        Refusal::Ambiguous,
        Refusal::Replaced,
        Refusal::Expired(ExpiredKind::Message(message), 300),
        Refusal::Expired(ExpiredKind::KeyRotation, 300),
        Refusal::Expired(ExpiredKind::Auth, 60),
        Refusal::TooLarge(65536),
        Refusal::RateLimited(60),
        Refusal::Draining,
        Refusal::Full,
        Refusal::QueueFull,
    ]
}
