//! The network seam over turmoil's simulated TCP, and the cutting of connections.
//!
//! turmoil drops the segments that meet a partition and never sends them again, so a connection that lost one
//! stands still for ever. A real one is reset when the network is whole again; [`TurmoilNet::cut`] does that.
//!
//! A crash drops tasks in an order that hangs on numbers which tokio gives out for the whole process, and with
//! them their connections, each of which draws from turmoil's randomness. [`TurmoilNet::vanish`], called before,
//! leaves nothing to draw.
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
    /// The streams that are open, with their host, in the order they were opened.
    open: Mutex<BTreeMap<u64, (IpAddr, Stream)>>,
    opened: AtomicU64,
    trace: AtomicU64,
}

/// A connection's end; `None` = its host crashed.
type Stream = Arc<Mutex<Option<TcpStream>>>;

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

    /// Ends every connection of `host` without a word to its peers. To be called between two steps, before
    /// the host crashes.
    pub fn vanish(&self, host: IpAddr) {
        let open = std::mem::take(&mut *self.state.open.lock());
        let (gone, stay) = open.into_iter().partition(|(_, (at, _))| *at == host);
        *self.state.open.lock() = stay;
        let gone: BTreeMap<u64, (IpAddr, Stream)> = gone;
        for (_, stream) in gone.into_values() {
            stream.lock().take();
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
        let number = self.state.opened.fetch_add(1, Ordering::Relaxed);
        let tcp = Arc::new(Mutex::new(Some(tcp)));
        self.state.open.lock().insert(number, (self.me, tcp.clone()));
        Ok(Box::new(Wire { tcp, number, token, cut, net: self.clone(), tag }))
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
    tcp: Stream,
    number: u64,
    token: CancellationToken,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    net: TurmoilNet,
    tag: u64,
}

impl Wire {
    /// What the stream makes of it, unless its connection is no more; `event` tells what it was.
    fn on_stream<T>(
        &self,
        event: u64,
        poll: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let polled = match self.tcp.lock().as_mut() {
            Some(tcp) if !self.token.is_cancelled() => poll(Pin::new(tcp)),
            _ => Poll::Ready(Err(reset())),
        };
        if polled.is_ready() {
            self.net.note(self.tag << 2 | event);
        }
        polled
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Asked for its waker's sake.
        let _ = self.cut.as_mut().poll(cx);
        self.on_stream(0, |tcp| tcp.poll_read(cx, buf))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.on_stream(1, |tcp| tcp.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.on_stream(2, |tcp| tcp.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.on_stream(3, |tcp| tcp.poll_shutdown(cx))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.net.state.open.lock().remove(&self.number);
    }
}
