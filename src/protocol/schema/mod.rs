//! JSON Schemas of all frames, for people who write a client, for generators of code, and for tests. No release has this
//! module: it needs the feature `schema`.
//!
//! What the relay serializes with serde describes itself. What it decodes or writes by hand is described by the types in
//! [`client`] and [`server`]; `tests/protocol_schema` checks that the decoder and the schemas agree.

pub mod client;
mod ids;
pub mod server;

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

pub use ids::KeyId;

/// The JSON Schema of one type of frame, in one direction.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The `type`.
    pub kind: String,
    /// The name of the schema, unique among the frames of both directions unless the schemas are the same.
    pub title: String,
    /// What the frame is for.
    pub description: String,
    /// The schema of the whole frame, with the definitions that it uses.
    pub schema: Value,
}

/// The frames that a client may send.
pub fn client_frames() -> Vec<Frame> {
    client::frames()
}

/// The frames that the relay may send.
pub fn server_frames() -> Vec<Frame> {
    server::frames()
}

/// One schema for several frames: any of them.
pub fn bundle(title: &str, description: &str, frames: &[Frame]) -> Value {
    let mut definitions = Map::new();
    let mut any_of = Vec::new();
    for frame in frames {
        let mut schema = frame.schema.clone();
        let Some(object) = schema.as_object_mut() else { continue };
        object.remove("$schema");
        if let Some(Value::Object(more)) = object.remove("definitions") {
            definitions.extend(more);
        }
        any_of.push(json!({"$ref": format!("#/definitions/{}", frame.title)}));
        definitions.insert(frame.title.clone(), schema);
    }
    json!({
        "$schema": DRAFT,
        "title": title,
        "description": description,
        "anyOf": any_of,
        "definitions": definitions,
    })
}

/// Draft 7: the one that generators of TypeScript, AsyncAPI and all validators read.
const DRAFT: &str = "http://json-schema.org/draft-07/schema#";

/// Describes a frame that clients write: what may be absent may be null, too.
fn read<T: JsonSchema>() -> Frame {
    frame::<T>(SchemaSettings::draft07().for_deserialize())
}

/// Describes a frame that the relay writes: what it leaves out is absent.
fn written<T: JsonSchema>() -> Frame {
    frame::<T>(SchemaSettings::draft07().for_serialize())
}

fn frame<T: JsonSchema>(settings: SchemaSettings) -> Frame {
    let settings = settings.with_transform(RecursiveTransform(without_rust));
    let schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Frame {
        kind: text(&schema["properties"]["type"]["const"]),
        title: text(&schema["title"]),
        description: text(&schema["description"]),
        schema,
    }
}

/// Removes what is about Rust and its sources: the formats and the greatest values of its integers, which are of no standard,
/// and in descriptions the ends of lines and the references to sections of docs/protocol.md.
fn without_rust(schema: &mut Schema) {
    if schema.get("format").and_then(Value::as_str).is_some_and(|name| name.starts_with("uint")) {
        schema.remove("format");
        schema.remove("maximum");
    }
    if let Some(Value::String(text)) = schema.get_mut("description") {
        let line = text.replace('\n', " ");
        *text = line.split(" (protocol: ").next().unwrap_or_default().to_owned();
    }
}

/// For a payload that has one field, or all.
pub(super) fn all_or_none(schema: &mut Schema) {
    let always = ["resumable", "resumed", "queued", "session_ttl", "limits"];
    let mut dependencies: Map<String, Value> =
        always.iter().map(|name| ((*name).to_owned(), json!(["protocol"]))).collect();
    dependencies.insert("protocol".to_owned(), json!(always));
    schema.insert("dependencies".to_owned(), dependencies.into());
    schema.insert("if".to_owned(), json!({"required": ["resume_token"]}));
    let resumable = |is: bool| json!({"properties": {"resumable": {"const": is}}});
    let mut then = resumable(true);
    then["required"] = json!(["resumable"]);
    schema.insert("then".to_owned(), then);
    schema.insert("else".to_owned(), resumable(false));
}

/// A name for a schema.
type Name = Cow<'static, str>;
