//! Who may look and act: this machine, or who has the operator's token.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actix_http::StatusCode;
use actix_http::header::{self, HeaderMap};
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::{JsonPayloadError, QueryPayloadError};
use actix_web::middleware::Next;
use actix_web::{Error, HttpRequest, HttpResponse, ResponseError, web};
use serde::Serialize;

use super::token::AdminToken;
use crate::client_log::{Details, Incident};
use crate::web::handshake::single;
use crate::web::ingress::Ingress;

/// How long the core may take to answer a slice of a question.
const CORE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a request of an operator is not served; the body of the answer.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Refused {
    #[serde(skip)]
    pub status: StatusCode,
    /// One sentence.
    pub error: &'static str,
}

const NO_PAGE: Refused = Refused {
    status: StatusCode::FORBIDDEN,
    error: "Pages may not do this: a browser's Origin was sent.",
};
const WRONG_TOKEN: Refused = Refused {
    status: StatusCode::UNAUTHORIZED,
    error: "The token of server.admin_token_file is needed: Authorization: Bearer TOKEN.",
};
const FROM_OUTSIDE: Refused = Refused {
    status: StatusCode::FORBIDDEN,
    error: "Without server.admin_token_file only this machine may do this.",
};

pub const NOT_FOUND: Refused = Refused {
    status: StatusCode::NOT_FOUND,
    error: "No such device: it never registered, has unregistered, or was away for too long.",
};
pub const NOT_READY: Refused =
    Refused { status: StatusCode::SERVICE_UNAVAILABLE, error: "The relay is starting." };
pub const NO_ANSWER: Refused = Refused {
    status: StatusCode::SERVICE_UNAVAILABLE,
    error: "The core of the relay does not answer.",
};

/// The answer of a core actor.
pub async fn ask<T>(
    asked: impl Future<Output = Result<T, actix::MailboxError>>,
) -> Result<T, Refused> {
    let answer = tokio::time::timeout(CORE_TIMEOUT, asked).await;
    answer.ok().and_then(Result::ok).ok_or(NO_ANSWER)
}

pub(super) fn bad_json(_: JsonPayloadError, _: &HttpRequest) -> Error {
    Refused::bad("the body is not the JSON that this request needs").into()
}

pub(super) fn bad_query(_: QueryPayloadError, _: &HttpRequest) -> Error {
    Refused::bad("the query is not understood").into()
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.error)
    }
}

impl ResponseError for Refused {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        self.response()
    }
}

impl Refused {
    /// 400, with a sentence.
    pub const fn bad(error: &'static str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error }
    }

    pub fn response(self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        response.json(self)
    }
}

/// Serves clients on a Unix socket, whose file says who may connect; over TCP clients with the token, and where there is no
/// token clients on this machine. A page in a browser is no operator: any site may send requests to this machine.
pub async fn operators_only(
    ingress: web::Data<Arc<Ingress>>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse, Error> {
    let is_local = request.peer_addr().is_none_or(|peer| peer.ip().to_canonical().is_loopback());
    let is_socket = request.peer_addr().is_none();
    let token = if is_socket { None } else { ingress.admin_token() };
    match check(request.headers(), is_local, token) {
        Ok(()) => Ok(next.call(request).await?.map_into_boxed_body()),
        Err(refused) => {
            let address = request.peer_addr().map(|peer| peer.ip());
            ingress.log.report(Incident::OperatorRefused, || {
                Details { address, ..Details::default() }.because(refused.error)
            });
            Ok(request.into_response(refused.response()))
        }
    }
}

fn check(headers: &HeaderMap, is_local: bool, token: Option<AdminToken>) -> Result<(), Refused> {
    if headers.contains_key(header::ORIGIN) {
        return Err(NO_PAGE);
    }
    let Some(token) = token else {
        return if is_local { Ok(()) } else { Err(FROM_OUTSIDE) };
    };
    let has_token =
        single(headers, &header::AUTHORIZATION).is_some_and(|value| token.is_in(value.as_bytes()));
    if has_token { Ok(()) } else { Err(WRONG_TOKEN) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_need_a_token_even_where_there_is_none() {
        let headers = HeaderMap::new();
        assert!(check(&headers, true, None).is_ok());
        let refused = check(&headers, false, None).unwrap_err();
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
    }
}
