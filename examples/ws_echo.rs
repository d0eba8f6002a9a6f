//! An echo server on the relay's own transport, for the conformance suite and for trying things out.
//!
//! `cargo run --example ws_echo -- 127.0.0.1:9001`

use std::{env, io, time::Duration};

use actix::{Actor, StreamHandler};
use actix_codec::Framed;
use actix_http::{
    HttpService, Request, Response, StatusCode,
    body::BodySize,
    h1,
    ws::{self, Message, ProtocolError},
};
use actix_rt::net::TcpStream;
use actix_service::fn_service;
use actix_web_actors::ws::WebsocketContext;
use bytes::Bytes;
use futures_util::SinkExt as _;
use sealpost::transport::{Event, Incoming, Limits, WebSocketWriter, connection};

/// The suite's longest message, bytes.
const LONGEST: usize = 16 * 1024 * 1024;

struct Echo {
    writer: WebSocketWriter,
}

impl Actor for Echo {
    type Context = WebsocketContext<Self>;
}

/// `WebsocketContext` requires it, for a stream of its own that never yields.
impl StreamHandler<Result<Message, ProtocolError>> for Echo {
    fn handle(&mut self, _: Result<Message, ProtocolError>, _: &mut Self::Context) {}
}

impl StreamHandler<Event> for Echo {
    fn handle(&mut self, event: Event, ctx: &mut Self::Context) {
        match event {
            Event::Incoming(Incoming::Text(text)) => self.writer.text(text),
            Event::Incoming(Incoming::Binary(bytes)) => self.writer.binary(bytes),
            Event::Incoming(Incoming::Ping | Incoming::Pong(_)) => {}
            Event::HeartbeatDue { quiet: true } => self.writer.ping(b""),
            Event::IdleTimeout => self.writer.close(1001, "silent for too long", ctx),
            Event::HeartbeatDue { quiet: false } | Event::ReadComplete => {}
        }
    }
}

type Upgrade = (Request, Framed<TcpStream, h1::Codec>);

/// Answers the handshake; the socket and what was read behind the request, if the answer was yes.
/// The request and the HTTP codec end here: kept for the session's life they would cost more memory
/// than the session does.
async fn agree(
    (request, mut framed): Upgrade,
) -> Result<Option<(TcpStream, Bytes)>, actix_http::Error> {
    let (response, agreed) = match ws::handshake(request.head()) {
        Ok(mut response) => (response.finish().drop_body(), true),
        Err(refusal) => (Response::from(refusal).drop_body(), false),
    };
    let answer = framed.send((response, BodySize::None).into()).await;
    answer.map_err(ProtocolError::Io)?;
    let parts = framed.into_parts();
    parts.io.set_nodelay(true).map_err(ProtocolError::Io)?;
    Ok(agreed.then(|| (parts.io, parts.read_buf.freeze())))
}

async fn upgrade(upgrade: Upgrade) -> Result<(), actix_http::Error> {
    let Some((io, read_ahead)) = Box::pin(agree(upgrade)).await? else {
        return Ok(());
    };
    let limits = Limits {
        message_bytes: LONGEST,
        fragments: u32::MAX,
        frame_timeout: Duration::from_secs(60),
        outbound_max: 2 * LONGEST,
        ..Limits::default()
    };
    let ending =
        connection(io, read_ahead, limits, |handle| Echo { writer: WebSocketWriter::new(handle) })
            .await;
    log::info!("session ended ending={ending:?}");
    Ok(())
}

#[actix_rt::main]
async fn main() -> io::Result<()> {
    env_logger::init();
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    actix_server::Server::build()
        .workers(1)
        .bind("echo", address, || {
            HttpService::build()
                .upgrade(fn_service(upgrade))
                .finish(fn_service(|_: Request| async {
                    Ok::<_, actix_http::Error>(Response::new(StatusCode::UPGRADE_REQUIRED))
                }))
                .tcp()
        })?
        .run()
        .await
}
