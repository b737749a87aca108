//! Listeners: TCP addresses and Unix sockets.

use crate::error::{Error, Result};
use crate::files;
use crate::native;
use std::fmt;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Where to listen: `127.0.0.1:8080`, `localhost:8080`, `[::]:8080` or `unix:/run/bitfit.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A host and a port.
    Tcp(String),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// A connection.
pub enum Stream {
    /// A connection of a TCP listener.
    Tcp(TcpStream),
    /// A connection of a Unix socket.
    Unix(UnixStream),
}

/// A listener.
pub enum Listener {
    /// A TCP address.
    Tcp(TcpListener),
    /// A Unix socket, which is removed at the end.
    Unix(UnixListener, PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err("expected a path after unix:".into());
            }
            return Ok(Self::Unix(path.into()));
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Self::Tcp(text.to_owned()))
            }
            _ => Err("expected ADDRESS:PORT, such as 127.0.0.1:8080, or unix:PATH".into()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    /// Listens there.
    ///
    /// # Errors
    ///
    /// An address that is taken, or not this machine's, and a path with another file.
    pub async fn bind(&self) -> Result<Listener> {
        match self {
            Self::Tcp(address) => {
                let listener = TcpListener::bind(address).await;
                let failed = Error::io("listen on", Path::new(address));
                Ok(Listener::Tcp(listener.map_err(failed)?))
            }
            Self::Unix(path) => {
                remove_stale(path).await?;
                let listener = UnixListener::bind(path).map_err(Error::io("listen on", path))?;
                Ok(Listener::Unix(listener, path.clone()))
            }
        }
    }
}

/// Removes a Unix socket that no process listens on.
async fn remove_stale(path: &Path) -> Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if is_socket && UnixStream::connect(path).await.is_err() {
        files::remove(path)?;
    }
    Ok(())
}

impl Listener {
    /// The address of a TCP listener.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    /// Whether only this machine's users reach it.
    pub fn is_local(&self) -> bool {
        self.address().is_none_or(|address| address.ip().is_loopback())
    }

    /// The listener as people and clients name it.
    pub fn url(&self) -> String {
        match self {
            Self::Tcp(_) => self.address().map_or_else(String::new, |at| format!("http://{at}")),
            Self::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }

    /// Waits for a connection.
    pub async fn accept(&self) -> std::io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // An answer is written at once, so that waiting for more only delays it.
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(listener, _) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }

    /// Lets no new connection begin. Those that have begun can still be accepted.
    pub fn refuse_new(&self) {
        match self {
            Self::Tcp(listener) => {
                if let Err(error) = native::drop_new_connections(listener) {
                    tracing::debug!("new connections may be reset at the end: {error}");
                }
            }
            Self::Unix(_, path) => {
                if let Err(error) = files::remove(path) {
                    tracing::warn!("{error}");
                }
            }
        }
    }
}
