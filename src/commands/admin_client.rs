//! The client of the admin listener: one request on a connection of its own, over TCP or the Unix socket of the settings.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::{EX_IOERR, EX_NOPERM, EX_UNAVAILABLE, EX_USAGE};
use crate::banner;
use crate::settings::{AdminAddress, Settings};
use crate::web::admin::token;

/// How long a relay may take to answer. It answers in milliseconds, unless it is stopped or overloaded.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no answer, in a sentence for the operator.
#[derive(Debug)]
pub enum Failed {
    /// No relay answers at the address.
    Unreachable(AdminAddress, io::Error),
    /// The relay does not serve this client.
    Denied(String),
    /// The relay refuses what was asked for, with a sentence.
    Refused(String),
    /// What the relay sent could not be written.
    Unwritten(String),
    /// An argument is malformed; nobody was asked.
    Usage(&'static str),
}

impl Failed {
    /// The exit status.
    pub fn code(&self) -> ExitCode {
        match self {
            Self::Unreachable(..) => ExitCode::from(EX_UNAVAILABLE),
            Self::Denied(_) => ExitCode::from(EX_NOPERM),
            Self::Refused(_) => ExitCode::FAILURE,
            Self::Unwritten(_) => ExitCode::from(EX_IOERR),
            Self::Usage(_) => ExitCode::from(EX_USAGE),
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(address, failed) => {
                write!(f, "no relay answers at {address} (server.admin_listen): {failed}")
            }
            Self::Denied(sentence) | Self::Refused(sentence) | Self::Unwritten(sentence) => {
                f.write_str(sentence)
            }
            Self::Usage(sentence) => f.write_str(sentence),
        }
    }
}

/// A client of the relay that has these settings.
pub struct AdminClient<'a> {
    address: &'a AdminAddress,
    token_file: &'a Path,
}

impl<'a> AdminClient<'a> {
    pub fn new(settings: &'a Settings) -> Self {
        let server = &settings.server;
        Self { address: &server.admin_listen, token_file: &server.admin_token_file }
    }

    /// Asks for JSON.
    ///
    /// # Errors
    ///
    /// The relay does not answer, or refuses.
    pub async fn get(&self, path: &str) -> Result<Value, Failed> {
        self.answer(Method::GET, path, None).await
    }

    /// Has the relay do something, with what it needs to know.
    ///
    /// # Errors
    ///
    /// The relay does not answer, or refuses.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failed> {
        self.answer(Method::POST, path, Some(body)).await
    }

    async fn answer(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failed> {
        let unreachable = |failed| Failed::Unreachable(self.address.clone(), failed);
        let answered = async {
            let response = self.send(method, path, body).await?;
            let body = response.into_body().collect().await.map_err(io::Error::other);
            let body = body.map_err(unreachable)?.to_bytes();
            serde_json::from_slice(&body).map_err(|failed| unreachable(io::Error::other(failed)))
        };
        let late = || unreachable(io::ErrorKind::TimedOut.into());
        tokio::time::timeout(TIMEOUT, answered).await.unwrap_or_else(|_| Err(late()))
    }

    /// Sends a request. The body of the response is still to be read.
    ///
    /// # Errors
    ///
    /// The relay does not answer, or refuses.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, Failed> {
        let unreachable = |failed| Failed::Unreachable(self.address.clone(), failed);
        // The request comes after the connection: where no relay is, no token is needed.
        let response = match self.address {
            AdminAddress::Tcp(address) => {
                let socket = TcpStream::connect(banner::reachable(*address)).await;
                let socket = socket.map_err(unreachable)?;
                exchange(socket, self.request(method, path, body)?).await
            }
            AdminAddress::Unix(path_of_socket) => {
                let socket = UnixStream::connect(path_of_socket).await;
                let socket = socket.map_err(|failed| match failed.kind() {
                    io::ErrorKind::PermissionDenied => Failed::Denied(format!(
                        "this user may not connect to {} (server.admin_listen): {failed}",
                        self.address
                    )),
                    _ => unreachable(failed),
                })?;
                exchange(socket, self.request(method, path, body)?).await
            }
        };
        let response = response.map_err(|failed| unreachable(io::Error::other(failed)))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.into_body().collect().await;
        let body = body.map_err(|failed| unreachable(io::Error::other(failed)))?.to_bytes();
        let sentence = sentence(&body).unwrap_or_else(|| format!("the relay answers {status}"));
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failed::Denied(sentence),
            _ => Failed::Refused(sentence),
        })
    }
}

impl AdminClient<'_> {
    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Request<Full<Bytes>>, Failed> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, "localhost");
        if !self.token_file.as_os_str().is_empty() && self.address.tcp().is_some() {
            let token = token::read_text(self.token_file).map_err(|failed| {
                let path = self.token_file.display();
                Failed::Denied(format!("server.admin_token_file = {path}: {failed}"))
            })?;
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::new(body));
        request
            .map_err(|failed| Failed::Unreachable(self.address.clone(), io::Error::other(failed)))
    }
}

/// What a refusal says.
fn sentence(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    body.get("error")?.as_str().map(str::to_owned)
}

async fn exchange(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> hyper::Result<Response<Incoming>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    tokio::spawn(connection);
    sender.send_request(request).await
}
