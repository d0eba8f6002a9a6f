//! What the two listeners serve.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_codec::{AsyncRead, AsyncWrite};
use actix_http::body::BoxBody;
use actix_http::{HttpService, Protocol, Request, Response, ServiceConfig};
use actix_rt::net::{ActixStream, TcpStream};
use actix_service::{Service, ServiceFactory, fn_factory, fn_service, map_config};
use actix_web::dev::AppConfig;
use actix_web::middleware::from_fn;
use actix_web::{App as Site, web};

use super::listeners::tune;
use crate::client_log::{Details, Incident};
use crate::web::http::{Deadlines, HEAD_TIMEOUT};
use crate::web::ingress::Ingress;
use crate::web::ws::Client;
use crate::web::{admin, demo, health, hosts, http, metrics, proxy_protocol, ws};

pub(super) fn public_service(
    ingress: &Arc<Ingress>,
    user_timeout: Duration,
) -> impl ServiceFactory<TcpStream, Config = ()> + use<> {
    let site = Site::new()
        .app_data(web::Data::new(ingress.clone()))
        .service(web::resource("/livez").get(health::livez))
        .service(web::resource("/readyz").get(health::readyz))
        .route(ws::PATH, web::route().to(ws::not_upgrading))
        .configure(demo::configure)
        .wrap(from_fn(hosts::well_formed));
    let site = map_config(site, |()| AppConfig::default());
    let (ingress, config) = (ingress.clone(), ServiceConfig::default());
    fn_factory(move || {
        let (ingress, config, site) = (ingress.clone(), config.clone(), site.new_service(()));
        async move {
            let site = Rc::new(site.await?);
            Ok::<_, ()>(fn_service(move |socket| {
                accept(ingress.clone(), user_timeout, config.clone(), site.clone(), socket)
            }))
        }
    })
}

/// Serves a socket that was just accepted until it is a WebSocket or closed. Sockets that never become a session are counted
/// here, and one over the limit gets no answer. A PROXY header comes first, then TLS.
async fn accept<Site>(
    ingress: Arc<Ingress>,
    user_timeout: Duration,
    config: ServiceConfig,
    site: Rc<Site>,
    mut socket: TcpStream,
) -> Result<(), Infallible>
where
    Site: Service<Request, Error = actix_web::Error>,
    Site::Response: Into<Response<BoxBody>>,
{
    if let Ok(peer) = socket.peer_addr()
        && let Some(mut permit) = ingress.admit(peer.ip())
    {
        tune(&socket, user_timeout);
        let due = Deadlines::from_now();
        let mut client = Client { address: peer, may_forward: true };
        if ingress.expects_proxy_header(peer.ip()) {
            client = match proxy_protocol::read_client(&mut socket, due).await {
                Ok(Some(address)) => Client { address, may_forward: true },
                // What such a proxy passes on is its client's word alone.
                Ok(None) => Client { address: peer, may_forward: false },
                Err(refused) => {
                    let details = || {
                        Details::of(peer.ip()).because(format_args!("PROXY protocol: {refused}"))
                    };
                    ingress.log.report(Incident::BadRequest, details);
                    return Ok(());
                }
            };
            // A client behind a proxy has the caps of its own address.
            drop(permit);
            let Some(of_client) = ingress.admit(client.address.ip()) else { return Ok(()) };
            permit = of_client;
        }
        match &ingress.tls {
            None => serve(&ingress, client, due, config, &*site, socket).await,
            // In a box, so that a plain connection does not carry the room for it.
            Some(tls) => {
                Box::pin(async {
                    let log = |failed: &dyn fmt::Display| {
                        let details = || Details::of(client.address.ip()).because(failed);
                        ingress.log.report(Incident::TlsFailed, details);
                    };
                    if let Some(stream) = tls.accept(socket, due, log).await {
                        serve(&ingress, client, due, config, &*site, stream).await;
                    }
                })
                .await;
            }
        }
        drop(permit);
    }
    Ok(())
}

async fn serve<Io, Site>(
    ingress: &Arc<Ingress>,
    client: Client,
    due: Deadlines,
    config: ServiceConfig,
    site: &Site,
    io: Io,
) where
    Io: AsyncRead + AsyncWrite + Unpin + 'static,
    Site: Service<Request, Error = actix_web::Error>,
    Site::Response: Into<Response<BoxBody>>,
{
    let upgrade = |request, framed| ws::upgrade(ingress.clone(), client, request, framed);
    http::serve(io, client.address, due, config, site, upgrade).await;
}

/// Serves operators. `peer` is the client's address; a Unix socket has none. A client whose address is not known any more is
/// gone, and no request of its is served.
pub(super) fn admin_service<Io>(
    ingress: &Arc<Ingress>,
    peer: fn(&Io) -> io::Result<Option<SocketAddr>>,
) -> impl ServiceFactory<Io, Config = ()> + use<Io>
where
    Io: ActixStream + 'static,
{
    let site = Site::new()
        .app_data(web::Data::new(ingress.clone()))
        .service(web::resource("/livez").get(health::livez))
        .service(web::resource("/readyz").get(health::readyz))
        .service(web::resource("/healthz").get(health::healthz))
        .service(web::resource("/metrics").get(metrics::get))
        .service(admin::scope())
        .wrap(from_fn(hosts::own_only));
    let http = HttpService::build()
        .client_request_timeout(HEAD_TIMEOUT)
        .client_disconnect_timeout(Duration::from_secs(1))
        .finish(map_config(site, |()| AppConfig::default()));
    let (http, ingress) = (Rc::new(http), ingress.clone());
    fn_factory(move || {
        let (http, ingress) = (http.clone(), ingress.clone());
        async move {
            let http = Rc::new(http.new_service(()).await?);
            Ok::<_, ()>(fn_service(move |socket: Io| {
                let (http, ingress) = (http.clone(), ingress.clone());
                async move {
                    if let Ok(peer) = peer(&socket)
                        && let Some(_permit) = ingress.admit_operator()
                    {
                        // How a connection of an operator ends concerns nobody.
                        let _ = http.call((socket, Protocol::Http1, peer)).await;
                    }
                    Ok::<_, Infallible>(())
                }
            }))
        }
    })
}
