//! TCP and Unix sockets of the machine.

use super::{Address, BoxFuture, BoxIo, Listener, Net};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

/// Connections that wait to be accepted; the kernel makes it `net.core.somaxconn` (4,096) if that is less. So many
/// Locals may come back at once: one more is tried again by its kernel after a second.
const BACKLOG: u32 = 16_384;

/// How many connections a server of this process may have, by the files that the process may open now: what remains,
/// a quarter but at most 1,024, is for its other work.
pub fn connections_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or(usize::MAX, |n| (n - (n / 4).min(1_024)) as usize)
}

/// TCP and Unix sockets of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealNet;

impl Net for RealNet {
    fn connect<'a>(&'a self, to: &'a Address) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            match to {
                Address::Tcp(host_port) => {
                    let stream = TcpStream::connect(host_port).await?;
                    stream.set_nodelay(true)?;
                    Ok(Box::new(stream) as BoxIo)
                }
                Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?) as BoxIo),
                Address::Memory(_) => Err(not_here(to)),
            }
        })
    }

    fn listen<'a>(&'a self, at: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            match at {
                Address::Tcp(host_port) => {
                    let listener = bind_tcp(host_port).await?;
                    let address = Address::Tcp(listener.local_addr()?.to_string());
                    Ok(Box::new(Tcp { listener, address }) as Box<dyn Listener>)
                }
                Address::Unix(path) => {
                    let listener = bind_unix(path).await?;
                    Ok(Box::new(Unix { listener, path: path.clone() }) as Box<dyn Listener>)
                }
                Address::Memory(_) => Err(not_here(at)),
            }
        })
    }
}

fn not_here(address: &Address) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("`{address}` is not an address of this machine"))
}

/// Binds the first address of `host_port` that can be.
async fn bind_tcp(host_port: &str) -> io::Result<TcpListener> {
    let bind = |at: SocketAddr| {
        let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(at)?;
        socket.listen(BACKLOG)
    };
    let mut failed = None;
    for at in tokio::net::lookup_host(host_port).await? {
        match bind(at) {
            Ok(listener) => return Ok(listener),
            Err(e) => failed = Some(e),
        }
    }
    Err(failed.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the name has no address")))
}

/// Binds a socket file; one that nobody listens on any more, left by a crash, is replaced.
async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let bound = match UnixListener::bind(path) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            let refused =
                UnixStream::connect(path).await.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
            if !refused {
                return Err(e);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o660))?;
    Ok(bound)
}

#[derive(Debug)]
struct Tcp {
    listener: TcpListener,
    address: Address,
}

impl Listener for Tcp {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<BoxIo>> {
        Box::pin(async move {
            let (stream, _) = self.listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxIo)
        })
    }

    fn address(&self) -> Address {
        self.address.clone()
    }
}

#[derive(Debug)]
struct Unix {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener for Unix {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<BoxIo>> {
        Box::pin(async move { Ok(Box::new(self.listener.accept().await?.0) as BoxIo) })
    }

    fn address(&self) -> Address {
        Address::Unix(self.path.clone())
    }
}

impl Drop for Unix {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_socket_file_left_by_a_crash_is_replaced_but_a_live_one_is_not() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = Address::Unix(dir.path().join("s"));
        let Address::Unix(path) = &at else { unreachable!() };
        drop(std::os::unix::net::UnixListener::bind(path).expect("bound"));
        let mut listener = RealNet.listen(&at).await.expect("a stale file is replaced");
        assert!(RealNet.listen(&at).await.is_err(), "a live one is not");
        let (a, b) = tokio::join!(RealNet.connect(&at), listener.accept());
        // The probe of the refused `listen` above is the first connection.
        drop(b);
        let (mut a, mut b) = (a.expect("connected"), listener.accept().await.expect("accepted"));
        a.write_all(b"hi").await.expect("written");
        let mut buf = [0; 2];
        b.read_exact(&mut buf).await.expect("read");
        assert_eq!(&buf, b"hi");
    }

    #[test]
    fn addresses_are_read_strictly() {
        assert_eq!("http://127.0.0.1:5/".parse::<Address>().expect("ok"), Address::Tcp("127.0.0.1:5".into()));
        assert_eq!("unix:/x".parse::<Address>().expect("ok"), Address::Unix("/x".into()));
        for bad in ["", "localhost", ":5", "a:b", "a:70000", "http://a:1/x"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
