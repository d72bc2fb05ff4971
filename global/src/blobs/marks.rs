//! Which blobs were found damaged: deduplication never answers "have it" for them.
//!
//! Invariants: a hash is marked from the moment a reader found damage, or the journal said so, until its
//! file was replaced or removed. Once more are damaged than can be remembered, no file is trusted.
//! Must never mark because of a file that was replaced since the reader opened it.

use dstore_shared::BlobHash;
use parking_lot::Mutex;
use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// Damaged blobs that are remembered: far beyond what a disk shows before it is replaced.
pub const MARKS_MAX: usize = 1 << 16;

#[derive(Debug, Default)]
pub(super) struct Marks {
    state: Mutex<State>,
    /// `state.marked` is not empty or has overflowed: spares the lock where nothing is damaged.
    any: AtomicBool,
    found: Notify,
}

#[derive(Debug)]
struct State {
    marked: HashSet<BlobHash, foldhash::fast::RandomState>,
    unreported: VecDeque<BlobHash>,
    overflowed: bool,
    /// Counts files that were replaced or removed, in stripes by hash.
    replaced: Box<[u64]>,
}

/// Stripes of the count of replaced files: a reader is misled to "may have been this one" in one of so many.
const STRIPES: usize = 1024;

fn stripe(hash: &BlobHash) -> usize {
    let [a, b, ..] = *hash.as_bytes();
    usize::from(u16::from_le_bytes([a, b])) % STRIPES
}

impl Default for State {
    fn default() -> Self {
        let replaced = vec![0; STRIPES].into();
        Self { marked: HashSet::default(), unreported: VecDeque::new(), overflowed: false, replaced }
    }
}

impl State {
    fn mark(&mut self, hash: BlobHash) -> bool {
        if self.marked.len() >= MARKS_MAX && !self.marked.contains(&hash) {
            self.overflowed = true;
            return false;
        }
        self.marked.insert(hash)
    }
}

impl Marks {
    /// Marks a hash that the journal knows as damaged.
    pub(super) fn restore(&self, hash: BlobHash) {
        let mut state = self.state.lock();
        state.mark(hash);
        self.any.store(true, Ordering::SeqCst);
    }

    /// To be read before a file is opened, and given to [`Marks::found`].
    pub(super) fn replaced(&self, hash: &BlobHash) -> u64 {
        self.state.lock().replaced[stripe(hash)]
    }

    /// A reader that began at `replaced` found damage. Says whether the hash is marked now because of it.
    /// If a file of its stripe was replaced since, it may have been this one: the next reader will tell.
    pub(super) fn found(&self, hash: BlobHash, replaced: u64) -> bool {
        let mut state = self.state.lock();
        if state.replaced[stripe(&hash)] != replaced {
            return false;
        }
        let new = state.mark(hash);
        if new {
            // A mark may be cleared and set again before it was reported; the queue stays bounded all the same.
            if state.unreported.len() < MARKS_MAX {
                state.unreported.push_back(hash);
            }
            self.found.notify_one();
        }
        self.any.store(true, Ordering::SeqCst);
        new
    }

    /// The file of `hash` was replaced or removed. Says whether it was marked.
    pub(super) fn clear(&self, hash: &BlobHash) -> bool {
        let mut state = self.state.lock();
        state.replaced[stripe(hash)] += 1;
        let was = state.marked.remove(hash);
        if state.marked.is_empty() && !state.overflowed {
            self.any.store(false, Ordering::SeqCst);
        }
        was
    }

    /// Whether a file that looks good may be taken for good.
    pub(super) fn trusts(&self, hash: &BlobHash) -> bool {
        if !self.any.load(Ordering::SeqCst) {
            return true;
        }
        let state = self.state.lock();
        !state.overflowed && !state.marked.contains(hash)
    }

    pub(super) fn is_marked(&self, hash: &BlobHash) -> bool {
        self.any.load(Ordering::SeqCst) && self.state.lock().marked.contains(hash)
    }

    pub(super) fn len(&self) -> usize {
        self.state.lock().marked.len()
    }

    /// The next hash that was found damaged and is still marked.
    pub(super) async fn next(&self) -> BlobHash {
        loop {
            let found = self.found.notified();
            if let Some(hash) = self.take() {
                return hash;
            }
            found.await;
        }
    }

    fn take(&self) -> Option<BlobHash> {
        let mut state = self.state.lock();
        while let Some(hash) = state.unreported.pop_front() {
            if state.marked.contains(&hash) {
                return Some(hash);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: usize) -> BlobHash {
        BlobHash::of(&n.to_le_bytes())
    }

    #[test]
    fn a_mark_lasts_until_the_file_is_replaced() {
        let marks = Marks::default();
        assert!(marks.trusts(&hash(1)));
        assert!(marks.found(hash(1), marks.replaced(&hash(1))));
        assert!(!marks.trusts(&hash(1)) && marks.trusts(&hash(2)));
        assert!(marks.clear(&hash(1)));
        assert!(marks.trusts(&hash(1)) && !marks.clear(&hash(1)));
    }

    #[test]
    fn damage_seen_in_a_file_that_was_replaced_marks_nothing() {
        let marks = Marks::default();
        let opened = marks.replaced(&hash(1));
        marks.clear(&hash(1));
        assert!(!marks.found(hash(1), opened));
        assert!(marks.trusts(&hash(1)));
    }

    #[test]
    fn nothing_is_trusted_once_marks_overflowed() {
        let marks = Marks::default();
        for n in 0..=MARKS_MAX {
            marks.found(hash(n), 0);
        }
        assert_eq!(marks.len(), MARKS_MAX);
        assert!(!marks.trusts(&hash(MARKS_MAX)), "the one that found no room");
        assert!(!marks.trusts(&hash(MARKS_MAX + 1)), "and any other");
    }

    #[tokio::test]
    async fn a_found_mark_is_reported_once_and_not_after_it_was_cleared() {
        let marks = Marks::default();
        marks.restore(hash(0));
        marks.found(hash(1), 0);
        marks.found(hash(2), 0);
        marks.found(hash(2), 0);
        marks.clear(&hash(1));
        assert_eq!(marks.next().await, hash(2));
        assert_eq!(marks.take(), None, "what the journal knew is no news");
    }
}
