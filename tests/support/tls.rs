//! TLS for tests: certificates made at run time, and a stream that is plain or encrypted.
//!
//! A test binary named in [`OVER_TLS`] runs the files of another one with every relay behind TLS: the same tests, over both.
#![allow(dead_code, reason = "every test binary uses a part of this")]

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::peer::soon;

/// Whether relays of this test binary speak TLS unless a test decides otherwise.
pub const OVER_TLS: bool = matches!(env!("CARGO_CRATE_NAME").as_bytes(), b"tls" | b"transport_tls");

/// The name in the certificates.
pub const NAME: &str = "localhost";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Which relays of this process speak TLS, by their public addresses: a client that connects there does, too.
static TLS_ADDRESSES: Mutex<BTreeSet<SocketAddr>> = Mutex::new(BTreeSet::new());

/// Records what a relay speaks that has just bound its addresses.
pub fn note_relay(public: SocketAddr, admin: SocketAddr, is_tls: bool) {
    let mut addresses = TLS_ADDRESSES.lock().unwrap_or_else(PoisonError::into_inner);
    addresses.remove(&admin);
    match is_tls {
        true => addresses.insert(public),
        false => addresses.remove(&public),
    };
}

pub fn is_tls(address: SocketAddr) -> bool {
    TLS_ADDRESSES.lock().unwrap_or_else(PoisonError::into_inner).contains(&address)
}

/// The authority that signs the certificates of this process.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    roots: Arc<RootCertStore>,
}

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).expect("a root");
    Authority { issuer: Issuer::new(params, key), roots: Arc::new(roots) }
});

/// A certificate and its key, in PEM.
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Pair {
    /// Valid for a long time.
    pub fn new() -> Self {
        Self::valid_for(3650 * DAY)
    }

    /// Valid from yesterday until this time has passed.
    pub fn valid_for(time: Duration) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let mut params = CertificateParams::new([NAME.to_owned()]).expect("parameters");
        let start = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = start + (now - DAY);
        params.not_after = start + (now + time);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &AUTHORITY.issuer).expect("a certificate");
        Self { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// Writes both into a directory, over those that are there.
    pub fn write(&self, directory: &Path) -> (PathBuf, PathBuf) {
        let (certificate, key) = (directory.join("relay.pem"), directory.join("relay.key"));
        std::fs::write(&certificate, &self.certificate).expect("a file");
        std::fs::write(&key, &self.key).expect("a file");
        set_mode(&key, 0o600);
        (certificate, key)
    }
}

pub fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
}

/// A client that trusts the certificates of this process and speaks these versions.
pub fn client_config(versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(AUTHORITY.roots.clone())
        .with_no_client_auth()
}

static CLIENT: LazyLock<Arc<ClientConfig>> =
    LazyLock::new(|| Arc::new(client_config(&[&version::TLS13, &version::TLS12])));

/// A connection of a client.
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Over TLS if the relay at this address speaks it.
    pub async fn open(socket: TcpStream, to: SocketAddr) -> Self {
        Self::try_open(socket, to).await.expect("a TLS handshake")
    }

    /// The same, where the relay may close the socket instead.
    pub async fn try_open(socket: TcpStream, to: SocketAddr) -> io::Result<Self> {
        match is_tls(to) {
            true => Self::encrypt(socket, CLIENT.clone()).await,
            false => Ok(Self::Plain(socket)),
        }
    }

    pub async fn encrypt(socket: TcpStream, config: Arc<ClientConfig>) -> io::Result<Self> {
        let name = ServerName::try_from(NAME).expect("a name");
        let connect = TlsConnector::from(config).connect(name, socket);
        Ok(Self::Tls(Box::new(soon("a TLS handshake", connect).await?)))
    }

    /// The socket below.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            // What a test has written leaves before the answer is awaited.
            Self::Tls(stream) => {
                let _ = Pin::new(&mut *stream).poll_flush(cx);
                Pin::new(stream).poll_read(cx, buffer)
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
