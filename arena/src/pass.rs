//! Owns how descriptors cross a Unix socket: as ancillary data of one byte each message (`SCM_RIGHTS`).
//!
//! ```text
//! attach    greeting, then header, page and segments
//! greeting  32 bytes: `dstGreet`, the sender's `CLOCK_BOOTTIME`, its time namespace (device and inode of
//!           `/proc/self/ns/time`; zeros: unknown)
//! files     in as many messages as it takes, ended by one without descriptors
//! message   one byte: how many descriptors come with it, and that many descriptors
//! ```
//! A lease is a moment of one clock. Linux gives each time namespace its own, so both sides compare theirs before anything
//! is mapped.
//! Invariant: what is received is closed if it is not used. Both sides bound what they take.

use crate::daemon::Descriptors;
use crate::error::Error;
use crate::reader::now;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;

/// The first word of a greeting.
const MAGIC: [u8; 8] = *b"dstGreet";

/// What is told before anything is given: which clock the sender reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Greeting {
    now: u64,
    /// 0, 0: unknown.
    namespace: [u64; 2],
}

impl Greeting {
    fn of_this_process() -> Self {
        let stat = rustix::fs::stat("/proc/self/ns/time");
        let namespace = stat.map_or([0, 0], |stat| [stat.st_dev, stat.st_ino]);
        Self { now: now(), namespace }
    }

    fn bytes(self) -> [u8; 32] {
        let words = [u64::from_le_bytes(MAGIC), self.now, self.namespace[0], self.namespace[1]];
        let mut bytes = [0; 32];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn read(bytes: [u8; 32]) -> Result<Self, Error> {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        let [magic, now, device, inode] = words;
        if magic.to_le_bytes() != MAGIC {
            return Err(Error::Foreign("the daemon does not greet as one that has shared memory to give"));
        }
        Ok(Self { now, namespace: [device, inode] })
    }

    /// Whether whoever sent this reads the same clock as `mine`, which was read since, and behind `asked`.
    fn check(self, mine: Self, asked: u64) -> Result<(), Error> {
        let both_known = ![self.namespace, mine.namespace].contains(&[0, 0]);
        if both_known && self.namespace != mine.namespace {
            return Err(Error::Clock("they are in different time namespaces"));
        }
        if mine.now < self.now {
            return Err(Error::Clock("the daemon's is ahead"));
        }
        if self.now < asked {
            return Err(Error::Clock("the daemon's is behind"));
        }
        Ok(())
    }
}

/// Descriptors of one message; the kernel takes 253 at most.
const BATCH: usize = 64;
/// Descriptors of one answer: header, page and the segments of the largest arena.
const DESCRIPTORS_MAX: usize = 1 << 16;

fn failed(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> Error {
    move |errno| Error::System { what, source: errno.into() }
}

/// Sends all that a worker needs to map an arena. On a blocking socket.
///
/// # Errors
/// `System`.
pub fn send(socket: impl AsFd, descriptors: &Descriptors) -> Result<(), Error> {
    greet(&socket, Greeting::of_this_process())?;
    let first = [descriptors.header.as_fd(), descriptors.page.as_fd()];
    let all = first.into_iter().chain(descriptors.segments.iter().map(AsFd::as_fd));
    send_files(socket, &all.collect::<Vec<_>>())
}

fn greet(socket: impl AsFd, greeting: Greeting) -> Result<(), Error> {
    let bytes = greeting.bytes();
    let mut left = &bytes[..];
    while !left.is_empty() {
        let sent = rustix::net::send(&socket, left, SendFlags::NOSIGNAL).map_err(failed("send"))?;
        left = &left[sent.min(left.len())..];
    }
    Ok(())
}

/// Sends segments that a reader lacks.
///
/// # Errors
/// `System`.
pub fn send_segments(socket: impl AsFd, segments: &[OwnedFd]) -> Result<(), Error> {
    send_files(socket, &segments.iter().map(AsFd::as_fd).collect::<Vec<_>>())
}

fn send_files(socket: impl AsFd, files: &[BorrowedFd<'_>]) -> Result<(), Error> {
    for batch in files.chunks(BATCH).chain(std::iter::once(&[] as &[_])) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !batch.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(batch));
        }
        let count = [batch.len() as u8];
        sendmsg(&socket, &[IoSlice::new(&count)], &mut ancillary, SendFlags::NOSIGNAL)
            .map_err(failed("sendmsg"))?;
    }
    Ok(())
}

