//! The WebSocket's door: path, handshake, Origin, caps; then a session on the raw socket.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use actix_codec::{AsyncRead, AsyncWrite, Framed};
use actix_http::{Request, RequestHead, Response, body::BodySize, h1, ws};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::{FutureExt as _, SinkExt as _};

use super::address::client_address;
use super::connection_counter::{CapReached, Permit};
use super::handshake::{self, HandshakeRejection, validate};
use super::ingress::{Ingress, Opening};
use crate::actors::session::{CoreHandles, Session};
use crate::relay::command::ConnectionId;
use crate::relay::rate_limit::Allowance;
use crate::transport;

/// Where the WebSocket is.
pub const PATH: &str = "/ws";

/// The peer's address, as it was when the connection was accepted.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// A connection that has been let in.
struct Accepted<Io> {
    socket: Io,
    read_ahead: Bytes,
    address: IpAddr,
    opening: Arc<Opening>,
    core: Arc<CoreHandles>,
    /// As a session, and as a socket.
    permits: [Permit; 2],
}

/// Every request that wants to upgrade comes here, with its socket. The session lives on by itself: inside the future
/// that served HTTP it would keep all of that, and be polled through it, for as long as it lasts.
///
/// # Errors
///
/// None: a socket that fails before there is a session concerns nobody else.
pub async fn upgrade<Io>(
    ingress: Arc<Ingress>,
    (request, framed): (Request, Framed<Io, h1::Codec>),
) -> Result<(), actix_http::Error>
where
    Io: AsyncRead + AsyncWrite + Unpin + 'static,
{
    match accept(&ingress, request, framed).await {
        Ok(Some(accepted)) => {
            let allowance = Allowance::new(ingress.plan.clone());
            actix_rt::spawn(session(accepted, ingress.next_connection(), allowance));
        }
        Ok(None) => {}
        Err(failed) => log::debug!("upgrade failed error={failed}"),
    }
    Ok(())
}

/// A connection from its handshake to its end. Nothing is held across it but what it needs.
fn session<Io>(
    accepted: Accepted<Io>,
    id: ConnectionId,
    allowance: Arc<Allowance>,
) -> impl Future<Output = ()>
where
    Io: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let Accepted { socket, read_ahead, address, opening, core, permits } = accepted;
    let limits = opening.transport.clone();
    let connection = transport::connection(socket, read_ahead, limits, move |socket| {
        Session::new(id, address, opening.settings.clone(), core, allowance, socket)
    });
    connection.map(move |ending| {
        log::debug!("connection over connection={} ending={ending:?}", id.0);
        drop(permits);
    })
}

/// Answers the handshake.
async fn accept<Io>(
    ingress: &Ingress,
    request: Request,
    mut framed: Framed<Io, h1::Codec>,
) -> io::Result<Option<Accepted<Io>>>
where
    Io: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let opening = ingress.opening();
    let Some(Peer(peer)) = request.conn_data::<Peer>().copied() else { return Ok(None) };
    let Some(core) = ingress.core().cloned() else { return Ok(None) };
    let address = client_address(peer, &request.head().headers, &opening.proxies);
    let session = match permit(ingress, &opening, request.head(), request.path(), address) {
        Ok(permit) => permit,
        Err(refused) => {
            log::debug!("upgrade refused status={}", refused.status.as_u16());
            refuse(&mut framed, refused).await?;
            return Ok(None);
        }
    };
    let accepted = ws::handshake_response(request.head()).finish().drop_body();
    framed.send(h1::Message::Item((accepted, BodySize::None))).await?;
    let parts = framed.into_parts();
    let read_ahead = parts.read_buf.freeze();
    let permits = [session, ingress.sockets.hold(peer, &opening.most_sockets)];
    Ok(Some(Accepted { socket: parts.io, read_ahead, address, opening, core, permits }))
}

/// What asks for the path but not for an upgrade: never a success.
pub async fn not_upgrading(request: HttpRequest, ingress: web::Data<Arc<Ingress>>) -> HttpResponse {
    let refused = match validate(request.head(), &ingress.opening().origins) {
        Err(refused) => refused,
        Ok(()) => handshake::NOT_HERE,
    };
    let mut response = HttpResponse::build(refused.status);
    if let Some(hint) = refused.hint {
        response.insert_header(hint);
    }
    response.body(refused.sentence)
}

fn permit(
    ingress: &Ingress,
    opening: &Opening,
    head: &RequestHead,
    path: &str,
    address: IpAddr,
) -> Result<Permit, HandshakeRejection> {
    if path != PATH {
        return Err(handshake::NOT_HERE);
    }
    validate(head, &opening.origins)?;
    if ingress.is_draining() {
        return Err(handshake::DRAINING);
    }
    ingress.caps.permit(address, &opening.most).map_err(|refused| match refused {
        CapReached::Full => handshake::FULL,
        CapReached::TooManyFromAddress => handshake::TOO_MANY,
    })
}

/// Answers without upgrading; the connection ends.
async fn refuse<Io>(
    framed: &mut Framed<Io, h1::Codec>,
    refused: HandshakeRejection,
) -> io::Result<()>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
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
