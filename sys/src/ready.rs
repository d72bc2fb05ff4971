//! Sockets of the machine for event loops that have threads of their own: readiness instead of tasks.
//!
//! A [`Poller`] tells what became ready (edge-triggered: once for each change), a [`Waker`] ends its wait from any
//! thread, and a [`Stream`] is read and written without ever waiting. Simulation has none of it: it belongs to doors
//! that serve other processes of this machine.

use crate::net::Address;
use mio::{Events, Interest, Poll, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use rustix::process::{PidfdFlags, pidfd_open};
use std::io::{self, IoSlice, Read, Write};
use std::net::ToSocketAddrs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What became ready in one wait, at most.
const EVENTS: usize = 1024;
/// The token of the waker.
const WAKER: Token = Token(usize::MAX);
/// A peer of which nothing was heard for so long is asked whether it is there, and again so often.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);

/// What became ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ready {
    /// What it was registered under.
    pub token: usize,
    /// There may be bytes to read, or connections to accept.
    pub readable: bool,
    /// There may be room to write.
    pub writable: bool,
    /// The peer ended its side, or the connection failed: reading tells which.
    pub ended: bool,
}

/// Waits for readiness. Owned by one thread.
#[derive(Debug)]
pub struct Poller {
    poll: Poll,
    events: Events,
    waker: Waker,
}

/// Ends the wait of a [`Poller`], from any thread. Clones wake the same one.
#[derive(Clone, Debug)]
pub struct Waker(Arc<mio::Waker>);

impl Waker {
    /// Ends the present wait, or the next.
    pub fn wake(&self) {
        // It fails only when the counter is full: then it is awake already.
        let _ = self.0.wake();
    }
}

impl Poller {
    /// A poller that waits for nothing yet.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker(Arc::new(mio::Waker::new(poll.registry(), WAKER)?));
        Ok(Self { poll, events: Events::with_capacity(EVENTS), waker })
    }

    /// What ends its wait.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Tells under `token` when bytes come on `stream`. No token is `usize::MAX`.
    ///
    /// # Errors
    /// When the kernel has no room for it.
    pub fn add(&self, stream: &mut Stream, token: usize) -> io::Result<()> {
        let (registry, token) = (self.poll.registry(), Token(token));
        match stream {
            Stream::Tcp(stream) => registry.register(stream, token, Interest::READABLE),
            Stream::Unix(stream) => registry.register(stream, token, Interest::READABLE),
        }
    }

    /// Whether it also tells when there is room to write. Only for as long as somebody waits for room: else each read
    /// of the peer would wake this thread, at the peer's cost.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn want_room(&self, stream: &mut Stream, token: usize, wanted: bool) -> io::Result<()> {
        let (registry, token) = (self.poll.registry(), Token(token));
        let read = Interest::READABLE;
        let interest = if wanted { read | Interest::WRITABLE } else { read };
        match stream {
            Stream::Tcp(stream) => registry.reregister(stream, token, interest),
            Stream::Unix(stream) => registry.reregister(stream, token, interest),
        }
    }

    /// Tells under `token` when somebody connects.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_acceptor(&self, acceptor: &mut Acceptor, token: usize) -> io::Result<()> {
        match &mut acceptor.0 {
            Listening::Tcp(listener) => {
                self.poll.registry().register(listener, Token(token), Interest::READABLE)
            }
            Listening::Unix(listener, _) => {
                self.poll.registry().register(listener, Token(token), Interest::READABLE)
            }
        }
    }

    /// Waits until something is ready, it is woken, or `limit` has passed; then gives what is ready.
    ///
    /// # Errors
    /// When the kernel refuses: nothing more will come.
    pub fn wait(&mut self, limit: Option<Duration>) -> io::Result<impl Iterator<Item = Ready>> {
        match self.poll.poll(&mut self.events, limit) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            waited => waited?,
        }
        let told = self.events.iter().filter(|event| event.token() != WAKER);
        Ok(told.map(|event| Ready {
            token: event.token().0,
            readable: event.is_readable(),
            writable: event.is_writable(),
            ended: event.is_read_closed() || event.is_error(),
        }))
    }
}

/// A connection that never waits: what is not ready fails with `WouldBlock`.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(mio::net::TcpStream),
    /// Over a Unix socket.
    Unix(mio::net::UnixStream),
}

impl Stream {
    /// Two that are connected with each other.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = mio::net::UnixStream::pair()?;
        Ok((Self::Unix(one), Self::Unix(other)))
    }

    /// Where the peer is, for people.
    pub fn peer(&self) -> String {
        match self {
            Self::Tcp(stream) => stream.peer_addr().map_or_else(|_| "?:0".into(), |at| at.to_string()),
            Self::Unix(_) => "unix:0".into(),
        }
    }

    /// The process at the other end of a Unix socket, if it can be told.
    pub fn peer_process(&self) -> Option<PeerProcess> {
        let Self::Unix(stream) = self else { return None };
        let pid = sockopt::socket_peercred(stream).ok()?.pid;
        pidfd_open(pid, PidfdFlags::empty()).ok().map(PeerProcess)
    }

    fn prepared(self) -> Self {
        if let Self::Tcp(stream) = &self {
            // Without them it works too, only slower, or notices later that nobody is there.
            let _ = stream.set_nodelay(true);
            let _ = keep_alive(stream.as_fd());
        }
        self
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

/// A process of this machine that connected here.
#[derive(Debug)]
pub struct PeerProcess(OwnedFd);

impl PeerProcess {
    /// Whether it has ended. Its socket may live on in a child.
    pub fn has_ended(&self) -> bool {
        let mut asked = [PollFd::new(&self.0, PollFlags::IN)];
        matches!(poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1))
    }
}

