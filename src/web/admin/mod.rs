//! What operators ask the relay, and make it do: JSON below `/admin` of the admin listener.
//!
//! `sealpost status` and the other commands are its clients. No answer has a payload or a token in it.

pub mod backup;
mod entry;
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
        .service(web::resource("/status").get(status::get))
        .service(web::resource("/backup").post(backup::post))
        .wrap(from_fn(entry::operators_only))
}
