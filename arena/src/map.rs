//! Owns mapped memory: the only file of this crate, beside the seam it implements, with `unsafe` (see `UNSAFE.md`).
//!
//! Invariants: the words that `low` and `high` say are there are mapped from that moment until the mapping is dropped; all
//! of them are accessed atomically, but for slices, whose safety is their caller's. Files are sealed against
//! shrinking before they are mapped, so that no access meets a page that is not there.
//! It must never hand out a pointer.

#![allow(unsafe_code)]

use crate::error::Error;
use crate::layout::WORD;
use crate::memory::{Extent, Memory, padded};
use rustix::fd::BorrowedFd;
use rustix::mm::{self, Advice, MapFlags, ProtFlags};
use std::ptr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

/// How a file is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Read,
    Write,
}

/// Addresses on which a huge page may begin.
const HUGE_BYTES: usize = 2 << 20;

/// Addresses reserved, of which the first and the last are mapped.
#[derive(Debug)]
pub(crate) struct Mapped {
    /// Where the reservation begins, and its bytes: those of `base` and what its alignment took.
    reserved: *mut u8,
    reserved_bytes: usize,
    base: *mut u64,
    bytes: usize,
    low: AtomicUsize,
    high: AtomicUsize,
    is_writable: bool,
    is_huge: bool,
    /// Its addresses are not its own any more: see [`Mapped::forget`].
    is_forgotten: bool,
}

// SAFETY: the pointer is to memory that is mapped until the drop, which needs the value itself; every access through a
// shared reference is to an atomic, or through `slice`, whose caller answers for it.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

