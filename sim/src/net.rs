//! The network seam over turmoil's simulated TCP, and the cutting of connections.
//!
//! turmoil drops the segments that meet a partition and never sends them again, so a connection that lost one
//! stands still for ever. A real one is reset when the network is whole again; [`TurmoilNet::cut`] does that.
//! It must never touch the network of the machine.

use dstore_sys::net::{Address, BoxFuture, BoxIo, Listener, Net};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use turmoil::net::{TcpListener, TcpStream};

/// The network of one simulation, as one of its hosts sees it.
#[derive(Clone, Debug)]
pub struct TurmoilNet {
    state: Arc<State>,
    me: IpAddr,
}

#[derive(Debug, Default)]
struct State {
    /// What cuts the connections between two hosts, the smaller address first.
    cuts: Mutex<BTreeMap<(IpAddr, IpAddr), CancellationToken>>,
    trace: AtomicU64,
}

impl TurmoilNet {
    /// A new network, seen from `me`.
    pub fn new(me: IpAddr) -> Self {
        Self { state: Arc::default(), me }
    }

    /// The same network, seen from `me`.
    #[must_use]
    pub fn seen_from(&self, me: IpAddr) -> Self {
        Self { state: self.state.clone(), me }
    }

    /// Resets every connection between `a` and `b`, also those that are being made.
    pub fn cut(&self, a: IpAddr, b: IpAddr) {
        if let Some(cut) = self.state.cuts.lock().remove(&pair(a, b)) {
            cut.cancel();
        }
    }

    /// A digest of all that happened on it: equal for equal runs.
    pub fn trace(&self) -> u64 {
        self.state.trace.load(Ordering::Relaxed)
    }

    fn note(&self, event: u64) {
        let mixed = (self.trace() ^ event).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(7);
        self.state.trace.store(mixed, Ordering::Relaxed);
    }

    fn token(&self, a: IpAddr, b: IpAddr) -> CancellationToken {
        self.state.cuts.lock().entry(pair(a, b)).or_default().clone()
    }

    fn wire(&self, tcp: TcpStream) -> io::Result<BoxIo> {
        let (here, there) = (tcp.local_addr()?, tcp.peer_addr()?);
        let token = self.token(here.ip(), there.ip());
        let tag = u64::from(here.port()) << 16 | u64::from(there.port());
        self.note(tag);
        let cut = Box::pin(token.clone().cancelled_owned());
        Ok(Box::new(Wire { tcp, token, cut, net: self.clone(), tag }))
    }
}

fn pair(a: IpAddr, b: IpAddr) -> (IpAddr, IpAddr) {
    (a.min(b), a.max(b))
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl Net for TurmoilNet {
    fn connect<'a>(&'a self, to: &'a Address) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            let Address::Tcp(host_port) = to else { return Err(not_here(to)) };
            let host = host_port.rsplit_once(':').map_or(host_port.as_str(), |(host, _)| host);
            let cut = self.token(self.me, turmoil::lookup(host));
            let connected = cut.run_until_cancelled(TcpStream::connect(host_port.clone())).await;
            self.wire(connected.ok_or_else(reset)??)
        })
    }

    fn listen<'a>(&'a self, at: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let Address::Tcp(host_port) = at else { return Err(not_here(at)) };
            let listener = TcpListener::bind(host_port.clone()).await?;
            let address = Address::Tcp(listener.local_addr()?.to_string());
            Ok(Box::new(Door { listener, address, net: self.clone() }) as Box<dyn Listener>)
        })
    }
}

fn not_here(address: &Address) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("`{address}` is not on the simulated network"))
}

struct Door {
    listener: TcpListener,
    address: Address,
    net: TurmoilNet,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Door({})", self.address)
    }
}

impl Listener for Door {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<BoxIo>> {
        Box::pin(async move {
            let (tcp, _) = self.listener.accept().await?;
            self.net.wire(tcp)
        })
    }

    fn address(&self) -> Address {
        self.address.clone()
    }
}

/// One end of a connection.
struct Wire {
    tcp: TcpStream,
    token: CancellationToken,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    net: TurmoilNet,
    tag: u64,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(reset()));
        }
        let read = Pin::new(&mut self.tcp).poll_read(cx, buf);
        if read.is_ready() {
            self.net.note(self.tag << 1);
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.token.is_cancelled() {
            return Poll::Ready(Err(reset()));
        }
        let written = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        if written.is_ready() {
            self.net.note(self.tag << 1 | 1);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
