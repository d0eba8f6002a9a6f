//! The TLS handshake on the public listener: under the time of a request's head, its results counted.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use actix_http::StatusCode;
use actix_rt::net::TcpStream;
use rustls::ServerConfig;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout_at;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::handshake::HandshakeRejection;
use super::http::{self, Deadlines};
use crate::clock::Clock;
use crate::settings::Tls as TlsSettings;
use crate::tls::{Certificate, InUse, server_config};

/// What a session may encrypt before the socket has taken it, bytes: one record. It comes on top of the transport's own
/// bounds, and what is written counts as written only when the socket has it.
const UNSENT: usize = 16 * 1024;
/// How often the end of the certificate is looked at.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The first byte of every TLS connection: a handshake record (RFC 8446, section 5.1).
const HANDSHAKE_RECORD: u8 = 22;

const NOT_TLS: HandshakeRejection = HandshakeRejection::new(
    StatusCode::BAD_REQUEST,
    "This port speaks TLS: connect by https:// or wss://.\n",
);

/// The results of handshakes since the start, for `sealpost_tls_handshakes_total{result}`.
#[derive(Debug, Default)]
pub struct Handshakes {
    ok: AtomicU64,
    failed: AtomicU64,
    timeout: AtomicU64,
}

impl Handshakes {
    /// Each result with its number. `failed`: the client sent no TLS, none that the relay speaks, or an alert, or went away.
    /// `timeout`: its handshake was not complete in time.
    pub fn counts(&self) -> [(&'static str, u64); 3] {
        [("ok", &self.ok), ("failed", &self.failed), ("timeout", &self.timeout)]
            .map(|(result, count)| (result, count.load(Relaxed)))
    }
}

/// TLS on the public listener.
pub struct Tls {
    config: Arc<ServerConfig>,
    certificate: Arc<InUse>,
    pub handshakes: Handshakes,
}

impl Tls {
    /// Reads the certificate; `None` without one in the settings. An error names the setting.
    pub fn start(settings: &TlsSettings, clock: &Clock) -> io::Result<Option<Arc<Self>>> {
        let Some((certificate, key)) = settings.files() else { return Ok(None) };
        let certificate = load(certificate, key, clock).map_err(io::Error::other)?;
        let certificate = Arc::new(InUse::new(certificate));
        let config = server_config(certificate.clone()).map_err(io::Error::other)?;
        let handshakes = Handshakes::default();
        Ok(Some(Arc::new(Self { config: Arc::new(config), certificate, handshakes })))
    }

    /// Reads the certificate again, for connections that come from now on. One that cannot be used changes nothing.
    pub fn reload(&self, settings: &TlsSettings, clock: &Clock) {
        let Some((certificate, key)) = settings.files() else { return };
        match load(certificate, key, clock) {
            Ok(certificate) => self.certificate.replace(certificate),
            Err(reason) => {
                log::error!(error:% = reason; "certificate not reloaded, the old one stays");
            }
        }
    }

    /// When the certificate in use ends, in Unix seconds, for `sealpost_tls_certificate_expiry_timestamp_seconds`.
    pub fn certificate_expiry(&self) -> u64 {
        self.certificate.get().not_after()
    }

    /// Calls `warn` once a day while the certificate is about to end. [`Self::start`] and [`Self::reload`] have logged the
    /// warning before. Never returns.
    pub async fn warn_daily(&self, clock: &Clock, mut warn: impl FnMut(String)) {
        loop {
            tokio::time::sleep(DAY).await;
            self.certificate.get().warning(clock.now().unix()).into_iter().for_each(&mut warn);
        }
    }

    /// The encrypted stream, when the client has completed its handshake in the time of a head. Else the connection is
    /// closed, after an alert or, for a client that speaks plain HTTP, a sentence.
    pub async fn accept(
        &self,
        socket: TcpStream,
        due: Deadlines,
        log: impl Fn(&dyn fmt::Display),
    ) -> Option<TlsStream<TcpStream>> {
        let mut first = [0];
        let handshake = async {
            let first = match socket.peek(&mut first).await {
                Ok(0) | Err(_) => return Err(None),
                Ok(_) => first[0],
            };
            if first != HANDSHAKE_RECORD && first.is_ascii_uppercase() {
                return Err(Some((socket, true)));
            }
            let acceptor = TlsAcceptor::from(self.config.clone());
            let accept = acceptor.accept_with(socket, |session| {
                session.set_buffer_limit(Some(UNSENT));
            });
            accept.into_fallible().await.map_err(|(failed, socket)| {
                log(&failed);
                Some((socket, false))
            })
        };
        let (counter, socket) = match timeout_at(due.head, handshake).await {
            Ok(Ok(stream)) => {
                self.handshakes.ok.fetch_add(1, Relaxed);
                return Some(stream);
            }
            Ok(Err(socket)) => (&self.handshakes.failed, socket),
            Err(_) => (&self.handshakes.timeout, None),
        };
        counter.fetch_add(1, Relaxed);
        let (mut socket, is_http) = socket?;
        let end = async {
            if is_http {
                return http::refuse(http::framed(socket), NOT_TLS).await;
            }
            socket.shutdown().await?;
            // So that the alert arrives before a reset does.
            http::drop_input(socket).await;
            Ok(())
        };
        // The end of the connection is the aim, so its errors do not matter.
        let _ = timeout_at(due.end, end).await;
        None
    }
}

/// Reads the certificate, and warns if it is about to end.
fn load(certificate: &Path, key: &Path, clock: &Clock) -> Result<Certificate, String> {
    let certificate = Certificate::load(certificate, key)?;
    if let Some(warning) = certificate.warning(clock.now().unix()) {
        log::warn!("{warning}");
    }
    Ok(certificate)
}
