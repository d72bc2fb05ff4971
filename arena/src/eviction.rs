//! Owns the order in which rows leave a full arena: S3-FIFO.
//!
//! Newcomers wait in `small`, a small part of the bytes; those asked for again move on to `main`, the others leave and are
//! remembered as ghosts, whose return leads straight to `main`. A scan passes through `small` and never reaches the hot
//! set. Source: Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023.
//!
//! Invariants: every admitted row is in exactly one queue; there are at most half as many ghosts again as rows. How often a row was asked
//! for stands in the row; readers tell it through their rings and never write there. A row that leaves out of its turn
//! leaves its place in the line empty; there are never more empty places than others, but for a few.
//! This file never looks into the memory itself.

use hashbrown::HashTable;
use std::collections::VecDeque;

/// Part of the bytes that newcomers may hold: one in this many. The paper takes 10; on the traces of the benchmark
/// (Zipf 0.8 to 1.2, with and without scans) 50 was up to half a point better.
const SMALL_PART: u64 = 50;
/// Uses that lead from `small` to `main`. The paper takes 2; 1 was up to two points better under scans.
const USES_TO_STAY: u64 = 1;
/// Ghosts for each ten rows: more help under scans, fewer where there are none.
const GHOSTS_OF_TEN: usize = 14;
/// Second chances given in search of one victim: bounds the time an insertion takes when all rows are hot.
const CHANCES_MAX: usize = 256;
/// Ghosts that there may be however few rows there are.
const GHOSTS_MIN: usize = 64;

/// What the policy must know of a row, and note of it.
pub(crate) trait Rows {
    /// Bytes that its leaving frees.
    fn charge(&self, unit: u32) -> u64;
    /// Tells its bytes from others, for a ghost to remember.
    fn fingerprint(&self, unit: u32) -> u32;
    /// How often it was asked for since its last turn.
    fn uses(&self, unit: u32) -> u64;
    /// Sets that, and the queue in which it stands.
    fn note(&self, unit: u32, uses: u64, main: bool);
    /// In which queue it stands.
    fn is_main(&self, unit: u32) -> bool;
}

/// The queues.
#[derive(Debug, Default)]
pub(crate) struct Eviction {
    small: Queue,
    main: Queue,
    ghosts: Ghosts,
    /// Somebody else decides what leaves: nobody stands in line.
    is_idle: bool,
}

impl Eviction {
    /// Queues that keep nothing: somebody else decides what leaves.
    pub(crate) fn idle() -> Self {
        Self { is_idle: true, ..Self::default() }
    }

    /// Whether somebody else decides what leaves.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_idle
    }

    /// Takes a newcomer.
    pub(crate) fn admit(&mut self, unit: u32, rows: &impl Rows) {
        if self.is_idle {
            return rows.note(unit, 0, false);
        }
        let known = self.ghosts.recall(rows.fingerprint(unit));
        rows.note(unit, 0, known);
        let queue = if known { &mut self.main } else { &mut self.small };
        queue.push(unit, rows.charge(unit));
    }

    /// Takes a victim back that cannot leave now.
    pub(crate) fn spare(&mut self, unit: u32, rows: &impl Rows) {
        rows.note(unit, 0, true);
        self.main.push(unit, rows.charge(unit));
    }

    /// Gives up the row that should leave now; `None` if there is none.
    pub(crate) fn victim(&mut self, rows: &impl Rows) -> Option<u32> {
        for chances_left in (0..CHANCES_MAX).rev() {
            let small = self.main.len() == 0 || self.small_is_over();
            let unit = if small { self.small.pop()? } else { self.main.pop()? };
            let (charge, uses) = (rows.charge(unit), rows.uses(unit));
            let queue = if small { &mut self.small } else { &mut self.main };
            queue.bytes -= charge;
            let stays = if small { uses >= USES_TO_STAY } else { uses > 0 };
            if !stays || chances_left == 0 {
                if small {
                    self.ghosts
                        .remember(rows.fingerprint(unit), (self.len() * GHOSTS_OF_TEN / 10).max(GHOSTS_MIN));
                }
                return Some(unit);
            }
            rows.note(unit, if small { 0 } else { uses - 1 }, true);
            self.main.push(unit, charge);
        }
        None
    }

    /// Forgets a row that leaves out of its turn.
    pub(crate) fn withdraw(&mut self, unit: u32, rows: &impl Rows) {
        if self.is_idle {
            return;
        }
        let queue = if rows.is_main(unit) { &mut self.main } else { &mut self.small };
        queue.withdraw(unit, rows.charge(unit));
    }

    /// Rows held.
    pub(crate) fn len(&self) -> usize {
        self.small.len() + self.main.len()
    }

    /// Bytes of this process that the queues take.
    pub(crate) fn private_bytes(&self) -> u64 {
        let lines = self.small.line.capacity() + self.main.line.capacity() + self.ghosts.line.capacity();
        let tables = self.ghosts.set.allocation_size()
            + self.small.left.allocation_size()
            + self.main.left.allocation_size();
        (lines * 4 + tables) as u64
    }

    /// The bytes of both queues, each counted anew.
    #[cfg(test)]
    pub(crate) fn check(&self, rows: &impl Rows) -> u64 {
        for (queue, is_main) in [(&self.small, false), (&self.main, true)] {
            let mut anew = queue.clone();
            anew.close_up();
            assert_eq!((anew.line.len(), anew.empty), (queue.len(), 0));
            assert_eq!(queue.bytes, anew.line.iter().map(|unit| rows.charge(*unit)).sum::<u64>());
            assert!(anew.line.iter().all(|unit| rows.is_main(*unit) == is_main));
        }
        self.small.bytes + self.main.bytes
    }

    /// Places in lines that were looked at, ever.
    #[cfg(test)]
    pub(crate) fn looks(&self) -> u64 {
        self.small.looks + self.main.looks
    }

    fn small_is_over(&self) -> bool {
        self.small.bytes > (self.small.bytes + self.main.bytes) / SMALL_PART
    }
}