/// Receives what [`send`] sent. On a blocking socket, whose time limit is the caller's.
///
/// # Errors
/// `Clock`: the daemon is in another time namespace, or its clock is ahead of this process's; `Foreign`, `System`.
pub fn receive(socket: impl AsFd) -> Result<Descriptors, Error> {
    receive_since(socket, 0)
}

/// As [`receive`], for who read the clock before it asked.
///
/// # Errors
/// As [`receive`]; `Clock` also if the daemon read its own before that.
pub fn receive_since(socket: impl AsFd, asked: u64) -> Result<Descriptors, Error> {
    greeted(&socket)?.check(Greeting::of_this_process(), asked)?;
    let mut files = receive_files(socket)?.into_iter();
    match (files.next(), files.next()) {
        (Some(header), Some(page)) => Ok(Descriptors { header, page, segments: files.collect() }),
        _ => Err(Error::Foreign("the daemon sent no descriptors")),
    }
}

fn greeted(socket: impl AsFd) -> Result<Greeting, Error> {
    let mut bytes = [0; 32];
    let mut have = 0;
    while have < bytes.len() {
        let (received, _) =
            rustix::net::recv(&socket, &mut bytes[have..], RecvFlags::empty()).map_err(failed("recv"))?;
        if received == 0 {
            return Err(Error::Foreign("the daemon closed its socket before it greeted"));
        }
        have += received;
    }
    Greeting::read(bytes)
}

/// Receives what [`send_segments`] sent.
///
/// # Errors
/// As [`receive`].
pub fn receive_segments(socket: impl AsFd) -> Result<Vec<OwnedFd>, Error> {
    receive_files(socket)
}

fn receive_files(socket: impl AsFd) -> Result<Vec<OwnedFd>, Error> {
    let mut files = Vec::new();
    while files.len() < DESCRIPTORS_MAX {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut count = [0];
        let received =
            recvmsg(&socket, &mut [IoSliceMut::new(&mut count)], &mut ancillary, RecvFlags::CMSG_CLOEXEC);
        let received = received.map_err(failed("recvmsg"))?;
        let before = files.len();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = message {
                files.extend(some);
            }
        }
        if received.bytes == 0 || files.len() - before != usize::from(count[0]) {
            return Err(Error::Foreign(
                "the daemon closed its socket, or descriptors were lost: is their limit reached?",
            ));
        }
        if count[0] == 0 {
            return Ok(files);
        }
    }
    Err(Error::Foreign("the daemon sent more descriptors than an arena can have"))
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn answer(greeting: Greeting, asked: u64) -> Error {
        let (daemons, workers) = UnixStream::pair().expect("sockets are to be had");
        greet(&daemons, greeting).expect("it is listened to");
        drop(daemons);
        receive_since(&workers, asked).expect_err("no descriptors were sent")
    }

    #[test]
    fn a_daemon_in_another_time_namespace_or_with_another_clock_is_refused() {
        let here = Greeting::of_this_process();
        let [device, inode] = here.namespace;
        let hour = 3_600_000_000_000;
        for (greeting, asked, why) in [
            (Greeting { namespace: [device, inode ^ 1], ..here }, 0, "different time namespaces"),
            (Greeting { now: here.now + hour, ..here }, 0, "the daemon's is ahead"),
            (Greeting { now: here.now + hour, namespace: [0, 0] }, 0, "the daemon's is ahead"),
            (Greeting { now: here.now - 1, ..here }, here.now, "the daemon's is behind"),
        ] {
            // It is not told of a namespace where there are none.
            if device == 0 && why.contains("namespaces") {
                continue;
            }
            let refused = answer(greeting, asked);
            assert!(matches!(refused, Error::Clock(_)) && refused.to_string().contains(why), "{refused}");
            assert!(refused.to_string().contains("read over the socket"), "{refused}");
        }
        // The clocks agree: what is missing now is the descriptors.
        for greeting in [here, Greeting { namespace: [0, 0], ..here }] {
            assert!(matches!(answer(greeting, here.now), Error::Foreign(_)));
        }
    }

    #[test]
    fn who_does_not_greet_has_nothing_to_give() {
        for said in [&b"HTTP/1.1 400 Bad Request\r\n\r\n    "[..], b"dstGreet", b""] {
            let (daemons, workers) = UnixStream::pair().unwrap();
            rustix::net::send(&daemons, said, SendFlags::NOSIGNAL).unwrap();
            drop(daemons);
            let why = receive(&workers).unwrap_err();
            assert!(matches!(why, Error::Foreign(_)), "{why}");
        }
    }
}
