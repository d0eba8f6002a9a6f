//! The examples of ops/proxy as they are, with other ports and paths: each proxy is started in front of a relay, and devices
//! talk through it over TLS. A proxy that is not installed is skipped.

mod support;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use support::{Binary, eventually, skip};
use tempfile::TempDir;

/// What a device does, and what the relay must see of it, with at most three connections for each address.
const SCENARIO: &str = r#"
import sys
from device import Device, Refused

port, ca = int(sys.argv[1]), sys.argv[2]

def device(host, register, *headers):
    at = ("127.0.0.1", port)
    return Device("wss://relay.example.org/ws", register, ca=ca, at=at, source=f"127.0.0.{host}", headers=headers)

alice, bob = device(5, {}), device(6, {"resumable": True})
alice.send({"type": "Send", "payload": {
    "recipient_id": bob.id, "sender_id": alice.id, "encrypted_data": "x" * 60000,
    "message_id": "11111111-1111-4111-8111-111111111111"}})
alice.receive("Ack")
assert bob.receive("Receive")["encrypted_data"] == "x" * 60000

# The relay counts the address of the client, and not one that the client makes up.
more = [device(5, {}), device(5, {})]
for headers in [(), ("X-Forwarded-For: 192.0.2.1",)]:
    try:
        device(5, {}, *headers)
    except Refused as refused:
        assert " 503 " in str(refused) or " 429 " in str(refused), refused
    else:
        sys.exit(f"a fourth connection with {headers}")
assert device(6, {}).id
print("as expected")
"#;

