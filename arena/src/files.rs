//! Owns the files without a name behind the memory, their seals, and the data that grows a segment at a time.
//!
//! ```text
//! data   | segment 0 | segment 2 | ...  not there yet ... | segment 3 | segment 1 |
//!          rows grow from here ->                           <- the index from here
//! ```
//! Invariants: memory of a file is reserved before anything is written to it, so that a machine that has no more says so
//! then, and not by a signal. A file is sealed before anybody else has its descriptor. Header and segments: nobody can shrink or grow
//! them, and nobody but the daemon, whose mapping is older than the seal, can write to them, by whatever way. A worker's
//! page: nobody can shrink or grow it.

use crate::error::Error;
use crate::layout::{self, PAGE_BYTES, WORD, segment};
use crate::map::{Access, Mapped};
use crate::memory::{Extend, Extent, Memory};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate,
    memfd_create,
};
use rustix::io::{Errno, pread, pwrite};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

fn failed(what: &'static str) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::System { what, source: errno.into() }
}

/// A file of `bytes` that only its descriptor leads to, mapped and then sealed.
pub(crate) fn create(
    name: &str,
    bytes: usize,
    writers: Writers,
    map: impl FnOnce(BorrowedFd<'_>) -> Result<Mapped, Error>,
) -> Result<(OwnedFd, Mapped), Error> {
    let file = unsealed(name, bytes)?;
    reserve(&file, 0, bytes)?;
    let mapped = map(file.as_fd())?;
    seal(&file, writers)?;
    Ok((file, mapped))
}

/// Times that a signal may interrupt the reservation of memory.
const INTERRUPTIONS_MAX: usize = 64;

fn unsealed(name: &str, bytes: usize) -> Result<OwnedFd, Error> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create(name, flags).map_err(unsupported("memfd_create"))?;
    ftruncate(&file, bytes as u64).map_err(failed("ftruncate"))?;
    Ok(file)
}

/// Has the memory of a part of a file: also of one that is sealed, which nobody can shrink.
fn reserve(file: &OwnedFd, from: usize, bytes: usize) -> Result<(), Error> {
    let reserve = || fallocate(file, FallocateFlags::empty(), from as u64, bytes as u64);
    let mut tries = std::iter::repeat_with(reserve).take(INTERRUPTIONS_MAX);
    let reserved = tries.find(|tried| *tried != Err(Errno::INTR)).unwrap_or(Err(Errno::INTR));
    reserved.map_err(failed("reserving memory"))
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
    let stat = fstat(file).map_err(failed("fstat"))?;
    Ok(stat.st_size.cast_unsigned())
}

/// Where a segment belongs, as the page behind its data says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamp {
    pub incarnation: [u64; 2],
    /// Its number.
    pub number: u64,
    /// The page of the data at which it begins.
    pub first_page: u64,
    /// Pages of data that it has.
    pub pages: u64,
}

impl Stamp {
    fn write(&self, file: BorrowedFd<'_>) -> Result<(), Error> {
        let mut words = [0; segment::WORDS];
        words[segment::MAGIC] = segment::MAGIC_WORD;
        words[segment::LAYOUT] = u64::from(layout::VERSION);
        words[segment::INCARNATION] = self.incarnation[0];
        words[segment::INCARNATION + 1] = self.incarnation[1];
        words[segment::NUMBER] = self.number;
        words[segment::FIRST_PAGE] = self.first_page;
        words[segment::PAGES] = self.pages;
        let bytes = words.map(u64::to_le_bytes).concat();
        let written = pwrite(file, &bytes, self.pages * PAGE_BYTES as u64).map_err(failed("pwrite"))?;
        if written == bytes.len() { Ok(()) } else { Err(failed("pwrite")(Errno::IO)) }
    }