fn failed(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> Error {
    move |errno| Error::System { what, source: errno.into() }
}

impl Mapped {
    /// Reserves addresses for `bytes`, a whole number of pages; nothing is mapped yet. `huge`: huge pages are asked for;
    /// that they cannot be had is no error.
    ///
    /// # Errors
    /// `System`.
    pub(crate) fn reserve(bytes: usize, access: Access, huge: bool) -> Result<Self, Error> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let reserved_bytes = if huge { bytes + HUGE_BYTES } else { bytes };
        // SAFETY: with a null address the kernel chooses addresses that nothing uses.
        let reserved =
            unsafe { mm::mmap_anonymous(ptr::null_mut(), reserved_bytes, ProtFlags::empty(), flags) };
        let reserved = reserved.map_err(failed("reserving addresses"))?.cast::<u8>();
        let skipped = if huge { reserved.align_offset(HUGE_BYTES).min(HUGE_BYTES) } else { 0 };
        // SAFETY: at most `HUGE_BYTES` in, which were reserved beyond `bytes` for that.
        let base = unsafe { reserved.add(skipped) };
        Ok(Self {
            reserved,
            reserved_bytes,
            base: base.cast(),
            bytes,
            low: AtomicUsize::new(0),
            high: AtomicUsize::new(bytes / WORD),
            is_writable: access == Access::Write,
            is_huge: huge,
            is_forgotten: false,
        })
    }

    /// Maps a whole file.
    ///
    /// # Errors
    /// `System`.
    pub(crate) fn whole(file: BorrowedFd<'_>, bytes: usize, access: Access) -> Result<Self, Error> {
        let mapped = Self::reserve(bytes, access, false)?;
        mapped.add(file, 0, bytes, || Ok(()))?;
        Ok(mapped)
    }

    /// Maps the first `bytes` of a file, a whole number of pages, `at` so many bytes in: behind what is mapped at the
    /// beginning or before what is mapped at the end. It counts as mapped once `last` has been done; if that fails it is
    /// given up. One caller at a time.
    ///
    /// # Errors
    /// `System`; `Foreign` if it does not belong there; what `last` says.
    pub(crate) fn add(
        &self,
        file: BorrowedFd<'_>,
        at: usize,
        bytes: usize,
        last: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Extent { low, high, end } = self.extent();
        let (low, high) = (low * WORD, high * WORD);
        let behind = at.checked_add(bytes).filter(|behind| at >= low && *behind <= high);
        let Some(behind) = behind.filter(|behind| bytes > 0 && (at == low || *behind == high)) else {
            return Err(Error::Foreign("its segments do not lie beside one another"));
        };
        // SAFETY: `at` is within the reservation.
        let start = unsafe { self.base.add(at / WORD) };
        let access = if self.is_writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: `at..behind` is within the reservation and nothing of it is mapped, so the only thing that is replaced is
        // reserved addresses that nothing refers to.
        let mapped = unsafe { mm::mmap(start.cast(), bytes, access, flags, file, 0) };
        mapped.map_err(failed("mapping shared memory"))?;
        if self.is_huge {
            // SAFETY: the range was mapped just now; the advice does not change what its addresses hold.
            let _ = unsafe { mm::madvise(start.cast(), bytes, Advice::LinuxHugepage) };
        }
        if let Err(why) = last() {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
            // SAFETY: what is replaced was mapped just now, and nothing was told of it. It is reserved again.
            let given_up = unsafe { mm::mmap_anonymous(start.cast(), bytes, ProtFlags::empty(), flags) };
            debug_assert!(given_up.is_ok(), "what was reserved can be reserved");
            return Err(why);
        }
        if behind == high {
            // In this order: whoever sees the middle one sees a memory that ends earlier, and nothing that is not there.
            self.high.store(at / WORD, Ordering::Release);
        }
        if at == low {
            self.low.store(if behind == high { end } else { behind / WORD }, Ordering::Release);
        }
        Ok(())
    }

    /// Leaves it out of children: there, no address of it is mapped.
    ///
    /// # Errors
    /// `System`.
    pub(crate) fn dont_fork(&self) -> Result<(), Error> {
        // SAFETY: the range is this mapping's own, and the advice does not change what its addresses hold in this process.
        let left_out = unsafe { mm::madvise(self.base.cast(), self.bytes, Advice::LinuxDontFork) };
        left_out.map_err(failed("madvise(MADV_DONTFORK)"))
    }

    /// Says that this is a child, which the mapping was left out of: there, something else may lie at its addresses by now,
    /// so nothing is unmapped.
    pub(crate) fn forget(&mut self) {
        self.low = AtomicUsize::new(0);
        self.high = AtomicUsize::new(self.bytes / WORD);
        self.is_forgotten = true;
    }

    #[inline]
    fn word(&self, at: usize) -> Option<&AtomicU64> {
        // The one that is asked for more often first.
        if at >= self.low.load(Ordering::Acquire) && !self.extent().has(at) {
            return None;
        }
        // SAFETY: word `at` lies within the mapping.
        let word = unsafe { self.base.add(at) };
        // SAFETY: it is aligned, because the mapping begins on a page; it stays mapped for as long as `self`; and every
        // access to it, in this process and in others, is atomic but for reads of what nobody writes.
        Some(unsafe { AtomicU64::from_ptr(word) })
    }

    /// As [`Mapped::word`], of `count` words.
    #[inline]
    fn words(&self, at: usize, count: usize) -> Option<&[AtomicU64]> {
        if !self.extent().has_all(at, count) {
            return None;
        }
        // SAFETY: word `at` lies within the mapping.
        let start = unsafe { self.base.add(at) };
        // SAFETY: as for one word; all of them lie within the mapping, and an `AtomicU64` is laid out as its word.
        Some(unsafe { std::slice::from_raw_parts(start.cast(), count) })
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        if self.is_forgotten {
            return;
        }
        // SAFETY: the range is this mapping's own, because it was not forgotten; `&mut self` says that no reference into it
        // is left.
        let unmapped = unsafe { mm::munmap(self.reserved.cast(), self.reserved_bytes) };
        debug_assert!(unmapped.is_ok(), "what was mapped can be unmapped");
    }
}

impl Memory for Mapped {
    #[inline]
    fn extent(&self) -> Extent {
        let (low, high) = (self.low.load(Ordering::Acquire), self.high.load(Ordering::Acquire));
        Extent { low, high, end: self.bytes / WORD }
    }

