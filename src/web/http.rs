//! HTTP on the public listener: one request for each connection, and a bound for every wait.
//!
//! The dispatcher of `actix_http` is not used here. It serves many requests on one connection, times only the head of the
//! first one and reads bodies that no handler wants, so a client could hold its socket for ever.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use actix_codec::{AsyncRead, AsyncWrite, Framed};
use actix_http::body::{self, BodySize, BoxBody};
use actix_http::error::ParseError;
use actix_http::h1::{Codec, Message, MessageType};
use actix_http::{ConnectionType, Request, Response, ServiceConfig, StatusCode};
use actix_service::Service;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, timeout, timeout_at};

use super::handshake::{HandshakeRejection, announces_body};
use super::ws;

/// How long a client may take from accept to the end of its request's head: for a PROXY header, a TLS handshake and the head
/// together. (threats: half a head and silence)
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a socket may live from accept until it is a WebSocket or closed, whatever the client does.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long input is read and dropped after the answer. A socket that is closed with unread input answers with a reset,
/// and a reset may reach the client before the answer does.
const LINGER: Duration = Duration::from_secs(1);
/// The most input that is dropped in that time, bytes.
const LINGER_BYTES: u64 = 1024 * 1024;

const HEAD_LATE: HandshakeRejection = HandshakeRejection::new(
    StatusCode::REQUEST_TIMEOUT,
    "The head of the request did not arrive in time.\n",
);
const HEAD_TOO_LARGE: HandshakeRejection = HandshakeRejection::new(
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    "The head of the request is too large.\n",
);
const MALFORMED: HandshakeRejection =
    HandshakeRejection::new(StatusCode::BAD_REQUEST, "This is not HTTP/1.1.\n");
const NO_BODY: HandshakeRejection =
    HandshakeRejection::new(StatusCode::BAD_REQUEST, "No request here has a body.\n");

/// The times of a socket that is no WebSocket yet.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// When the head of its request must have come.
    pub head: Instant,
    /// When it must be a WebSocket or closed.
    pub end: Instant,
}

impl Deadlines {
    /// For a socket that is accepted now.
    pub fn from_now() -> Self {
        let now = Instant::now();
        Self { head: now + HEAD_TIMEOUT, end: now + OPENING_TIMEOUT }
    }
}

/// Serves one request: a request to upgrade goes to `upgrade`, any other to `site`. Ends when the connection is closed or
/// `upgrade` has passed it on, at the end of its time at the latest.
pub async fn serve<Io, Site, Upgraded>(
    io: Io,
    peer: SocketAddr,
    due: Deadlines,
    config: ServiceConfig,
    site: &Site,
    upgrade: impl FnOnce(Request, Framed<Io, Codec>) -> Upgraded,
) where
    Io: AsyncRead + AsyncWrite + Unpin,
    Site: Service<Request>,
    Site::Response: Into<Response<BoxBody>>,
    Site::Error: Into<Response<BoxBody>>,
    Upgraded: Future<Output = io::Result<()>>,
{
    let framed = Framed::new(io, Codec::new(config));
    let served = serve_unbounded(framed, peer, due.head, site, upgrade);
    match timeout_at(due.end, served).await {
        Ok(Ok(())) => {}
        Ok(Err(failed)) => log::debug!("a socket failed before it was a WebSocket error={failed}"),
        Err(_) => log::debug!("a socket was closed because its request took too long"),
    }
}

async fn serve_unbounded<Io, Site, Upgraded>(
    mut framed: Framed<Io, Codec>,
    peer: SocketAddr,
    head_due: Instant,
    site: &Site,
    upgrade: impl FnOnce(Request, Framed<Io, Codec>) -> Upgraded,
) -> io::Result<()>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    Site: Service<Request>,
    Site::Response: Into<Response<BoxBody>>,
    Site::Error: Into<Response<BoxBody>>,
    Upgraded: Future<Output = io::Result<()>>,
{
    let mut request = match timeout_at(head_due, framed.next()).await {
        Ok(Some(Ok(Message::Item(request)))) => request,
        // The client has closed before its request was complete.
        Ok(None | Some(Err(ParseError::Io(_)))) => return Ok(()),
        Ok(Some(Err(ParseError::TooLarge))) => return refuse(framed, HEAD_TOO_LARGE).await,
        Ok(Some(_)) => return refuse(framed, MALFORMED).await,
        Err(_) => return refuse(framed, HEAD_LATE).await,
    };
    request.head_mut().peer_addr = Some(peer);
    if framed.codec_ref().message_type() == MessageType::Stream {
        return upgrade(request, framed).await;
    }
    // The endpoint of the WebSocket has more to say about a request that only resembles a handshake.
    if request.path() != ws::PATH && announces_body(request.head().headers()) {
        return refuse(framed, NO_BODY).await;
    }
    let response: Response<BoxBody> = match site.call(request).await {
        Ok(response) => response.into(),
        Err(failed) => failed.into(),
    };
    let (response, body) = response.into_parts();
    let body = body::to_bytes(body).await;
    let body = body.map_err(|failed| io::Error::other(failed.to_string()))?;
    respond(framed, response, body).await
}

