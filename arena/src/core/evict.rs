//! How room is made: rows leave in the order of the queues, and not before nobody reads them.

use super::{Core, Evicted, Refusal, Seen};
use crate::index::word_of;
use crate::layout::{PAGE_BYTES, PAGE_WORDS, header, row};
use crate::memory::{Extend, Memory};
use crate::space::Space;
use std::collections::HashSet;
use std::sync::atomic::Ordering::{Release, SeqCst};

/// Pinned rows passed over in search of one that can leave.
const PINNED_MAX: usize = 1024;
/// Times that room in one piece is sought among the whole data for one insertion.
const CLEARINGS_MAX: usize = 4;

impl<M: Memory, D: Extend> Core<M, D> {
    /// Space that `take` finds, made by eviction if there is none. For a row of `bytes`.
    pub(super) fn obtain(
        &mut self,
        take: impl Fn(&mut Space) -> Option<u32>,
        bytes: u64,
        evicted: &mut Vec<Evicted>,
    ) -> Result<u32, Refusal> {
        let obtained = self.make_room(take, bytes, evicted);
        if obtained.is_err() {
            self.relieve();
        }
        obtained
    }

    fn make_room(
        &mut self,
        take: impl Fn(&mut Space) -> Option<u32>,
        bytes: u64,
        evicted: &mut Vec<Evicted>,
    ) -> Result<u32, Refusal> {
        let (mut freed, mut clearings, mut is_drained) = (0, 0, false);
        loop {
            if let Some(unit) = take(&mut self.space) {
                return self.reach().map(|()| unit).map_err(|_| {
                    self.space.give_back(unit);
                    Refusal::Full
                });
            }
            if self.queues.is_idle() {
                // Whoever decides what leaves has dropped what it kept of it since.
                let limbo = self.limbo.len();
                self.sweep_limbo();
                if self.limbo.len() == limbo {
                    return Err(Refusal::Full);
                }
                continue;
            }
            if !is_drained {
                self.drain_touches();
                is_drained = true;
            }
            // Twice what is needed has gone and it does not lie in one piece: the cheapest piece goes as a whole.
            if freed > 2 * self.space.charge(bytes) + 16 * PAGE_BYTES as u64 {
                if clearings == CLEARINGS_MAX || !self.clear(bytes, evicted) {
                    return Err(Refusal::Full);
                }
                (freed, clearings) = (0, clearings + 1);
            } else {
                let before = self.space.bytes();
                if !self.evict_next(evicted) {
                    // What is left is pinned or the index's; perhaps a piece is free of both.
                    freed = u64::MAX;
                    continue;
                }
                freed += before.saturating_sub(self.space.bytes());
            }
        }
    }

    /// Sees to it that all pages handed out are mapped.
    fn reach(&self) -> Result<(), crate::Error> {
        let words = self.space.pages_used() as usize * PAGE_WORDS;
        if words > self.data.words() {
            let segments = self.data.extend(words)?;
            self.header.store(header::SEGMENTS, segments, Release);
        }
        Ok(())
    }

    /// Lets the row leave whose turn it is. `false`: there is none that could.
    pub(crate) fn evict_next(&mut self, evicted: &mut Vec<Evicted>) -> bool {
        // Once for the whole search: whoever pins everything is not to make it long. What is pinned behind this look ends in
        // limbo.
        let mut pinned: Option<HashSet<u32>> = None;
        for _ in 0..PINNED_MAX {
            let Some(unit) = self.queues.victim(&Seen { data: &self.data, space: &self.space }) else {
                return false;
            };
            if self.may_be_pinned(unit)
                && pinned.get_or_insert_with(|| self.workers.all_pinned()).contains(&unit)
            {
                self.queues.spare(unit, &Seen { data: &self.data, space: &self.space });
                continue;
            }
            self.expel(unit, evicted);
            return true;
        }
        false
    }

