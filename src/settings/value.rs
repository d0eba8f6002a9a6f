//! The kinds of values: how each is read, bounded and written.
//!
//! A value is a TOML value of the file, or text of the environment and the command line. So a number may be text, and a
//! list may be one text with commas. Nothing else is converted: a number is not a text, and a fraction is not a whole
//! number. Each kind describes in one sentence which values are valid.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;
use toml::{Table, Value};

use super::LogFormat;
use super::problem::{Problem, Problems, printable};

/// How a value of type `U` is written in the file.
pub(super) trait Kind<U> {
    /// The value as the code uses it, or the sentence that says what is wanted instead.
    fn read(&self, written: &Value) -> Result<U, String>;
    /// The value as `settings.toml` would have it; [`Kind::read`] of it gives the same value again.
    fn write(&self, used: &U) -> Value;
}

/// The value of a key of the merged `table`. If it cannot be read, `problems` has it and the default is used.
pub(super) fn read<U: Clone>(
    kind: &impl Kind<U>,
    (section, key): (&str, &str),
    table: &Table,
    default: Option<&U>,
    problems: &mut Problems,
) -> Option<U> {
    let absent = Value::from("");
    let written = table.get(section).and_then(|section| section.get(key)).unwrap_or(&absent);
    match kind.read(written) {
        Ok(used) => Some(used),
        Err(reason) => {
            problems.add(Problem::with_value(&format!("{section}.{key}"), written, reason));
            default.cloned()
        }
    }
}

/// A whole number within bounds.
pub(super) struct Count(pub RangeInclusive<u32>);

impl<N: Copy + TryFrom<u32> + TryInto<u32>> Kind<N> for Count {
    fn read(&self, written: &Value) -> Result<N, String> {
        let bounds = format!("between {} and {}", self.0.start(), self.0.end());
        let number = match written {
            Value::Integer(number) => Some(*number),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            return Err(format!("must be a whole number {bounds}"));
        };
        u32::try_from(number)
            .ok()
            .filter(|number| self.0.contains(number))
            .and_then(|number| N::try_from(number).ok())
            .ok_or_else(|| format!("must be {bounds}"))
    }

    fn write(&self, used: &N) -> Value {
        Value::Integer((*used).try_into().unwrap_or(u32::MAX).into())
    }
}

/// A number of bytes within bounds: `"64 KiB"`, or a plain number.
pub(super) struct Size(pub RangeInclusive<u64>);

impl Kind<usize> for Size {
    fn read(&self, written: &Value) -> Result<usize, String> {
        let bounds = format!("between {} and {}", size(*self.0.start()), size(*self.0.end()));
        let bytes = match written {
            Value::Integer(number) => Some(u64::try_from(*number).unwrap_or(0)),
            Value::String(text) => text.trim().parse::<ByteSize>().ok().map(|size| size.as_u64()),
            _ => None,
        };
        let Some(bytes) = bytes else {
            return Err(format!(
                "must be a size {bounds}, written like \"64 KiB\" or as a number of bytes"
            ));
        };
        usize::try_from(bytes)
            .ok()
            .filter(|_| self.0.contains(&bytes))
            .ok_or_else(|| format!("must be {bounds}"))
    }

    fn write(&self, used: &usize) -> Value {
        let bytes = u64::try_from(*used).unwrap_or(u64::MAX);
        if bytes.is_multiple_of(bytesize::KIB) {
            Value::String(size(bytes))
        } else {
            Value::Integer(bytes.try_into().unwrap_or(i64::MAX))
        }
    }
}

/// Bytes in the largest unit that says them exactly. (`ByteSize` itself rounds.)
pub(super) fn size(bytes: u64) -> String {
    let units = [
        (bytesize::TIB, "TiB"),
        (bytesize::GIB, "GiB"),
        (bytesize::MIB, "MiB"),
        (bytesize::KIB, "KiB"),
    ];
    units
        .into_iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit))
        .map_or_else(|| format!("{bytes} B"), |(unit, name)| format!("{} {name}", bytes / unit))
}

/// A length of time within bounds: `"30s"`, `"1h 30m"`.
pub(super) struct Span(pub RangeInclusive<Duration>);