    #[inline]
    fn load(&self, at: usize, order: Ordering) -> u64 {
        self.try_load(at, order).unwrap_or(0)
    }

    #[inline]
    fn try_load(&self, at: usize, order: Ordering) -> Option<u64> {
        let word = self.word(at)?.load(Ordering::Relaxed);
        // Of memory that is mapped read-only only relaxed loads are promised not to write.
        if order == Ordering::Acquire {
            fence(Ordering::Acquire);
        }
        Some(word)
    }

    #[inline]
    fn several<const N: usize>(&self, at: usize) -> Option<[u64; N]> {
        let words = self.words(at, N)?.first_chunk::<N>()?;
        Some(std::array::from_fn(|i| words[i].load(Ordering::Relaxed)))
    }

    #[inline]
    fn read(&self, at: usize, to: &mut [u8]) {
        let Some(words) = self.words(at, to.len().div_ceil(WORD)) else { return to.fill(0) };
        let (whole, rest) = to.as_chunks_mut::<WORD>();
        for (word, bytes) in words.iter().zip(&mut *whole) {
            *bytes = word.load(Ordering::Relaxed).to_le_bytes();
        }
        if let (false, Some(last)) = (rest.is_empty(), words.last()) {
            let word = last.load(Ordering::Relaxed).to_le_bytes();
            rest.copy_from_slice(&word[..rest.len()]);
        }
    }

    #[inline]
    fn same(&self, at: usize, bytes: &[u8]) -> bool {
        let Some(words) = self.words(at, bytes.len().div_ceil(WORD)) else { return false };
        let (whole, rest) = bytes.as_chunks::<WORD>();
        let is_same = |(word, bytes): (&AtomicU64, &[u8; WORD])| {
            word.load(Ordering::Relaxed) == u64::from_le_bytes(*bytes)
        };
        words.iter().zip(whole).all(is_same)
            && (rest.is_empty()
                || words.last().is_some_and(|last| last.load(Ordering::Relaxed) == padded(rest)))
    }

    #[inline]
    fn store(&self, at: usize, word: u64, order: Ordering) {
        debug_assert!(self.is_writable, "a reader's mapping is never written");
        if let Some(place) = self.word(at).filter(|_| self.is_writable) {
            place.store(word, order);
        }
    }

    #[inline]
    fn claim(&self, at: usize, word: u64) -> bool {
        let (taken, not) = (Ordering::Acquire, Ordering::Relaxed);
        self.word(at)
            .filter(|_| self.is_writable)
            .is_some_and(|place| place.compare_exchange(0, word, taken, not).is_ok())
    }

    #[inline]
    fn fence(&self, order: Ordering) {
        fence(order);
    }

    #[inline]
    unsafe fn slice(&self, at: usize, len: usize) -> Option<&[u8]> {
        if !self.extent().has_all(at, len.div_ceil(WORD)) {
            return None;
        }
        // SAFETY: word `at` lies within the mapping.
        let start = unsafe { self.base.add(at) };
        // SAFETY: all bytes are mapped for as long as `self`; that nobody writes them is the caller's promise.
        Some(unsafe { std::slice::from_raw_parts(start.cast(), len) })
    }
}

/// A page that a child finds empty: by it a process knows that it is not the one that attached.
#[derive(Debug)]
pub(crate) struct Canary(*mut u8);

// SAFETY: the page is written once, before it is shared, and mapped until the drop.
unsafe impl Send for Canary {}
// SAFETY: as above.
unsafe impl Sync for Canary {}

const CANARY_BYTES: usize = crate::layout::PAGE_BYTES;

