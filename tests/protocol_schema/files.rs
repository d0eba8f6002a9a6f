//! The committed files are what the types make.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sealpost::protocol::schema::{Frame, bundle, client_frames, server_frames};
use serde_json::Value;

use super::asyncapi;

const CLIENT: &str = "A frame that a client may send: one text message of the WebSocket. Beyond the schema, the relay refuses a \
     key that stands twice in the frame or its payload, nesting deeper than 128, numbers of seconds that are not written in \
     digits, and a key_id that is longer than 256 bytes as written.";
const SERVER: &str = "A frame that the relay may send: one text message of the WebSocket. Later versions may add types and fields: \
     ignore those you do not know.";

/// All files by their paths below docs/.
fn made() -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    for (side, title, description, frames) in [
        ("client", "ClientFrame", CLIENT, client_frames()),
        ("server", "ServerFrame", SERVER, server_frames()),
    ] {
        let all = bundle(title, description, &frames);
        files.insert(format!("schemas/{side}.schema.json").into(), pretty(&all));
        for Frame { kind, schema, .. } in frames {
            files.insert(format!("schemas/{side}/{kind}.schema.json").into(), pretty(&schema));
        }
    }
    files.insert("asyncapi.yaml".into(), asyncapi::document());
    files
}

fn pretty(schema: &Value) -> String {
    serde_json::to_string_pretty(schema).expect("JSON") + "\n"
}

#[test]
fn the_committed_schemas_are_what_the_types_say() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let made = made();
    if std::env::var_os("SCHEMAS").is_some_and(|it| it == "write") {
        for (path, text) in &made {
            fs::create_dir_all(docs.join(path).parent().expect("a folder")).expect("a folder");
            fs::write(docs.join(path), text).expect("the file can be written");
        }
    }
    for (path, text) in &made {
        let committed = fs::read_to_string(docs.join(path)).unwrap_or_default();
        assert!(
            committed == *text,
            "docs/{} is not what the types say: SCHEMAS=write cargo test --test protocol_schema",
            path.display()
        );
    }
    let folders = ["schemas", "schemas/client", "schemas/server"];
    let found = folders.iter().flat_map(|folder| {
        let entries = fs::read_dir(docs.join(folder)).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry"));
        let files = names.filter(|entry| entry.path().is_file());
        files.map(move |entry| Path::new(folder).join(entry.file_name()))
    });
    let found: BTreeSet<PathBuf> = found.collect();
    let expected = made.into_keys().filter(|path| path.starts_with("schemas")).collect();
    assert_eq!(found, expected, "a file that no type makes");
}

/// Generators name types by titles: one name must not stand for two.
#[test]
fn a_title_stands_for_one_schema() {
    let mut known: BTreeMap<String, Value> = BTreeMap::new();
    for frame in client_frames().into_iter().chain(server_frames()) {
        assert!(!frame.description.is_empty(), "{} has no description", frame.title);
        let definitions = frame.schema["definitions"].as_object().into_iter().flatten();
        let named = definitions.map(|(name, schema)| (name.clone(), schema.clone()));
        for (name, schema) in named.chain([(frame.title.clone(), frame.schema.clone())]) {
            let one = known.entry(name.clone()).or_insert_with(|| schema.clone());
            assert_eq!(*one, schema, "{name}");
        }
    }
}

/// The feature is for tests and documents: what is built without them has no generator of schemas.
#[test]
fn no_release_generates_schemas() {
    let run = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--package",
            "sealpost",
            "--edges",
            "normal",
            "--prefix",
            "none",
        ])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .output()
        .expect("cargo runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let crates = String::from_utf8_lossy(&run.stdout);
    assert!(crates.contains("serde_json"), "the crates were not found");
    for name in ["schemars", "jsonschema"] {
        assert!(!crates.contains(name), "{name} is in the release");
    }
}
