//! Ids, as schemas.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::Name;
use crate::protocol::id::{DeviceId, MessageId, Recipient};

fn uuid(description: &str) -> Schema {
    json_schema!({
        "description": description,
        "type": "string",
        "pattern": "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$",
        // In some languages, `$` also matches before a line feed at the end.
        "maxLength": 36,
        "not": {"const": "00000000-0000-0000-0000-000000000000"},
    })
}

const DEVICE: &str = "Id of a device: a UUID other than nil, in the form 8-4-4-4-12. The relay gives it, in small letters. \
                      Letters do not count in comparisons.";
const MESSAGE: &str = "Id of a message: a UUID other than nil, in the form 8-4-4-4-12. Its sender makes it and should use a \
                       random one. Letters do not count in comparisons.";

macro_rules! id {
    ($name:ident, $called:literal, $description:ident) => {
        impl JsonSchema for $name {
            fn schema_name() -> Name {
                $called.into()
            }

            // A recipient is a device.
            fn schema_id() -> Name {
                $called.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                uuid($description)
            }
        }
    };
}

id!(DeviceId, "DeviceId", DEVICE);
id!(Recipient, "DeviceId", DEVICE);
id!(MessageId, "MessageId", MESSAGE);

/// Id of a key.
#[derive(Debug)]
pub struct KeyId;

impl JsonSchema for KeyId {
    fn schema_name() -> Name {
        "KeyId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Id of a key: a number or a string, at most 256 bytes long as written, quotes and escapes included. \
                            Use a string, or a whole number up to 9007199254740991.",
            "type": ["number", "string"],
            "maxLength": 254,
        })
    }
}
