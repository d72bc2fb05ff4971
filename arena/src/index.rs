//! Owns the index of names: key -> row, read by many while one changes it.
//!
//! ```text
//! hash -> bucket (linear hashing) -> up to 7 slots {tag, row} -> next bucket of the chain ...
//!          \__ the state of its first bucket is the sequence lock of the whole chain
//! ```
//! Invariants: a name is in exactly one slot of the chain of its hash, so a slot found under an unchanged state is the
//! name's binding at that time; a miss counts only if the number of buckets did not change meanwhile. A chain has at
//! most [`CHAIN_MAX`](bucket::CHAIN_MAX) buckets. The index grows by one bucket at a time: a split changes two chains
//! under their locks, and stops nobody.
//! It must never hand out a row to a reader that has not checked the state behind its reading.

use crate::layout::{Shape, UNIT_WORDS, bucket, header, row};
use crate::memory::{Memory, Within};
use crate::seqlock;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Slots in use of 100, from where on the index grows.
const FILL: u64 = 80;

/// Where a row begins, in words.
pub(crate) fn word_of(unit: u32) -> usize {
    unit as usize * UNIT_WORDS
}

/// What a lookup came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Looked<T> {
    /// What the reader made of the row, which was the name's.
    Found(T),
    /// There is no such name.
    Absent,
    /// It met a change again and again.
    Busy,
    /// The name may be where nothing is mapped.
    Unmapped,
}

/// The chain in which a row was found, to be checked after its reading.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Chain {
    first: usize,
    state: u64,
}

impl Chain {
    /// Whether the row is still the name's.
    #[inline]
    pub(crate) fn holds(&self, data: &impl Memory) -> bool {
        seqlock::is_unchanged(data, self.first, self.state)
    }
}

/// The first word of bucket number `at`; `None` if the directory does not have it.
#[inline]
pub(crate) fn first_of(header: &impl Memory, at: u64) -> Option<usize> {
    let page = header.load(header::DIRECTORY + at as usize / bucket::CHUNK, Acquire) as usize;
    (page != 0).then(|| page * crate::layout::PAGE_WORDS + at as usize % bucket::CHUNK * bucket::WORDS)
}

/// The row in the chain that has this key.
#[inline]
fn scan(data: &impl Memory, mut at: usize, mut state: u64, tag: u32, key: &[u8]) -> Option<u32> {
    for _ in 0..bucket::CHAIN_MAX {
        // All slots first and without a branch: which of them it is cannot be foretold, and one wrong guess costs more.
        let slots = data.several::<{ bucket::SLOTS }>(at + 1)?;
        let mut alike = 0_u32;
        for (i, slot) in slots.iter().enumerate() {
            alike |= u32::from(bucket::tag(*slot) == tag) << i;
        }
        while alike != 0 {
            let unit = bucket::unit(slots[alike.trailing_zeros() as usize % bucket::SLOTS]);
            if has_key(data, unit, key) {
                return Some(unit);
            }
            alike &= alike - 1;
        }
        match bucket::next(state) {
            0 => return None,
            next => at = word_of(next),
        }
        state = data.load(at, Relaxed);
    }
    None
}

#[inline]
fn has_key(data: &impl Memory, unit: u32, key: &[u8]) -> bool {
    if unit == 0 {
        return false;
    }
    let shape = Shape(data.load(word_of(unit) + row::SHAPE, Relaxed));
    shape.key_len() == key.len() && data.same(word_of(unit) + shape.key_at(), key)
}

/// Looks a key up, and has its row read by `read`, whose result counts only if `read` or this function finds
/// the chain unchanged behind it.
#[inline]
pub(crate) fn look<D: Memory, T>(
    header: &impl Memory,
    data: &D,
    (hash, key): (u64, &[u8]),
    mut read: impl FnMut(u32, Chain) -> T,
) -> Looked<T> {
    for _ in 0..D::TRIES {
        let buckets = header.load(header::BUCKETS, Acquire);
        if buckets == 0 {
            return Looked::Absent;
        }
        let Some(first) = first_of(header, bucket::of(hash as u32, buckets)) else { return Looked::Busy };
        // What is not there is never taken for zeros. Another thread may map more meanwhile.
        let there = Within::new(data);
        let state = seqlock::begin_read(&there, first);
        if there.was_left() {
            return Looked::Unmapped;
        }
        let Some(state) = state else {
            std::hint::spin_loop();
            continue;
        };
        let chain = Chain { first, state };
        if let Some(unit) = scan(&there, first, state, hash as u32, key) {
            let result = read(unit, chain);
            if chain.holds(data) {
                return Looked::Found(result);
            }
        } else if there.was_left() {
            if chain.holds(data) {
                return Looked::Unmapped;
            }
        } else if chain.holds(data) && header.load(header::BUCKETS, Relaxed) == buckets {
            return Looked::Absent;
        }
    }
    Looked::Busy
}

