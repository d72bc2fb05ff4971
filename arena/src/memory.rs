//! Owns the seam between the protocols and the memory they run on: words that are loaded and stored atomically.
//!
//! The protocols are written once against [`Memory`], without `unsafe`, and run on mapped files (`map.rs`), on the
//! heap under Miri, and word by word under loom.
//! Invariant: a word outside the memory reads as 0 and is never written, so that no number read from the memory,
//! however wrong, leads anywhere else.

use crate::layout::WORD;
use std::cell::Cell;
use std::sync::atomic::Ordering;

/// Which words of a memory are there: the first ones and the last ones. It grows from both ends until they meet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Extent {
    /// The words before this one are there.
    pub low: usize,
    /// So are those from this one on.
    pub high: usize,
    /// So many it will be.
    pub end: usize,
}

impl Extent {
    /// All of so many words.
    #[cfg(test)]
    pub(crate) const fn whole(words: usize) -> Self {
        Self { low: words, high: words, end: words }
    }

    /// Whether word `at` is there.
    #[inline]
    pub(crate) fn has(self, at: usize) -> bool {
        at < self.low || (at >= self.high && at < self.end)
    }

    /// Whether `words` words from `at` on are there.
    #[inline]
    pub(crate) fn has_all(self, at: usize, words: usize) -> bool {
        let end = at.saturating_add(words);
        end <= self.low || (at >= self.high && end <= self.end)
    }

    /// How many words are there.
    #[cfg(test)]
    pub(crate) fn words(self) -> usize {
        if self.low >= self.high { self.end } else { self.low + (self.end - self.high) }
    }
}

/// Words that several processes share.
pub(crate) trait Memory {
    /// How often a lookup that met a change begins anew before it gives up.
    const TRIES: usize = 4096;

    /// Which words there are.
    fn extent(&self) -> Extent;

    /// The word at `at`; 0 if it is not there.
    fn load(&self, at: usize, order: Ordering) -> u64;

    /// The word at `at`; `None`: it is not there.
    #[inline]
    fn try_load(&self, at: usize, order: Ordering) -> Option<u64> {
        self.extent().has(at).then(|| self.load(at, order))
    }

    /// Changes the word at `at`.
    fn store(&self, at: usize, word: u64, order: Ordering);

    /// Changes the word at `at` from 0 to `word`, acquiring what its last change released; `false`: it was not 0.
    fn claim(&self, at: usize, word: u64) -> bool;

    /// `std::sync::atomic::fence`.
    fn fence(&self, order: Ordering);

    /// The `len` bytes from word `at` on, in place; `None` outside the memory.
    ///
    /// # Safety
    /// For as long as the slice lives nobody writes these words, and the memory is not given up.
    #[allow(unsafe_code)]
    unsafe fn slice(&self, at: usize, len: usize) -> Option<&[u8]>;

    /// The `N` words from `at` on; `None`: not all of them are there.
    #[inline]
    fn several<const N: usize>(&self, at: usize) -> Option<[u64; N]> {
        let is_there = self.extent().has_all(at, N);
        is_there.then(|| std::array::from_fn(|i| self.load(at + i, Ordering::Relaxed)))
    }

    /// Copies bytes from word `at` on.
    #[inline]
    fn read(&self, at: usize, to: &mut [u8]) {
        let (whole, rest) = to.as_chunks_mut::<WORD>();
        for (i, bytes) in whole.iter_mut().enumerate() {
            *bytes = self.load(at + i, Ordering::Relaxed).to_le_bytes();
        }
        if !rest.is_empty() {
            let word = self.load(at + whole.len(), Ordering::Relaxed).to_le_bytes();
            rest.copy_from_slice(&word[..rest.len()]);
        }
    }

    /// Writes bytes from word `at` on, and zeros up to the end of the last word.
    #[inline]
    fn write(&self, at: usize, from: &[u8]) {
        let (whole, rest) = from.as_chunks::<WORD>();
        for (i, bytes) in whole.iter().enumerate() {
            self.store(at + i, u64::from_le_bytes(*bytes), Ordering::Relaxed);
        }
        if !rest.is_empty() {
            self.store(at + whole.len(), padded(rest), Ordering::Relaxed);
        }
    }

    /// Whether these are the bytes from word `at` on.
    #[inline]
    fn same(&self, at: usize, bytes: &[u8]) -> bool {
        let (whole, rest) = bytes.as_chunks::<WORD>();
        for (i, bytes) in whole.iter().enumerate() {
            if self.load(at + i, Ordering::Relaxed) != u64::from_le_bytes(*bytes) {
                return false;
            }
        }
        rest.is_empty() || self.load(at + whole.len(), Ordering::Relaxed) == padded(rest)
    }
}

