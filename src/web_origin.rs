//! Hosts and the origins of web pages (RFC 6454), compared as parsed: capitals, spellings of an address, default ports and paths
//! do not matter. Libraries that are no browsers make up an `Origin` from the URL that they connect to.

use std::fmt;

use url::Host;

/// The host and port that a request names: the value of its `Host` header (RFC 9110, section 7.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The host: an IP address or a name in small letters.
    pub host: Host<String>,
    /// The port, if one is written.
    pub port: Option<u16>,
}

impl Authority {
    /// Reads `host`, `host:port`, `[address]` or `[address]:port`; `None` if the text is malformed or has user information.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let end = match text.strip_prefix('[') {
            Some(bracketed) => bracketed.find(']')? + 2,
            None => text.find(':').unwrap_or(text.len()),
        };
        let (host, port) = text.split_at_checked(end)?;
        Some(Self { host: parse_host(host)?, port: parse_port(port)? })
    }

    /// Whether the host is an IP address, which no name server can redirect.
    #[must_use]
    pub fn is_ip_literal(&self) -> bool {
        !matches!(self.host, Host::Domain(_))
    }

    /// The host as `server.hosts` has it.
    #[must_use]
    pub fn name(&self) -> String {
        host_name(&self.host)
    }
}

/// A host in the form of `server.hosts`: small letters, an IPv6 address in brackets, no dot at the end. `None` if the text
/// is no name or address alone.
#[must_use]
pub fn parse_name(text: &str) -> Option<String> {
    let is_ipv6 = text.parse::<std::net::Ipv6Addr>().is_ok();
    let bracketed = if is_ipv6 { format!("[{text}]") } else { text.to_owned() };
    let name = host_name(&parse_host(&bracketed)?);
    // There are no wildcards. A star would be read as one, and would match nothing.
    (!name.is_empty() && !name.contains('*')).then_some(name)
}

fn host_name(host: &Host<String>) -> String {
    let name = host.to_string();
    name.strip_suffix('.').map(str::to_owned).unwrap_or(name)
}

fn parse_host(text: &str) -> Option<Host<String>> {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        // A zone (RFC 6874) means something on the client's machine only.
        let address = address.split_once('%').map_or(address, |(address, _)| address);
        return address.parse().ok().map(Host::Ipv6);
    }
    // The characters of a name in RFC 3986, section 3.2.2.
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_allowed) {
        return None;
    }
    // A name that no browser would open, such as `relay.1`, may still be one of a private network.
    Some(Host::parse(text).unwrap_or_else(|_| Host::Domain(text.to_ascii_lowercase())))
}

/// Reads a port with its colon. Nothing, or a colon alone, is no port (RFC 3986, section 3.2.3).
fn parse_port(text: &str) -> Option<Option<u16>> {
    let Some(digits) = text.strip_prefix(':') else { return text.is_empty().then_some(None) };
    if digits.is_empty() {
        return Some(None);
    }
    digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| digits.parse().ok())
        .flatten()
        .map(Some)
}

/// The origin of a page, the value of an `Origin` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebOrigin {
    /// `null`: a sandboxed frame, a local file, a page that hides where it comes from.
    Null,
    /// All pages of one scheme that has no hosts, such as `file://`.
    Scheme(String),
    /// A site. The scheme is `http` for `ws`, `https` for `wss`; the default port of the scheme is no port.
    Site {
        /// The scheme in small letters.
        scheme: String,
        /// The host and port.
        authority: Authority,
    },
}

impl WebOrigin {
    /// Reads an origin, or the URL of a page, whose path is ignored. `None` if the text is malformed or has user information.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("null") {
            return Some(Self::Null);
        }
        let (scheme, rest) = text.split_once("://")?;
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.bytes().all(is_allowed)
        {
            return None;
        }
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "ws" => "http".to_owned(),
            "wss" => "https".to_owned(),
            other => other.to_owned(),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.is_empty() {
            return (default_port(&scheme).is_none()).then_some(Self::Scheme(scheme));
        }
        let mut authority = Authority::parse(authority)?;
        authority.port = authority.port.filter(|port| Some(*port) != default_port(&scheme));
        Some(Self::Site { scheme, authority })
    }

    /// Whether this is the origin of the pages of a server that is addressed as `host`, over HTTP or HTTPS.
    #[must_use]
    pub fn is_of(&self, host: &Authority) -> bool {
        let Self::Site { scheme, authority } = self else { return false };
        let Some(default) = default_port(scheme) else { return false };
        authority.host == host.host
            && authority.port.unwrap_or(default) == host.port.unwrap_or(default)
    }
}