/// Where a name's slot is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    first: usize,
    slot: usize,
    /// Its row.
    pub(crate) unit: u32,
}

/// The one who changes the index. Owned by the daemon.
#[derive(Debug)]
pub(crate) struct Writer {
    buckets: u64,
    names: u64,
}

/// What a change of the index needs space for.
pub(crate) trait Room {
    /// Space for one bucket, zeroed; `None`: there is none.
    fn bucket(&mut self) -> Option<u32>;
    /// Gives a bucket back.
    fn give_back(&mut self, unit: u32);
}

impl Writer {
    /// Begins an empty index in a chunk, zeroed, that begins at `page`.
    pub(crate) fn begin(header: &impl Memory, page: u32) -> Self {
        header.store(header::DIRECTORY, u64::from(page), Release);
        header.store(header::BUCKETS, bucket::MIN, Release);
        Self { buckets: bucket::MIN, names: 0 }
    }

    /// Names held.
    pub(crate) fn names(&self) -> u64 {
        self.names
    }

    /// Buckets in use.
    pub(crate) fn buckets(&self) -> u64 {
        self.buckets
    }

    /// Finds the slot of a name by its key.
    pub(crate) fn find(
        &self,
        header: &impl Memory,
        data: &impl Memory,
        hash: u64,
        key: &[u8],
    ) -> Option<Place> {
        self.place(header, data, hash, |unit| has_key(data, unit, key))
    }

    /// Finds the slot that leads to a row.
    pub(crate) fn find_row(
        &self,
        header: &impl Memory,
        data: &impl Memory,
        hash: u64,
        unit: u32,
    ) -> Option<Place> {
        self.place(header, data, hash, |found| found == unit)
    }

    fn first(&self, header: &impl Memory, at: u64) -> usize {
        debug_assert!(at < self.buckets);
        first_of(header, at).expect("every bucket in use is in a chunk of the directory")
    }

    fn place(
        &self,
        header: &impl Memory,
        data: &impl Memory,
        hash: u64,
        wanted: impl Fn(u32) -> bool,
    ) -> Option<Place> {
        let first = self.first(header, bucket::of(hash as u32, self.buckets));
        for at in buckets_of(data, first) {
            for slot in at + 1..at + bucket::WORDS {
                let word = data.load(slot, Relaxed);
                let unit = bucket::unit(word);
                if unit != 0 && bucket::tag(word) == hash as u32 && wanted(unit) {
                    return Some(Place { first, slot, unit });
                }
            }
        }
        None
    }

    /// Binds a name that is not there to a row, which is written already. `false`: its chain is full.
    pub(crate) fn link(
        &mut self,
        header: &impl Memory,
        data: &impl Memory,
        (hash, unit): (u64, u32),
        room: &mut impl Room,
    ) -> bool {
        let first = self.first(header, bucket::of(hash as u32, self.buckets));
        let chain: Vec<usize> = buckets_of(data, first).collect();
        let free = chain.iter().flat_map(|at| at + 1..at + bucket::WORDS);
        let free = free.clone().find(|slot| data.load(*slot, Relaxed) == 0);
        let longer = if free.is_none() {
            if chain.len() >= bucket::CHAIN_MAX {
                return false;
            }
            let Some(more) = room.bucket() else { return false };
            Some(more)
        } else {
            None
        };
        seqlock::begin_change(data, first);
        match (free, longer) {
            (Some(slot), _) => data.store(slot, bucket::slot(hash, unit), Relaxed),
            (None, Some(more)) => {
                data.store(word_of(more) + 1, bucket::slot(hash, unit), Relaxed);
                if chain.len() > 1 {
                    data.store(chain[chain.len() - 1], u64::from(more), Relaxed);
                }
            }
            (None, None) => {}
        }
        let next = match longer {
            Some(more) if chain.len() == 1 => more,
            _ => seqlock::next_of(data, first),
        };
        seqlock::end_change(data, first, next);
        self.names += 1;
        true
    }

    /// Binds a name that is there to another row, in one step.
    pub(crate) fn relink(data: &impl Memory, place: Place, unit: u32) {
        let word = data.load(place.slot, Relaxed);
        Self::change(data, place, || {
            data.store(place.slot, u64::from(unit) | word & !u64::from(u32::MAX), Relaxed);
        });
    }

    /// Takes a name out.
    pub(crate) fn unlink(&mut self, data: &impl Memory, place: Place) {
        Self::change(data, place, || data.store(place.slot, 0, Relaxed));
        self.names = self.names.saturating_sub(1);
    }

    /// Changes words of a name's row in place, so that a reader sees all of them changed or none.
    pub(crate) fn change(data: &impl Memory, place: Place, change: impl FnOnce()) {
        seqlock::begin_change(data, place.first);
        change();
        seqlock::end_change(data, place.first, seqlock::next_of(data, place.first));
    }

