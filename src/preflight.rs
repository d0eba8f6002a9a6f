//! What the machine would refuse of valid settings, for `sealpost --check-config`: paths, modes, files, addresses in use.
//!
//! Everything is tried as a start would try it, and left as it was.

use std::io::ErrorKind;
use std::net::SocketAddr;

use crate::access;
use crate::app;
use crate::banner;
use crate::clock::Clock;
use crate::settings::{AdminAddress, Server, Settings};
use crate::store::examine::{self, Examined};
use crate::tls::Certificate;
use crate::web::admin::token::AdminToken;

/// What was found, a sentence each.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// A relay with these settings would not start.
    pub problems: Vec<String>,
    /// A relay would start, but its operator may want to know.
    pub notes: Vec<String>,
}

/// Tries what a start would try. Under a socket unit the addresses are in use before the relay starts.
pub fn try_settings(settings: &Settings, with_addresses: bool) -> Findings {
    let mut findings = Findings::default();
    // A relay that runs with these settings is no reason not to use them for its next start.
    let mut running = None;
    if settings.queue.durable {
        match examine::examine(&settings.queue.path) {
            Ok(Examined::Usable(warning)) => findings.notes.extend(warning),
            Ok(Examined::InUse(addresses)) => {
                let path = settings.queue.path.display();
                findings.notes.push(format!("queue.path = {path}: in use by a running relay"));
                running = Some(addresses);
            }
            Err(error) => findings.problems.push(error.to_string()),
        }
    }
    if let Err(problems) = access::file::policy(&settings.access) {
        findings.problems.extend(problems);
    }
    if let Some((certificate, key)) = settings.tls.files() {
        match Certificate::load(certificate, key) {
            Ok(usable) => findings.notes.extend(usable.warning(Clock::system().now().unix())),
            Err(reason) => findings.problems.push(reason),
        }
    }
    let server = &settings.server;
    let token = AdminToken::read(&server.admin_token_file);
    findings.problems.extend(token.err().map(|failed| failed.to_string()));
    if with_addresses {
        try_addresses(server, running.as_ref(), &mut findings);
    }
    findings.notes.extend(banner::exposure(settings));
    findings.notes.extend(banner::shared_origins(settings));
    findings
}

/// Tries to listen. `running` has the addresses of the relay that holds the queue.
fn try_addresses(server: &Server, running: Option<&Vec<SocketAddr>>, findings: &mut Findings) {
    // Both stay open until both were tried: they must not take each other's place.
    let listener = app::bind("server.listen", server.listen);
    let admin_listener = app::bind_admin(&server.admin_listen);
    let refused = [
        (listener.as_ref().err(), AdminAddress::Tcp(server.listen), "server.listen"),
        (admin_listener.as_ref().err(), server.admin_listen.clone(), "server.admin_listen"),
    ];
    for (error, address, key) in refused {
        let Some(error) = error else { continue };
        let by_running = |addresses: &Vec<SocketAddr>| match address.tcp() {
            Some(address) => is_among(address, addresses),
            None => true,
        };
        let is_ours = error.kind() == ErrorKind::AddrInUse && running.is_some_and(by_running);
        if is_ours {
            let text = "in use by the relay that holds queue.path";
            findings.notes.push(format!("{key} = {address}: {text}"));
        } else {
            findings.problems.push(error.to_string());
        }
    }
}

/// Whether an address is taken by a relay that listens at `addresses`; by one that has named none, too. An unspecified
/// address takes the port of all.
fn is_among(address: SocketAddr, addresses: &[SocketAddr]) -> bool {
    let takes = |other: &SocketAddr| {
        let same_ip = address.ip() == other.ip()
            || address.ip().is_unspecified()
            || other.ip().is_unspecified();
        address.port() == other.port() && same_ip
    };
    addresses.is_empty() || addresses.iter().any(takes)
}

/// Raises the limit of descriptors, because each connection needs one. Returns a warning if the limit stays too low, so that
/// it is reported before connections fail under load.
pub fn raise_descriptor_limit(settings: &Settings) -> Option<String> {
    let connections = settings.limits.connections;
    let needed = connections as u64 + 1024;
    match rlimit::increase_nofile_limit(needed) {
        Ok(limit) if limit < needed => Some(format!(
            "only {limit} file descriptors for limits.connections = {connections}; raise LimitNOFILE or ulimit -n"
        )),
        Ok(_) => None,
        Err(failed) => Some(format!("the descriptor limit cannot be read error={failed}")),
    }
}
