//! The client's address: that of the socket's peer, or the one that trusted proxies forward.

use std::net::IpAddr;

use ipnet::IpNet;

/// The header in which each proxy appends the address of its own peer.
pub const FORWARDED: &str = "x-forwarded-for";

/// The client's address: the last forwarded address that is not a trusted proxy's. Addresses in front of it were written
/// by the client itself and are ignored, as are all of them if the peer is not trusted. `forwarded` has the values of
/// [`FORWARDED`], in order.
#[must_use]
pub fn client_address<'a>(
    peer: IpAddr,
    forwarded: impl Iterator<Item = &'a str>,
    trusted: &[IpNet],
) -> IpAddr {
    let is_trusted =
        |address: IpAddr| trusted.iter().any(|network| network.contains(&address.to_canonical()));
    let peer = peer.to_canonical();
    if !is_trusted(peer) {
        return peer;
    }
    let lines: Vec<&str> = forwarded.collect();
    let mut client = peer;
    for claimed in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        let Some(address) = parse(claimed.trim()) else { break };
        client = address;
        if !is_trusted(address) {
            break;
        }
    }
    client
}

/// Reads an address; some proxies append the port.
fn parse(text: &str) -> Option<IpAddr> {
    let address =
        text.parse().or_else(|_| text.parse().map(|with: std::net::SocketAddr| with.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let trusted: Vec<IpNet> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        client_address(peer.parse().unwrap(), forwarded.iter().copied(), &trusted).to_string()
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
    fn a_chain_that_cannot_be_read_ends_at_the_last_address_that_can() {
        assert_eq!(client("127.0.0.1", &["198.51.100.1, nonsense"], &["127.0.0.0/8"]), "127.0.0.1");
        assert_eq!(client("127.0.0.1", &[], &["127.0.0.0/8"]), "127.0.0.1");
    }

    #[test]
    fn an_ipv4_address_is_the_same_however_it_arrives() {
        assert_eq!(client("::ffff:127.0.0.1", &["198.51.100.1"], &["127.0.0.0/8"]), "198.51.100.1");
    }
}
