//! Sockets that the process inherits: systemd listens before the relay runs and while it restarts (socket activation), so
//! that connections wait in the backlog instead of being refused. The protocol is that of sd_listen_fds(3).

use std::fmt::Display;
use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use socket2::SockRef;

use super::listeners::{AdminListener, bind, bind_admin};
use crate::settings::AdminAddress;

/// The names that `FileDescriptorName=` of a socket unit can have.
const PUBLIC: &str = "public";
const ADMIN: &str = "admin";

/// Listening sockets that another process has bound. The settings' addresses are not bound in their place.
#[derive(Debug, Default)]
pub struct InheritedSockets {
    pub(super) public: Option<TcpListener>,
    pub(super) admin: Option<TcpListener>,
}

impl InheritedSockets {
    /// Takes the sockets that are meant for this process, at most once: `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES`. A
    /// single socket needs no name.
    ///
    /// Call this before there are other threads, because it changes the environment.
    ///
    /// # Errors
    ///
    /// A socket has no name that is known, or the same as another one, or does not listen for TCP.
    pub fn from_env() -> io::Result<Self> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        // Without it, descriptors would be taken that were meant for another process.
        if std::env::var_os("LISTEN_PID").is_none() {
            return Ok(Self::default());
        }
        Self::take(ListenFd::from_env(), &names)
    }

    fn take(mut sockets: ListenFd, names: &str) -> io::Result<Self> {
        let mut taken = Self::default();
        let mut names = names.split(':');
        let is_single = sockets.len() == 1;
        for index in 0..sockets.len() {
            let name = names.next().unwrap_or_default();
            let refuse = |why: &str| {
                Err(io::Error::other(format!("socket activation: socket {index} ({name:?}) {why}")))
            };
            let place = match name {
                ADMIN => &mut taken.admin,
                PUBLIC => &mut taken.public,
                // systemd calls it like its unit if nobody has named it.
                _ if is_single => &mut taken.public,
                _ => return refuse("must be named public or admin by FileDescriptorName="),
            };
            if place.is_some() {
                return refuse("comes twice; one socket with an IPv6 address serves IPv4, too");
            }
            let socket = match sockets.take_tcp_listener(index) {
                Ok(Some(socket)) => socket,
                Ok(None) => return refuse("cannot be taken"),
                Err(_) => return refuse("is no TCP socket: use ListenStream= with an address"),
            };
            if !SockRef::from(&socket).is_listener().unwrap_or(false) {
                return refuse("does not listen: use Accept=no");
            }
            *place = Some(socket);
        }
        Ok(taken)
    }

    /// The listener for devices: the inherited one, or one that is bound.
    pub(super) fn public_or(&mut self, address: SocketAddr) -> io::Result<TcpListener> {
        const KEY: &str = "server.listen";
        let Some(listener) = self.public.take() else { return bind(KEY, address) };
        log_unused(&listener, KEY, &address)?;
        Ok(listener)
    }

    /// The listener for operators: the inherited one, or one that is bound.
    pub(super) fn admin_or(&mut self, address: &AdminAddress) -> io::Result<AdminListener> {
        let Some(listener) = self.admin.take() else { return bind_admin(address) };
        log_unused(&listener, "server.admin_listen", address)?;
        Ok(AdminListener::Tcp(listener))
    }
}

fn log_unused(listener: &TcpListener, key: &str, address: &impl Display) -> io::Result<()> {
    let inherited = listener.local_addr()?;
    log::info!(listening_on:% = inherited, not_used = key, address:%; "socket activation");
    Ok(())
}