    /// Reads the stamp of a segment that came from elsewhere, and checks that the file is as large as it says.
    ///
    /// # Errors
    /// `Foreign`, `Layout`, `System`.
    pub(crate) fn read(file: BorrowedFd<'_>) -> Result<Self, Error> {
        let behind = size(file)?.checked_sub(PAGE_BYTES as u64);
        let behind = behind.ok_or(Error::Foreign("a segment is smaller than a page"))?;
        let mut bytes = [0; segment::WORDS * WORD];
        let read = pread(file, &mut bytes, behind).map_err(failed("pread"))?;
        let mut words = [0; segment::WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<WORD>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        if read < bytes.len() || words[segment::MAGIC] != segment::MAGIC_WORD {
            return Err(Error::Foreign("a segment does not say which it is"));
        }
        if words[segment::LAYOUT] != u64::from(layout::VERSION) {
            return Err(Error::Layout { found: words[segment::LAYOUT], known: layout::VERSION });
        }
        if words[segment::PAGES].checked_mul(PAGE_BYTES as u64) != Some(behind) {
            return Err(Error::Foreign("a segment is not as large as it says"));
        }
        Ok(Self {
            incarnation: [words[segment::INCARNATION], words[segment::INCARNATION + 1]],
            number: words[segment::NUMBER],
            first_page: words[segment::FIRST_PAGE],
            pages: words[segment::PAGES],
        })
    }
}

/// Bytes on which a huge page may begin, and so a segment.
const HUGE_BYTES: usize = 2 << 20;
/// The first segment at the end, which the index takes, has one part in this many of one at the beginning; the further
/// ones double what is there.
const FIRST_PART: usize = 16;

/// Most segments that data of so many bytes can come to, for whoever counts the pages behind them.
pub(crate) fn segments_max(bytes: u64, segment_bytes: u64) -> u64 {
    // One part of what both ends have together is smaller than the others at each end, and the first ones at the end are.
    if bytes <= segment_bytes { 1 } else { bytes / segment_bytes + 2 + u64::from(FIRST_PART.ilog2()) }
}

/// Bytes that are reserved at a time.
const RESERVED_STEP: usize = 1 << 20;

/// The daemon's data: a segment more, at one end or the other, when it needs one.
#[derive(Debug)]
pub(crate) struct Segments {
    mapped: Arc<Mapped>,
    all: Mutex<Vec<Segment>>,
    incarnation: [u64; 2],
    segment_bytes: usize,
    /// Bytes reserved at the beginning, and from where on they are at the end.
    low: AtomicUsize,
    high: AtomicUsize,
}

/// One segment: its file, and where its data begins and ends.
#[derive(Debug)]
struct Segment {
    file: OwnedFd,
    place: Range<usize>,
}

impl Segments {
    pub(crate) fn new(
        incarnation: [u64; 2],
        bytes: usize,
        segment_bytes: usize,
        huge: bool,
    ) -> Result<Self, Error> {
        let mapped = Arc::new(Mapped::reserve(bytes, Access::Write, huge)?);
        let (low, high) = (AtomicUsize::new(0), AtomicUsize::new(bytes));
        Ok(Self { mapped, all: Mutex::default(), incarnation, segment_bytes, low, high })
    }

    /// The segments' files from number `from` on.
    pub(crate) fn files_from(&self, from: usize) -> Result<Vec<OwnedFd>, Error> {
        let all = self.all();
        let copies = all.iter().skip(from).map(|segment| segment.file.try_clone());
        copies.collect::<Result<_, _>>().map_err(|source| Error::System { what: "dup", source })
    }

    /// All of it, for reading in this process.
    pub(crate) fn mapped(&self) -> Arc<Mapped> {
        Arc::clone(&self.mapped)
    }

    fn all(&self) -> MutexGuard<'_, Vec<Segment>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next segment at the beginning.
    fn next_low(&self) -> Range<usize> {
        let Extent { low, high, .. } = self.mapped.extent();
        let (low, high) = (low * WORD, high * WORD);
        low..low.saturating_add(self.segment_bytes).min(high)
    }

