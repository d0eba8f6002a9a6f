//! Who may look and act: this machine, or who has the operator's token.

use std::sync::Arc;

use actix_http::StatusCode;
use actix_http::header::{self, HeaderMap};
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::{Error, HttpResponse, web};
use serde::Serialize;

use super::token::AdminToken;
use crate::web::handshake::single;
use crate::web::ingress::Ingress;

/// Why a request of an operator is not served; the body of the answer.
#[derive(Debug, Serialize)]
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

impl Refused {
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
            ingress.log_refused_operator(refused.error);
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
