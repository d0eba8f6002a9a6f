//! The page to try the relay in a browser: where it is served, with which headers, and that it is whole.
//! (tests/demo runs it in a browser)

use std::net::SocketAddr;

use sealpost::settings::Demo;
use sealpost::web::demo::FILES;
use tokio::io::AsyncReadExt as _;

use crate::support::http::{Answer, ask, connect_tcp, get};
use crate::support::peer::soon;
use crate::support::{RawClient, Relay};

/// What the whole page may weigh, bytes.
const WEIGHT: usize = 60 * 1024;

fn text_of(path: &str) -> String {
    let file = FILES.iter().find(|file| file.path == path).expect("a file of the page");
    String::from_utf8(file.body.to_vec()).expect("UTF-8")
}

async fn request(relay: SocketAddr, method: &str, path: &str) -> Answer {
    ask(relay, format!("{method} {path} HTTP/1.1\r\nHost: {relay}\r\n\r\n").as_bytes()).await
}

#[actix_rt::test]
async fn every_file_of_the_page_is_served_with_its_type_and_under_a_strict_policy() {
    let relay = Relay::start();
    for file in &FILES {
        let answer = get(relay.public, file.path).await;
        assert_eq!((answer.status, answer.body.as_bytes()), (200, file.body), "{}", file.path);
        let content_type = match file.path.rsplit_once('.') {
            Some((_, "js")) => "text/javascript; charset=utf-8",
            Some((_, "css")) => "text/css; charset=utf-8",
            Some((_, "svg")) => "image/svg+xml",
            _ => "text/html; charset=utf-8",
        };
        for (name, value) in [
            ("Content-Type", content_type),
            ("Cache-Control", "no-cache"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{}", file.path);
        }
        let policy = answer.header("Content-Security-Policy").expect("a policy");
        let rules: Vec<&str> = policy.split(';').map(str::trim).collect();
        for rule in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"] {
            assert!(rules.contains(&rule), "{rule} in {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    }
}

#[actix_rt::test]
async fn a_head_request_gets_the_head_alone_and_other_methods_are_refused() {
    let relay = Relay::start();
    let mut stream = connect_tcp(relay.public, None, None).await;
    let head = format!("HEAD / HTTP/1.1\r\nHost: {}\r\n\r\n", relay.public);
    soon("sending", tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()))
        .await
        .expect("sent");
    let mut answer = String::new();
    soon("the end", stream.read_to_string(&mut answer)).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    let length = format!("content-length: {}\r\n", text_of("/").len());
    assert!(answer.contains(&length), "{answer}");
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = request(relay.public, method, "/").await;
        assert_eq!((answer.status, answer.header("Allow")), (405, Some("GET, HEAD")), "{method}");
    }
    let with_body =
        format!("GET / HTTP/1.1\r\nHost: {}\r\nContent-Length: 2\r\n\r\nhi", relay.public);
    assert_eq!(ask(relay.public, with_body.as_bytes()).await.status, 400);
}

#[actix_rt::test]
async fn where_the_page_is_off_its_paths_do_not_exist() {
    let relay = Relay::with(|settings| settings.server.demo = Demo::Off);
    let nowhere = get(relay.public, "/elsewhere").await;
    for file in &FILES {
        for method in ["GET", "POST"] {
            let answer = request(relay.public, method, file.path).await;
            assert_eq!((answer.status, answer.body), (404, nowhere.body.clone()), "{}", file.path);
        }
    }
    assert_eq!(get(relay.admin, "/").await.status, 404);
    let _client = RawClient::plain(relay.public).await;

    let mut settings = relay.settings.clone();
    settings.server.demo = Demo::Auto;
    relay.reload_handle.reload(&settings);
    assert_eq!(get(relay.public, "/").await.status, 200);
    assert_eq!(get(relay.admin, "/").await.status, 404, "operators have no page");
    settings.server.trusted_proxies = vec!["192.0.2.1/32".parse().expect("a network")];
    relay.reload_handle.reload(&settings);
    assert_eq!(get(relay.public, "/").await.status, 404, "a proxy makes the relay public");
}

#[actix_rt::test]
async fn by_itself_the_page_is_off_on_an_address_that_others_can_reach() {
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let relay = Relay::with(|settings| settings.server.listen = everywhere);
    let here = SocketAddr::from(([127, 0, 0, 1], relay.public.port()));
    assert_eq!(get(here, "/").await.status, 404);
    assert_eq!(get(here, "/livez").await.status, 200);
}

#[test]
fn the_page_keeps_to_its_weight() {
    let weight: usize = FILES.iter().map(|file| file.body.len()).sum();
    assert!(weight <= WEIGHT, "{weight} bytes, {WEIGHT} at most");
}

/// The policy would refuse inline scripts and styles, and a file that is not there would be a blank page.
#[test]
fn the_page_names_only_files_that_are_served_and_has_nothing_inline() {
    let page = text_of("/");
    let named: Vec<&str> = ["src=\"", "href=\""]
        .iter()
        .flat_map(|attribute| page.split(attribute).skip(1))
        .filter_map(|rest| rest.split('"').next())
        .filter(|path| path.starts_with("/demo/"))
        .collect();
    assert!(named.len() >= 3, "{named:?}");
    let mut imported: Vec<String> = Vec::new();
    for file in FILES.iter().filter(|file| file.path.ends_with(".js")) {
        let text = text_of(file.path);
        let imports = text.split(" from \"./").skip(1).filter_map(|rest| rest.split('"').next());
        imported.extend(imports.map(|name| format!("/demo/{name}")));
    }
    for path in named.into_iter().map(str::to_owned).chain(imported) {
        assert!(FILES.iter().any(|file| file.path == path), "{path} is not served");
    }
    assert!(!page.contains("<style") && !page.contains("style=\""), "an inline style");
    let handlers = page.split(" on").skip(1).filter(|rest| {
        let name_ends = rest.find(|letter: char| !letter.is_ascii_lowercase());
        name_ends.is_some_and(|end| rest[end..].starts_with('='))
    });
    assert!(!page.contains("<script>") && handlers.count() == 0, "an inline script");
}
