//! Connections between processes, and between the two tiers of one process.

mod local;
mod memory;
mod real;

pub use local::LocalSocket;
pub use memory::MemoryNet;
pub use real::{RealNet, connections_max};

use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use tokio::io::{AsyncRead, AsyncWrite};

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A byte stream both ways.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A boxed byte stream.
pub type BoxIo = Box<dyn Io>;

/// Where somebody listens.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Address {
    /// `host:port`.
    Tcp(String),
    /// A Unix socket.
    Unix(PathBuf),
    /// A listener of this process, by name.
    Memory(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host_port) => f.write_str(host_port),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Memory(name) => write!(f, "memory:{name}"),
        }
    }
}

impl FromStr for Address {
    type Err = dstore_shared::Error;

    /// Reads `host:port`, `http://host:port` or `unix:PATH`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let bare = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let port =
            bare.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then(|| port.parse::<u16>()));
        match port {
            Some(Ok(_)) if !bare.contains('/') => Ok(Self::Tcp(bare.into())),
            _ => Err(dstore_shared::Error::invalid(format!(
                "the address `{text}` is not valid: write HOST:PORT, http://HOST:PORT or unix:PATH"
            ))),
        }
    }
}

/// Connects and listens.
pub trait Net: Send + Sync + fmt::Debug {
    /// Opens a connection. The caller sets the deadline.
    fn connect<'a>(&'a self, to: &'a Address) -> BoxFuture<'a, io::Result<BoxIo>>;
    /// Starts to listen. A TCP port 0 is replaced by a free one.
    fn listen<'a>(&'a self, at: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;
}

/// Takes connections.
pub trait Listener: Send + fmt::Debug {
    /// The next connection.
    ///
    /// # Cancel safety
    /// A cancelled call loses no connection.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<BoxIo>>;
    /// Where it really listens.
    fn address(&self) -> Address;
}