    /// Takes out all names of one bucket, and gives their rows.
    pub(crate) fn unlink_all(&mut self, header: &impl Memory, data: &impl Memory, at: u64) -> Vec<u32> {
        let rows = rows_of(header, data, at);
        if rows.is_empty() {
            return rows;
        }
        let first = self.first(header, at);
        let chain: Vec<usize> = buckets_of(data, first).collect();
        seqlock::begin_change(data, first);
        chain.iter().flat_map(|at| at + 1..at + bucket::WORDS).for_each(|slot| data.store(slot, 0, Relaxed));
        seqlock::end_change(data, first, seqlock::next_of(data, first));
        self.names = self.names.saturating_sub(rows.len() as u64);
        rows
    }

    /// Whether a split is due.
    pub(crate) fn is_full(&self) -> bool {
        self.names * 100 > self.buckets * bucket::SLOTS as u64 * FILL
    }

    /// Whether splits have been due for long: chains are half as long again as they should be.
    pub(crate) fn is_overdue(&self) -> bool {
        self.names * 100 > self.buckets * bucket::SLOTS as u64 * FILL / 2 * 3
    }

    /// The word of the directory that must be there before the next split, if it is not.
    pub(crate) fn missing_chunk(&self, header: &impl Memory) -> Option<usize> {
        let at = self.buckets as usize / bucket::CHUNK;
        (header.load(header::DIRECTORY + at, Relaxed) == 0).then_some(header::DIRECTORY + at)
    }

    /// Divides the names of one chain among it and a new bucket. `false`: there was no space for it.
    pub(crate) fn split(&mut self, header: &impl Memory, data: &impl Memory, room: &mut impl Room) -> bool {
        let level = 1 << self.buckets.ilog2();
        let first = self.first(header, self.buckets - level);
        let Some(second) = first_of(header, self.buckets) else { return false };
        let chain: Vec<usize> = buckets_of(data, first).collect();
        let slots = chain.iter().flat_map(|at| at + 1..at + bucket::WORDS);
        let slots = slots.map(|slot| data.load(slot, Relaxed)).filter(|word| *word != 0);
        let moves = |word: &u64| bucket::of(bucket::tag(*word), self.buckets + 1) == self.buckets;
        let (moved, kept): (Vec<u64>, Vec<u64>) = slots.partition(moves);
        let Some(mut kept_in) = buckets_for(kept.len(), room) else { return false };
        let Some(mut moved_in) = buckets_for(moved.len(), room) else {
            kept_in.into_iter().for_each(|unit| room.give_back(unit));
            return false;
        };
        seqlock::begin_change(data, first);
        seqlock::begin_change(data, second);
        fill(data, first, &mut kept_in, &kept);
        fill(data, second, &mut moved_in, &moved);
        self.buckets += 1;
        header.store(header::BUCKETS, self.buckets, Release);
        seqlock::end_change(data, second, moved_in.first().copied().unwrap_or(0));
        seqlock::end_change(data, first, kept_in.first().copied().unwrap_or(0));
        chain[1..].iter().for_each(|at| room.give_back((at / UNIT_WORDS) as u32));
        true
    }
}

/// The buckets of a chain. The writer's own: it changes under nobody's hands.
fn buckets_of(data: &impl Memory, first: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(first), move |at| match bucket::next(data.load(*at, Relaxed)) {
        0 => None,
        next => Some(word_of(next)),
    })
}

/// Buckets for what does not fit into the first one.
fn buckets_for(slots: usize, room: &mut impl Room) -> Option<Vec<u32>> {
    let mut units = Vec::new();
    for _ in 1..slots.div_ceil(bucket::SLOTS) {
        let Some(unit) = room.bucket() else {
            units.into_iter().for_each(|unit| room.give_back(unit));
            return None;
        };
        units.push(unit);
    }
    Some(units)
}

/// Writes the slots of a chain: the first bucket, then `more`, each with the number of the one after it. The state of
/// the first is the caller's.
fn fill(data: &impl Memory, first: usize, more: &mut [u32], slots: &[u64]) {
    let buckets = std::iter::once(first).chain(more.iter().map(|unit| word_of(*unit)));
    for (i, at) in buckets.enumerate() {
        for slot in 0..bucket::SLOTS {
            let word = slots.get(i * bucket::SLOTS + slot).copied().unwrap_or(0);
            data.store(at + 1 + slot, word, Relaxed);
        }
        if i > 0 {
            data.store(at, more.get(i).map_or(0, |unit| u64::from(*unit)), Relaxed);
        }
    }
}

/// The rows of the names in one bucket. The writer's own.
pub(crate) fn rows_of(header: &impl Memory, data: &impl Memory, bucket: u64) -> Vec<u32> {
    let Some(first) = first_of(header, bucket) else { return Vec::new() };
    let slots = buckets_of(data, first).flat_map(|at| at + 1..at + bucket::WORDS);
    slots.map(|slot| bucket::unit(data.load(slot, Relaxed))).filter(|unit| *unit != 0).collect()
}
