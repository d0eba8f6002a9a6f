//! Whether a request becomes a WebSocket: RFC 6455 §4.2.1 to the letter, and the Origin (`hosts`).
//!
//! `actix_http::ws::verify_handshake` checks the key; it lets pass junk around `websocket`, HTTP/1.0 and repeated headers,
//! which a proxy may interpret differently.

use std::net::IpAddr;

use actix_http::header::{self, HeaderMap, HeaderName};
use actix_http::{RequestHead, StatusCode, Version, ws};
use actix_web::HttpResponse;

use super::hosts::{self, FOREIGN_HOST, FOREIGN_ORIGIN};
use crate::access::SecretHash;
use crate::metrics::worker::count;
use crate::settings::Server;

/// A refusal before the upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandshakeRejection {
    pub status: StatusCode,
    /// One sentence, the body.
    pub sentence: &'static str,
    /// A header that names the accepted value.
    pub hint: Option<(&'static str, &'static str)>,
}

impl HandshakeRejection {
    pub(super) const fn new(status: StatusCode, sentence: &'static str) -> Self {
        Self { status, sentence, hint: None }
    }

    const fn with(self, name: &'static str, value: &'static str) -> Self {
        Self { hint: Some((name, value)), ..self }
    }

    /// Counts the refusal by its reason.
    pub(super) fn count(self) {
        let reason = match self {
            DRAINING => "draining",
            FULL => "full",
            TOO_MANY => "address",
            NOT_HERE => "not_found",
            FOREIGN_ORIGIN => "origin",
            FOREIGN_HOST => "host",
            Self { status: StatusCode::REQUEST_TIMEOUT, .. } => "timeout",
            Self { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, .. } => "too_large",
            _ => "malformed",
        };
        count(|metrics| metrics.handshakes.increase_of(reason));
    }

    /// The refusal as an answer to a request that does not ask for an upgrade.
    pub(super) fn response(self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if let Some(hint) = self.hint {
            response.insert_header(hint);
        }
        response.body(self.sentence)
    }
}

pub const DRAINING: HandshakeRejection =
    HandshakeRejection::new(StatusCode::SERVICE_UNAVAILABLE, "The relay is draining. Reconnect.\n")
        .with("Retry-After", "5");
pub const FULL: HandshakeRejection = HandshakeRejection::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "The relay is full. Try again later.\n",
)
.with("Retry-After", "30");
pub const TOO_MANY: HandshakeRejection = HandshakeRejection::new(
    StatusCode::TOO_MANY_REQUESTS,
    "Too many connections from this address.\n",
)
.with("Retry-After", "60");
pub const NOT_HERE: HandshakeRejection =
    HandshakeRejection::new(StatusCode::NOT_FOUND, "No WebSocket here: connect to /ws.\n");

/// Checks a request for the WebSocket: 405, 426, 400 or 403 if it is no valid handshake. `peer` is the socket's peer: the
/// client or a proxy.
pub fn validate(
    head: &RequestHead,
    peer: Option<IpAddr>,
    server: &Server,
) -> Result<(), HandshakeRejection> {
    let bad = |sentence| Err(HandshakeRejection::new(StatusCode::BAD_REQUEST, sentence));
    let headers = head.headers();
    let wrong = |status, sentence, name, value| {
        Err(HandshakeRejection::new(status, sentence).with(name, value))
    };
    if head.method != actix_http::Method::GET {
        let sentence = "A WebSocket begins with GET.\n";
        return wrong(StatusCode::METHOD_NOT_ALLOWED, sentence, "Allow", "GET");
    }
    if head.version != Version::HTTP_11 {
        return bad("A WebSocket needs HTTP/1.1.\n");
    }
    if announces_body(headers) {
        return bad("A WebSocket handshake has no body.\n");
    }
    match single(headers, &header::UPGRADE) {
        None if !headers.contains_key(header::UPGRADE) => {
            let sentence = "This is a WebSocket endpoint.\n";
            return wrong(StatusCode::UPGRADE_REQUIRED, sentence, "Upgrade", "websocket");
        }
        Some(value) if value.eq_ignore_ascii_case("websocket") => {}
        _ => return bad("The Upgrade header must be: websocket.\n"),
    }
    if single(headers, &header::SEC_WEBSOCKET_VERSION) != Some("13") {
        let sentence = "WebSocket version 13 is served.\n";
        return wrong(StatusCode::UPGRADE_REQUIRED, sentence, "Sec-WebSocket-Version", "13");
    }
    if single(headers, &header::SEC_WEBSOCKET_KEY).is_none() {
        return bad("One Sec-WebSocket-Key is needed.\n");
    }
    if ws::verify_handshake(head).is_err() {
        return bad("Not a WebSocket handshake (RFC 6455, section 4.2.1).\n");
    }
    let host = hosts::host(head)?;
    let is_allowed =
        host.is_some_and(|host| hosts::origin_is_allowed(headers, &host, peer, server));
    if is_allowed { Ok(()) } else { Err(FOREIGN_ORIGIN) }
}

/// Whether a body follows the head of a request (RFC 9112, section 6.3).
pub(super) fn announces_body(headers: &HeaderMap) -> bool {
    let has_length = headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    has_length || headers.contains_key(header::TRANSFER_ENCODING)
}

/// The access token of a client that can set headers: `Authorization: Bearer`. Every other scheme may be meant for a proxy. A
/// token in the query of the address would end in the logs of proxies, and is not read.
pub(super) fn access_token(headers: &HeaderMap) -> Option<SecretHash> {
    let (scheme, secret) = single(headers, &header::AUTHORIZATION)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| SecretHash::of(secret.trim()))
}

/// The value of a header that stands there exactly once.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name);
    let value = values.next()?.to_str().ok()?.trim();
    values.next().is_none().then_some(value)
}
