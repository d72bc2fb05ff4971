//! The network seam over turmoil's simulated TCP, and the cutting of connections.
//!
//! turmoil drops the segments that meet a partition and never sends them again, so a connection that lost one
//! stands still for ever. A real one is reset when the network is whole again; [`TurmoilNet::cut`] does that.
//!
//! A crash drops tasks in an order that hangs on numbers which tokio gives out for the whole process, and with
//! them their connections, each of which draws from turmoil's randomness. [`TurmoilNet::vanish`], called before,
//! leaves nothing to draw.
//!
//! A connection can also end in the middle of a frame ([`TurmoilNet::cut_after`]), and carry a value damaged
//! ([`TurmoilNet::damage`]): the bytes of values only, as headers and frames have no check but that of TCP.
//! It must never touch the network of the machine.

use dstore_sys::net::{Address, BoxFuture, BoxIo, Listener, Net};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
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
    /// Between two hosts the connection ends that writes so many bytes more.
    budgets: Mutex<BTreeMap<(IpAddr, IpAddr), usize>>,
    /// Between two hosts the next value that is read arrives damaged.
    damages: Mutex<BTreeSet<(IpAddr, IpAddr)>>,
    damaged: AtomicU64,
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

    /// Of the connections between `a` and `b`, that one ends which writes `bytes` bytes more, all counted: what it
    /// wrote still arrives, be it half a frame.
    pub fn cut_after(&self, a: IpAddr, b: IpAddr, bytes: usize) {
        self.state.budgets.lock().insert(pair(a, b), bytes);
    }

    /// The next value of some length that arrives between `a` and `b` has a bit turned.
    pub fn damage(&self, a: IpAddr, b: IpAddr) {
        self.state.damages.lock().insert(pair(a, b));
    }

    /// Nothing is cut or damaged any more by [`Self::cut_after`] and [`Self::damage`].
    pub fn heal(&self, a: IpAddr, b: IpAddr) {
        self.state.budgets.lock().remove(&pair(a, b));
        self.state.damages.lock().remove(&pair(a, b));
    }

    /// How many values arrived damaged.
    pub fn damaged(&self) -> u64 {
        self.state.damaged.load(Ordering::Relaxed)
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
        let between = pair(here.ip(), there.ip());
        let token = self.token(here.ip(), there.ip()).child_token();
        let tag = u64::from(here.port()) << 16 | u64::from(there.port());
        self.note(tag);
        let cut = Box::pin(token.clone().cancelled_owned());
        let number = self.state.opened.fetch_add(1, Ordering::Relaxed);
        let tcp = Arc::new(Mutex::new(Some(tcp)));
        self.state.open.lock().insert(number, (self.me, tcp.clone()));
        Ok(Box::new(Wire { tcp, number, token, cut, net: self.clone(), tag, between }))
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

/// A place within a value: those of the simulation repeat four bytes, the last two of them zero.
fn value_in(bytes: &[u8]) -> Option<usize> {
    const RUN: usize = 96;
    let is_value = |run: &[u8]| {
        let word = run[..4].iter().position(|b| *b != 0).map(|at| &run[at..at + 4]);
        word.is_some_and(|word| word[2..] == [0, 0]) && run.windows(5).all(|w| w[0] == w[4])
    };
    (0..bytes.len().saturating_sub(RUN))
        .step_by(RUN)
        .find(|at| is_value(&bytes[*at..*at + RUN]))
        .map(|at| at + RUN / 2)
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
    between: (IpAddr, IpAddr),
}

impl Wire {
    /// How many of `len` bytes may still be written before the connection ends, if it is to.
    fn allowed(&self, len: usize) -> usize {
        self.net.state.budgets.lock().get(&self.between).map_or(len, |left| len.min(*left))
    }

    /// Ends the connection if these were the last bytes that it may write.
    fn spend(&self, bytes: usize) {
        let mut budgets = self.net.state.budgets.lock();
        let Some(left) = budgets.get_mut(&self.between) else { return };
        *left -= bytes.min(*left);
        if *left == 0 {
            budgets.remove(&self.between);
            // What was written goes before the end of the stream.
            self.tcp.lock().take();
            self.token.cancel();
        }
    }

    /// Turns a bit of a value in `bytes`, if one is to be damaged and there is one.
    fn damage(&self, bytes: &mut [u8]) {
        let mut damages = self.net.state.damages.lock();
        if damages.contains(&self.between)
            && let Some(at) = value_in(bytes)
        {
            bytes[at] ^= 0x10;
            damages.remove(&self.between);
            self.net.state.damaged.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What the stream makes of it, unless its connection is no more; `event` tells what it was. Of a host that is no
    /// more nothing is noted: its tasks are dropped in no order.
    fn on_stream<T>(
        &self,
        event: u64,
        poll: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut tcp = self.tcp.lock();
        let Some(tcp) = tcp.as_mut() else { return Poll::Ready(Err(reset())) };
        let polled = if self.token.is_cancelled() { Poll::Ready(Err(reset())) } else { poll(Pin::new(tcp)) };
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
        let before = buf.filled().len();
        let polled = self.on_stream(0, |tcp| tcp.poll_read(cx, buf));
        self.damage(&mut buf.filled_mut()[before..]);
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let allowed = &bytes[..self.allowed(bytes.len())];
        let polled = self.on_stream(1, |tcp| tcp.poll_write(cx, allowed));
        if let Poll::Ready(Ok(written)) = polled {
            self.spend(written);
        }
        polled
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
