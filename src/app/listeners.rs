//! The addresses that the relay binds, and the options of each socket.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use actix_rt::net::TcpStream;
use socket2::{SockRef, TcpKeepalive};

/// Bytes that the kernel takes from us and has not sent yet. Without this bound the kernel takes megabytes for a peer that does
/// not read: these bytes would count as delivered, cost memory outside every limit, and make a slow peer look stalled,
/// because a socket takes more only after a third of them was sent.
const UNSENT: u32 = 64 * 1024;
/// Binds an address. An error names the setting, and the flag with which another address can be tried.
pub fn bind(key: &str, address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).map_err(|failed| {
        let flag = match key.rsplit_once('.') {
            Some((_, key)) if failed.kind() == io::ErrorKind::AddrInUse => {
                format!("; choose another one with --{}", key.replace('_', "-"))
            }
            _ => String::new(),
        };
        io::Error::new(failed.kind(), format!("{key} = {address}: {failed}{flag}"))
    })
}

/// Small frames leave at once, and the kernel ends a connection whose peer takes nothing for `user_timeout`.
pub(super) fn tune(socket: &TcpStream, user_timeout: Duration) {
    let socket = SockRef::from(socket);
    let keepalive = TcpKeepalive::new().with_time(user_timeout).with_interval(user_timeout / 3);
    let tuned = socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_tcp_notsent_lowat(UNSENT))
        .and_then(|()| socket.set_tcp_user_timeout(Some(user_timeout)))
        .and_then(|()| socket.set_tcp_keepalive(&keepalive));
    if let Err(failed) = tuned {
        log::debug!("socket options failed error={failed}");
    }
}
