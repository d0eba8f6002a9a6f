//! The first lines of the log: where the relay listens and keeps its queue, what to try, and a warning if that is unsafe.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::settings::{AdminAddress, Settings};

/// The path at which devices connect.
const WEBSOCKET_PATH: &str = "/ws";

/// The lines for a new operator: where the relay listens, the page to try it if there is one, what to try without a browser,
/// where its queue and its health are. No line feed at the end.
///
/// `settings` must have the ports that the system chose where port 0 was configured.
pub fn first_lines(settings: &Settings) -> String {
    let listen = reachable(settings.server.listen);
    let health = match &settings.server.admin_listen {
        AdminAddress::Tcp(address) => format!("http://{}/healthz", reachable(*address)),
        AdminAddress::Unix(path) => {
            format!("curl --unix-socket {} http://localhost/healthz", path.display())
        }
    };
    let scheme = if settings.tls.files().is_some() { "wss" } else { "ws" };
    // A certificate is for a name.
    let relay = match settings.server.hosts.first() {
        Some(name) if scheme == "wss" => format!("{name}:{}", listen.port()),
        _ => listen.to_string(),
    };
    let page = match scheme {
        _ if !settings.server.shows_demo(settings.server.listen.ip()) => String::new(),
        "wss" => format!("a page to try it: https://{relay}/\n"),
        _ => format!("a page to try it: http://{relay}/\n"),
    };
    format!(
        "sealpost {} is listening on {}\n\
         {page}\
         try it: echo '{{\"type\":\"Register\"}}' | websocat --no-close {scheme}://{relay}{WEBSOCKET_PATH}\n\
         queue: {}\n\
         health: {health}",
        env!("CARGO_PKG_VERSION"),
        settings.server.listen,
        queue(settings),
    )
}

/// The full path of the queue: a relative one is a new queue after a start in another directory.
fn queue(settings: &Settings) -> String {
    if !settings.queue.durable {
        return "in memory only, it ends with the process (queue.durable = false)".to_owned();
    }
    let path = &settings.queue.path;
    std::path::absolute(path).as_ref().unwrap_or(path).display().to_string()
}

/// An address that this machine can connect to: loopback for an unspecified address.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The warning if the relay serves plain HTTP beyond loopback. A proxy in front does not change that: the address is open to
/// others as well.
pub fn exposure(settings: &Settings) -> Option<String> {
    let listen = settings.server.listen;
    if listen.ip().to_canonical().is_loopback() || settings.tls.files().is_some() {
        return None;
    }
    let what = format!("PLAIN HTTP ON A PUBLIC ADDRESS: server.listen={listen} has no TLS, so");
    Some(if settings.server.trusted_proxies.is_empty() {
        format!(
            "{what} everyone on the way sees who talks to whom, and resume tokens; set tls.certificate, or put a \
             TLS proxy in front, name it in server.trusted_proxies, and listen on 127.0.0.1"
        )
    } else {
        format!(
            "{what} whatever does not come through a proxy in server.trusted_proxies is in the clear, resume tokens \
             too; set tls.certificate, or let nobody but the proxies reach this address: listen on 127.0.0.1, or \
             close the port to others"
        )
    })
}

