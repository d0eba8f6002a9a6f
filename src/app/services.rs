//! What the two listeners serve.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::body::BoxBody;
use actix_http::{HttpService, Protocol, Request, Response, ServiceConfig};
use actix_rt::net::{ActixStream, TcpStream};
use actix_service::{
    Service, ServiceFactory, ServiceFactoryExt as _, fn_factory, fn_service, map_config,
};
use actix_web::dev::AppConfig;
use actix_web::middleware::from_fn;
use actix_web::{App as Site, web};

use super::listeners::tune;
use crate::web::http::HEAD_TIMEOUT;
use crate::web::ingress::Ingress;
use crate::web::{admin, health, hosts, http, ws};

pub(super) fn public_service(
    ingress: &Arc<Ingress>,
    user_timeout: Duration,
) -> impl ServiceFactory<TcpStream, Config = ()> + use<> {
    let site = Site::new()
        .app_data(web::Data::new(ingress.clone()))
        .service(web::resource("/livez").get(health::livez))
        .service(web::resource("/readyz").get(health::readyz))
        .route(ws::PATH, web::route().to(ws::not_upgrading))
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
/// here, and one over the limit gets no answer.
async fn accept<Site>(
    ingress: Arc<Ingress>,
    user_timeout: Duration,
    config: ServiceConfig,
    site: Rc<Site>,
    socket: TcpStream,
) -> Result<(), Infallible>
where
    Site: Service<Request, Error = actix_web::Error>,
    Site::Response: Into<Response<BoxBody>>,
{
    if let Ok(peer) = socket.peer_addr()
        && let Some(_permit) = ingress.admit(peer.ip())
    {
        tune(&socket, user_timeout);
        let upgrade = |request, framed| ws::upgrade(ingress.clone(), peer.ip(), request, framed);
        http::serve(socket, peer, config, &*site, upgrade).await;
    }
    Ok(())
}

/// Serves operators. `peer` is the client's address; a Unix socket has none.
pub(super) fn admin_service<Io>(
    ingress: &Arc<Ingress>,
    peer: fn(&Io) -> Option<SocketAddr>,
) -> impl ServiceFactory<Io, Config = ()> + use<Io>
where
    Io: ActixStream + 'static,
{
    let site = Site::new()
        .app_data(web::Data::new(ingress.clone()))
        .service(web::resource("/livez").get(health::livez))
        .service(web::resource("/readyz").get(health::readyz))
        .service(web::resource("/healthz").get(health::healthz))
        .service(admin::scope())
        .wrap(from_fn(hosts::own_only));
    let http = HttpService::build()
        .client_request_timeout(HEAD_TIMEOUT)
        .client_disconnect_timeout(Duration::from_secs(1))
        .finish(map_config(site, |()| AppConfig::default()));
    fn_service(move |socket: Io| {
        let peer = peer(&socket);
        async move { Ok((socket, Protocol::Http1, peer)) }
    })
    .and_then(http)
}