impl Kind<Duration> for Span {
    fn read(&self, written: &Value) -> Result<Duration, String> {
        let bounds = format!("between {} and {}", span(*self.0.start()), span(*self.0.end()));
        let Ok(time) = humantime_serde::deserialize::<Duration, _>(written.clone()) else {
            return Err(format!("must be a time {bounds}, written like \"30s\" or \"1h 30m\""));
        };
        if !self.0.contains(&time) {
            return Err(format!("must be {bounds}"));
        }
        Ok(time)
    }

    fn write(&self, used: &Duration) -> Value {
        Value::String(span(*used))
    }
}

/// A length of time as `settings.toml` writes it.
pub(super) fn span(time: Duration) -> String {
    // Whole days and below: "7d" rather than "7days", and never the 30.44 days humantime calls a month.
    let seconds = time.as_secs();
    let units = [(24 * 60 * 60, "d"), (60 * 60, "h"), (60, "m")];
    if time.subsec_nanos() == 0 {
        for (unit, name) in units {
            if seconds >= unit && seconds.is_multiple_of(unit) {
                return format!("{}{name}", seconds / unit);
            }
        }
        return format!("{seconds}s");
    }
    humantime::format_duration(time).to_string()
}

/// A share: above 0, at most 1.
pub(super) struct Share;

impl Kind<f64> for Share {
    fn read(&self, written: &Value) -> Result<f64, String> {
        let number = match written {
            Value::Float(number) => Some(*number),
            Value::Integer(1) => Some(1.0),
            Value::Integer(_) => Some(0.0),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        match number {
            Some(share) if share > 0.0 && share <= 1.0 => Ok(share),
            Some(_) => Err("must be above 0 and at most 1".to_owned()),
            None => Err("must be a number above 0 and at most 1".to_owned()),
        }
    }

    fn write(&self, used: &f64) -> Value {
        Value::Float(*used)
    }
}

/// An address and port to listen on.
pub(super) struct Address;

impl Kind<SocketAddr> for Address {
    fn read(&self, written: &Value) -> Result<SocketAddr, String> {
        written.as_str().and_then(|text| text.trim().parse().ok()).ok_or_else(|| {
            "must be an IP address with a port, such as \"127.0.0.1:8080\" or \"[::1]:8080\""
                .to_owned()
        })
    }

    fn write(&self, used: &SocketAddr) -> Value {
        Value::String(used.to_string())
    }
}

/// Networks in CIDR notation; a bare address is a network of one.
pub(super) struct Networks {
    /// Whether a network of everyone (`0.0.0.0/0`) makes sense here.
    pub may_be_everyone: bool,
}

impl Kind<Vec<IpNet>> for Networks {
    fn read(&self, written: &Value) -> Result<Vec<IpNet>, String> {
        let Some(items) = list(written) else {
            return Err(
                "must be a list of networks, such as [\"10.0.0.0/8\", \"fd00::/8\"]".to_owned()
            );
        };
        let mut networks = Vec::new();
        for item in items {
            let network: Option<IpNet> =
                item.parse().ok().or_else(|| item.parse().ok().map(|one: IpAddr| one.into()));
            let Some(network) = network else {
                return Err(format!(
                    "\"{}\" is not a network in CIDR notation, such as \"10.0.0.0/8\"",
                    printable(item)
                ));
            };
            if network.prefix_len() == 0 && !self.may_be_everyone {
                return Err(format!(
                    "\"{network}\" is everyone, and anyone's word would be believed"
                ));
            }
            networks.push(network.trunc());
        }
        Ok(networks)
    }

    fn write(&self, used: &Vec<IpNet>) -> Value {
        used.iter().map(ToString::to_string).collect::<Vec<_>>().into()
    }
}

/// Web origins: scheme, host and, unless it is the scheme's own, port (RFC 6454, section 6.2).
pub(super) struct Origins;

impl Kind<Vec<String>> for Origins {
    fn read(&self, written: &Value) -> Result<Vec<String>, String> {
        let Some(items) = list(written) else {
            return Err(
                "must be a list of origins, such as [\"https://app.example.org\"]".to_owned()
            );
        };
        let mut origins = Vec::new();
        for item in items {
            let origin = item.to_ascii_lowercase();
            if !is_origin(&origin) {
                return Err(format!(
                    "\"{}\" is not an origin: scheme, host and port alone, such as \"https://app.example.org\"",
                    printable(item)
                ));
            }
            origins.push(origin);
        }
        Ok(origins)
    }

