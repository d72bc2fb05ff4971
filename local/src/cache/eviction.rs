//! Owns the order in which blobs leave a full cache: S3-FIFO.
//!
//! Newcomers wait in `small`, a tenth of the bytes; those asked for again move on to `main`, the others
//! leave and are remembered as ghosts, whose return leads straight to `main`. A scan therefore passes through
//! `small` and never reaches the hot set. A hit does no more than raise a saturating count.
//! Source: Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023. SIEVE (Zhang et al.,
//! NSDI 2024) costs a hit as little and is level on Zipf traces; under scans it was between level and a point behind.
//!
//! Who leaves out of its turn leaves its place empty, so that nobody is searched for; a queue more than half of whose
//! places are empty is closed up.
//!
//! Invariants: every admitted blob is in exactly one queue, at the place that its [`Seat`] tells; one that was not
//! admitted has none. No ghost is added beyond the number of blobs.
//! This file never looks into a table and never takes a lock.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

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
/// The number of the first place of a queue that nobody stood in yet: there is room for others before it.
const FIRST_PLACE: u64 = 1 << 40;

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
    /// Where it stands. Looked at by the queues only.
    fn seat(&self) -> &Seat;
}

/// Where one stands: the number of its place, doubled, and one more in `main`. 0: in no queue. The queues have one owner, so
/// nothing is told by the order in which it is stored.
#[derive(Debug, Default)]
pub(super) struct Seat(AtomicU64);

impl Seat {
    fn set(&self, main: bool, number: u64) {
        self.0.store(number << 1 | u64::from(main), Ordering::Relaxed);
    }

    /// Whether it is in `main`, and the number of its place; it has none from now on.
    fn take(&self) -> Option<(bool, u64)> {
        let told = self.0.load(Ordering::Relaxed);
        self.0.store(0, Ordering::Relaxed);
        (told != 0).then_some((told & 1 == 1, told >> 1))
    }
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
        Self { uses, small: Queue::new(false), main: Queue::new(true), ghosts: Ghosts::default() }
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
        self.main.push_front(victim);
    }

    /// Gives up the blob that should leave now; `None` if there is none. `heard`: how often others asked for one since
    /// they were asked last.
    pub(super) fn victim(&mut self, mut heard: impl FnMut(&T) -> u8) -> Option<Arc<T>> {
        for chances_left in (0..CHANCES_MAX).rev() {
            let small = self.main.len() == 0 || self.small_is_over();
            let candidate = if small { self.small.pop()? } else { self.main.pop()? };
            let uses = self.uses.get(candidate.number()).saturating_add(heard(&candidate)).min(USES_MAX);
            let stays = if small { uses >= USES_TO_STAY } else { uses > 0 };
            if !stays || chances_left == 0 {
                if small {
                    self.ghosts.remember(candidate.fingerprint(), self.small.len() + self.main.len());
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

    /// Forgets a blob that leaves out of its turn, if it is in a queue.
    pub(super) fn withdraw(&mut self, blob: &T) {
        if let Some((main, number)) = blob.seat().take() {
            let queue = if main { &mut self.main } else { &mut self.small };
            queue.withdraw(number);
        }
    }

    /// The bytes of all queues and the number of blobs in them, counted anew.
    #[cfg(test)]
    pub(super) fn recount(&self) -> (u64, usize) {
        for queue in [&self.small, &self.main] {
            assert_eq!(queue.bytes, queue.line.iter().flatten().map(|t| t.charge()).sum::<u64>());
            assert_eq!(queue.empty, queue.line.iter().filter(|place| place.is_none()).count());
            assert!(queue.empty * 2 <= queue.line.len());
            for (at, one) in queue.line.iter().enumerate() {
                let told = one.as_ref().map(|one| one.seat().0.load(Ordering::Relaxed));
                assert!(
                    told.is_none_or(|told| told == (queue.first + at as u64) << 1 | u64::from(queue.is_main))
                );
            }
        }
        (self.small.bytes + self.main.bytes, self.small.len() + self.main.len())
    }
}

/// First in, first out, with its bytes.
#[derive(Debug)]
struct Queue<T> {
    is_main: bool,
    /// `None`: who stood here left out of its turn.
    line: VecDeque<Option<Arc<T>>>,
    /// The number of the first place.
    first: u64,
    /// How many places are empty.
    empty: usize,
    bytes: u64,
    /// Places looked at.
    #[cfg(test)]
    steps: usize,
}

impl<T: Evictable> Queue<T> {
    fn new(is_main: bool) -> Self {
        Self {
            is_main,
            line: VecDeque::new(),
            first: FIRST_PLACE,
            empty: 0,
            bytes: 0,
            #[cfg(test)]
            steps: 0,
        }
    }

    fn len(&self) -> usize {
        self.line.len() - self.empty
    }

    fn push(&mut self, last: Arc<T>) {
        self.bytes += last.charge();
        last.seat().set(self.is_main, self.first + self.line.len() as u64);
        self.line.push_back(Some(last));
    }

    fn push_front(&mut self, first: Arc<T>) {
        self.bytes += first.charge();
        self.first -= 1;
        first.seat().set(self.is_main, self.first);
        self.line.push_front(Some(first));
    }

    fn pop(&mut self) -> Option<Arc<T>> {
        loop {
            #[cfg(test)]
            {
                self.steps += 1;
            }
            let place = self.line.pop_front()?;
            self.first += 1;
            let Some(first) = place else {
                self.empty -= 1;
                continue;
            };
            first.seat().take();
            self.bytes -= first.charge();
            self.close_up();
            return Some(first);
        }
    }

    /// Whoever stood at the place with that number leaves.
    fn withdraw(&mut self, number: u64) {
        #[cfg(test)]
        {
            self.steps += 1;
        }
        let at = number.wrapping_sub(self.first) as usize;
        let Some(gone) = self.line.get_mut(at).and_then(Option::take) else { return };
        self.bytes -= gone.charge();
        self.empty += 1;
        self.close_up();
    }

    /// Does away with the empty places once they are more than the others: for each that is looked at one has left.
    fn close_up(&mut self) {
        if self.empty * 2 <= self.line.len() {
            return;
        }
        #[cfg(test)]
        {
            self.steps += self.line.len();
        }
        self.line.retain(Option::is_some);
        self.empty = 0;
        for (number, one) in (self.first..).zip(self.line.iter().flatten()) {
            one.seat().set(self.is_main, number);
        }
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