fn ops(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ops/proxy").join(file)
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_installed(program: &str, version: &str) -> bool {
    let asked = Command::new(program).arg(version).output();
    let is_installed = asked.is_ok_and(|answer| answer.status.success());
    if !is_installed {
        skip(&format!("{program} is not installed"));
    }
    is_installed
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// A relay and its certificate, in a directory for the proxy.
struct Place {
    directory: TempDir,
    relay: Binary,
    port: u16,
}

impl Place {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let relay = Binary::with(&[
            ("SERVER__TRUSTED_PROXIES", "127.0.0.1/32"),
            ("SERVER__HOSTS", "relay.example.org"),
            ("LIMITS__CONNECTIONS_PER_ADDRESS", "3"),
        ])
        .await;
        let place = Self { directory, relay, port: free_port() };
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-nodes", "-days", "2", "-subj", "/CN=relay.example.org"])
            .args(["-addext", "subjectAltName=DNS:relay.example.org"])
            .arg("-keyout")
            .arg(place.path("key.pem"))
            .arg("-out")
            .arg(place.path("fullchain.pem"))
            .output()
            .expect("openssl");
        assert!(made.status.success(), "{made:?}");
        let [chain, key] = ["fullchain.pem", "key.pem"]
            .map(|file| fs::read_to_string(place.path(file)).expect("a certificate"));
        fs::write(place.path("relay.pem"), chain + &key).expect("room");
        place
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// Copies an example, with these replacements besides the address of the relay and the path of the certificate. Each
    /// must be there.
    fn write(&self, example: &str, replacements: &[(&str, &str)]) -> PathBuf {
        let mut text = fs::read_to_string(ops(example)).expect("an example");
        let directory = self.directory.path().to_str().expect("text");
        let relay = self.relay.public.to_string();
        let common = [("127.0.0.1:8080", relay.as_str()), ("/etc/ssl/sealpost", directory)];
        for (from, to) in common.iter().chain(replacements) {
            assert!(text.contains(from), "{example} has no {from}");
            text = text.replace(from, to);
        }
        let path = self.path(example);
        fs::write(&path, text).expect("room");
        path
    }

    /// Starts a proxy and lets devices talk through it.
    async fn talk_through(&mut self, mut proxy: Command) {
        let log = fs::File::create(self.path("proxy.log")).expect("room");
        proxy.current_dir(self.directory.path()).stdin(Stdio::null());
        proxy.stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let mut running = Running(proxy.spawn().expect("it starts"));
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        eventually("the proxy", async || {
            let ended = running.0.try_wait().expect("a child");
            assert!(ended.is_none(), "{ended:?}\n{}", self.log());
            tokio::net::TcpStream::connect(address).await.is_ok()
        })
        .await;
        let mut devices = Command::new("python3");
        devices.args(["-c", SCENARIO, &self.port.to_string()]).arg(self.path("fullchain.pem"));
        devices.env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/scripts"));
        let devices = tokio::process::Command::from(devices).kill_on_drop(true).output();
        let devices = tokio::time::timeout(support::PATIENCE, devices).await.expect("in time");
        let devices = devices.expect("python3");
        let (out, err) =
            (String::from_utf8_lossy(&devices.stdout), String::from_utf8_lossy(&devices.stderr));
        assert!(out == "as expected\n", "{out}{err}\n{}", self.log());
        self.relay.stop().await;
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("proxy.log")).unwrap_or_default()
    }
}

#[tokio::test]
async fn devices_talk_through_nginx() {
    if !is_installed("nginx", "-v") {
        return;
    }
    let mut place = Place::new().await;
    let listen = format!("listen 127.0.0.1:{} ssl;", place.port);
    let site = place.write("nginx.conf", &[("listen 443 ssl;", &listen)]);
    // What the package of nginx has around a site.
    let main = format!(
        "daemon off; master_process off; pid {directory}/nginx.pid; error_log stderr; events {{}}\n\
         http {{ access_log off; client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;\n\
         fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;\n\
         include {site}; }}",
        directory = place.directory.path().display(),
        site = site.display(),
    );
    fs::write(place.path("main.conf"), main).expect("room");
    let mut nginx = Command::new("nginx");
    nginx.args(["-e", "stderr", "-c"]).arg(place.path("main.conf"));
    place.talk_through(nginx).await;
}

#[tokio::test]
async fn devices_talk_through_caddy() {
    if !is_installed("caddy", "version") {
        return;
    }
    let mut place = Place::new().await;
    let (http, https) = (free_port(), format!("https_port {}", place.port));
    let http = format!("http_port {http}\n\tdefault_bind 127.0.0.1");
    let admin = format!("unix/{}/admin.sock", place.directory.path().display());
    let replacements = [
        ("http_port 80", http.as_str()),
        ("https_port 443", &https),
        ("unix//run/caddy/admin.sock", &admin),
    ];
    let site = place.write("Caddyfile", &replacements);
    let mut caddy = Command::new("caddy");
    caddy.args(["run", "--adapter", "caddyfile", "--config"]).arg(site);
    caddy
        .env("XDG_DATA_HOME", place.directory.path())
        .env("XDG_CONFIG_HOME", place.directory.path());
    place.talk_through(caddy).await;
}

#[tokio::test]
async fn devices_talk_through_haproxy() {
    if !is_installed("haproxy", "-v") {
        return;
    }
    let mut place = Place::new().await;
    let bind = format!("bind 127.0.0.1:{} ssl", place.port);
    // The machine may not allow the descriptors for all of them.
    let replacements = [("bind :443 ssl", bind.as_str()), ("maxconn 20000", "maxconn 100")];
    let site = place.write("haproxy.cfg", &replacements);
    let mut haproxy = Command::new("haproxy");
    haproxy.args(["-db", "-f"]).arg(site);
    place.talk_through(haproxy).await;
}

#[tokio::test]
async fn devices_talk_through_traefik() {
    if !is_installed("traefik", "version") {
        return;
    }
    let mut place = Place::new().await;
    let routes = place.write("traefik-sealpost.yaml", &[]);
    let port = format!("\"127.0.0.1:{}\"", place.port);
    let text = fs::read_to_string(ops("traefik.yaml")).expect("an example");
    let text = text.replace("\":443\"", &port);
    let text = text.replace("/etc/traefik/traefik-sealpost.yaml", routes.to_str().expect("text"));
    fs::write(place.path("traefik.yaml"), text).expect("room");
    let mut traefik = Command::new("traefik");
    traefik.arg(format!("--configfile={}", place.path("traefik.yaml").display()));
    place.talk_through(traefik).await;
}