fn keep_alive(socket: BorrowedFd<'_>) -> io::Result<()> {
    let (idle, every, times) = KEEPALIVE;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, idle)?;
    sockopt::set_tcp_keepintvl(socket, every)?;
    sockopt::set_tcp_keepcnt(socket, times)?;
    Ok(())
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(pieces),
            Self::Unix(stream) => stream.write_vectored(pieces),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes connections without waiting. A Unix socket's file is removed with it.
#[derive(Debug)]
pub struct Acceptor(Listening);

#[derive(Debug)]
enum Listening {
    Tcp(mio::net::TcpListener),
    Unix(mio::net::UnixListener, PathBuf),
}

impl Acceptor {
    /// Listens at a TCP address or a Unix socket (mode 0660). A socket file that nobody listens on is replaced.
    /// May look a name up: not for an async thread.
    ///
    /// # Errors
    /// When the address is taken, is none of this machine's, or is an address within a process.
    pub fn bind(at: &Address) -> io::Result<Self> {
        match at {
            Address::Tcp(host_port) => bind_tcp(host_port).map(|listener| Self(Listening::Tcp(listener))),
            Address::Unix(path) => {
                bind_unix(path).map(|listener| Self(Listening::Unix(listener, path.clone())))
            }
            Address::Memory(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Where it really listens.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn address(&self) -> io::Result<Address> {
        match &self.0 {
            Listening::Tcp(listener) => Ok(Address::Tcp(listener.local_addr()?.to_string())),
            Listening::Unix(_, path) => Ok(Address::Unix(path.clone())),
        }
    }

    /// The next connection that waits.
    ///
    /// # Errors
    /// `WouldBlock` if there is none; others when the process is out of descriptors, or that one is gone already.
    pub fn accept(&self) -> io::Result<Stream> {
        let stream = match &self.0 {
            Listening::Tcp(listener) => Stream::Tcp(listener.accept()?.0),
            Listening::Unix(listener, _) => Stream::Unix(listener.accept()?.0),
        };
        Ok(stream.prepared())
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        if let Listening::Unix(_, path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn bind_tcp(host_port: &str) -> io::Result<mio::net::TcpListener> {
    let mut failed = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
    for at in host_port.to_socket_addrs()? {
        match mio::net::TcpListener::bind(at) {
            Ok(listener) => return Ok(listener),
            Err(e) => failed = e,
        }
    }
    Err(failed)
}

fn bind_unix(path: &Path) -> io::Result<mio::net::UnixListener> {
    let bound = match mio::net::UnixListener::bind(path) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            let probe = std::os::unix::net::UnixStream::connect(path);
            if !probe.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
                return Err(e);
            }
            std::fs::remove_file(path)?;
            mio::net::UnixListener::bind(path)?
        }
        bound => bound?,
    };
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o660))?;
    Ok(bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_connected_is_known_until_it_has_ended() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("s");
        let acceptor = Acceptor::bind(&Address::Unix(path.clone())).expect("bound");
        let _client = std::os::unix::net::UnixStream::connect(&path).expect("connected");
        let stream = acceptor.accept().expect("it waits");
        assert!(!stream.peer_process().expect("it is this one").has_ended());
        let mut child = std::process::Command::new("true").spawn().expect("it runs");
        let pid = rustix::process::Pid::from_child(&child);
        let process = PeerProcess(pidfd_open(pid, PidfdFlags::empty()).expect("it is there"));
        child.wait().expect("ended");
        assert!(process.has_ended());
    }

    #[test]
    fn bytes_and_wakes_end_a_wait_and_a_socket_file_goes_with_its_acceptor() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("s");
        let mut acceptor = Acceptor::bind(&Address::Unix(path.clone())).expect("bound");
        assert!(Acceptor::bind(&Address::Unix(path.clone())).is_err(), "a live one is not replaced");
        let mut poller = Poller::new().expect("a poller");
        poller.add_acceptor(&mut acceptor, 7).expect("added");
        let mut client = std::os::unix::net::UnixStream::connect(&path).expect("connected");
        let limit = Some(Duration::from_secs(30));
        let ready: Vec<Ready> = poller.wait(limit).expect("waited").collect();
        assert!(ready.iter().any(|r| r.token == 7 && r.readable), "{ready:?}");
        // The probe of the refused bind may be the first.
        let mut streams = Vec::new();
        while let Ok(mut stream) = acceptor.accept() {
            poller.add(&mut stream, streams.len()).expect("added");
            streams.push(stream);
        }
        client.write_all(b"hi").expect("written");
        let last = streams.len() - 1;
        let mut told = false;
        while !told {
            told = poller.wait(limit).expect("waited").any(|r| r.token == last && r.readable);
        }
        let mut bytes = [0; 8];
        assert_eq!(streams[last].read(&mut bytes).expect("read"), 2);
        assert_eq!(streams[last].read(&mut bytes).expect_err("empty").kind(), io::ErrorKind::WouldBlock);
        poller.waker().wake();
        assert_eq!(poller.wait(limit).expect("woken").count(), 0);
        drop(acceptor);
        assert!(!path.exists());
    }
}
