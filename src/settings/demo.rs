//! Whether the public listener shows the page to try the relay.

use std::net::IpAddr;

use serde::{Serialize, Serializer};

use super::Server;

/// Whether the page is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demo {
    /// Only where nobody but this machine can see it: on a loopback address without a proxy in front.
    Auto,
    /// Wherever the relay listens.
    On,
    /// Nowhere.
    Off,
}

impl Serialize for Demo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::On => serializer.serialize_bool(true),
            Self::Off => serializer.serialize_bool(false),
        }
    }
}

impl Server {
    /// Whether the page is shown by a relay that is bound to `bound`: an inherited socket may have another address than
    /// `server.listen`. A relay on loopback with a trusted proxy is a public one.
    pub fn shows_demo(&self, bound: IpAddr) -> bool {
        match self.demo {
            Demo::Auto => bound.to_canonical().is_loopback() && self.trusted_proxies.is_empty(),
            Demo::On => true,
            Demo::Off => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use toml::Value;

    use super::*;
    use crate::settings::Settings;
    use crate::settings::value::{DEMO, Kind as _};

    fn shows(demo: Demo, bound: &str, proxies: &[&str]) -> bool {
        let mut server = Settings::default().server;
        server.demo = demo;
        server.trusted_proxies =
            proxies.iter().map(|net| net.parse().expect("a network")).collect();
        server.shows_demo(bound.parse().expect("an address"))
    }

    #[test]
    fn the_value_is_auto_or_a_flag_and_is_written_as_it_is_read() {
        for (written, demo) in [
            (Value::from("auto"), Demo::Auto),
            (true.into(), Demo::On),
            ("true".into(), Demo::On),
            (false.into(), Demo::Off),
            (" false ".into(), Demo::Off),
        ] {
            assert_eq!(DEMO.read(&written), Ok(demo), "{written}");
            assert_eq!(DEMO.read(&DEMO.write(&demo)), Ok(demo));
        }
        for wrong in [Value::from("yes"), "".into(), 1.into()] {
            let reason = DEMO.read(&wrong).expect_err("no value");
            assert_eq!(reason, "must be \"auto\", true or false");
        }
    }

    #[test]
    fn by_itself_the_page_is_shown_to_this_machine_only() {
        for loopback in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(shows(Demo::Auto, loopback, &[]), "{loopback}");
            assert!(!shows(Demo::Auto, loopback, &["127.0.0.1/32"]), "{loopback}, behind a proxy");
        }
        for public in ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1"] {
            assert!(!shows(Demo::Auto, public, &[]), "{public}");
        }
    }

    #[test]
    fn the_operator_decides_otherwise() {
        assert!(shows(Demo::On, "0.0.0.0", &["10.0.0.0/8"]));
        assert!(!shows(Demo::Off, "127.0.0.1", &[]));
    }
}