impl Canary {
    /// # Errors
    /// `System`.
    pub(crate) fn new() -> Result<Self, Error> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: with a null address the kernel chooses addresses that nothing uses.
        let page = unsafe { mm::mmap_anonymous(ptr::null_mut(), CANARY_BYTES, access, MapFlags::PRIVATE) };
        let canary = Self(page.map_err(failed("mapping a page"))?.cast());
        // SAFETY: the range is this page's own; the advice changes what a child finds, nothing here.
        let wiped = unsafe { mm::madvise(page_of(&canary), CANARY_BYTES, Advice::LinuxWipeOnFork) };
        wiped.map_err(failed("madvise(MADV_WIPEONFORK)"))?;
        canary.word().store(1, Ordering::Relaxed);
        Ok(canary)
    }

    /// Whether this process made it.
    #[inline]
    pub(crate) fn is_mine(&self) -> bool {
        self.word().load(Ordering::Relaxed) == 1
    }

    #[inline]
    fn word(&self) -> &AtomicU64 {
        // SAFETY: the page is mapped for as long as `self`, aligned, and only ever accessed through this.
        unsafe { AtomicU64::from_ptr(self.0.cast()) }
    }
}

fn page_of(canary: &Canary) -> *mut std::ffi::c_void {
    canary.0.cast()
}

impl Drop for Canary {
    fn drop(&mut self) {
        // SAFETY: the page is this canary's own; `&mut self` says that no reference into it is left.
        let unmapped = unsafe { mm::munmap(self.0.cast(), CANARY_BYTES) };
        debug_assert!(unmapped.is_ok(), "what was mapped can be unmapped");
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use rustix::fd::AsFd;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    const PAGE: usize = crate::layout::PAGE_BYTES;

    fn mapped_files(name: &str) -> usize {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("this system has it");
        maps.lines().filter(|line| line.contains(name)).count()
    }

    #[test]
    fn a_segment_that_could_not_be_sealed_is_neither_there_nor_mapped_and_another_takes_its_place() {
        let name = "dstore-test-unsealed";
        let file = memfd_create(name, MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, (2 * PAGE) as u64).unwrap();
        let mapped = Mapped::reserve(4 * PAGE, Access::Write, false).unwrap();
        let why = mapped.add(file.as_fd(), 0, 2 * PAGE, || {
            assert_eq!(mapped_files(name), 1);
            Err(Error::Foreign("not sealed"))
        });
        assert!(matches!(why, Err(Error::Foreign("not sealed"))));
        assert_eq!((mapped.extent().words(), mapped_files(name)), (0, 0));
        mapped.store(0, 7, Ordering::Relaxed);
        assert_eq!(mapped.load(0, Ordering::Relaxed), 0);
        mapped.add(file.as_fd(), 0, 2 * PAGE, || Ok(())).unwrap();
        mapped.store(0, 7, Ordering::Relaxed);
        assert_eq!(mapped.load(0, Ordering::Relaxed), 7);
    }

    #[test]
    fn memory_grows_from_both_ends_until_they_meet_and_nowhere_else() {
        let file = memfd_create("dstore-test-ends", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, (2 * PAGE) as u64).unwrap();
        let mapped = Mapped::reserve(8 * PAGE, Access::Write, false).unwrap();
        let add = |page: usize, pages: usize| mapped.add(file.as_fd(), page * PAGE, pages * PAGE, || Ok(()));
        let has = |page: usize| mapped.extent().has(page * PAGE / WORD);
        for (page, pages) in [(1, 2), (3, 2), (7, 2), (5, usize::MAX / PAGE), (0, 0)] {
            assert!(add(page, pages).is_err(), "{pages} pages at {page}");
        }
        add(6, 2).unwrap();
        assert!((0..6).all(|page| !has(page)) && has(6) && has(7) && !has(8));
        add(0, 2).unwrap();
        assert!(has(1) && !has(2) && !has(5));
        assert!(mapped.extent().has_all(6 * PAGE / WORD, 2 * PAGE / WORD));
        assert!(!mapped.extent().has_all(PAGE / WORD, 2 * PAGE / WORD), "two pages of which one is there");
        assert!(add(2, 5).is_err(), "over what is there");
        add(4, 2).unwrap();
        add(2, 2).unwrap();
        assert_eq!(mapped.extent().words(), 8 * PAGE / WORD);
        assert!(mapped.extent().has_all(0, 8 * PAGE / WORD) && !has(8));
    }
}
