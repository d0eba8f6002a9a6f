//! The WebSocket endpoint: path, handshake, Origin and caps; then a session on the raw socket.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use actix_codec::{AsyncRead, AsyncWrite, Framed};
use actix_http::{Request, h1, header, ws};
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::{FutureExt as _, SinkExt as _};

use super::handshake::{self, single, validate};
use super::http;
use super::ingress::{InForce, Ingress, connection_caps, socket_caps};
use crate::actors::session::Session;
use crate::client_address::{FORWARDED, client_address};
use crate::metrics::worker::count;
use crate::relay::rate_limit::Allowance;
use crate::transport::{self, CloseOutcome};

/// Who is at the other end of a socket.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    pub address: SocketAddr,
    /// Its `X-Forwarded-For` counts if it is a trusted proxy.
    pub may_forward: bool,
}

pub const PATH: &str = "/ws";

/// Answers a request to upgrade, and starts the session. The session is a task of its own: inside the future that served
/// HTTP the session would keep the memory of that future, and be polled through it, for as long as the connection lasts.
pub async fn upgrade<Io>(
    ingress: Arc<Ingress>,
    client: Client,
    request: Request,
    mut framed: Framed<Io, h1::Codec>,
) -> io::Result<()>
where
    Io: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let InForce { settings, transport: limits } = ingress.in_force();
    let Some(core) = ingress.core.get().cloned() else { return Ok(()) };
    let peer = client.address.ip();
    let forwarded = request.head().headers.get_all(FORWARDED).map(|line| line.as_bytes());
    let forwarded = forwarded.filter(|_| client.may_forward);
    let address = client_address(peer, forwarded, &settings.server.trusted_proxies);
    let permit = || {
        if request.path() != PATH {
            return Err(handshake::NOT_HERE);
        }
        validate(request.head(), Some(peer), &settings.server)?;
        // A session is closed with 1001 at once, which is no refusal: with an inherited socket a restart refuses nobody.
        if ingress.draining.load(Relaxed) && !ingress.socket_is_inherited.load(Relaxed) {
            return Err(handshake::DRAINING);
        }
        ingress.connections.permit(address, &connection_caps(&settings))
    };
    let session = match permit() {
        Ok(permit) => permit,
        Err(refused) => {
            let origin = single(request.head().headers(), &header::ORIGIN);
            ingress.log_refusal(refused, Some(address), origin);
            return http::send_refusal(framed, refused).await;
        }
    };
    let mut parts = framed.into_parts();
    parts.write_buf.extend_from_slice(accepted(&request).as_bytes());
    framed = Framed::from_parts(parts);
    framed.flush().await?;
    let parts = framed.into_parts();
    let read_ahead = parts.read_buf.freeze();
    // One permit counts the session, the other counts the socket.
    let permits = [session, ingress.sockets.transfer(peer, &socket_caps(&settings))];
    let access = handshake::access_token(request.head().headers());
    let (id, allowance) = (ingress.next_connection(), Allowance::new(ingress.plan.clone()));
    let connection = transport::connection(parts.io, read_ahead, limits, move |socket| {
        Session::new(id, address, settings, core, allowance, access, socket)
    });
    actix_rt::spawn(connection.map(move |ending| {
        count(|metrics| metrics.closed.increase_of(name(ending)));
        log::debug!(connection = id.0, ending:?; "connection over");
        drop(permits);
    }));
    Ok(())
}

/// Answers a request for the path that does not ask for an upgrade: never a success.
pub async fn not_upgrading(request: HttpRequest, ingress: web::Data<Arc<Ingress>>) -> HttpResponse {
    let peer = request.peer_addr().map(|peer| peer.ip());
    let settings = ingress.in_force().settings;
    let refused = validate(request.head(), peer, &settings.server).err();
    let refused = refused.unwrap_or(handshake::NOT_HERE);
    let origin = single(request.head().headers(), &header::ORIGIN);
    ingress.log_refusal(refused, peer, origin);
    refused.response()
}

/// How a connection ended, for a metric: a code that a client made up is `other`.
fn name(ending: CloseOutcome) -> &'static str {
    match ending {
        CloseOutcome::Closed(code) => match code {
            1000 => "1000",
            1001 => "1001",
            1002 => "1002",
            1003 => "1003",
            1005 => "1005",
            1007 => "1007",
            1008 => "1008",
            1009 => "1009",
            1011 => "1011",
            1012 => "1012",
            1013 => "1013",
            4401 => "4401",
            4403 => "4403",
            4408 => "4408",
            4409 => "4409",
            _ => "other",
        },
        CloseOutcome::Gone => "gone",
        CloseOutcome::Stalled => "stalled",
        CloseOutcome::Panicked => "1011",
    }
}

/// The response that accepts a handshake. The names of its headers are spelt as in RFC 6455, section 4.2.2: the encoder of
/// `actix_http` writes small letters, and some embedded clients compare bytes.
fn accepted(request: &Request) -> String {
    // The key has been validated.
    let key = request.head().headers().get(header::SEC_WEBSOCKET_KEY);
    let hash = ws::hash_key(key.map_or(&[], |key| key.as_bytes().trim_ascii()));
    let hash = str::from_utf8(&hash).unwrap_or_default();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {hash}\r\n\r\n"
    )
}