    fn write(&self, used: &Vec<String>) -> Value {
        used.clone().into()
    }
}

/// Whether a browser could send this as `Origin`: no path, no user, no default port, nothing exotic.
fn is_origin(origin: &str) -> bool {
    let Some((scheme, host_and_port)) = origin.split_once("://") else {
        return false;
    };
    let mut letters = scheme.chars();
    if !letters.next().is_some_and(|c| c.is_ascii_lowercase())
        || !letters.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    {
        return false;
    }
    let (host, port) = match host_and_port.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) if host.parse::<std::net::Ipv6Addr>().is_ok() => (host, port),
        Some(_) => return false,
        None => match host_and_port.find(':') {
            Some(at) => host_and_port.split_at(at),
            None => (host_and_port, ""),
        },
    };
    let host_is_fine =
        !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c));
    let port_is_fine = match (scheme, port) {
        (_, "") => true,
        ("http", ":80") | ("https", ":443") => false,
        (_, port) => port
            .strip_prefix(':')
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0'))
            .is_some_and(|digits| digits.parse::<u16>().is_ok()),
    };
    host_is_fine && port_is_fine
}

/// The items of a list, or of one text with commas; `None` if it is neither, or an item is no text.
fn list(written: &Value) -> Option<Vec<&str>> {
    match written {
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::trim)).collect(),
        Value::String(text) if text.trim().is_empty() => Some(Vec::new()),
        Value::String(text) => Some(text.split(',').map(str::trim).collect()),
        _ => None,
    }
}

/// A filter in the language of `env_logger`.
pub(super) struct Filter;

impl Kind<String> for Filter {
    fn read(&self, written: &Value) -> Result<String, String> {
        const WANTED: &str =
            "must be a log filter, such as \"info\" or \"info,sealpost::actors=debug\"";
        let text = written.as_str().map(str::trim).filter(|text| !text.is_empty()).ok_or(WANTED)?;
        // A bare word is a level here: a misspelt one would be taken for a target and silence the rest.
        let directives = text.split('/').next().unwrap_or_default();
        let words_are_levels = directives
            .split(',')
            .all(|word| word.contains('=') || word.trim().parse::<log::LevelFilter>().is_ok());
        if !words_are_levels || env_filter::Builder::new().try_parse(text).is_err() {
            return Err(WANTED.to_owned());
        }
        Ok(text.to_owned())
    }

    fn write(&self, used: &String) -> Value {
        Value::String(used.clone())
    }
}

/// `true` or `false`; the environment can only write them as text.
pub(super) struct Flag;

impl Kind<bool> for Flag {
    fn read(&self, written: &Value) -> Result<bool, String> {
        match (written.as_bool(), written.as_str().map(str::trim)) {
            (Some(flag), _) => Ok(flag),
            (_, Some("true")) => Ok(true),
            (_, Some("false")) => Ok(false),
            _ => Err("must be true or false".to_owned()),
        }
    }

    fn write(&self, used: &bool) -> Value {
        Value::Boolean(*used)
    }
}

/// The path of a directory, relative to the working directory unless it begins with a slash.
pub(super) struct Directory;

impl Kind<PathBuf> for Directory {
    fn read(&self, written: &Value) -> Result<PathBuf, String> {
        match written.as_str() {
            Some(path) if !path.trim().is_empty() && !path.contains('\0') => Ok(path.into()),
            _ => Err("must be the path of a directory, such as \"./data\"".to_owned()),
        }
    }

    fn write(&self, used: &PathBuf) -> Value {
        Value::String(used.to_string_lossy().into_owned())
    }
}

/// `"text"` or `"json"`.
pub(super) struct Format;

impl Kind<LogFormat> for Format {
    fn read(&self, written: &Value) -> Result<LogFormat, String> {
        match written.as_str().map(str::trim) {
            Some("text") => Ok(LogFormat::Text),
            Some("json") => Ok(LogFormat::Json),
            _ => Err("must be \"text\" or \"json\"".to_owned()),
        }
    }

    fn write(&self, used: &LogFormat) -> Value {
        let name = match used {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        Value::String(name.to_owned())
    }
}
