//! Values of the relay's JSON as an operator reads them.

use std::fmt::Write as _;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Serialize;
use serde_json::Value;

use crate::cli::Json;

/// Prints what was found as JSON, or as text.
pub(super) fn print<T: Serialize>(
    found: &T,
    Json { json }: Json,
    as_text: impl FnOnce(&T) -> String,
) {
    if json {
        println!("{:#}", serde_json::json!(found));
    } else {
        print!("{}", as_text(found));
    }
}

/// The number of a key; 0 if there is none.
pub(super) fn number(of: &Value, key: &str) -> u64 {
    of[key].as_u64().unwrap_or(0)
}

/// A text without its quotes; a dash for none.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// Seconds as `3days 4h`.
pub(super) fn time(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

/// Bytes as `4.2 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// A part of a whole, percent.
pub(super) fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.0} %", part as f64 * 100.0 / whole as f64) }
}

/// The holders of a queue, in the order in which they were found.
pub(super) fn rows(found: &Value) -> String {
    let mut out =
        String::from("holder     id                                    messages        bytes\n");
    for row in found["holders"].as_array().map_or(&[][..], Vec::as_slice) {
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{:10} {:36} {:>9} {:>12}",
            text(&row["holder"]),
            text(&row["id"]),
            number(row, "messages"),
            number(row, "bytes"),
        );
    }
    out
}