impl<T: Memory> Memory for std::sync::Arc<T> {
    const TRIES: usize = T::TRIES;

    #[inline]
    fn extent(&self) -> Extent {
        (**self).extent()
    }

    #[inline]
    fn load(&self, at: usize, order: Ordering) -> u64 {
        (**self).load(at, order)
    }

    #[inline]
    fn store(&self, at: usize, word: u64, order: Ordering) {
        (**self).store(at, word, order);
    }

    #[inline]
    fn claim(&self, at: usize, word: u64) -> bool {
        (**self).claim(at, word)
    }

    #[inline]
    fn fence(&self, order: Ordering) {
        (**self).fence(order);
    }

    #[inline]
    fn try_load(&self, at: usize, order: Ordering) -> Option<u64> {
        (**self).try_load(at, order)
    }

    #[inline]
    fn several<const N: usize>(&self, at: usize) -> Option<[u64; N]> {
        (**self).several(at)
    }

    #[inline]
    fn read(&self, at: usize, to: &mut [u8]) {
        (**self).read(at, to);
    }

    #[inline]
    fn write(&self, at: usize, from: &[u8]) {
        (**self).write(at, from);
    }

    #[inline]
    fn same(&self, at: usize, bytes: &[u8]) -> bool {
        (**self).same(at, bytes)
    }

    #[allow(unsafe_code)]
    unsafe fn slice(&self, at: usize, len: usize) -> Option<&[u8]> {
        // SAFETY: the caller's promise is handed on.
        unsafe { (**self).slice(at, len) }
    }
}

/// Fewer bytes than a word has, as a word.
#[inline]
pub(crate) fn padded(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// A memory in which it is noted whether something was looked for that was not there: then what was read may not fit
/// together.
pub(crate) struct Within<'a, D> {
    data: &'a D,
    was_left: Cell<bool>,
}

impl<'a, D: Memory> Within<'a, D> {
    #[inline]
    pub(crate) fn new(data: &'a D) -> Self {
        Self { data, was_left: Cell::new(false) }
    }

    /// Whether a word was asked for that was not there.
    #[inline]
    pub(crate) fn was_left(&self) -> bool {
        self.was_left.get()
    }
}

impl<D: Memory> Memory for Within<'_, D> {
    const TRIES: usize = D::TRIES;

    #[inline]
    fn extent(&self) -> Extent {
        self.data.extent()
    }

    #[inline]
    fn load(&self, at: usize, order: Ordering) -> u64 {
        self.data.try_load(at, order).unwrap_or_else(|| {
            self.was_left.set(true);
            0
        })
    }

    #[inline]
    fn try_load(&self, at: usize, order: Ordering) -> Option<u64> {
        Some(self.load(at, order))
    }

    fn store(&self, _: usize, _: u64, _: Ordering) {
        debug_assert!(false, "a reader's memory is never written");
    }

    fn claim(&self, _: usize, _: u64) -> bool {
        false
    }

    #[inline]
    fn fence(&self, order: Ordering) {
        self.data.fence(order);
    }

    #[inline]
    fn several<const N: usize>(&self, at: usize) -> Option<[u64; N]> {
        let words = self.data.several(at);
        self.was_left.set(self.was_left.get() || words.is_none());
        words
    }

    #[inline]
    fn same(&self, at: usize, bytes: &[u8]) -> bool {
        let words = bytes.len().div_ceil(WORD);
        if !self.data.extent().has_all(at, words) {
            self.was_left.set(true);
            return false;
        }
        self.data.same(at, bytes)
    }

    #[allow(unsafe_code)]
    unsafe fn slice(&self, at: usize, len: usize) -> Option<&[u8]> {
        // SAFETY: the caller's promise is handed on.
        unsafe { self.data.slice(at, len) }
    }
}

/// Memory that can have more words when they are needed.
pub(crate) trait Extend: Memory {
    /// Sees to it that the words before `low` and those from `high` on are there and cannot be taken away. If that fails,
    /// what was added until then stays. `false`: it would take more than `words_max` in all.
    ///
    /// # Errors
    /// `System`, if the operating system has no more.
    fn extend(&self, low: usize, high: usize, words_max: usize) -> Result<bool, crate::Error>;

    /// In how many segments they are.
    fn segments(&self) -> u64;

    /// Words that cannot be taken away.
    fn reserved(&self) -> usize;
}

#[cfg(test)]
pub(crate) use heap::Heap;

