//! Writes JSON as YAML: block style for people, strings in double quotes as JSON has them wherever a plain one could mean
//! something else.

use serde_json::Value;

/// The document as YAML.
pub fn yaml(value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, value, 0);
    out.trim_start().to_owned()
}

/// Names that stand before all others of their object, in this order; the others follow in the order of their letters.
const FIRST: [&str; 9] = [
    "asyncapi",
    "info",
    "defaultContentType",
    "servers",
    "channels",
    "operations",
    "type",
    "title",
    "summary",
];

/// Appends a value behind its key or dash.
fn write(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| {
                FIRST.iter().position(|it| it == key).unwrap_or(FIRST.len())
            });
            for (key, value) in fields {
                out.push_str(&format!("\n{}{}:", " ".repeat(indent), string(key)));
                write(out, value, indent + 2);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut inner = String::new();
                write(&mut inner, item, indent + 2);
                out.push_str(&format!("\n{}- {}", " ".repeat(indent), inner.trim_start()));
            }
        }
        Value::String(text) => out.push_str(&format!(" {}", string(text))),
        scalar => out.push_str(&format!(" {scalar}")),
    }
    if indent == 0 {
        out.push('\n');
    }
}

/// A word stays plain; everything else is a JSON string, which is a string in YAML, too.
fn string(text: &str) -> String {
    let is_word = text.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-/.".contains(letter))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_ascii_lowercase().as_str());
    if is_word { text.to_owned() } else { Value::from(text).to_string() }
}

#[test]
fn a_document_is_written_for_people_and_means_the_same() {
    let value = serde_json::json!({
        "name": "a: b", "no": [1, {"x": null, "y": []}, ["z"]], "$ref": "#/x", "empty": {}, "word": "on",
    });
    let expected = "\"$ref\": \"#/x\"\nempty: {}\nname: \"a: b\"\n\"no\":\n  - 1\n  - x: null\n    \"y\": []\n  - - z\nword: \"on\"\n";
    assert_eq!(yaml(&value), expected);
}