/// HTTP on a socket, for [`refuse`].
pub(super) fn framed<Io>(io: Io) -> Framed<Io, Codec>
where
    Io: AsyncRead + AsyncWrite,
{
    Framed::new(io, Codec::new(ServiceConfig::default()))
}

/// [`send_refusal`], with a line in the log.
pub(super) async fn refuse<Io>(
    framed: Framed<Io, Codec>,
    refused: HandshakeRejection,
) -> io::Result<()>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    log::debug!("request refused status={}", refused.status.as_u16());
    refused.count();
    send_refusal(framed, refused).await
}

/// Answers with a refusal and closes the connection.
pub async fn send_refusal<Io>(
    framed: Framed<Io, Codec>,
    refused: HandshakeRejection,
) -> io::Result<()>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let mut response = Response::build(refused.status);
    if let Some(hint) = refused.hint {
        response.insert_header(hint);
    }
    respond(framed, response.finish().drop_body(), refused.sentence.into()).await
}

/// Sends a response and closes the connection. A body of the request stays unread.
async fn respond<Io>(
    mut framed: Framed<Io, Codec>,
    mut response: Response<()>,
    body: Bytes,
) -> io::Result<()>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    response.head_mut().set_connection_type(ConnectionType::Close);
    framed.feed(Message::Item((response, BodySize::Sized(body.len() as u64)))).await?;
    framed.feed(Message::Chunk(Some(body))).await?;
    framed.feed(Message::Chunk(None)).await?;
    // `close` shuts the writing side down, so that the client sees the end of the answer at once. It does not send what `feed` has
    // buffered.
    framed.flush().await?;
    framed.close().await?;
    drop_input(framed.into_parts().io).await;
    Ok(())
}

/// Reads and drops what a client still sends after the last byte to it, for a second at most.
pub(super) async fn drop_input<Io: AsyncRead + Unpin>(io: Io) {
    let mut rest = io.take(LINGER_BYTES);
    // The end of the connection is the aim, so neither its time nor its errors matter.
    let _ = timeout(LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
}

#[cfg(test)]
mod tests {
    use actix_service::fn_service;
    use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    /// Serves a client that sends `request` and whose socket takes `room` bytes, which `read` says whether it reads. The time
    /// that the connection lived.
    async fn lifetime(
        request: &[u8],
        room: usize,
        client: impl AsyncFnOnce(DuplexStream),
    ) -> Duration {
        let (mut peer, io) = duplex(room);
        let site = fn_service(|_| async { Ok::<_, Response<BoxBody>>(Response::ok()) });
        let upgrade = |_, _| async { Ok(()) };
        let started = Instant::now();
        let served = async {
            let peer = SocketAddr::from(([127, 0, 0, 1], 1));
            let due = Deadlines::from_now();
            serve(io, peer, due, ServiceConfig::default(), &site, upgrade).await;
            started.elapsed()
        };
        let client = async {
            let _ = peer.write_all(request).await;
            client(peer).await;
        };
        tokio::join!(served, client).0
    }

    #[actix_rt::test]
    async fn a_client_that_takes_no_answer_is_closed_ten_seconds_after_accept() {
        tokio::time::pause();
        let still_open = async |peer: DuplexStream| {
            tokio::time::sleep(Duration::from_secs(60)).await;
            drop(peer);
        };
        // The client writes its head byte by byte as the relay reads, and reads nothing.
        let lived = lifetime(b"GET /livez HTTP/1.1\r\n\r\n", 1, still_open).await;
        assert_eq!(lived.as_secs(), 10);
    }
}
