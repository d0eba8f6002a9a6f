//! The client's address: that of the socket's peer, or the one that trusted proxies forward.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// The header in which each proxy appends the address of its own peer.
pub const FORWARDED: &str = "x-forwarded-for";

/// Whether `address` is in one of the networks, as IPv4 if it is an IPv4-mapped one.
#[must_use]
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address.to_canonical()))
}

/// The client's address: the last forwarded address that is not a trusted proxy's. Addresses in front of it were written
/// by the client itself and are ignored, as are all of them if the peer is not trusted. An entry that is no address ends
/// the search: the client counts as the proxy that wrote this entry. `forwarded` has the values of [`FORWARDED`], in
/// order, as bytes: a client may write any, and they must not hide the entries behind them.
#[must_use]
pub fn client_address<'a>(
    peer: IpAddr,
    forwarded: impl Iterator<Item = &'a [u8]>,
    trusted: &[IpNet],
) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let lines: Vec<&[u8]> = forwarded.collect();
    let mut client = peer;
    for entry in lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b',')) {
        let Some(address) = std::str::from_utf8(entry).ok().and_then(parse) else { break };
        client = address;
        if !is_trusted(address, trusted) {
            break;
        }
    }
    client
}

/// Reads an address as proxies write it: in quotes or not, an IPv6 address in brackets or not, with a port or not.
fn parse(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim_matches([' ', '\t']);
    let entry = match entry.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"')?,
        None => entry,
    };
    let address = match entry.strip_prefix('[') {
        Some(bracketed) => {
            let (address, port) = bracketed.split_once(']')?;
            (port.is_empty() || is_port(port.strip_prefix(':')?)).then_some(())?;
            ipv6(address)?.into()
        }
        None => match entry.split_once(':') {
            Some((address, port)) if is_port(port) && address.contains('.') => {
                IpAddr::V4(address.parse().ok()?)
            }
            _ => entry.parse().ok().or_else(|| ipv6(entry).map(IpAddr::V6))?,
        },
    };
    Some(address.to_canonical())
}

/// An IPv6 address; the zone of a link-local one does not matter here.
fn ipv6(text: &str) -> Option<Ipv6Addr> {
    let (address, zone) = text.split_once('%').unwrap_or((text, "-"));
    (!zone.is_empty()).then(|| address.parse().ok()).flatten()
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let trusted: Vec<IpNet> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let forwarded = forwarded.iter().map(|line| line.as_bytes());
        client_address(peer.parse().unwrap(), forwarded, &trusted).to_string()
    }

    #[test]
    fn the_forwarded_address_of_an_untrusted_peer_is_ignored() {
        assert_eq!(client("203.0.113.9", &["198.51.100.1"], &[]), "203.0.113.9");
        assert_eq!(client("203.0.113.9", &["198.51.100.1"], &["127.0.0.0/8"]), "203.0.113.9");
    }

    #[test]
    fn the_address_that_a_trusted_proxy_appended_is_used() {
        let trusted = ["127.0.0.0/8", "10.0.0.0/8"];
        assert_eq!(client("127.0.0.1", &["198.51.100.1"], &trusted), "198.51.100.1");
        // The client wrote the first address itself.
        assert_eq!(client("127.0.0.1", &["1.1.1.1, 198.51.100.1"], &trusted), "198.51.100.1");
        assert_eq!(
            client("127.0.0.1", &["1.1.1.1", "198.51.100.1, 10.0.0.3"], &trusted),
            "198.51.100.1"
        );
        assert_eq!(client("127.0.0.1", &["[2001:db8::1]:443"], &trusted), "2001:db8::1");
    }

    #[test]
    fn an_address_is_read_however_a_proxy_writes_it() {
        for (written, address) in [
            ("198.51.100.1", "198.51.100.1"),
            ("198.51.100.1:4711", "198.51.100.1"),
            ("\"198.51.100.1\"", "198.51.100.1"),
            ("\"198.51.100.1:4711\"", "198.51.100.1"),
            ("  198.51.100.1\t", "198.51.100.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("2001:DB8:0:0::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("\"2001:db8::1\"", "2001:db8::1"),
            ("\"[2001:db8::1]\"", "2001:db8::1"),
            ("\"[2001:db8::1]:443\"", "2001:db8::1"),
            ("::ffff:198.51.100.1", "198.51.100.1"),
            ("[::ffff:c633:6401]:443", "198.51.100.1"),
            ("fe80::1%eth0", "fe80::1"),
            ("[fe80::1%2]:443", "fe80::1"),
        ] {
            assert_eq!(client("127.0.0.1", &[written], &["127.0.0.0/8"]), address, "{written}");
        }
    }

    #[test]
    fn the_client_counts_as_the_proxy_that_wrote_an_entry_that_is_no_address() {
        let trusted = ["127.0.0.0/8", "10.0.0.0/8"];
        for nonsense in [
            "nonsense",
            "unknown",
            "unix:",
            "_hidden",
            "",
            "198.51.100.1:",
            "198.51.100.1:port",
            "198.51.100.1:65536",
            "198.51.100.1:+4",
            "[198.51.100.1]",
            "[2001:db8::1",
            "2001:db8::1]",
            "[2001:db8::1]443",
            "[2001:db8::1]:",
            "\"198.51.100.1",
            "198.51.100.1\"",
            "198.51.100.1 198.51.100.2",
            "198.51.100.256",
            "for=198.51.100.1",
            "fe80::1%",
        ] {
            let line = format!("198.51.100.9, {nonsense}");
            assert_eq!(client("127.0.0.1", &[&line], &trusted), "127.0.0.1", "{nonsense:?}");
            let line = format!("198.51.100.9, {nonsense}, 10.0.0.3");
            assert_eq!(client("127.0.0.1", &[&line], &trusted), "10.0.0.3", "{nonsense:?}");
            let lines = ["198.51.100.9", nonsense, "10.0.0.3, 10.0.0.4"];
            assert_eq!(client("127.0.0.1", &lines, &trusted), "10.0.0.3", "{nonsense:?}");
        }
        assert_eq!(client("127.0.0.1", &[], &trusted), "127.0.0.1");
    }

    #[test]
    fn bytes_that_are_no_text_do_not_hide_the_entries_behind_them() {
        let (peer, trusted) = ("127.0.0.1".parse().unwrap(), ["127.0.0.0/8".parse().unwrap()]);
        let client = |line: &[u8]| client_address(peer, [line].into_iter(), &trusted).to_string();
        assert_eq!(client(b"\xff, 198.51.100.1"), "198.51.100.1");
        assert_eq!(client(b"caf\xc3\xa9,\x80, 198.51.100.1, 127.0.0.2"), "198.51.100.1");
        assert_eq!(client(b"198.51.100.1, \xff"), "127.0.0.1");
        assert_eq!(client(b"198.51.100.1\xff"), "127.0.0.1");
    }

    #[test]
    fn an_ipv4_address_is_the_same_however_it_arrives() {
        assert_eq!(client("::ffff:127.0.0.1", &["198.51.100.1"], &["127.0.0.0/8"]), "198.51.100.1");
    }
}
