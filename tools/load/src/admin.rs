//! What the relay says of itself on its admin address: just enough HTTP to ask for `/healthz` again and again.

use std::io;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// More than any answer.
const MOST: usize = 64 * 1024;

/// The counters of the relay that the generator uses.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
pub struct Books {
    /// Messages that expired, and whose senders were told.
    pub expired: u64,
    /// Messages that wait.
    pub queued: u64,
    /// Messages that a connection has and that are not done.
    pub in_flight: u64,
}

/// A connection to the admin address.
pub struct Admin {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Admin {
    /// Connects to `http://host:port`.
    ///
    /// # Errors
    ///
    /// When nobody listens there.
    pub async fn connect(url: &str) -> io::Result<Self> {
        let address = url
            .strip_prefix("http://")
            .ok_or_else(|| io::Error::other("--admin must begin with http://"))?;
        let stream = TcpStream::connect(address.trim_end_matches('/')).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, answer: Vec::new() })
    }

    /// Asks.
    ///
    /// # Errors
    ///
    /// When the relay does not answer, or says that it is not well.
    pub async fn books(&mut self) -> io::Result<Books> {
        self.stream.write_all(HEALTH).await?;
        self.answer.clear();
        loop {
            if let Some(body) = body(&self.answer) {
                return serde_json::from_slice(body).map_err(io::Error::other);
            }
            let is_over = self.stream.read_buf(&mut self.answer).await? == 0;
            if is_over || self.answer.len() > MOST {
                let answer = String::from_utf8_lossy(&self.answer);
                return Err(io::Error::other(format!("/healthz was answered: {answer}")));
            }
        }
    }
}

/// The body of an answer, if it is whole and good.
fn body(answer: &[u8]) -> Option<&[u8]> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = str::from_utf8(&answer[..end]).ok()?.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"))?;
    let length: usize = length.trim().parse().ok()?;
    let is_good = head.starts_with("http/1.1 200 ");
    answer.get(end..end + length).filter(|_| is_good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_read_when_it_is_whole_and_good() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 42\r\nDate: x\r\n\r\n\
                       {\"expired\":1,\"queued\":22,\"in_flight\":333,}";
        assert_eq!(body(answer).map(<[u8]>::len), Some(42));
        assert_eq!(body(&answer[..answer.len() - 1]), None);
        assert_eq!(body(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"), None);
    }
}