    /// A row with all its names leaves; it is in no queue any more.
    fn expel(&mut self, unit: u32, evicted: &mut Vec<Evicted>) {
        for alias in self.aliases.remove(&unit).unwrap_or_default() {
            self.evict_name(alias, evicted);
            self.space.give_back(alias);
        }
        if self.shape(unit).is_linked() {
            self.evict_name(unit, evicted);
        }
        let hash = self.hash_of(unit);
        let entry = self.by_hash.find_entry(super::prefix(&hash), |one| *one == unit);
        if let Ok(entry) = entry {
            entry.remove();
        }
        self.give_up(unit);
    }

    fn evict_name(&mut self, unit: u32, evicted: &mut Vec<Evicted>) {
        let key = self.key_of(unit);
        let registration =
            self.data.load(word_of(unit) + row::REGISTRATION, std::sync::atomic::Ordering::Relaxed);
        let hash = self.hash(&key);
        if let Some(place) = self.index.find_row(&self.header, &self.data, hash, unit) {
            self.index.unlink(&self.data, place);
            self.stats.evicted += 1;
            evicted.push(Evicted { key, registration });
        }
    }

    /// The name that led to `unit` is bound to another row now, or to none.
    pub(super) fn unbound(&mut self, unit: u32) {
        let shape = self.shape(unit);
        if !shape.is_alias() {
            self.set_shape(unit, shape.linked(false));
            return;
        }
        let target = self.target(unit);
        if let Some(aliases) = self.aliases.get_mut(&target) {
            aliases.retain(|alias| *alias != unit);
            if aliases.is_empty() {
                self.aliases.remove(&target);
            }
        }
        // Nobody pins an alias: its words are read under the chain's state only.
        self.space.give_back(unit);
    }

    /// A row that no name and no hash leads to: its place is used again as soon as nobody reads it.
    fn give_up(&mut self, unit: u32) {
        if self.is_kept(unit) {
            self.limbo.push(unit);
            return;
        }
        if self.may_be_pinned(unit) {
            // Behind the unlinking: see `pins.rs`.
            if self.workers.is_pinned(unit) {
                self.limbo.push(unit);
                return;
            }
        }
        self.space.give_back(unit);
    }

    fn may_be_pinned(&self, unit: u32) -> bool {
        u64::from(self.shape(unit).value_len()) > self.terms.copy_max
    }

    /// Frees the places of rows that nobody reads any more.
    pub(super) fn sweep_limbo(&mut self) {
        if self.limbo.is_empty() {
            return;
        }
        let pinned = self.workers.all_pinned();
        for unit in std::mem::take(&mut self.limbo) {
            if pinned.contains(&unit) || self.is_kept(unit) {
                self.limbo.push(unit);
            } else {
                self.space.give_back(unit);
            }
        }
    }

    /// Removes the row with this hash, if there is one, with every name that leads to it: its bytes are damaged.
    pub(crate) fn expel_hash(&mut self, hash: &super::Hash, evicted: &mut Vec<Evicted>) -> bool {
        let Some(unit) = self.row_with(hash) else { return false };
        self.queues.withdraw(unit, &Seen { data: &self.data, space: &self.space });
        self.expel(unit, evicted);
        self.header.fence(SeqCst);
        self.show();
        true
    }

    /// Empties the piece of data that costs the least, so that `bytes` fit into it.
    fn clear(&mut self, bytes: u64, evicted: &mut Vec<Evicted>) -> bool {
        self.sweep_limbo();
        let pinned = self.workers.all_pinned();
        let limbo: HashSet<u32> = self.limbo.iter().copied().collect();
        let Some((from, to)) =
            self.space.cheapest(bytes, |unit| pinned.contains(&unit) || limbo.contains(&unit))
        else {
            return false;
        };
        for unit in self.space.rows_in(from, to) {
            // An alias may have gone with its target meanwhile.
            if self.space.kind(unit) != crate::space::Kind::Row {
                continue;
            }
            if self.shape(unit).is_alias() {
                self.evict_name(unit, evicted);
                self.unbound(unit);
            } else if !limbo.contains(&unit) {
                self.queues.withdraw(unit, &Seen { data: &self.data, space: &self.space });
                self.expel(unit, evicted);
            }
        }
        true
    }
}
