//! docs/asyncapi.yaml: how a relay is reached, written here, with the frames, made from the types, and the examples of
//! docs/protocol.md.

use sealpost::protocol::encode::PROTOCOL;
use sealpost::protocol::schema::{Frame, bundle, client_frames, server_frames};
use serde_json::{Map, Value, json};

use super::REFERENCE;
use super::support::schema::parse;
use super::support::vectors::vectors;
use super::yaml::yaml;

const HEAD: &str = "# Made from the types in src/protocol by tests/protocol_schema; do not edit.\n";

const ABOUT: &str = "A relay for end-to-end-encrypted devices. It hands a message over at once if its recipient is there, keeps it \
     on disk if not, and never looks inside. docs/protocol.md is the reference, docs/write-a-client.md the way in.";
const CHANNEL: &str = "One WebSocket is one connection of one device. Each text message is one frame: a JSON object with a type and a \
     payload. A client sends Register at once and nothing else before RegisterResponse, but for Ping and Pong. Unknown types and \
     fields are ignored by both sides of the wire, apart from types that a client sends.";
const TOKEN: &str = "Where the operator lets only clients with an access token register: either this header at the upgrade, or \
     access_token in the payload of Register, for browsers. An open relay asks for none, and resuming needs none.";

/// The text of the file.
pub fn document() -> String {
    let (client, server) = (client_frames(), server_frames());
    let everything: Vec<Frame> = client.iter().chain(&server).cloned().collect();
    let mut schemas = bundle("", "", &everything)["definitions"].take();
    refer_to_components(&mut schemas);
    let messages: Map<String, Value> =
        everything.iter().map(|frame| (frame.title.clone(), message(frame, &client))).collect();
    let in_channel: Map<String, Value> = messages
        .keys()
        .map(|title| (title.clone(), reference("components/messages", title)))
        .collect();
    let of = |frames: &[Frame]| -> Vec<Value> {
        frames.iter().map(|frame| reference("channels/ws/messages", &frame.title)).collect()
    };
    let token = json!([reference("components/securitySchemes", "accessToken")]);
    let host = json!({"host": {"default": "127.0.0.1:8080", "description": "Name or address and port of the relay."}});
    let document = json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Sealpost",
            "version": format!("{PROTOCOL}.0.0"),
            "description": ABOUT,
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "plain": {
                "host": "{host}", "protocol": "ws", "variables": host, "security": token,
                "description": "A relay without TLS.",
            },
            "tls": {
                "host": "{host}", "protocol": "wss", "variables": host, "security": token,
                "description": "A relay with TLS, or with a proxy before it that speaks TLS.",
            },
        },
        "channels": {
            "ws": {
                "address": "/ws",
                "title": "The connection of a device",
                "description": CHANNEL,
                "messages": in_channel,
                "bindings": {"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
            },
        },
        "operations": {
            "fromClient": {
                "action": "receive",
                "channel": reference("channels", "ws"),
                "summary": "The relay receives a frame of a client.",
                "messages": of(&client),
            },
            "toClient": {
                "action": "send",
                "channel": reference("channels", "ws"),
                "summary": "The relay sends a frame to a client.",
                "messages": of(&server),
            },
        },
        "components": {
            "messages": messages,
            "schemas": schemas,
            "securitySchemes": {
                "accessToken": {"type": "http", "scheme": "bearer", "description": TOKEN},
            },
        },
    });
    HEAD.to_owned() + &yaml(&document)
}

fn reference(place: &str, name: &str) -> Value {
    json!({"$ref": format!("#/{place}/{name}")})
}

/// A frame with its examples. A frame that goes both ways has those of both.
fn message(frame: &Frame, client: &[Frame]) -> Value {
    let is_client = client.iter().any(|it| it.title == frame.title);
    let is_server = !is_client || server_frames().iter().any(|it| it.title == frame.title);
    let mut examples: Vec<Value> = Vec::new();
    for vector in vectors(REFERENCE) {
        let is_of = |side| vector.of_kind(side) == Some(&frame.kind);
        if (is_client && is_of("client")) || (is_server && is_of("server")) {
            let example = json!({"payload": parse(vector.json()).expect("JSON")});
            // The shapes that a reader looks for, not the curiosities.
            let is_short = example.to_string().len() < 1000;
            let is_plain =
                is_short && !vector.json().contains("x-") && !vector.json().contains("\\u");
            if is_plain && !examples.contains(&example) {
                examples.push(example);
            }
        }
    }
    assert!(!examples.is_empty(), "{} has no example in docs/protocol.md", frame.title);
    json!({
        "name": frame.kind,
        "title": frame.title,
        "summary": frame.description,
        "payload": reference("components/schemas", &frame.title),
        "examples": examples,
    })
}

/// The definitions stand in the components of the document.
fn refer_to_components(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(to)) = fields.get_mut("$ref") {
                *to = to.replace("#/definitions/", "#/components/schemas/");
            }
            fields.values_mut().for_each(refer_to_components);
        }
        Value::Array(items) => items.iter_mut().for_each(refer_to_components),
        _ => {}
    }
}
