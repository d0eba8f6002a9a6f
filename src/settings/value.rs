//! The kinds of values: how each is read, bounded and written.
//!
//! A value is a TOML value of the file, or text of the environment and the command line. So a number may be text, and a
//! list may be one text with commas. Nothing else is converted: a number is not a text, and a fraction is not a whole
//! number. Each kind describes in one sentence which values are valid.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::{ByteSize, GIB, KIB, MIB, TIB};
use ipnet::{IpNet, Ipv4Net};
use serde::Serialize;
use toml::{Table, Value};

use super::admin_address::AdminAddress;
use super::memory::automatic_total;
use super::problem::{Problem, Problems, printable};
use super::{AccessMode, Demo, LogFormat};
use crate::web_origin::{WebOrigin, parse_name};

/// How a value of type `U` is written in the file.
pub(super) trait Kind<U: Serialize> {
    /// The value as the code uses it, or the sentence that describes the valid values.
    fn read(&self, written: &Value) -> Result<U, String>;

    /// The value as `settings.toml` would have it; [`Kind::read`] of it gives the same value again.
    fn write(&self, used: &U) -> Value {
        // Cannot fail: these are texts, lists of texts, flags and numbers far below the largest of TOML.
        Value::try_from(used).unwrap_or_else(|_| "".into())
    }
}