    /// The next segment at the end.
    fn next_high(&self) -> Range<usize> {
        let Extent { low, high, end } = self.mapped.extent();
        let first = (self.segment_bytes / FIRST_PART).max(HUGE_BYTES).min(self.segment_bytes);
        let bytes = ((end - high) * WORD).clamp(first, self.segment_bytes);
        let from = (high * WORD).saturating_sub(bytes) / HUGE_BYTES * HUGE_BYTES;
        from.max(low * WORD)..high * WORD
    }

    fn add(&self, all: &mut Vec<Segment>, place: Range<usize>) -> Result<(), Error> {
        let file = unsealed("dstore-segment", place.len() + PAGE_BYTES)?;
        let page = |bytes: usize| (bytes / PAGE_BYTES) as u64;
        let (first_page, pages) = (page(place.start), page(place.len()));
        let stamp = Stamp { incarnation: self.incarnation, number: all.len() as u64, first_page, pages };
        stamp.write(file.as_fd())?;
        self.mapped.add(file.as_fd(), place.start, place.len(), || seal(&file, Writers::Present))?;
        all.push(Segment { file, place });
        Ok(())
    }

    /// Maps what is wanted.
    fn map(&self, all: &mut Vec<Segment>, low: usize, high: usize) -> Result<(), Error> {
        loop {
            let there = self.mapped.extent();
            let is_whole = there.low >= there.high;
            if is_whole || (there.low >= low && there.high <= high) {
                return Ok(());
            }
            let next = if there.low < low { self.next_low() } else { self.next_high() };
            self.add(all, next)?;
        }
    }
}

/// Has the memory of these bytes of the data, all of which is mapped.
fn reserve_in(all: &[Segment], part: &Range<usize>) -> Result<(), Error> {
    for Segment { file, place } in all {
        let (from, to) = (part.start.max(place.start), part.end.min(place.end));
        if from < to {
            reserve(file, from - place.start, to - from)?;
        }
    }
    Ok(())
}

impl Extend for Segments {
    fn extend(&self, low: usize, high: usize, words_max: usize) -> Result<bool, Error> {
        let mut all = self.all();
        // Under the lock; others only look.
        let (has_low, has_high) = (self.low.load(Ordering::Relaxed), self.high.load(Ordering::Relaxed));
        self.map(&mut all, low, high)?;
        // What was reserved from the other end counts too.
        let (low, high) = ((low * WORD).min(has_high), (high * WORD).max(has_low));
        let needed = low.saturating_sub(has_low) + has_high.saturating_sub(high);
        let Some(mut spare) = (words_max * WORD).checked_sub(self.reserved() * WORD + needed) else {
            return Ok(false);
        };
        // A whole step at each end that grows, if it is mapped and neither meets the other nor is too much.
        let extent = self.mapped.extent();
        if low > has_low {
            let to = low.next_multiple_of(RESERVED_STEP).min(extent.low * WORD).min(has_high.min(high));
            let to = to.max(low).min(low.saturating_add(spare));
            spare -= to - low;
            reserve_in(&all, &(has_low..to))?;
            self.low.store(to, Ordering::Relaxed);
        }
        if high < has_high {
            let mapped_from = if extent.low >= extent.high { 0 } else { extent.high * WORD };
            let from = high / RESERVED_STEP * RESERVED_STEP;
            let from = from.max(mapped_from).max(self.low.load(Ordering::Relaxed));
            let from = from.min(high).max(high - spare.min(high));
            reserve_in(&all, &(from..has_high))?;
            self.high.store(from, Ordering::Relaxed);
        }
        Ok(true)
    }

    fn segments(&self) -> u64 {
        self.all().len() as u64
    }

    fn reserved(&self) -> usize {
        let (low, high) = (self.low.load(Ordering::Relaxed), self.high.load(Ordering::Relaxed));
        (low + (self.mapped.extent().end * WORD).saturating_sub(high)) / WORD
    }
}

impl Memory for Segments {
    #[inline]
    fn extent(&self) -> Extent {
        self.mapped.extent()
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
