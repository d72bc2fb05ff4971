//! Owns the seam between the protocols and the memory they run on: words that are loaded and stored atomically.
//!
//! The protocols are written once against [`Memory`], without `unsafe`, and run on mapped files (`map.rs`), on the
//! heap under Miri, and word by word under loom.
//! Invariant: a word outside the memory reads as 0 and is never written, so that no number read from the memory,
//! however wrong, leads anywhere else.

use crate::layout::WORD;
use std::cell::Cell;
use std::sync::atomic::Ordering;

/// Words that several processes share.
pub(crate) trait Memory {
    /// How often a lookup that met a change begins anew before it gives up.
    const TRIES: usize = 4096;

    /// How many words there are.
    fn words(&self) -> usize;

    /// The word at `at`.
    fn load(&self, at: usize, order: Ordering) -> u64;

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

/// Fewer bytes than a word has, as a word.
#[inline]
fn padded(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// A memory as it was at one moment, and whether something was looked for beyond that: it may have more words by now, so
/// what was read may not fit together.
pub(crate) struct Within<'a, D> {
    data: &'a D,
    words: usize,
    was_left: Cell<bool>,
}

impl<'a, D: Memory> Within<'a, D> {
    #[inline]
    pub(crate) fn new(data: &'a D) -> Self {
        Self { data, words: data.words(), was_left: Cell::new(false) }
    }

    /// Whether a word was asked for that was not there.
    #[inline]
    pub(crate) fn was_left(&self) -> bool {
        self.was_left.get()
    }

    /// Whether the memory has more words by now.
    pub(crate) fn has_grown(&self) -> bool {
        self.data.words() != self.words
    }
}

impl<D: Memory> Memory for Within<'_, D> {
    const TRIES: usize = D::TRIES;

    #[inline]
    fn words(&self) -> usize {
        self.words
    }

    #[inline]
    fn load(&self, at: usize, order: Ordering) -> u64 {
        if at < self.words {
            self.data.load(at, order)
        } else {
            self.was_left.set(true);
            0
        }
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

    #[allow(unsafe_code)]
    unsafe fn slice(&self, at: usize, len: usize) -> Option<&[u8]> {
        // SAFETY: the caller's promise is handed on.
        unsafe { self.data.slice(at, len) }
    }
}

/// Memory that can have more words when they are needed.
pub(crate) trait Extend: Memory {
    /// Sees to it that there are `words` words, if that is possible, and gives the number of segments that there are.
    ///
    /// # Errors
    /// `System`, if the operating system has no more.
    fn extend(&self, words: usize) -> Result<u64, crate::Error>;
}

#[cfg(test)]
pub(crate) use heap::Heap;

#[cfg(test)]
mod heap {
    use super::{Extend, Memory, Ordering};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, fence};

    /// Memory of this process only, for tests and for Miri.
    #[derive(Clone, Debug)]
    pub(crate) struct Heap(Arc<[AtomicU64]>);

    impl Heap {
        pub(crate) fn new(words: usize) -> Self {
            Self((0..words).map(|_| AtomicU64::new(0)).collect())
        }
    }

    impl Memory for Heap {
        fn words(&self) -> usize {
            self.0.len()
        }

        fn load(&self, at: usize, order: Ordering) -> u64 {
            self.0.get(at).map_or(0, |word| word.load(order))
        }

        fn store(&self, at: usize, word: u64, order: Ordering) {
            if let Some(place) = self.0.get(at) {
                place.store(word, order);
            }
        }

        fn claim(&self, at: usize, word: u64) -> bool {
            let (taken, not) = (Ordering::Acquire, Ordering::Relaxed);
            self.0.get(at).is_some_and(|place| place.compare_exchange(0, word, taken, not).is_ok())
        }

        fn fence(&self, order: Ordering) {
            fence(order);
        }

        #[allow(unsafe_code)]
        unsafe fn slice(&self, at: usize, len: usize) -> Option<&[u8]> {
            let words = self.0.get(at..at + len.div_ceil(8))?;
            // SAFETY: the words are there, and the caller sees to it that nobody writes them; so they may be read as
            // bytes, which have no alignment.
            Some(unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), len) })
        }
    }

    impl Extend for Heap {
        fn extend(&self, _: usize) -> Result<u64, crate::Error> {
            Ok(1)
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