/// Empty places that a line may have however short it is.
const EMPTY_MIN: usize = 64;

/// First in, first out, with its bytes.
#[derive(Clone, Debug, Default)]
struct Queue {
    line: VecDeque<u32>,
    bytes: u64,
    /// Rows that left out of their turn, and how many places of the line each has left empty. They are the foremost ones
    /// with its number: a row that came to lie where it did stands behind them.
    left: HashTable<(u32, u32)>,
    /// All empty places.
    empty: usize,
    #[cfg(test)]
    looks: u64,
}

impl Queue {
    fn len(&self) -> usize {
        self.line.len() - self.empty
    }

    fn push(&mut self, unit: u32, charge: u64) {
        self.bytes += charge;
        self.line.push_back(unit);
    }

    fn pop(&mut self) -> Option<u32> {
        loop {
            let unit = self.line.pop_front()?;
            if !self.is_empty_place(unit) {
                return Some(unit);
            }
        }
    }

    /// Whether the foremost place with this number is empty, and is so no more.
    fn is_empty_place(&mut self, unit: u32) -> bool {
        #[cfg(test)]
        {
            self.looks += 1;
        }
        if self.empty == 0 {
            return false;
        }
        let Ok(mut entry) = self.left.find_entry(spread(unit), |(one, _)| *one == unit) else { return false };
        entry.get_mut().1 -= 1;
        if entry.get().1 == 0 {
            entry.remove();
        }
        self.empty -= 1;
        true
    }

    fn withdraw(&mut self, unit: u32, charge: u64) {
        self.bytes -= charge;
        self.empty += 1;
        match self.left.find_mut(spread(unit), |(one, _)| *one == unit) {
            Some((_, times)) => *times += 1,
            None => _ = self.left.insert_unique(spread(unit), (unit, 1), |(one, _)| spread(*one)),
        }
        // As many have left since the last time as are looked at now.
        if self.empty > self.line.len() / 2 + EMPTY_MIN {
            self.close_up();
        }
    }

    /// Takes the empty places out of the line.
    fn close_up(&mut self) {
        for _ in 0..self.line.len() {
            let Some(unit) = self.line.pop_front() else { return };
            if !self.is_empty_place(unit) {
                self.line.push_back(unit);
            }
        }
        self.left.shrink_to(0, |(one, _)| spread(*one));
    }
}

/// Rows that left `small` lately. One that returned may be forgotten early if it leaves again: its first place in
/// the line is still there.
#[derive(Debug, Default)]
struct Ghosts {
    line: VecDeque<u32>,
    set: HashTable<u32>,
}

fn spread(fingerprint: u32) -> u64 {
    u64::from(fingerprint).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Ghosts {
    fn remember(&mut self, fingerprint: u32, max: usize) {
        self.line.push_back(fingerprint);
        if self.set.find(spread(fingerprint), |one| *one == fingerprint).is_none() {
            self.set.insert_unique(spread(fingerprint), fingerprint, |one| spread(*one));
        }
        while self.line.len() > max {
            let Some(oldest) = self.line.pop_front() else { return };
            self.recall(oldest);
        }
    }

    fn recall(&mut self, fingerprint: u32) -> bool {
        let found = self.set.find_entry(spread(fingerprint), |one| *one == fingerprint);
        found.map(hashbrown::hash_table::OccupiedEntry::remove).is_ok()
    }
}