#[cfg(test)]
mod heap {
    use super::{Extend, Extent, Memory, Ordering};
    use crate::Error;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, fence};

    /// Memory of this process only, for tests and for Miri. What was not asked for yet is there all the same, but does
    /// not count.
    #[derive(Clone, Debug)]
    pub(crate) struct Heap {
        words: Arc<[AtomicU64]>,
        grown: Arc<Grown>,
    }

    /// How far it has grown from both ends, by `step` words at a time.
    #[derive(Debug)]
    struct Grown {
        low: AtomicUsize,
        high: AtomicUsize,
        segments: AtomicU64,
        step: usize,
        refuses: AtomicBool,
    }

    impl Heap {
        pub(crate) fn new(words: usize) -> Self {
            Self::stepwise(words, words)
        }

        /// Memory of which nothing is there yet.
        pub(crate) fn growing(words: usize, step: usize) -> Self {
            let heap = Self::stepwise(words, step);
            heap.grown.low.store(0, Ordering::Relaxed);
            heap.grown.segments.store(0, Ordering::Relaxed);
            heap
        }

        fn stepwise(words: usize, step: usize) -> Self {
            let (low, high) = (AtomicUsize::new(words), AtomicUsize::new(words));
            let (segments, refuses) = (AtomicU64::new(1), AtomicBool::new(false));
            let grown = Arc::new(Grown { low, high, segments, step, refuses });
            Self { words: (0..words).map(|_| AtomicU64::new(0)).collect(), grown }
        }

        /// From now on there is no more, or there is again.
        pub(crate) fn refuse(&self, refuses: bool) {
            self.grown.refuses.store(refuses, Ordering::Relaxed);
        }
    }

    impl Memory for Heap {
        fn extent(&self) -> Extent {
            let (low, high) = (&self.grown.low, &self.grown.high);
            Extent {
                low: low.load(Ordering::Acquire),
                high: high.load(Ordering::Acquire),
                end: self.words.len(),
            }
        }

        fn load(&self, at: usize, order: Ordering) -> u64 {
            self.words.get(at).map_or(0, |word| word.load(order))
        }

        fn store(&self, at: usize, word: u64, order: Ordering) {
            if let Some(place) = self.words.get(at) {
                assert!(self.extent().has(at), "word {at} is written before it is there");
                place.store(word, order);
            }
        }

        fn claim(&self, at: usize, word: u64) -> bool {
            let (taken, not) = (Ordering::Acquire, Ordering::Relaxed);
            self.words.get(at).is_some_and(|place| place.compare_exchange(0, word, taken, not).is_ok())
        }

        fn fence(&self, order: Ordering) {
            fence(order);
        }

        #[allow(unsafe_code)]
        unsafe fn slice(&self, at: usize, len: usize) -> Option<&[u8]> {
            let words = self.words.get(at..at + len.div_ceil(8))?;
            // SAFETY: the words are there, and the caller sees to it that nobody writes them; so they may be read as
            // bytes, which have no alignment.
            Some(unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), len) })
        }
    }

    impl Extend for Heap {
        fn extend(&self, low: usize, high: usize, words_max: usize) -> Result<bool, Error> {
            loop {
                let Extent { low: below, high: above, end } = self.extent();
                let step = self.grown.step.min(above.saturating_sub(below));
                if step == 0 || (below >= low && above <= high) {
                    return Ok(true);
                }
                if self.reserved() + step > words_max {
                    return Ok(false);
                }
                if self.grown.refuses.load(Ordering::Relaxed) {
                    return Err(Error::Foreign("a test says that there is no more"));
                }
                self.grown.segments.fetch_add(1, Ordering::Relaxed);
                if below + step == above {
                    self.grown.low.store(end, Ordering::Release);
                } else if below < low {
                    self.grown.low.store(below + step, Ordering::Release);
                } else {
                    self.grown.high.store(above - step, Ordering::Release);
                }
            }
        }

        fn reserved(&self) -> usize {
            self.extent().words()
        }

        fn segments(&self) -> u64 {
            self.grown.segments.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn bytes_come_back_and_nothing_lies_outside() {
        let heap = Heap::new(4);
        for len in 0..32_usize {
            let bytes: Vec<u8> = (1..).take(len).collect();
            heap.write(0, &bytes);
            let mut back = vec![0; len];
            heap.read(0, &mut back);
            assert_eq!(back, bytes);
            assert!(heap.same(0, &bytes));
            if len > 0 {
                back[len - 1] ^= 1;
                assert!(!heap.same(0, &back));
            }
        }
        heap.store(4, 7, Ordering::Relaxed);
        assert_eq!(heap.load(4, Ordering::Relaxed), 0);
        assert!(!heap.claim(4, 1));
    }
}
