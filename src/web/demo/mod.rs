//! A page with two devices side by side, to try the relay in a browser. All of it is part of the binary.
//!
//! The page is static and knows no more than any client: it connects to `/ws` of its own origin. `page/sealpost.js` is the bundle of
//! `clients/typescript`, committed so that the relay is built without Node: `tests/demo/update-client` makes and checks it.

use std::sync::Arc;

use actix_http::Method;
use actix_http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use actix_web::{HttpResponse, web};

use super::ingress::Ingress;

/// The page may load its own files and connect to its own origin, which includes the WebSocket (CSP 3, section 6.7.2.8), and
/// nothing else: no inline script or style, no frame around it, no form that leaves it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// A file of the page.
pub struct File {
    pub path: &'static str,
    content_type: &'static str,
    pub body: &'static [u8],
}

const fn file(path: &'static str, content_type: &'static str, body: &'static [u8]) -> File {
    File { path, content_type, body }
}

pub static FILES: [File; 9] = [
    file("/", HTML, include_bytes!("page/index.html")),
    file("/demo/style.css", CSS, include_bytes!("page/style.css")),
    file("/demo/icon.svg", SVG, include_bytes!("page/icon.svg")),
    file("/demo/demo.js", SCRIPT, include_bytes!("page/demo.js")),
    file("/demo/device.js", SCRIPT, include_bytes!("page/device.js")),
    file("/demo/keys.js", SCRIPT, include_bytes!("page/keys.js")),
    file("/demo/pane.js", SCRIPT, include_bytes!("page/pane.js")),
    file("/demo/wire.js", SCRIPT, include_bytes!("page/wire.js")),
    file("/demo/sealpost.js", SCRIPT, include_bytes!("page/sealpost.js")),
];

/// Serves each file at its path, by one handler for all methods: while the page is off, its paths do not exist.
pub fn configure(site: &mut web::ServiceConfig) {
    for file in &FILES {
        let answer = move |method: Method, ingress: web::Data<Arc<Ingress>>| async move {
            file.answer(&method, ingress.shows_demo())
        };
        site.route(file.path, web::route().to(answer));
    }
}

impl File {
    fn answer(&self, method: &Method, is_shown: bool) -> HttpResponse {
        if !is_shown {
            return HttpResponse::NotFound().finish();
        }
        if method != Method::GET && method != Method::HEAD {
            return HttpResponse::MethodNotAllowed()
                .insert_header((ALLOW, "GET, HEAD"))
                .body("The page is read by GET.\n");
        }
        // The codec leaves the body out of an answer to HEAD.
        HttpResponse::Ok()
            .insert_header((CONTENT_TYPE, self.content_type))
            // A relay of another version may be started at the same address.
            .insert_header((CACHE_CONTROL, "no-cache"))
            .insert_header((CONTENT_SECURITY_POLICY, POLICY))
            .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .insert_header((REFERRER_POLICY, "no-referrer"))
            .insert_header(("Cross-Origin-Opener-Policy", "same-origin"))
            .insert_header(("Cross-Origin-Resource-Policy", "same-origin"))
            .body(self.body)
    }
}
