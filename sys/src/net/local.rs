//! A Unix socket on which one side asks and waits, for descriptors that come with the answer.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A connection to another process of this machine. Blocks, up to its patience: not for an async thread.
#[derive(Debug)]
pub struct LocalSocket(UnixStream);

impl LocalSocket {
    /// Connects; each wait for the other side ends after `patience`.
    ///
    /// # Errors
    /// When nobody listens there, or somebody who takes nobody in.
    pub fn connect(path: &Path, patience: Duration) -> io::Result<Self> {
        // Without blocking: a listener that was stopped and has its queue full would be waited for without end.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        let stream = UnixStream::from(socket);
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self(stream))
    }

    /// Says `question` and waits for an answer that fills `answer`.
    ///
    /// # Errors
    /// When the other side ends, or does not answer in time.
    pub fn ask(&mut self, question: &[u8], answer: &mut [u8]) -> io::Result<()> {
        self.0.write_all(question)?;
        self.0.read_exact(answer)
    }

    /// Another handle of the same connection.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Whether the other side has ended, or said something that nobody asked for.
    pub fn has_ended(&self) -> bool {
        let mut asked = [PollFd::new(&self.0, PollFlags::IN)];
        !matches!(poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
    }
}

impl AsFd for LocalSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<LocalSocket> for OwnedFd {
    fn from(socket: LocalSocket) -> Self {
        socket.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn an_answer_is_waited_for_with_patience_and_the_end_of_the_other_side_shows() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("s");
        assert!(LocalSocket::connect(&path, Duration::from_secs(30)).is_err(), "nobody listens");
        let listener = UnixListener::bind(&path).expect("bound");
        let mut socket = LocalSocket::connect(&path, Duration::from_secs(30)).expect("connected");
        let (mut other, _) = listener.accept().expect("it waits");
        other.write_all(b"yes").expect("written");
        let mut answer = [0; 3];
        socket.ask(b"there?", &mut answer).expect("answered");
        assert_eq!((&answer, socket.has_ended()), (b"yes", false));
        drop(other);
        assert!(socket.has_ended());
        let mut hasty = LocalSocket::connect(&path, Duration::from_millis(1)).expect("connected");
        let kind = hasty.ask(b"there?", &mut answer).expect_err("nobody answers").kind();
        assert!(matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{kind}");
    }
}
