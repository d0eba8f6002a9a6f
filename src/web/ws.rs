//! The WebSocket endpoint: path, handshake, Origin and caps; then a session on the raw socket.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use actix_codec::Framed;
use actix_http::{Request, Response, body::BodySize, h1, ws};
use actix_rt::net::TcpStream;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::{FutureExt as _, SinkExt as _};

use super::handshake::{self, HandshakeRejection, validate};
use super::ingress::{InForce, Ingress, connection_caps, socket_caps};
use crate::actors::session::Session;
use crate::client_address::{FORWARDED, client_address};
use crate::relay::rate_limit::Allowance;
use crate::transport;

type Socket = Framed<TcpStream, h1::Codec>;

pub const PATH: &str = "/ws";

/// The peer's address, as it was when the connection was accepted.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Serves a request to upgrade. The session is a task of its own: inside the future that served HTTP the session would keep
/// the memory of that future, and be polled through it, for as long as the connection lasts. A socket that fails before the
/// session starts is no error of the server.
pub async fn upgrade(
    ingress: Arc<Ingress>,
    (request, framed): (Request, Socket),
) -> Result<(), actix_http::Error> {
    if let Err(failed) = accept(&ingress, request, framed).await {
        log::debug!("upgrade failed error={failed}");
    }
    Ok(())
}

/// Answers the handshake, and starts the session.
async fn accept(ingress: &Ingress, request: Request, mut framed: Socket) -> io::Result<()> {
    let InForce { settings, transport: limits } = ingress.in_force();
    let Some(Peer(peer)) = request.conn_data::<Peer>().copied() else { return Ok(()) };
    let Some(core) = ingress.core.get().cloned() else { return Ok(()) };
    let forwarded = request.head().headers.get_all(FORWARDED).map(|line| line.as_bytes());
    let address = client_address(peer, forwarded, &settings.server.trusted_proxies);
    let permit = || {
        if request.path() != PATH {
            return Err(handshake::NOT_HERE);
        }
        validate(request.head(), Some(peer), &settings.server)?;
        if ingress.draining.load(Relaxed) {
            return Err(handshake::DRAINING);
        }
        ingress.connections.permit(address, &connection_caps(&settings))
    };
    let session = match permit() {
        Ok(permit) => permit,
        Err(refused) => {
            ingress.log_refusal(refused);
            return refuse(&mut framed, refused).await;
        }
    };
    let accepted = ws::handshake_response(request.head()).finish().drop_body();
    framed.send(h1::Message::Item((accepted, BodySize::None))).await?;
    let parts = framed.into_parts();
    let read_ahead = parts.read_buf.freeze();
    // One permit counts the session, the other counts the socket.
    let permits = [session, ingress.sockets.transfer(peer, &socket_caps(&settings))];
    let (id, allowance) = (ingress.next_connection(), Allowance::new(ingress.plan.clone()));
    let connection = transport::connection(parts.io, read_ahead, limits, move |socket| {
        Session::new(id, address, settings, core, allowance, socket)
    });
    actix_rt::spawn(connection.map(move |ending| {
        log::debug!("connection over connection={} ending={ending:?}", id.0);
        drop(permits);
    }));
    Ok(())
}

/// Answers a request for the path that does not ask for an upgrade: never a success.
pub async fn not_upgrading(request: HttpRequest, ingress: web::Data<Arc<Ingress>>) -> HttpResponse {
    let peer = request.conn_data::<Peer>().map(|peer| peer.0);
    let settings = ingress.in_force().settings;
    let refused = validate(request.head(), peer, &settings.server).err();
    refused.unwrap_or(handshake::NOT_HERE).response()
}

async fn refuse(framed: &mut Socket, refused: HandshakeRejection) -> io::Result<()> {
    let mut response = Response::build(refused.status);
    response.force_close();
    if let Some(hint) = refused.hint {
        response.insert_header(hint);
    }
    let size = BodySize::Sized(refused.sentence.len() as u64);
    framed.feed(h1::Message::Item((response.finish().drop_body(), size))).await?;
    framed.feed(h1::Message::Chunk(Some(refused.sentence.into()))).await?;
    framed.feed(h1::Message::Chunk(None)).await?;
    framed.flush().await
}
