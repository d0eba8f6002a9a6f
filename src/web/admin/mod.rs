//! What operators ask the relay, and make it do: JSON below `/admin` of the admin listener.
//!
//! `sealpost status` and the other commands are its clients. No answer but a backup has a payload in it, and none a token.

mod access;
pub mod backup;
mod devices;
mod drain;
pub(super) mod entry;
mod queue;
mod status;
pub mod token;

use actix_web::dev::{ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::middleware::from_fn;
use actix_web::{Error, Scope, web};

/// Everything below `/admin`.
pub fn scope() -> Scope<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse,
        Error = Error,
        InitError = (),
    >,
> {
    web::scope("/admin")
        .app_data(web::JsonConfig::default().error_handler(entry::bad_json))
        .app_data(web::QueryConfig::default().error_handler(entry::bad_query))
        .service(web::resource("/status").get(status::get))
        .service(web::resource("/devices").get(devices::list))
        .service(web::resource("/devices/{id}").get(devices::show))
        .service(web::resource("/devices/{id}/{action}").post(devices::act))
        .service(web::resource("/queue/top").get(queue::top))
        .service(web::resource("/queue/drop").post(queue::drop_held))
        .service(web::resource("/drain").post(drain::post))
        .service(web::resource("/backup").post(backup::post))
        .service(web::resource("/access/{name}/end-devices").post(access::end_devices))
        .wrap(from_fn(entry::operators_only))
}