/// The value of a key of the merged `table`. If it cannot be read, `problems` has it and the default is used.
pub(super) fn read<U: Clone + Serialize>(
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

impl<N: Serialize + TryFrom<u32>> Kind<N> for Count {
    fn read(&self, written: &Value) -> Result<N, String> {
        let bounds = format!("between {} and {}", self.0.start(), self.0.end());
        let number = match written {
            Value::Integer(number) => Some(*number),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let number = number.ok_or_else(|| format!("must be a whole number {bounds}"))?;
        let number = u32::try_from(number).ok().filter(|number| self.0.contains(number));
        number.and_then(|number| number.try_into().ok()).ok_or_else(|| format!("must be {bounds}"))
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
        let bytes = bytes.ok_or_else(|| {
            format!("must be a size {bounds}, written like \"64 KiB\" or as a number of bytes")
        })?;
        let bytes = Some(bytes).filter(|bytes| self.0.contains(bytes));
        bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| format!("must be {bounds}"))
    }

    fn write(&self, used: &usize) -> Value {
        let bytes = *used as u64;
        if bytes.is_multiple_of(KIB) { size(bytes).into() } else { Value::Integer(bytes as i64) }
    }
}

/// A [`Size`], or `"auto"`: a part of the memory that the process may use.
pub(super) struct MemorySize(pub RangeInclusive<u64>);

impl Kind<usize> for MemorySize {
    fn read(&self, written: &Value) -> Result<usize, String> {
        match written {
            Value::String(text) if text.trim() == "auto" => {
                Ok(usize::try_from(automatic_total()).unwrap_or(usize::MAX))
            }
            other => Size(self.0.clone()).read(other),
        }
    }

    /// The number in effect.
    fn write(&self, used: &usize) -> Value {
        Size(self.0.clone()).write(used)
    }
}

/// Bytes in the largest unit that is exact. (`ByteSize` itself rounds.)
pub(super) fn size(bytes: u64) -> String {
    in_largest(bytes, &[(TIB, " TiB"), (GIB, " GiB"), (MIB, " MiB"), (KIB, " KiB")])
        .unwrap_or_else(|| format!("{bytes} B"))
}

fn in_largest(number: u64, units: &[(u64, &str)]) -> Option<String> {
    let fits = |(unit, _): &&(u64, &str)| number >= *unit && number.is_multiple_of(*unit);
    units.iter().find(fits).map(|(unit, name)| format!("{}{name}", number / unit))
}

/// A length of time within bounds: `"30s"`, `"1h 30m"`.
pub(super) struct Span(pub RangeInclusive<Duration>);

impl Kind<Duration> for Span {
    fn read(&self, written: &Value) -> Result<Duration, String> {
        let bounds = format!("between {} and {}", span(*self.0.start()), span(*self.0.end()));
        let time: Duration = humantime_serde::deserialize(written.clone())
            .map_err(|_| format!("must be a time {bounds}, written like \"30s\" or \"1h 30m\""))?;
        self.0.contains(&time).then_some(time).ok_or_else(|| format!("must be {bounds}"))
    }

    fn write(&self, used: &Duration) -> Value {
        span(*used).into()
    }
}

/// A length of time as `settings.toml` writes it.
pub(super) fn span(time: Duration) -> String {
    // Whole days and below: "7d" rather than "7days", and never the 30.44 days humantime calls a month.
    let is_whole = time.subsec_nanos() == 0;
    let units = [(24 * 60 * 60, "d"), (60 * 60, "h"), (60, "m"), (1, "s")];
    let written = is_whole.then(|| in_largest(time.as_secs(), &units)).flatten();
    written.unwrap_or_else(|| humantime::format_duration(time).to_string())
}

/// A share: above 0, at most 1.
pub(super) struct Share;

impl Kind<f64> for Share {
    fn read(&self, written: &Value) -> Result<f64, String> {
        let number = match written {
            Value::Float(number) => Some(*number),
            Value::Integer(number) => Some(*number as f64),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        match number {
            Some(share) if share > 0.0 && share <= 1.0 => Ok(share),
            Some(_) => Err("must be above 0 and at most 1".to_owned()),
            None => Err("must be a number above 0 and at most 1".to_owned()),
        }
    }
}

/// Networks in CIDR notation; a bare address is a network of one. A network of IPv4-mapped IPv6 addresses
/// (`::ffff:10.0.0.0/104`) becomes the IPv4 network, because clients are looked up by their IPv4 address.
pub(super) struct Networks {
    /// Whether the network of all addresses (`0.0.0.0/0`) is valid here.
    pub may_be_everyone: bool,
}

impl Kind<Vec<IpNet>> for Networks {
    fn read(&self, written: &Value) -> Result<Vec<IpNet>, String> {
        let wanted = "must be a list of networks, such as [\"10.0.0.0/8\", \"fd00::/8\"]";
        let network = |item: &str| {
            let network = item.parse().or_else(|_| item.parse().map(|one: IpAddr| one.into()));
            let network: IpNet = network.map_err(|_| {
                let item = printable(item);
                format!("\"{item}\" is not a network in CIDR notation, such as \"10.0.0.0/8\"")
            })?;
            let network = canonical(network).ok_or_else(|| {
                format!("\"{network}\" has more than the IPv4-mapped addresses: they begin at /96")
            })?;
            if network.prefix_len() == 0 && !self.may_be_everyone {
                Err(format!("\"{network}\" is everyone, and anyone's word would be believed"))
            } else {
                Ok(network.trunc())
            }
        };
        list(written).ok_or(wanted)?.into_iter().map(network).collect()
    }
}

/// A network in the form in which addresses are compared; `None` if its address is an IPv4-mapped one and its prefix too short
/// for such addresses alone.
fn canonical(network: IpNet) -> Option<IpNet> {
    let IpAddr::V6(address) = network.addr() else { return Some(network) };
    let Some(address) = address.to_ipv4_mapped() else { return Some(network) };
    Ipv4Net::new(address, network.prefix_len().checked_sub(96)?).ok().map(IpNet::V4)
}

/// Web origins (RFC 6454), in the form in which they are compared.
pub(super) struct Origins;

impl Kind<Vec<String>> for Origins {
    fn read(&self, written: &Value) -> Result<Vec<String>, String> {
        let wanted = "must be a list of origins, such as [\"https://app.example.org\"]";
        let origin = |item: &str| {
            // A star is valid in a name and would match nothing.
            let origin = WebOrigin::parse(item).filter(|_| !item.contains('*'));
            origin.map(|origin| origin.to_string()).ok_or_else(|| {
                format!(
                    "\"{}\" is not an origin: scheme, host and port, such as \"https://app.example.org\", or null or \"file://\"",
                    printable(item)
                )
            })
        };
        list(written).ok_or(wanted)?.into_iter().map(origin).collect()
    }
}

/// Names and IP addresses of this relay, without ports.
pub(super) const HOSTS: Plain<Vec<String>> = Plain(
    |written| list(written)?.into_iter().map(parse_name).collect(),
    "must be a list of names or IP addresses without ports, such as [\"relay.example.org\"]",
);

/// The items of a list, or of one text with commas; `None` if it is neither, or an item is no text.
fn list(written: &Value) -> Option<Vec<&str>> {
    match written {
        Value::Array(items) => items.iter().map(text).collect(),
        Value::String(text) if text.trim().is_empty() => Some(Vec::new()),
        Value::String(text) => Some(text.split(',').map(str::trim).collect()),
        _ => None,
    }
}

/// A value without bounds: how it is read, and the sentence that describes the valid values.
pub(super) struct Plain<U>(fn(&Value) -> Option<U>, &'static str);

impl<U: Serialize> Kind<U> for Plain<U> {
    fn read(&self, written: &Value) -> Result<U, String> {
        self.0(written).ok_or_else(|| self.1.to_owned())
    }
}

fn text(written: &Value) -> Option<&str> {
    written.as_str().map(str::trim)
}

/// An address and port to listen on.
pub(super) const ADDRESS: Plain<SocketAddr> = Plain(
    |written| text(written)?.parse().ok(),
    "must be an IP address with a port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"",
);

/// An address and port, or the path of a Unix socket.
pub(super) const ADMIN_ADDRESS: Plain<AdminAddress> = Plain(
    |written| text(written)?.parse().ok(),
    "must be an IP address with a port, such as \"127.0.0.1:9090\", or a socket such as \"unix:/run/sealpost/admin.sock\"",
);

/// `true` or `false`; the environment can only write them as text.
pub(super) const FLAG: Plain<bool> = Plain(
    |written| written.as_bool().or_else(|| text(written)?.parse().ok()),
    "must be true or false",
);

/// The path of a directory, relative to the working directory unless it begins with a slash.
pub(super) const DIRECTORY: Plain<PathBuf> = Plain(
    |written| {
        let path = written.as_str()?;
        (!path.trim().is_empty() && !path.contains('\0')).then(|| path.into())
    },
    "must be the path of a directory, such as \"./data\"",
);

/// The path of a file, relative to the working directory unless it begins with a slash.
pub(super) const FILE: Plain<PathBuf> = Plain(
    |written| {
        let path = written.as_str()?;
        let names_a_file = !path.trim().is_empty() && !path.ends_with('/');
        (names_a_file && !path.contains('\0')).then(|| path.into())
    },
    "must be the path of a file, such as \"./access-tokens\"",
);

/// `"open"` or `"tokens"`.
pub(super) const ACCESS_MODE: Plain<AccessMode> = Plain(
    |written| match text(written)? {
        "open" => Some(AccessMode::Open),
        "tokens" => Some(AccessMode::Tokens),
        _ => None,
    },
    "must be \"open\" or \"tokens\"",
);

/// `"auto"`, `true` or `false`; the environment can only write them as text.
pub(super) const DEMO: Plain<Demo> = Plain(
    |written| match (written.as_bool(), text(written).unwrap_or_default()) {
        (Some(true), _) | (None, "true") => Some(Demo::On),
        (Some(false), _) | (None, "false") => Some(Demo::Off),
        (None, "auto") => Some(Demo::Auto),
        _ => None,
    },
    "must be \"auto\", true or false",
);

/// The path of a file, relative to the working directory unless it begins with a slash; empty for none.
pub(super) const OPTIONAL_FILE: Plain<PathBuf> = Plain(
    |written| {
        let path = written.as_str()?;
        let is_none = path.trim().is_empty();
        (!path.contains('\0')).then(|| if is_none { PathBuf::new() } else { path.into() })
    },
    "must be the path of a file, such as \"/etc/sealpost/relay.pem\", or empty",
);

/// `"text"` or `"json"`.
pub(super) const FORMAT: Plain<LogFormat> = Plain(
    |written| match text(written)? {
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        _ => None,
    },
    "must be \"text\" or \"json\"",
);

/// Whether a text is a filter in the language of `env_logger`. A bare word in it is a level or a known target: a misspelt
/// level would be taken for a target and silence all others.
pub fn is_log_filter(text: &str, is_target: impl Fn(&str) -> bool) -> bool {
    let is_known = |word: &str| word.parse::<log::LevelFilter>().is_ok() || is_target(word);
    let directives = text.split('/').next().unwrap_or_default();
    directives.split(',').map(str::trim).all(|word| word.contains('=') || is_known(word))
        && env_filter::Builder::new().try_parse(text).is_ok()
}

/// A filter in the language of `env_logger`.
pub(super) const FILTER: Plain<String> = Plain(
    |written| {
        let text = text(written).filter(|text| !text.is_empty())?;
        is_log_filter(text, |_| false).then(|| text.to_owned())
    },
    "must be a log filter, such as \"info\" or \"info,sealpost::actors=debug\"",
);
