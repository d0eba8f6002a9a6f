//! A connection to the relay, plain or over TLS, and its two halves.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

type Encrypted = TlsStream<TcpStream>;

/// How a `wss` relay is known.
#[derive(Debug, Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// Believes the certificates in this file, for the host of the URL.
    ///
    /// # Errors
    ///
    /// When the file has no certificate, or the host is neither a name nor an address.
    pub fn new(ca: &Path, host: &str) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca).map_err(|no| no.to_string())? {
            roots.add(certificate.map_err(|no| no.to_string())?).map_err(|no| no.to_string())?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|no| no.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).map_err(|no| no.to_string())?;
        Ok(Self { config: Arc::new(config), name })
    }
}

/// A connection.
pub enum Stream {
    /// Over nothing but TCP.
    Plain(TcpStream),
    /// Over TLS.
    Tls(Box<Encrypted>),
}

impl Stream {
    /// Over TLS if there is one.
    ///
    /// # Errors
    ///
    /// When the relay's certificate is not believed, or the connection ends.
    pub async fn open(socket: TcpStream, tls: Option<&Tls>) -> io::Result<Self> {
        let Some(Tls { config, name }) = tls else { return Ok(Self::Plain(socket)) };
        let stream = TlsConnector::from(config.clone()).connect(name.clone(), socket).await?;
        Ok(Self::Tls(Box::new(stream)))
    }

    /// Both halves.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Plain(socket) => {
                let (read, write) = socket.into_split();
                (ReadHalf::Plain(read), WriteHalf::Plain(write))
            }
            Self::Tls(stream) => {
                let (read, write) = tokio::io::split(*stream);
                let write =
                    WriteHalf::Tls { write: RefCell::new(write), is_unflushed: Cell::new(false) };
                (ReadHalf::Tls(read), write)
            }
        }
    }
}

/// The half that receives.
pub enum ReadHalf {
    /// Of a plain connection.
    Plain(OwnedReadHalf),
    /// Of one over TLS.
    Tls(tokio::io::ReadHalf<Encrypted>),
}

/// The half that sends.
pub enum WriteHalf {
    /// Of a plain connection.
    Plain(OwnedWriteHalf),
    /// Of one over TLS.
    Tls {
        /// The half.
        write: RefCell<tokio::io::WriteHalf<Encrypted>>,
        /// The session holds bytes that the socket has not taken.
        is_unflushed: Cell<bool>,
    },
}

impl WriteHalf {
    /// Writes what can be written at once.
    ///
    /// # Errors
    ///
    /// As those of a socket; `WouldBlock` if it takes nothing.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(write) => write.try_write(bytes),
            Self::Tls { write, is_unflushed } => {
                let mut write = write.borrow_mut();
                let mut cx = Context::from_waker(Waker::noop());
                let written = match Pin::new(&mut *write).poll_write(&mut cx, bytes) {
                    Poll::Ready(written) => written?,
                    Poll::Pending => return Err(io::ErrorKind::WouldBlock.into()),
                };
                is_unflushed.set(Pin::new(&mut *write).poll_flush(&mut cx)?.is_pending());
                Ok(written)
            }
        }
    }

    /// Whether bytes that were accepted are not on their way: wait for [`Self::writable`].
    pub fn is_unflushed(&self) -> bool {
        matches!(self, Self::Tls { is_unflushed, .. } if is_unflushed.get())
    }

    /// Waits until more can be written, with the bytes that were accepted on their way.
    ///
    /// # Errors
    ///
    /// As those of a socket.
    pub async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Plain(write) => write.writable().await,
            Self::Tls { write, is_unflushed } => {
                poll_fn(|cx| Pin::new(&mut *write.borrow_mut()).poll_flush(cx)).await?;
                is_unflushed.set(false);
                Ok(())
            }
        }
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(read) => Pin::new(read).poll_read(cx, buffer),
            Self::Tls(read) => Pin::new(read).poll_read(cx, buffer),
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
            Self::Tls(stream) => {
                // What was written leaves before its answer is awaited.
                let _ = Pin::new(&mut **stream).poll_flush(cx);
                Pin::new(&mut **stream).poll_read(cx, buffer)
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
