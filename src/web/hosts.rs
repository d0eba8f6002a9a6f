//! Which names the relay goes by: which `Host` is served, and which `Origin` is the relay's own.
//!
//! A page whose name its owner redirects to this machine (DNS rebinding) sends a `Host` and an `Origin` that are equal. An
//! IP address and `localhost` cannot be redirected.

use std::net::IpAddr;
use std::sync::Arc;

use actix_http::header::{self, HeaderMap};
use actix_http::{RequestHead, StatusCode, Version};
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::{Error, web};

use super::handshake::{HandshakeRejection, single};
use super::ingress::Ingress;
use crate::settings::Server;
use crate::web_origin::{Authority, WebOrigin};

const MALFORMED_HOST: HandshakeRejection =
    HandshakeRejection::new(StatusCode::BAD_REQUEST, "The Host header is malformed.\n");
pub const FOREIGN_HOST: HandshakeRejection = HandshakeRejection::new(
    StatusCode::FORBIDDEN,
    "The relay is not served by this name: see server.hosts.\n",
);
pub const FOREIGN_ORIGIN: HandshakeRejection =
    HandshakeRejection::new(StatusCode::FORBIDDEN, "This Origin may not connect.\n");

/// The host that a request names: that of its target if this is a URL (RFC 9112, section 3.2.2), else that of its `Host`
/// header. `None` for a client of HTTP/1.0 that names none.
pub fn host(head: &RequestHead) -> Result<Option<Authority>, HandshakeRejection> {
    let parse = |text| Authority::parse(text).ok_or(MALFORMED_HOST);
    let of_header = match single(head.headers(), &header::HOST) {
        Some(text) => Some(parse(text)?),
        None if head.version < Version::HTTP_11 && !head.headers().contains_key(header::HOST) => {
            None
        }
        None => return Err(MALFORMED_HOST),
    };
    match head.uri.authority() {
        Some(authority) => parse(authority.as_str()).map(Some),
        None => Ok(of_header),
    }
}

/// Whether the request's `Origin` may connect. A native client need not send one. A browser sends its page's, which must be on
/// the list or the relay's own, so that another site's page cannot use a visitor's network position (cross-site
/// WebSocket hijacking).
pub fn origin_is_allowed(
    headers: &HeaderMap,
    host: &Authority,
    peer: Option<IpAddr>,
    server: &Server,
) -> bool {
    if !headers.contains_key(header::ORIGIN) {
        return true;
    }
    let Some(origin) = single(headers, &header::ORIGIN).and_then(WebOrigin::parse) else {
        return false;
    };
    let text = origin.to_string();
    server.allowed_origins.contains(&text) || origin.is_of(host) && is_own(host, peer, server)
}

/// Whether the relay goes by the name `host`. Without `server.hosts` it goes by any; on a connection from this machine,
/// where a rebinding page would come from, only if a trusted proxy has forwarded it.
fn is_own(host: &Authority, peer: Option<IpAddr>, server: &Server) -> bool {
    let name = host.name();
    if !server.hosts.is_empty() {
        return server.hosts.contains(&name);
    }
    let is_proxy = |peer: IpAddr| server.trusted_proxies.iter().any(|net| net.contains(&peer));
    let peer = peer.map(|peer| peer.to_canonical());
    peer.is_some_and(|peer| !peer.is_loopback() || is_proxy(peer))
        || host.is_ip_literal()
        || name == "localhost"
        || name.ends_with(".localhost")
}

