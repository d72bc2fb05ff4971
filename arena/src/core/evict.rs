//! How rows and names leave: in the order of the queues or out of it, and no place is used again before nobody reads it.

use super::{Core, Evicted, Seen};
use crate::index::word_of;
use crate::layout::row;
use crate::memory::{Extend, Memory};
use std::collections::HashSet;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// Pinned rows passed over in search of one that can leave.
const PINNED_MAX: usize = 1024;

impl<M: Memory, D: Extend> Core<M, D> {
    /// Lets the row or alias leave whose turn it is. `false`: there is none that could.
    pub(crate) fn evict_next(&mut self, evicted: &mut Vec<Evicted>) -> bool {
        // Once for the whole search: whoever pins everything is not to make it long. What is pinned behind this look ends in
        // limbo.
        let mut pinned: Option<HashSet<u32>> = None;
        for _ in 0..PINNED_MAX {
            let rows = Seen { data: &self.data, space: &self.space, seed: self.terms.seed };
            let Some(unit) = self.queues.victim(&rows) else { return false };
            if self.may_be_pinned(unit)
                && pinned.get_or_insert_with(|| self.workers.all_pinned()).contains(&unit)
            {
                self.queues.spare(unit, &rows);
                continue;
            }
            self.expel(unit, evicted);
            return true;
        }
        false
    }

    /// A row with all its names leaves, or an alias; it is in no queue any more.
    pub(super) fn expel(&mut self, unit: u32, evicted: &mut Vec<Evicted>) {
        if self.shape(unit).is_alias() {
            self.evict_name(unit, evicted);
            self.give_up_alias(unit);
            return;
        }
        for alias in self.aliases.remove(&unit).unwrap_or_default() {
            self.withdraw(alias);
            self.evict_name(alias, evicted);
            self.space.give_back(alias);
            self.aliases_held -= 1;
        }
        if self.shape(unit).is_linked() {
            self.evict_name(unit, evicted);
        }
        self.give_up(unit);
    }

    fn evict_name(&mut self, unit: u32, evicted: &mut Vec<Evicted>) {
        let key = self.key_of(unit);
        let registration = self.data.load(word_of(unit) + row::REGISTRATION, Relaxed);
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
        if shape.is_alias() {
            self.withdraw(unit);
            self.give_up_alias(unit);
        } else {
            self.set_shape(unit, shape.linked(false));
            self.give_up_orphan(unit);
        }
    }

    /// An alias that no name leads to, and that is in no queue.
    fn give_up_alias(&mut self, unit: u32) {
        let target = self.target(unit);
        if let Some(aliases) = self.aliases.get_mut(&target) {
            aliases.retain(|alias| *alias != unit);
            if aliases.is_empty() {
                self.aliases.remove(&target);
            }
        }
        self.aliases_held -= 1;
        // Nobody pins an alias: its words are read under the chain's state only.
        self.space.give_back(unit);
        self.give_up_orphan(target);
    }

    /// A row that no name leads to and whose bytes another one has is of no use.
    fn give_up_orphan(&mut self, unit: u32) {
        let is_used = self.shape(unit).is_linked() || self.aliases.contains_key(&unit);
        if !is_used && self.twins.has(unit) && !self.is_kept(unit) {
            self.withdraw(unit);
            self.give_up(unit);
        }
    }

    /// A row that no name leads to: its place is used again as soon as nobody reads it.
    fn give_up(&mut self, unit: u32) {
        self.rows_held -= 1;
        let other = self.twins.leave(unit);
        let prefix = super::prefix(&self.hash_of(unit));
        if let Ok(mut entry) = self.by_hash.find_entry(prefix, |one| *one == unit) {
            match other {
                Some(other) => *entry.get_mut() = other,
                None => _ = entry.remove(),
            }
        }
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

    /// Removes the rows with this hash with every name that leads to them: their bytes are damaged, or not wanted.
    pub(crate) fn expel_hash(&mut self, hash: &super::Hash, evicted: &mut Vec<Evicted>) -> bool {
        let Some(first) = self.row_with(hash) else { return false };
        let all: Vec<u32> = self.twins.ring(first).collect();
        for unit in all {
            self.withdraw(unit);
            self.expel(unit, evicted);
        }
        self.header.fence(SeqCst);
        self.show();
        true
    }
}
