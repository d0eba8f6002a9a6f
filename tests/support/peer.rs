//! A WebSocket client that sends exactly the given bytes.

use std::{future::Future, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::tls::Stream;

pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CONTINUATION: u8 = 0x0;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xA;
pub const FIN: u8 = 0x80;

/// Longer than any step takes, so that a hang becomes a failure.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match timeout(Duration::from_secs(20), future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: nothing came"),
    }
}

/// One masked frame; `first` is FIN, RSV and opcode.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        n @ 0..=125 => out.push(0x80 | n as u8),
        n @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend((n as u16).to_be_bytes());
        }
        n => {
            out.push(0x80 | 127);
            out.extend((n as u64).to_be_bytes());
        }
    }
    let mask = [0xa1, 0xb2, 0xc3, 0xd4];
    out.extend(mask);
    out.extend(payload.iter().enumerate().map(|(i, b)| b ^ mask[i % 4]));
    out
}

pub fn text(text: impl AsRef<[u8]>) -> Vec<u8> {
    frame(FIN | TEXT, text.as_ref())
}

pub fn close(code: u16) -> Vec<u8> {
    frame(FIN | CLOSE, &code.to_be_bytes())
}

pub struct Peer {
    pub stream: Stream,
}

impl Peer {
    pub async fn send(&mut self, bytes: &[u8]) {
        soon("sending", self.stream.write_all(bytes)).await.expect("sent");
        // A relay that answers before it has read everything may have closed already.
        let _ = soon("flushing", self.stream.flush()).await;
    }

    /// The next frame of the server: its first byte and its payload. `None` at the end.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        soon("a frame", async {
            let mut head = [0; 2];
            match self.stream.read_exact(&mut head).await {
                Ok(_) => {}
                Err(_) => return None,
            }
            let length = match head[1] {
                126 => u64::from(self.stream.read_u16().await.ok()?),
                127 => self.stream.read_u64().await.ok()?,
                n @ 0..=125 => u64::from(n),
                _ => panic!("a server must not mask"),
            };
            let mut payload = vec![0; length as usize];
            self.stream.read_exact(&mut payload).await.ok()?;
            Some((head[0], payload))
        })
        .await
    }

    pub async fn expect(&mut self, first: u8, payload: impl AsRef<[u8]>) {
        let got = self.frame().await;
        let payload = payload.as_ref();
        match got {
            Some((kind, bytes)) if kind == first && bytes == payload => {}
            Some((kind, bytes)) => panic!(
                "expected {first:#x} with {} bytes, got {kind:#x} with {} bytes: {:?}",
                payload.len(),
                bytes.len(),
                String::from_utf8_lossy(&bytes[..bytes.len().min(100)])
            ),
            None => panic!("expected {first:#x}, got the end"),
        }
    }

    pub async fn expect_text(&mut self, text: impl AsRef<[u8]>) {
        self.expect(FIN | TEXT, text).await;
    }

    /// The next frame is a Close; its code.
    pub async fn close_code(&mut self) -> Option<u16> {
        match self.frame().await {
            Some((0x88, payload)) => payload.first_chunk().map(|code| u16::from_be_bytes(*code)),
            other => panic!("expected a close, got {other:?}"),
        }
    }

    /// Nothing comes any more but the end.
    pub async fn expect_end(&mut self) {
        assert_eq!(self.frame().await, None);
    }
}