/// The warning if `server.allowed_origins` names an origin that is not one site's.
pub fn shared_origins(settings: &Settings) -> Option<String> {
    let is_shared = |origin: &&String| *origin == "null" || origin.ends_with("://");
    let shared: Vec<&str> =
        settings.server.allowed_origins.iter().filter(is_shared).map(String::as_str).collect();
    let shared = (!shared.is_empty()).then(|| shared.join(", "))?;
    Some(format!(
        "server.allowed_origins has {shared}, which is not one site's: null is sent by any site's sandboxed frame, \
         and a scheme without a host by every page or app that uses this scheme"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Demo;

    fn settings(listen: &str, proxies: &[&str]) -> Settings {
        let mut settings = Settings::default();
        settings.server.listen = listen.parse().expect("an address");
        settings.server.trusted_proxies =
            proxies.iter().map(|proxy| proxy.parse().expect("a network")).collect();
        settings
    }

    #[test]
    fn the_first_lines_show_the_address_an_example_and_the_health_url() {
        let lines = first_lines(&settings("0.0.0.0:8081", &[]));
        assert_eq!(lines.lines().count(), 4);
        assert!(lines.contains("listening on 0.0.0.0:8081"));
        assert!(lines.contains("websocat") && lines.contains("ws://127.0.0.1:8081/ws"));
        assert!(lines.contains("http://127.0.0.1:9090/healthz"));
        assert!(first_lines(&settings("[::]:8081", &[])).contains("ws://[::1]:8081/ws"));
    }

    #[test]
    fn the_page_to_try_the_relay_has_its_line_while_it_is_shown() {
        let page = |settings: &Settings| {
            let lines = first_lines(settings);
            lines
                .lines()
                .find_map(|line| line.strip_prefix("a page to try it: ").map(str::to_owned))
        };
        let mut here = settings("127.0.0.1:8081", &[]);
        assert_eq!(page(&here).as_deref(), Some("http://127.0.0.1:8081/"));
        here.server.demo = Demo::Off;
        assert_eq!(page(&here), None);
        let mut public = settings("[::]:8443", &[]);
        assert_eq!(page(&public), None);
        public.server.demo = Demo::On;
        assert_eq!(page(&public).as_deref(), Some("http://[::1]:8443/"));
        public.tls.certificate = "relay.pem".into();
        public.server.hosts = vec!["relay.example".to_owned()];
        assert_eq!(page(&public).as_deref(), Some("https://relay.example:8443/"));
    }

    #[test]
    fn the_path_of_the_queue_is_given_in_full() {
        let mut settings = Settings::default();
        let here = std::env::current_dir().expect("a directory");
        assert!(first_lines(&settings).contains(&format!("queue: {}/data\n", here.display())));
        settings.queue.path = "/var/lib/sealpost".into();
        assert!(first_lines(&settings).contains("queue: /var/lib/sealpost\n"));
        settings.queue.durable = false;
        assert!(first_lines(&settings).contains("queue: in memory only"));
    }

    #[test]
    fn plain_http_on_a_public_address_causes_a_warning() {
        for public in ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:8080", "[2001:db8::1]:8080"] {
            assert!(
                exposure(&settings(public, &[])).is_some_and(|warning| warning.contains(public))
            );
        }
    }

    #[test]
    fn an_origin_that_is_not_one_sites_causes_a_warning() {
        let mut settings = Settings::default();
        settings.server.allowed_origins = vec!["https://app.example".to_owned()];
        assert_eq!(shared_origins(&settings), None);
        for shared in ["null", "file://", "content://"] {
            settings.server.allowed_origins.truncate(1);
            settings.server.allowed_origins.push(shared.to_owned());
            let warning = shared_origins(&settings).expect("a warning");
            assert!(warning.contains(&format!("server.allowed_origins has {shared}, ")));
        }
    }

    #[test]
    fn over_tls_the_example_is_wss_with_the_name_of_the_relay() {
        let mut settings = settings("0.0.0.0:8443", &[]);
        settings.tls.certificate = "relay.pem".into();
        assert!(first_lines(&settings).contains(" wss://127.0.0.1:8443/ws"));
        settings.server.hosts = vec!["relay.example".to_owned()];
        assert!(first_lines(&settings).contains(" wss://relay.example:8443/ws"));
    }

    #[test]
    fn loopback_and_tls_are_no_exposure_but_a_proxy_that_can_be_passed_by_is() {
        for private in ["127.0.0.1:8080", "127.9.9.9:1", "[::1]:8080", "[::ffff:127.0.0.1]:8080"] {
            assert_eq!(exposure(&settings(private, &[])), None, "{private}");
        }
        let mut settings = settings("0.0.0.0:8080", &["10.0.0.0/8"]);
        let warning = exposure(&settings).expect("a warning");
        assert!(warning.contains("does not come through a proxy in server.trusted_proxies"));
        settings.tls.certificate = "relay.pem".into();
        assert_eq!(exposure(&settings), None);
    }
}
