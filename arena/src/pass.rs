//! Owns how descriptors cross a Unix socket: as ancillary data of one byte each message (`SCM_RIGHTS`).
//!
//! ```text
//! message   one byte: how many descriptors come with it, and that many descriptors
//! attach    header, page, then segments, in as many messages as it takes, ended by one without descriptors
//! ```
//! Invariant: what is received is closed if it is not used. Both sides bound what they take.

use crate::daemon::Descriptors;
use crate::error::Error;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;

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
    let first = [descriptors.header.as_fd(), descriptors.page.as_fd()];
    let all = first.into_iter().chain(descriptors.segments.iter().map(AsFd::as_fd));
    send_files(socket, &all.collect::<Vec<_>>())
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
/// `Foreign`, `System`.
pub fn receive(socket: impl AsFd) -> Result<Descriptors, Error> {
    let mut files = receive_files(socket)?.into_iter();
    match (files.next(), files.next()) {
        (Some(header), Some(page)) => Ok(Descriptors { header, page, segments: files.collect() }),
        _ => Err(Error::Foreign("the daemon sent no descriptors")),
    }
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
