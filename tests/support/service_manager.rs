//! The part of systemd that a service talks to: a datagram socket, whose path the service finds in `NOTIFY_SOCKET`.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::time::timeout;

use super::PATIENCE;

pub struct ServiceManager {
    socket: UnixDatagram,
    pub path: PathBuf,
    _place: TempDir,
}

impl ServiceManager {
    pub fn new() -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        Self { socket, path, _place: place }
    }

    /// Lets a command notify this manager.
    pub fn watch(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", &self.path);
    }

    /// The next notification, one assignment a line.
    pub async fn notification(&self) -> String {
        let mut buffer = [0; 4096];
        let read = timeout(PATIENCE, self.socket.recv(&mut buffer)).await;
        let length = read.expect("a notification in time").expect("a socket");
        String::from_utf8(buffer[..length].to_vec()).expect("text")
    }

    /// All notifications through the next one with this part.
    pub async fn until(&self, part: &str) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let next = self.notification().await;
            let is_last = next.contains(part);
            all.push(next);
            if is_last {
                return all;
            }
        }
    }
}
