//! Networks, origins and names of the relay.

use super::*;

#[test]
fn a_network_of_every_address_is_refused_as_a_trusted_proxy() {
    for everyone in ["0.0.0.0/0", "::/0", "::ffff:0.0.0.0/96", "::ffff:1.2.3.4/96"] {
        let found = problems(&only("server.trusted_proxies", &format!("[\"{everyone}\"]")));
        assert!(found.len() == 1 && found[0].contains("is everyone"), "{found:?}");
        assert!(problems(&only("limits.exempt_cidrs", &format!("[\"{everyone}\"]"))).is_empty());
    }
    for bad in ["[\"10.0.0.0/33\"]", "[\"proxy\"]", "[7]", "7", "\"10.0.0.0/8,,\""] {
        assert_eq!(problems(&only("server.trusted_proxies", bad)).len(), 1, "{bad}");
    }
}

#[test]
fn a_network_of_ipv4_mapped_addresses_is_the_ipv4_network() {
    for key in ["server.trusted_proxies", "limits.exempt_cidrs"] {
        for (written, network) in [
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::ffff:a00:0/104", "10.0.0.0/8"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("::FFFF:192.0.2.7/128", "192.0.2.7/32"),
            ("0:0:0:0:0:ffff:c000:0207/127", "192.0.2.6/31"),
            ("fd00::1/8", "fd00::/8"),
            ("2001:db8::ffff:10.0.0.1", "2001:db8::ffff:a00:1/128"),
        ] {
            let Settings { server, limits, .. } = settings(&only(key, &format!("[\"{written}\"]")));
            let networks = [server.trusted_proxies, limits.exempt_cidrs].concat();
            assert_eq!(networks, [network.parse().expect("a network")], "{key} {written}");
        }
        let found = problems(&only(key, "[\"::ffff:10.0.0.0/90\"]"));
        assert!(found.len() == 1 && found[0].contains("/96"), "{found:?}");
    }
}

#[test]
fn an_origin_is_what_a_browser_would_send() {
    for good in [
        "https://a.example",
        "http://localhost:3000",
        "http://[::1]:8080",
        "app://sealpost",
        "https://A.example",
        "https://a.example/",
        "https://a.example:443",
        "wss://a.example/ws",
        "null",
        "file://",
        "content://",
    ] {
        assert!(
            problems(&only("server.allowed_origins", &format!("[\"{good}\"]"))).is_empty(),
            "{good}"
        );
    }
    for bad in [
        "*",
        "https://*.example",
        "a.example",
        "https://",
        "https://user@a.example",
        "https://a.example:99999",
        "https://a.example:8080:8080",
        "https://[::1",
        "://a.example",
        "https://a b",
    ] {
        assert_eq!(
            problems(&only("server.allowed_origins", &format!("[\"{bad}\"]"))).len(),
            1,
            "{bad}"
        );
    }
}

#[test]
fn origins_and_hosts_are_kept_as_they_are_compared() {
    let settings = settings(
        "[server]\nallowed_origins = [\"WSS://A.example:443/\", \"file:///\", \"NULL\"]\n\
         hosts = [\"Relay.Example.\", \"2001:DB8::0:1\", \"192.0.2.7\"]\n",
    );
    assert_eq!(settings.server.allowed_origins, ["https://a.example", "file://", "null"]);
    assert_eq!(settings.server.hosts, ["relay.example", "[2001:db8::1]", "192.0.2.7"]);
}

#[test]
fn a_host_is_a_name_or_an_address_alone() {
    for bad in ["relay.example:8080", "https://relay.example", "*.example", "", "a b", "[::1]:80"] {
        let found = problems(&only("server.hosts", &format!("[\"{bad}\"]")));
        assert!(found.len() == 1 && found[0].contains("without ports"), "{bad} {found:?}");
    }
}