/// The form of `server.allowed_origins`.
impl fmt::Display for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Scheme(scheme) => write!(f, "{scheme}://"),
            Self::Site { scheme, authority: Authority { host, port: None } } => {
                write!(f, "{scheme}://{host}")
            }
            Self::Site { scheme, authority: Authority { host, port: Some(port) } } => {
                write!(f, "{scheme}://{host}:{port}")
            }
        }
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(origin: &str) -> Option<String> {
        WebOrigin::parse(origin).map(|origin| origin.to_string())
    }

    #[test]
    fn an_origin_is_the_same_however_it_is_spelled() {
        for (spelling, origin) in [
            ("https://app.example", "https://app.example"),
            ("HTTPS://App.Example:443/", "https://app.example"),
            ("wss://app.example:0443/ws?token=1#top", "https://app.example"),
            ("https://app.example:", "https://app.example"),
            ("ws://app.example:80", "http://app.example"),
            ("ws://app.example:443", "http://app.example:443"),
            ("https://app.example:80", "https://app.example:80"),
            ("http://[0:0:0:0:0:0:0:1]:8080", "http://[::1]:8080"),
            ("http://[::FFFF:127.0.0.1]", "http://[::ffff:7f00:1]"),
            ("http://[fe80::1%25eth0]", "http://[fe80::1]"),
            ("http://127.1", "http://127.0.0.1"),
            ("http://relay_1", "http://relay_1"),
            ("http://relay.1", "http://relay.1"),
            ("app://sealpost", "app://sealpost"),
            ("Null", "null"),
            ("file://", "file://"),
            ("file:///path/page.html", "file://"),
            ("Content://", "content://"),
        ] {
            assert_eq!(written(spelling).as_deref(), Some(origin), "{spelling}");
        }
    }

    #[test]
    fn a_malformed_origin_is_none() {
        for malformed in [
            "",
            "*",
            "app.example",
            "://app.example",
            "1http://app.example",
            "https:app.example",
            "https:/app.example",
            "https://",
            "wss:///ws",
            "https://user@app.example",
            "https://user:password@app.example:443",
            "https://@app.example",
            "https://app.example\\@evil.example",
            "https://app.example https://evil.example",
            "https://app.example, https://evil.example",
            "https://app.example:99999",
            "https://app.example:+80",
            "https://app.example:80:80",
            "https://:443",
            "https://::1",
            "https://[::1",
            "https://[::1]x",
            "https://[127.0.0.1]",
            "https://a b",
            "file://:80",
        ] {
            assert_eq!(written(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn a_host_without_a_port_has_the_default_port_of_the_scheme() {
        let is_own = |origin: &str, host: &str| {
            WebOrigin::parse(origin).unwrap().is_of(&Authority::parse(host).unwrap())
        };
        assert!(is_own("https://relay.example", "relay.example:443"));
        assert!(is_own("wss://relay.example:443/ws", "Relay.example"));
        assert!(is_own("ws://relay.example:80", "relay.example:"));
        assert!(is_own("http://[::1]:8080", "[0::1]:8080"));
        assert!(!is_own("https://relay.example", "relay.example:80"));
        assert!(!is_own("http://relay.example", "relay.example:8080"));
        assert!(!is_own("http://relay.example.", "relay.example"));
        assert!(!is_own("app://relay.example", "relay.example"));
        assert!(!is_own("null", "relay.example"));
    }

    #[test]
    fn a_name_is_a_host_alone() {
        for (text, name) in [
            ("Relay.Example.", "relay.example"),
            ("192.0.2.1", "192.0.2.1"),
            ("2001:DB8:0::1", "[2001:db8::1]"),
            ("[2001:db8::1]", "[2001:db8::1]"),
        ] {
            assert_eq!(parse_name(text).as_deref(), Some(name), "{text}");
        }
        for bad in ["", ".", "*.example", "relay.example:80", "https://relay.example", "a/b", "a b"]
        {
            assert_eq!(parse_name(bad), None, "{bad}");
        }
    }
}
