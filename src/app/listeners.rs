//! The addresses that the relay binds, and the options of each socket.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use actix_rt::net::TcpStream;
use socket2::{SockRef, TcpKeepalive};

use crate::settings::AdminAddress;

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

/// The admin listener, bound.
pub enum AdminListener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket, removed when the relay ends, unless another relay has put its own there.
pub struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode_of(&self.path).is_ok_and(|inode| inode == self.inode) {
            // The directory may be gone already.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode_of(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

/// The mode of a Unix socket: its owner and group may connect.
const SOCKET_MODE: u32 = 0o660;

/// Binds the admin address. An error names the setting.
pub fn bind_admin(address: &AdminAddress) -> io::Result<AdminListener> {
    const KEY: &str = "server.admin_listen";
    match address {
        AdminAddress::Tcp(address) => bind(KEY, *address).map(AdminListener::Tcp),
        AdminAddress::Unix(path) => {
            let bound = bind_unix(path).map(|(bound, file)| AdminListener::Unix(bound, file));
            bound.map_err(|failed| {
                io::Error::new(failed.kind(), format!("{KEY} = {address}: {failed}"))
            })
        }
    }
}

/// Binds the socket in a directory of its own, which nobody else can enter, and moves it to its place when it has its mode: it
/// is never open to more than its group.
fn bind_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    remove_stale(path)?;
    if fs::symlink_metadata(path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let closed = parent.unwrap_or(Path::new(".")).join(format!(".sealpost-{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&closed)?;
    let bound = bind_closed(&closed, path);
    // It is empty, whatever became of the socket.
    let _ = fs::remove_file(closed.join(NEW_SOCKET));
    let _ = fs::remove_dir(&closed);
    bound
}

/// The name of a socket before it is in its place.
const NEW_SOCKET: &str = "s";

fn bind_closed(closed: &Path, path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let new = closed.join(NEW_SOCKET);
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(SOCKET_MODE))?;
    let inode = inode_of(&new)?;
    fs::rename(&new, path)?;
    Ok((listener, SocketFile { path: path.to_owned(), inode }))
}

/// Removes a socket that a relay left behind when it was killed: nobody accepts on it.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket
        && UnixStream::connect(path)
            .is_err_and(|failed| failed.kind() == io::ErrorKind::ConnectionRefused)
    {
        fs::remove_file(path)?;
    }
    Ok(())
}

impl AdminListener {
    /// The address, with the port that the system chose.
    pub fn address(&self) -> io::Result<AdminAddress> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(AdminAddress::Tcp),
            Self::Unix(_, file) => Ok(AdminAddress::Unix(file.path.clone())),
        }
    }
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
        log::debug!(error:% = failed; "socket options failed");
    }
}