/// Serves any well-formed `Host`.
pub async fn well_formed(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse, Error> {
    match host(request.request().head()) {
        Ok(_) => Ok(next.call(request).await?.map_into_boxed_body()),
        Err(refused) => Ok(request.into_response(refused.response())),
    }
}

/// Serves IP addresses, `localhost` and `server.hosts`. A client that names no host is no browser.
pub async fn own_only(
    ingress: web::Data<Arc<Ingress>>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse, Error> {
    let settings = ingress.in_force().settings;
    let is_served = |host: &Authority| {
        let name = host.name();
        host.is_ip_literal() || name == "localhost" || settings.server.hosts.contains(&name)
    };
    let refused = match host(request.request().head()) {
        Ok(host) if host.as_ref().is_none_or(is_served) => {
            return Ok(next.call(request).await?.map_into_boxed_body());
        }
        Ok(_) => FOREIGN_HOST,
        Err(malformed) => malformed,
    };
    let peer = request.peer_addr().map(|peer| peer.ip());
    let named = single(request.headers(), &header::HOST);
    ingress.log_refusal(refused, peer, named);
    Ok(request.into_response(refused.response()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    struct Tried {
        server: Server,
        peer: &'static str,
    }

    impl Tried {
        /// A relay that is not on the client's machine.
        fn remote(allowed: &[&str], hosts: &[&str]) -> Self {
            let mut server = Settings::default().server;
            server.allowed_origins = allowed.iter().map(|origin| (*origin).to_owned()).collect();
            server.hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
            Self { server, peer: "198.51.100.7" }
        }

        fn allows(&self, origin: &str, host: &str) -> bool {
            let mut headers = HeaderMap::new();
            headers.insert(header::ORIGIN, origin.parse().unwrap());
            let (host, peer) = (Authority::parse(host).unwrap(), self.peer.parse().ok());
            origin_is_allowed(&headers, &host, peer, &self.server)
        }
    }

    #[test]
    fn native_clients_the_relays_own_pages_and_listed_sites_may_connect() {
        let relay = Tried::remote(&["https://app.example", "null", "file://"], &[]);
        let host = Authority::parse("relay.example").unwrap();
        assert!(origin_is_allowed(&HeaderMap::new(), &host, None, &relay.server));
        assert!(relay.allows("https://relay.example", "relay.example"));
        assert!(relay.allows("http://localhost:8080", "localhost:8080"));
        assert!(relay.allows("ws://Relay.example:80/ws", "relay.example"));
        assert!(relay.allows("https://App.example:443", "relay.example"));
        assert!(relay.allows("null", "relay.example"));
        assert!(relay.allows("file:///page.html", "relay.example"));
    }

    #[test]
    fn other_sites_may_not_connect() {
        let relay = Tried::remote(&["https://app.example"], &[]);
        assert!(!relay.allows("https://evil.example", "relay.example"));
        assert!(!relay.allows("https://relay.example.evil.example", "relay.example"));
        assert!(!relay.allows("https://relay.example@evil.example", "relay.example"));
        assert!(!relay.allows("http://app.example", "relay.example"));
        assert!(!relay.allows("null", "relay.example"));
        assert!(!relay.allows("file://", "relay.example"));
        assert!(!relay.allows("http://localhost:8081", "localhost:8080"));
    }

    #[test]
    fn on_the_relays_machine_a_name_that_can_be_redirected_is_not_its_own() {
        let mut relay = Tried::remote(&[], &[]);
        for loopback in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            relay.peer = loopback;
            for own in ["127.0.0.1:8080", "[::1]:8080", "192.0.2.7", "LOCALHOST", "a.localhost:1"] {
                assert!(relay.allows(&format!("http://{own}"), own), "{own} from {loopback}");
            }
            for redirected in ["evil.example:8080", "localhost.evil.example", "xlocalhost"] {
                let origin = format!("http://{redirected}");
                assert!(!relay.allows(&origin, redirected), "{redirected} from {loopback}");
            }
        }
        relay.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        assert!(relay.allows("https://relay.example", "relay.example"), "through the proxy");
        relay.peer = "::1";
        assert!(!relay.allows("https://relay.example", "relay.example"), "no trusted proxy's");
    }

    #[test]
    fn the_relay_goes_by_the_names_of_the_operator_alone() {
        let mut relay = Tried::remote(&[], &["relay.example", "[2001:db8::1]"]);
        for peer in ["198.51.100.7", "127.0.0.1"] {
            relay.peer = peer;
            assert!(relay.allows("https://relay.example", "Relay.example:443"));
            assert!(relay.allows("http://relay.example.:8080", "relay.example.:8080"));
            assert!(relay.allows("http://[2001:db8:0::1]:8080", "[2001:db8::1]:8080"));
            assert!(!relay.allows("http://evil.example", "evil.example"));
            assert!(!relay.allows("http://sub.relay.example", "sub.relay.example"));
            assert!(!relay.allows("http://127.0.0.1:8080", "127.0.0.1:8080"));
        }
    }

    fn named(target: &str, host: Option<&str>, version: Version) -> Result<String, u16> {
        let mut head = RequestHead::default();
        head.version = version;
        head.uri = target.parse().unwrap();
        if let Some(host) = host {
            head.headers.insert(header::HOST, host.parse().unwrap());
        }
        let found = super::host(&head).map_err(|refused| refused.status.as_u16())?;
        Ok(found.map_or("none".to_owned(), |host| host.name()))
    }

    #[test]
    fn the_host_of_the_target_counts_before_the_header() {
        let named_by = |target, host| named(target, Some(host), Version::HTTP_11);
        assert_eq!(named_by("/ws", "relay.example:80"), Ok("relay.example".to_owned()));
        assert_eq!(named_by("http://evil.example/ws", "localhost"), Ok("evil.example".to_owned()));
        assert_eq!(named_by("http://evil.example/ws", "a b"), Err(400));
        assert_eq!(named_by("http://u@evil.example/ws", "localhost"), Err(400));
        for malformed in
            ["", "a b", "u@relay.example", "relay:x", "relay:70000", "[::1", "::1", ":80"]
        {
            assert_eq!(named_by("/ws", malformed), Err(400), "{malformed}");
        }
        assert_eq!(named("/livez", None, Version::HTTP_10), Ok("none".to_owned()));
        assert_eq!(named("/livez", None, Version::HTTP_11), Err(400));
    }
}
