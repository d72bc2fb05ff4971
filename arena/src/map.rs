//! Owns mapped memory: the only file of this crate, beside the seam it implements, with `unsafe` (see `UNSAFE.md`).
//!
//! Invariants: `base..base + 8 * words` is mapped from the moment `words` says so until the mapping is dropped; all
//! words in it are accessed atomically, but for slices, whose safety is their caller's. Files are sealed against
//! shrinking before they are mapped, so that no access meets a page that is not there.
//! It must never hand out a pointer.

#![allow(unsafe_code)]

use crate::error::Error;
use crate::layout::WORD;
use crate::memory::Memory;
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

/// Addresses reserved, of which the first are mapped.
#[derive(Debug)]
pub(crate) struct Mapped {
    /// Where the reservation begins, and its bytes: those of `base` and what its alignment took.
    reserved: *mut u8,
    reserved_bytes: usize,
    base: *mut u64,
    bytes: usize,
    words: AtomicUsize,
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
            words: AtomicUsize::new(0),
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
        mapped.append(file, bytes)?;
        Ok(mapped)
    }

    /// Maps the first `bytes` of a file, a whole number of pages, behind what is mapped already. One caller at a time.
    ///
    /// # Errors
    /// `System`; `Foreign` if it is more than was reserved.
    pub(crate) fn append(&self, file: BorrowedFd<'_>, bytes: usize) -> Result<(), Error> {
        let from = self.words() * WORD;
        if bytes > self.bytes - from {
            return Err(Error::Foreign("its segments are larger than it says"));
        }
        let access = if self.is_writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: `from` is within the reservation.
        let at = unsafe { self.base.add(from / WORD) };
        // SAFETY: `at..at + bytes` is within the reservation and behind what is mapped, so the only thing that is replaced
        // is reserved addresses that nothing refers to.
        let mapped = unsafe { mm::mmap(at.cast(), bytes, access, flags, file, 0) };
        mapped.map_err(failed("mapping shared memory"))?;
        if self.is_huge {
            // SAFETY: the range was mapped just now; the advice does not change what its addresses hold.
            let _ = unsafe { mm::madvise(at.cast(), bytes, Advice::LinuxHugepage) };
        }
        self.words.store((from + bytes) / WORD, Ordering::Release);
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
        self.words = AtomicUsize::new(0);
        self.is_forgotten = true;
    }

    #[inline]
    fn word(&self, at: usize) -> Option<&AtomicU64> {
        if at >= self.words() {
            return None;
        }
        // SAFETY: word `at` lies within the mapping.
        let word = unsafe { self.base.add(at) };
        // SAFETY: it is aligned, because the mapping begins on a page; it stays mapped for as long as `self`; and every
        // access to it, in this process and in others, is atomic but for reads of what nobody writes.
        Some(unsafe { AtomicU64::from_ptr(word) })
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
    fn words(&self) -> usize {
        self.words.load(Ordering::Acquire)
    }

    #[inline]
    fn load(&self, at: usize, order: Ordering) -> u64 {
        let word = self.word(at).map_or(0, |word| word.load(Ordering::Relaxed));
        // Of memory that is mapped read-only only relaxed loads are promised not to write.
        if order == Ordering::Acquire {
            fence(Ordering::Acquire);
        }
        word
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
        let end = at.checked_add(len.div_ceil(WORD))?;
        if end > self.words() {
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
