//! Owns the files without a name behind the memory, their seals, and the data that grows a segment at a time.
//!
//! Invariants: a file is sealed before anybody else has its descriptor. Header and segments: nobody can shrink or grow
//! them, and nobody but the daemon, whose mapping is older than the seal, can write to them, by whatever way. A worker's
//! page: nobody can shrink or grow it.

use crate::error::Error;
use crate::layout::WORD;
use crate::map::{Access, Mapped};
use crate::memory::{Extend, Memory};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::io::Errno;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

/// Who may write to a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Writers {
    /// Who has mapped it already.
    Present,
    /// Who has its descriptor.
    All,
}

fn unsupported(what: &'static str) -> impl FnOnce(Errno) -> Error {
    move |errno| match errno {
        Errno::NOSYS | Errno::INVAL | Errno::PERM | Errno::OPNOTSUPP | Errno::ACCESS => {
            Error::Unsupported { what, source: errno.into() }
        }
        _ => Error::System { what, source: errno.into() },
    }
}

/// A file of `bytes` that only its descriptor leads to, mapped and then sealed.
pub(crate) fn create(
    name: &str,
    bytes: usize,
    writers: Writers,
    map: impl FnOnce(BorrowedFd<'_>) -> Result<Mapped, Error>,
) -> Result<(OwnedFd, Mapped), Error> {
    let (file, mapped) = unsealed(name, bytes, map)?;
    seal(&file, writers)?;
    Ok((file, mapped))
}

fn unsealed<T>(
    name: &str,
    bytes: usize,
    map: impl FnOnce(BorrowedFd<'_>) -> Result<T, Error>,
) -> Result<(OwnedFd, T), Error> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create(name, flags).map_err(unsupported("memfd_create"))?;
    let sized = ftruncate(&file, bytes as u64);
    sized.map_err(|errno| Error::System { what: "ftruncate", source: errno.into() })?;
    let mapped = map(file.as_fd())?;
    Ok((file, mapped))
}

fn seal(file: &OwnedFd, writers: Writers) -> Result<(), Error> {
    let sizes = SealFlags::SHRINK | SealFlags::GROW;
    let seals = if writers == Writers::Present { sizes | SealFlags::FUTURE_WRITE } else { sizes };
    fcntl_add_seals(file, seals | SealFlags::SEAL).map_err(unsupported("F_SEAL_FUTURE_WRITE"))
}

/// Checks a descriptor that came from elsewhere: sealed against shrinking, and against `writers` that come later; of `bytes`
/// at least.
pub(crate) fn check(file: BorrowedFd<'_>, bytes: u64, writers: Writers) -> Result<(), Error> {
    let seals = fcntl_get_seals(file).map_err(|_| Error::Foreign("a descriptor is not of shared memory"))?;
    if !seals.contains(SealFlags::SHRINK) {
        return Err(Error::Foreign("a file is not sealed against shrinking"));
    }
    if writers == Writers::Present && !seals.contains(SealFlags::FUTURE_WRITE) {
        return Err(Error::Foreign("a file is not sealed against writing"));
    }
    if size(file)? < bytes {
        return Err(Error::Foreign("a file is smaller than it says"));
    }
    Ok(())
}

/// Bytes of a file.
pub(crate) fn size(file: BorrowedFd<'_>) -> Result<u64, Error> {
    let stat = fstat(file).map_err(|errno| Error::System { what: "fstat", source: errno.into() })?;
    Ok(stat.st_size.cast_unsigned())
}

/// The daemon's data: a segment more when it needs one.
#[derive(Debug)]
pub(crate) struct Segments {
    mapped: Arc<Mapped>,
    files: Mutex<Vec<OwnedFd>>,
    segment_bytes: usize,
    bytes: usize,
}

impl Segments {
    pub(crate) fn new(bytes: usize, segment_bytes: usize, huge: bool) -> Result<Self, Error> {
        let mapped = Arc::new(Mapped::reserve(bytes, Access::Write, huge)?);
        Ok(Self { mapped, files: Mutex::default(), segment_bytes, bytes })
    }

    /// What is mapped, for whoever keeps a part of it beyond the arena.
    pub(crate) fn mapped(&self) -> Arc<Mapped> {
        Arc::clone(&self.mapped)
    }

    /// The segments' files from number `from` on.
    pub(crate) fn files_from(&self, from: usize) -> Result<Vec<OwnedFd>, Error> {
        let files = self.files.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let copies = files.iter().skip(from).map(OwnedFd::try_clone);
        copies.collect::<Result<_, _>>().map_err(|source| Error::System { what: "dup", source })
    }
}

impl Extend for Segments {
    fn extend(&self, words: usize) -> Result<u64, Error> {
        let mut files = self.files.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while self.mapped.words() < words.min(self.bytes / WORD) {
            let bytes = self.segment_bytes.min(self.bytes - self.mapped.words() * WORD);
            let (file, ()) = unsealed("dstore-segment", bytes, |file| self.mapped.append(file, bytes))?;
            seal(&file, Writers::Present)?;
            files.push(file);
        }
        Ok(files.len() as u64)
    }
}

impl Memory for Segments {
    #[inline]
    fn words(&self) -> usize {
        self.mapped.words()
    }

    #[inline]
    fn load(&self, at: usize, order: Ordering) -> u64 {
        self.mapped.load(at, order)
    }

    #[inline]
    fn store(&self, at: usize, word: u64, order: Ordering) {
        self.mapped.store(at, word, order);
    }

    #[inline]
    fn claim(&self, at: usize, word: u64) -> bool {
        self.mapped.claim(at, word)
    }

    #[inline]
    fn fence(&self, order: Ordering) {
        self.mapped.fence(order);
    }

    #[allow(unsafe_code)]
    unsafe fn slice(&self, at: usize, len: usize) -> Option<&[u8]> {
        // SAFETY: the caller's promise is handed on.
        unsafe { self.mapped.slice(at, len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_without_such_memory_says_what_is_missing_and_what_happens_instead() {
        for errno in [Errno::NOSYS, Errno::INVAL, Errno::PERM] {
            let why = unsupported("memfd_create")(errno);
            assert!(matches!(why, Error::Unsupported { .. }));
            let why = why.to_string();
            assert!(why.contains("memfd_create failed") && why.contains("read over the socket"), "{why}");
        }
        let why = unsupported("memfd_create")(Errno::MFILE);
        assert!(matches!(why, Error::System { .. }), "that may be otherwise the next time: {why}");
    }
}
