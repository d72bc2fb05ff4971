//! Owns the order in which blobs leave a full cache: S3-FIFO.
//!
//! Newcomers wait in `small`, a tenth of the bytes; those asked for again move on to `main`, the others
//! leave and are remembered as ghosts, whose return leads straight to `main`. A scan therefore passes through
//! `small` and never reaches the hot set. A hit does no more than raise a saturating count.
//! Source: Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023. SIEVE (Zhang et al.,
//! NSDI 2024) costs a hit as little and is level on Zipf traces; under scans it was between level and a point behind.
//!
//! Invariants: every admitted blob is in exactly one queue; no ghost is added beyond the number of blobs.
//! This file never looks into a table and never takes a lock.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Part of the bytes that newcomers may hold: one in this many. The paper's choice; it is not sensitive.
const SMALL_PART: u64 = 10;
/// How often a blob of `main` may pass by without having been asked for again.
const USES_MAX: u8 = 3;
/// Uses that lead from `small` to `main`: two, so that one read shortly after the fetch does not suffice.
const USES_TO_STAY: u8 = 2;
/// Most use counts kept: 16 MiB of them serve a cache of about 10 GiB of small blobs without sharing.
const COUNTS_MAX: u64 = 1 << 24;
/// Second chances given in search of one victim: bounds the time an admission takes when all blobs are hot.
const CHANCES_MAX: usize = 256;

/// How often each blob was hit since it last had to prove itself, up to [`USES_MAX`]: one byte for each, side
/// by side, so that a hit on one of a million blobs finds its count in the processor's cache. They are hints:
/// beyond [`COUNTS_MAX`] blobs some share a count.
#[derive(Debug)]
pub(super) struct Uses(Box<[AtomicU8]>);

impl Uses {
    /// Counts for about `blobs` blobs.
    pub(super) fn new(blobs: u64) -> Self {
        let counts = blobs.clamp(1, COUNTS_MAX).next_power_of_two();
        Self((0..counts).map(|_| AtomicU8::new(0)).collect())
    }

    fn of(&self, number: usize) -> &AtomicU8 {
        &self.0[number & (self.0.len() - 1)]
    }

    /// Notes a hit. Stores only if that changes something, so that hot blobs cause no traffic between cores;
    /// that two hits at once may count as one is of no matter.
    pub(super) fn note(&self, number: usize) {
        let uses = self.get(number);
        if uses < USES_MAX {
            self.set(number, uses + 1);
        }
    }

    fn get(&self, number: usize) -> u8 {
        self.of(number).load(Ordering::Relaxed)
    }

    fn set(&self, number: usize, uses: u8) {
        self.of(number).store(uses, Ordering::Relaxed);
    }
}

/// What the policy must know of a blob.
pub(super) trait Evictable {
    /// The bytes that its leaving frees.
    fn charge(&self) -> u64;
    /// Tells it from others, for a ghost to remember.
    fn fingerprint(&self) -> u64;
    /// Where its uses are counted; not used by another while it is admitted.
    fn number(&self) -> usize;
}

/// The queues.
#[derive(Debug)]
pub(super) struct Eviction<T> {
    uses: Arc<Uses>,
    small: Queue<T>,
    main: Queue<T>,
    ghosts: Ghosts,
}

impl<T: Evictable> Eviction<T> {
    pub(super) fn new(uses: Arc<Uses>) -> Self {
        Self { uses, small: Queue::new(), main: Queue::new(), ghosts: Ghosts::default() }
    }

    /// Takes a newcomer.
    pub(super) fn admit(&mut self, newcomer: Arc<T>) {
        self.uses.set(newcomer.number(), 0);
        if self.ghosts.recall(newcomer.fingerprint()) {
            self.main.push(newcomer);
        } else {
            self.small.push(newcomer);
        }
    }

    /// Takes a victim back that did not leave yet; it is the next of `main` unless it is used meanwhile.
    pub(super) fn spare(&mut self, victim: Arc<T>) {
        self.main.bytes += victim.charge();
        self.main.line.push_front(victim);
    }

    /// Gives up the blob that should leave now; `None` if there is none. `heard`: how often others asked for one since
    /// they were asked last.
    pub(super) fn victim(&mut self, mut heard: impl FnMut(&T) -> u8) -> Option<Arc<T>> {
        for chances_left in (0..CHANCES_MAX).rev() {
            let small = self.main.line.is_empty() || self.small_is_over();
            let candidate = if small { self.small.pop()? } else { self.main.pop()? };
            let uses = self.uses.get(candidate.number()).saturating_add(heard(&candidate)).min(USES_MAX);
            let stays = if small { uses >= USES_TO_STAY } else { uses > 0 };
            if !stays || chances_left == 0 {
                if small {
                    self.ghosts
                        .remember(candidate.fingerprint(), self.small.line.len() + self.main.line.len());
                }
                return Some(candidate);
            }
            self.uses.set(candidate.number(), if small { 0 } else { uses - 1 });
            self.main.push(candidate);
        }
        None
    }

    fn small_is_over(&self) -> bool {
        self.small.bytes > (self.small.bytes + self.main.bytes) / SMALL_PART
    }

    /// Forgets a blob that leaves out of its turn. Looks through the queues.
    pub(super) fn withdraw(&mut self, blob: &Arc<T>) {
        for queue in [&mut self.small, &mut self.main] {
            if let Some(at) = queue.line.iter().position(|one| Arc::ptr_eq(one, blob)) {
                queue.line.remove(at);
                queue.bytes -= blob.charge();
            }
        }
    }

    /// The bytes of all queues and the number of blobs in them, counted anew.
    #[cfg(test)]
    pub(super) fn recount(&self) -> (u64, usize) {
        for queue in [&self.small, &self.main] {
            assert_eq!(queue.bytes, queue.line.iter().map(|t| t.charge()).sum::<u64>());
        }
        (self.small.bytes + self.main.bytes, self.small.line.len() + self.main.line.len())
    }
}

/// First in, first out, with its bytes.
#[derive(Debug)]
struct Queue<T> {
    line: VecDeque<Arc<T>>,
    bytes: u64,
}

impl<T: Evictable> Queue<T> {
    fn new() -> Self {
        Self { line: VecDeque::new(), bytes: 0 }
    }

    fn push(&mut self, last: Arc<T>) {
        self.bytes += last.charge();
        self.line.push_back(last);
    }

    fn pop(&mut self) -> Option<Arc<T>> {
        let first = self.line.pop_front()?;
        self.bytes -= first.charge();
        Some(first)
    }
}

/// Blobs that left `small` lately. One that returned may be forgotten early if it leaves again: its first
/// place in the line is still there.
#[derive(Debug, Default)]
struct Ghosts {
    line: VecDeque<u64>,
    set: HashSet<u64, foldhash::fast::RandomState>,
}

impl Ghosts {
    fn remember(&mut self, fingerprint: u64, max: usize) {
        self.line.push_back(fingerprint);
        self.set.insert(fingerprint);
        while self.line.len() > max {
            let Some(oldest) = self.line.pop_front() else { return };
            self.set.remove(&oldest);
        }
    }

    fn recall(&mut self, fingerprint: u64) -> bool {
        self.set.remove(&fingerprint)
    }
}

#[cfg(test)]
#[path = "eviction_tests.rs"]
mod tests;
