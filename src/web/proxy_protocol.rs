//! The PROXY protocol, version 2: a TCP proxy names the client's address in front of everything that the client sends.
//!
//! Read only where [`super::ingress::Ingress::expects_proxy_header`] says so, and then required: a proxy that was forgotten in its own settings
//! would otherwise give all its clients one address.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout_at;

use super::http::Deadlines;

/// Signature, version, families and length: what each header has (section 2.2 of the specification).
const FIXED: usize = 16;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header, bytes: addresses take 36, the rest is for what a proxy adds, such as the client's certificate.
const LONGEST: usize = 4 * 1024;

const PARSE: ParseConfig = ParseConfig { include_tlvs: false, allow_v1: false, allow_v2: true };

/// Why the connection of a proxy is closed.
#[derive(Debug)]
pub enum Refused {
    Late,
    Io(io::Error),
    /// Version 1, or something else altogether.
    NoHeader,
    TooLong,
    Malformed,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late => f.write_str("the header did not come in time"),
            Self::Io(failed) => write!(f, "the connection ended before its header: {failed}"),
            Self::NoHeader => f.write_str("it does not begin with a header of version 2"),
            Self::TooLong => write!(f, "its header is longer than {LONGEST} bytes"),
            Self::Malformed => f.write_str("its header is malformed"),
        }
    }
}

/// Reads the header of a trusted proxy and not a byte more. The client's address; `None` if the proxy speaks for itself
/// (`LOCAL`, its health checks) or its client came by no IP.
///
/// # Errors
///
/// Why the connection must be closed.
pub async fn read_client<Io>(io: &mut Io, due: Deadlines) -> Result<Option<SocketAddr>, Refused>
where
    Io: AsyncRead + Unpin,
{
    timeout_at(due.head, read_header(io)).await.unwrap_or(Err(Refused::Late))
}

async fn read_header<Io: AsyncRead + Unpin>(io: &mut Io) -> Result<Option<SocketAddr>, Refused> {
    let mut header = vec![0; FIXED];
    io.read_exact(&mut header).await.map_err(Refused::Io)?;
    if !header.starts_with(SIGNATURE) {
        return Err(Refused::NoHeader);
    }
    let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if FIXED + rest > LONGEST {
        return Err(Refused::TooLong);
    }
    header.resize(FIXED + rest, 0);
    io.read_exact(&mut header[FIXED..]).await.map_err(Refused::Io)?;
    let (header, _) = ProxyHeader::parse(&header, PARSE).map_err(|_| Refused::Malformed)?;
    match header.proxied_address() {
        Some(address) if address.protocol != Protocol::Stream => Err(Refused::Malformed),
        address => Ok(address.map(|address| address.source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(header: &[u8]) -> Result<Option<String>, String> {
        // What follows belongs to the client.
        let bytes = [header, b"GET /"].concat();
        let mut io = &bytes[..];
        let read = read_header(&mut io).await.map_err(|refused| format!("{refused:?}"))?;
        assert_eq!(io, b"GET /", "not a byte more is read");
        Ok(read.map(|client| client.to_string()))
    }

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family][..], &length, rest].concat()
    }

    const V4: [u8; 12] = [198, 51, 100, 1, 192, 0, 2, 1, 0x12, 0x67, 1, 187];

    #[actix_rt::test]
    async fn the_address_of_the_client_is_read_whatever_else_the_header_has() {
        assert_eq!(read(&header(0x21, 0x11, &V4)).await, Ok(Some("198.51.100.1:4711".into())));
        let with_more = [&V4[..], &[0xe0, 0, 2, 7, 7], &[0xff; 200]].concat();
        assert_eq!(
            read(&header(0x21, 0x11, &with_more)).await,
            Ok(Some("198.51.100.1:4711".into()))
        );
        let mut v6 = [0; 36];
        (v6[0], v6[1], v6[15], v6[33]) = (0x20, 1, 9, 80);
        assert_eq!(read(&header(0x21, 0x21, &v6)).await, Ok(Some("[2001::9]:80".into())));
    }

    #[actix_rt::test]
    async fn a_proxy_that_speaks_for_itself_or_for_no_ip_names_no_client() {
        for no_ip in [
            header(0x20, 0x00, b""),
            header(0x20, 0x11, &V4),
            header(0x21, 0x00, b"more"),
            header(0x21, 0x31, &[b'x'; 216]),
        ] {
            assert_eq!(read(&no_ip).await, Ok(None));
        }
    }

    #[actix_rt::test]
    async fn what_is_no_header_of_version_2_is_refused() {
        for (bytes, why) in [
            (b"PROXY TCP4 198.51.100.1 192.0.2.1 4711 443\r\n".to_vec(), "NoHeader"),
            (b"GET /ws HTTP/1.1\r\n\r\n".to_vec(), "NoHeader"),
            (header(0x11, 0x11, &V4), "Malformed"),
            (header(0x22, 0x11, &V4), "Malformed"),
            (header(0x21, 0x12, &V4), "Malformed"),
            (header(0x21, 0x41, &V4), "Malformed"),
            (header(0x21, 0x11, &V4[..11]), "Malformed"),
            (header(0x21, 0x21, &V4), "Malformed"),
            (header(0x21, 0x11, &[0; LONGEST - FIXED + 1]), "TooLong"),
        ] {
            assert_eq!(read(&bytes).await, Err(why.to_owned()), "{bytes:?}");
        }
        assert!(read_header(&mut &SIGNATURE[..]).await.is_err());
    }
}
